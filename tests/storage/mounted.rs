//! The failing file system in a process of its own: should a test end while one of its threads waits for a file, the system can
//! clear up only if nobody is at both ends.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::durable::Plan;
use crate::layer::{self, Power};
use crate::switch::{Script, Switch};

/// The test that is that process; see [`serve`].
const PROCESS: &str = "the_process_of_the_file_system";
/// The variable that names its folder.
const FOLDER: &str = "ENGRAFT_TEST_LAYER";
/// Begins what it says to the test; anything else is the test harness's.
const WORD: &str = "@";

/// A mounted layer; unmounted when dropped.
pub(crate) struct Mounted {
    process: Child,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    folder: tempfile::TempDir,
}

impl Mounted {
    /// Mounts the layer on a folder of its own; says why that is not possible here.
    pub(crate) fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(backing(folder.path()))?;
        std::fs::create_dir(mountpoint(folder.path()))?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "--nocapture", PROCESS])
            .env(FOLDER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let pipes = stdin.zip(stdout.map(BufReader::new)).ok_or_else(|| io::Error::other("no pipes"))?;
        let mounted = Self { process, pipes: Mutex::new(Some(pipes)), folder };
        match mounted.answer()?.as_str() {
            "mounted" => Ok(mounted),
            why => Err(io::Error::other(why.to_owned())),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        mountpoint(self.folder.path())
    }

    /// From now on calls are counted, and fail as `script` says.
    pub(crate) fn arm(&self, script: Script) {
        assert_eq!(self.ask(&script.to_string()), "armed");
    }

    /// The fault is over. Says how many calls have failed.
    pub(crate) fn heal(&self) -> u64 {
        let answer = self.ask("heal");
        println!("{answer}");
        answer.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    }

    /// What is there now is on the disk; from now on the power fails now and then, and `target` gets a folder of what each cut would
    /// have left.
    pub(crate) fn begin_power_cuts(&self, target: &Path, promises: &Path, gap: u64, seed: u64) {
        let (target, promises) = (target.display(), promises.display());
        assert_eq!(self.ask(&format!("power {target} {promises} {gap} {seed}")), "armed");
    }

    /// The power stays. Calls since it was in danger, and cuts.
    pub(crate) fn end_power_cuts(&self) -> (u64, u64) {
        let answer = self.ask("powered");
        let (calls, cuts) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer}"));
        (calls.parse().expect("a number"), cuts.parse().expect("a number"))
    }

    fn ask(&self, command: &str) -> String {
        let mut pipes = self.pipes.lock().expect("no panic before");
        let (stdin, _) = pipes.as_mut().expect("open until dropped");
        writeln!(stdin, "{command}").expect("the file system listens");
        drop(pipes);
        self.answer().expect("the file system answers")
    }

    fn answer(&self) -> io::Result<String> {
        let mut pipes = self.pipes.lock().expect("no panic before");
        let (_, stdout) = pipes.as_mut().expect("open until dropped");
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            // The harness begins a line and does not end it.
            if let Some((_, word)) = line.split_once(WORD) {
                return Ok(word.trim().to_owned());
            }
            line.clear();
        }
        Err(io::Error::other("the file system's process is gone"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some((stdin, mut stdout)) = self.pipes.lock().ok().and_then(|mut pipes| pipes.take()) {
            drop(stdin);
            let _last_words = io::copy(&mut stdout, &mut io::sink());
        }
        let ended = self.process.wait();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking(), "the file system has failed");
    }
}

fn backing(folder: &Path) -> PathBuf {
    folder.join("backing")
}

fn mountpoint(folder: &Path) -> PathBuf {
    folder.join("mounted")
}

/// What that process does: serves until its stdin ends.
pub(crate) fn serve() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("only `Mounted` runs this"));
    let switch = Arc::new(Switch::default());
    let power = Arc::new(Power::default());
    let session = match layer::mount(&backing(&folder), &mountpoint(&folder), switch.clone(), power.clone()) {
        Ok(session) => session,
        Err(error) => return println!("{WORD}{error}"),
    };
    println!("{WORD}mounted");
    for line in io::stdin().lines() {
        match line.expect("readable").as_str() {
            "heal" => println!("{WORD}{}", switch.heal()),
            "powered" => {
                let (calls, cuts) = power.end();
                println!("{WORD}{calls} {cuts}");
            }
            plan if plan.starts_with("power ") => {
                let parts: Vec<&str> = plan.split(' ').skip(1).collect();
                let [target, promises, gap, seed] = parts[..] else { panic!("{plan}") };
                let number = |text: &str| text.parse().expect("a number");
                let plan =
                    Plan { target: target.into(), promises: promises.into(), gap: number(gap), seed: number(seed) };
                power.begin(plan, &backing(&folder)).expect("the folder can be read");
                println!("{WORD}armed");
            }
            script => {
                switch.arm(script.parse().expect("a script"));
                println!("{WORD}armed");
            }
        }
    }
    if session.umount_and_join().is_err() {
        // A test that has failed leaves a server there. The end of this process fails whatever still uses it.
        let _detached = Command::new("umount").arg("-l").arg(mountpoint(&folder)).status();
        std::process::exit(0);
    }
}
