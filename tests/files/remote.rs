//! The commands that use a server, against a started one: the whole cycle of a shell's user, uploads and downloads that are cut, and what is
//! said where something is wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engraft::tensors::StateDict;

/// `engraft serve` with one worker, ended with the test.
struct Served {
    process: Child,
    url: String,
}

impl Served {
    fn start(folder: &Path) -> Self {
        Self::with(folder, &["--workers", "1"])
    }

    /// With these flags, too.
    fn with(folder: &Path, flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_engraft"))
            .current_dir(folder)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--log", "warn"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { process, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A test that fails must leave no process behind.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A place between client and server that cuts a connection after so many bytes towards the server, for the first `cuts` connections that
/// bring as many.
fn cutting_proxy(server: &str, bytes: usize, cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (server, done) = (server.trim_start_matches("http://").to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = done.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(upstream) = TcpStream::connect(&server) else { return };
            let (back, forth) = ((upstream.try_clone(), client.try_clone()), counted.clone());
            let (Ok(mut from_server), Ok(mut to_client)) = back else { return };
            std::thread::spawn(move || {
                let _copied = std::io::copy(&mut from_server, &mut to_client);
                let _closed = to_client.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || relay(client, upstream, bytes, cuts, &forth));
        }
    });
    (address, done)
}

fn relay(mut client: TcpStream, mut upstream: TcpStream, bytes: usize, cuts: usize, done: &AtomicUsize) {
    let (mut buffer, mut sent) = ([0; 16 << 10], 0);
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if upstream.write_all(&buffer[..read]).is_err() {
            break;
        }
        sent += read;
        if sent > bytes && done.fetch_add(1, Ordering::SeqCst) < cuts {
            break;
        }
    }
    let _closed = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
}

fn engraft(folder: &Path, url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
    command.current_dir(folder).args(arguments).env("ENGRAFT_URL", url).env_remove("ENGRAFT_API_KEY");
    // Plain HTTP needs no certificates of authorities.
    command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
    command.output().expect("the program runs")
}

/// What a command has printed, which must end with `code`, and what it has said.
fn ends(folder: &Path, url: &str, arguments: &[&str], code: i32) -> (String, String) {
    let output = engraft(folder, url, arguments);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{out}{err}");
    (out, err)
}

/// Members 4-`width`-2, as files.
fn members(folder: &Path, width: usize) {
    for (name, shift) in [("m0.safetensors", 0.5), ("m1.safetensors", 0.25)] {
        let mut member = StateDict::default();
        for (layer, outputs, inputs) in [("fc1", width, 4), ("fc2", 2, width)] {
            let values = (0..outputs * inputs).map(|index| ((index * 7919) % 1013) as f32 / 1013.0 - shift);
            member.insert_f32(&format!("{layer}.weight"), &[outputs, inputs], values.collect()).expect("a tensor");
        }
        member.save(&folder.join(name), &std::collections::BTreeMap::new()).expect("writes");
    }
}

#[test]
fn the_whole_cycle_from_a_shell() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    members(folder, 64);
    let served = Served::start(folder);
    let run = |arguments: &[&str], code| ends(folder, &served.url, arguments, code);

    let (names, said) = run(&["push", "m0.safetensors", "m1.safetensors"], 0);
    assert_eq!(names, "m0.safetensors\nm1.safetensors\n");
    assert!(said.contains("m0.safetensors: uploaded as ckpt_"), "{said}");
    let (_, said) = run(&["push", "m0.safetensors"], 0);
    assert!(said.contains("has it already"), "{said}");
    let (_, said) = run(&["push", "m1.safetensors", "--name", "m0.safetensors"], 1);
    assert!(said.contains("another file called `m0.safetensors`") && said.contains("--name"), "{said}");
    let (_, said) = run(&["push", "absent.safetensors"], 1);
    assert!(said.contains("absent.safetensors"), "{said}");
    std::fs::write(folder.join("page.html"), "<!doctype html><html><body>log in</body></html>").expect("writes");
    let (_, said) = run(&["push", "page.html"], 1);
    assert!(said.contains("is a web page"), "{said}");

    let submit = ["submit", "--member", "m0.safetensors", "--member", "m1.safetensors", "--plan"];
    let (plan, _) = run(&submit, 0);
    assert!(plan.contains("concatenated  fused") && plan.contains("peak memory"), "{plan}");
    let (plan, _) = run(&[&submit[..], &["--json"]].concat(), 0);
    assert!(plan.contains("\"concatenated\""), "{plan}");
    std::fs::write(
        folder.join("job.json"),
        r#"{"target": {"width": 0.5}, "architecture": {"assume": true}, "labels": {"run": "7"}}"#,
    )
    .expect("writes");
    let both = ["--member", "m0.safetensors", "--member", "m1.safetensors"];
    let (id, said) = run(&[&["submit", "job.json", "--wait"][..], &both].concat(), 0);
    let id = id.trim();
    assert!(id.starts_with("job_") && said.contains("has succeeded"), "{id} {said}");
    run(&["wait", id], 0);
    let (lines, _) = run(&["logs", id, "--follow"], 0);
    assert!(lines.lines().count() > 0, "{lines}");
    let (listed, _) = run(&["ls", "--label", "run=7", "--state", "succeeded"], 0);
    assert!(listed.starts_with(id) && listed.lines().count() == 1, "{listed}");
    let (listed, _) = run(&["ls", "checkpoints", "--json", "--limit", "1"], 0);
    let entry: serde_json::Value = serde_json::from_str(listed.trim()).expect("one entry");
    assert_eq!(entry["name"], "m1.safetensors");

    for out in ["fused.safetensors", "fused.onnx", "report.html", "card.md", "model.json"] {
        let (_, said) = run(&["pull", id, "--out", out], 0);
        assert!(said.contains("checked") && folder.join(out).metadata().expect("a file").len() > 0, "{out}: {said}");
    }
    let (_, said) = run(&["pull", id, "--out", "model.json", "--force"], 0);
    assert!(said.contains("that is the architecture") && said.contains("--report"), "{said}");
    for (report, part) in
        [("r.json", "\"candidates\""), ("r.html", "<!doctype html>"), ("r.txt", "this model  fused.safe")]
    {
        run(&["pull", id, "--report", report], 0);
        let text = std::fs::read_to_string(folder.join(report)).expect("text");
        assert!(text.contains(part), "{report}: {text}");
    }
    let (_, said) = run(&["pull", id, "--report", "r.csv"], 1);
    assert!(said.contains(".json, .html, .txt or .md"), "{said}");
    let fused = engraft::tensors::Checkpoint::open(&folder.join("fused.safetensors")).expect("a checkpoint");
    assert_eq!(fused.header().get("fc1.weight").map(|info| info.shape.clone()), Some(vec![32, 4]));
    let (_, said) = run(&["pull", id], 1);
    assert!(said.contains("--force"), "{said}");
    run(&["pull", id, "--force"], 0);
    let (_, said) = run(&["pull", id, "--out", "fused.h5"], 1);
    assert!(said.contains(".safetensors") && said.contains(".html"), "{said}");
    assert_eq!(crate::common::samples::files(folder).iter().filter(|name| name.contains("engraft-pull")).count(), 0);

    run(&["rm", id, "checkpoints/m1.safetensors"], 0);
    let (_, said) = run(&["wait", id], 1);
    assert!(said.contains(id), "{said}");
    let (_, said) = run(&["rm", "m0.safetensors"], 1);
    assert!(said.contains("checkpoints/m0.safetensors"), "{said}");
}

#[test]
fn a_server_fetches_what_it_is_asked_to_and_says_why_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    members(folder, 8);
    let served = Served::with(folder, &["--workers", "0", "--allow-address", "127.0.0.1"]);
    let run = |arguments: &[&str], code| ends(folder, &served.url, arguments, code);
    run(&["push", "m0.safetensors"], 0);
    // Of itself: what it has under one name becomes the same under another.
    let address = format!("{}/v1/checkpoints/m0.safetensors/content", served.url);
    let (names, said) = run(&["import", &address, "--name", "copy.safetensors"], 0);
    assert_eq!(names, "copy.safetensors\n");
    assert!(said.contains("copy.safetensors: fetched as ckpt_"), "{said}");
    let other = "0".repeat(64);
    let (_, said) = run(&["import", &address, "--name", "other.safetensors", "--sha256", &other], 1);
    assert!(said.contains("other.safetensors was not fetched") && said.contains(&other), "{said}");
    let absent = format!("{}/v1/checkpoints/m9.safetensors/content", served.url);
    let (_, said) = run(&["import", &absent, "--dataset"], 1);
    assert!(said.contains("no such file"), "{said}");
    let (_, said) = run(&["import", "m0.safetensors"], 1);
    assert!(said.contains("/from: expected `https://HOST/FILE`"), "{said}");
    let (_, said) = run(&["import", &address, &absent, "--name", "x"], 1);
    assert!(said.contains("for one file"), "{said}");
}

#[test]
fn mistakes_are_named_and_jobs_that_fail_or_end_have_their_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    members(folder, 8);
    let served = Served::start(folder);
    let run = |arguments: &[&str], code| ends(folder, &served.url, arguments, code);
    run(&["push", "m0.safetensors"], 0);
    let (_, said) = ends(folder, "https://127.0.0.1:1", &["ls"], 1);
    assert!(said.contains("cannot be trusted") && said.contains("SSL_CERT_FILE"), "{said}");

    std::fs::write(folder.join("wrong.json"), r#"{"members": ["m9"], "finetune": {"epoch": 3}, "lr": 1}"#)
        .expect("writes");
    let (_, said) = run(&["submit", "wrong.json"], 1);
    for part in
        ["/finetune/epoch: ", "`epochs`", "/lr: ", "finetune.optimizer.lr", "/members/0: there is no checkpoint `m9`"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    std::fs::write(folder.join("broken.json"), "{members").expect("writes");
    let (_, said) = run(&["submit", "broken.json"], 1);
    assert!(said.contains("broken.json is no JSON"), "{said}");
    let (_, said) = run(&["submit", "wrong.json", "--member", "m0.safetensors"], 1);
    assert!(said.contains("leave out --member"), "{said}");
    let (_, said) = ends(folder, "localhost:8080", &["ls"], 1);
    assert!(said.contains("is no address of a server"), "{said}");
    std::fs::create_dir(folder.join("pets")).expect("a folder");
    let (_, said) = run(&["push", "--dataset", "pets"], 1);
    assert!(said.contains("`tar -cf pets.tar -C pets .`"), "{said}");
    let (_, said) = run(&["ls", "jobs", "--state", "asleep"], 1);
    assert!(said.contains("asleep"), "{said}");
    let (_, said) = run(&["wait", "job_0"], 1);
    assert!(said.contains("job_0"), "{said}");
}

#[test]
fn jobs_that_wait_are_cancelled_and_what_helps_is_a_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    members(folder, 8);
    let served = Served::with(folder, &["--workers", "0"]);
    let run = |arguments: &[&str], code| ends(folder, &served.url, arguments, code);
    run(&["push", "m0.safetensors"], 0);
    let (id, _) = run(&["submit", "--member", "m0.safetensors"], 0);
    let id = id.trim();
    for pull in [&["pull", id][..], &["pull", id, "--report", "report.json"]] {
        let (_, said) = run(pull, 1);
        assert!(said.contains(&format!("`engraft wait {id}`")) && !said.contains("Prefer"), "{said}");
    }
    let (_, said) = run(&["rm", id], 1);
    assert!(said.contains(&format!("`engraft cancel {id}`")), "{said}");
    let (_, said) = run(&["cancel", "m0.safetensors"], 1);
    assert!(said.contains("job_…"), "{said}");
    let (ended, _) = run(&["cancel", id], 0);
    assert_eq!(ended, format!("{id}  cancelled\n"));
    run(&["wait", id], 3);
    run(&["rm", id], 0);
}

#[test]
fn a_server_that_is_not_there_is_named_before_it_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    // Bound and not listened at: the port is nobody else's, and refuses.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
    command.current_dir(folder.path()).args(["ls"]).env("ENGRAFT_URL", format!("http://{address}"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let goes_on = child.try_wait().expect("a state").is_none();
    let _ended = (child.kill(), child.wait());
    assert!(goes_on && line.contains("cannot reach") && line.contains("trying again for 25 s"), "{line}");
}

/// A file that no request brings whole.
#[test]
fn an_upload_that_is_cut_ten_times_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    members(folder, 1 << 18);
    let bytes = folder.join("m0.safetensors").metadata().expect("a file").len();
    let served = Served::start(folder);
    let (proxy, cuts) = cutting_proxy(&served.url, 300 << 10, 10);
    let (_, said) = ends(folder, &proxy, &["push", "m0.safetensors"], 0);
    assert!(said.contains("uploaded as ckpt_"), "{said}");
    assert!(cuts.load(Ordering::SeqCst) >= 10, "{cuts:?} cuts of a file of {bytes} bytes");
    // The server has checked the announced digest.
    let (_, said) = ends(folder, &served.url, &["push", "m0.safetensors"], 0);
    assert!(said.contains("has it already"), "{said}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, _) = ends(folder, "", &["completions", shell], 0);
        assert!(script.contains("submit") && script.contains("member"), "{shell}");
    }
    ends(folder, "", &["man", "man"], 0);
    for page in ["engraft.1", "engraft-serve.1", "engraft-pull.1", "engraft-cancel.1"] {
        let text = std::fs::read_to_string(folder.join("man").join(page)).expect("a page");
        assert!(text.contains(".TH"), "{page}");
    }
}
