//! `engraft demo`: the whole cycle on data that it makes itself.

mod folder;
mod glyphs;
mod members;

use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::folder::Folder;
use self::glyphs::Glyphs;
use crate::app::Application;
use crate::client::{Collection, Server};
use crate::config::Configuration;
use crate::domain::clock::SystemClock;
use crate::report::Report;
use crate::runtime::lifecycle::Shutdown;

const ABOUT: &str = "\
Draws a small data set of distorted letters, trains networks from different seeds, starts a server on a free port of
this machine, and does what a client would: uploads, posts a job, waits, downloads. Takes less than a minute on two
cores and downloads nothing.";

/// See the whole cycle: data, members, server, fusion, report.
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT)]
pub(super) struct Demo {
    /// Folder for everything that the demo makes: a new one, an empty one, or one that it has made before.
    #[arg(long, value_name = "DIR", default_value = "engraft-demo")]
    dir: PathBuf,
    /// Training images to draw.
    #[arg(long, value_name = "N", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(500..=100_000))]
    images: u32,
    /// Epochs that each member is trained.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
}

/// Seeds of the networks of the ensemble.
const SEEDS: [u64; 3] = [0, 1, 2];
/// Their files.
const MEMBERS: [&str; 3] = ["m0.safetensors", "m1.safetensors", "m2.safetensors"];
const DATASET: &str = "glyphs.npz";

/// Images that the members never see, for choosing the best epoch.
const VALIDATION: &str = "validation.npz";

impl Demo {
    /// Runs the demo to its end.
    pub(super) fn run(self) -> Result<ExitCode> {
        let folder = Folder::take(&self.dir)?;
        self.make_members(folder.path())?;
        super::runtime()?.block_on(self.cycle(folder.path()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Draws the data and trains the members.
    fn make_members(&self, dir: &Path) -> Result<()> {
        let (images, others) = (self.images as usize, self.images as usize / 4);
        println!(
            "1. Drawing {images} images of distorted letters to train on, {others} to validate and {others} to test on"
        );
        let [train, test, validation] =
            [(images, 1), (others, 2), (others, 3)].map(|(count, seed)| glyphs::draw(count, seed));
        write(&dir.join(DATASET), &train, Some(&test))?;
        write(&dir.join(VALIDATION), &validation, None)?;
        println!("2. Training {} networks from different seeds, {} epochs each", MEMBERS.len(), self.epochs);
        members::train(&dir.join(DATASET), &SEEDS, self.epochs, dir)
    }

    /// Serves and consumes the API.
    async fn cycle(&self, dir: &Path) -> Result<()> {
        let data_dir = dir.join("server");
        if data_dir.exists() {
            std::fs::remove_dir_all(&data_dir).with_context(|| format!("cannot clear {}", data_dir.display()))?;
        }
        let mut settings = Configuration::default();
        settings.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.storage.data_dir = data_dir;
        let shutdown = Shutdown::new();
        let application = Application::build(settings, Arc::new(SystemClock), shutdown.clone()).await?;
        let base = format!("http://{}/v1", application.address());
        println!("3. Serving on {base}");
        let server = tokio::spawn(application.run_until_stopped());
        let result = match Server::new(&base, None) {
            Ok(client) => self.use_api(&client, dir).await,
            Err(error) => Err(error.into()),
        };
        shutdown.drain();
        server.await??;
        result
    }

    /// What a client does.
    async fn use_api(&self, server: &Server, dir: &Path) -> Result<()> {
        println!("4. Uploading {} checkpoints and two datasets", MEMBERS.len());
        for name in MEMBERS {
            server.upload(Collection::Checkpoints, &dir.join(name), name, &|_| {}).await?;
        }
        for name in [DATASET, VALIDATION] {
            server.upload(Collection::Datasets, &dir.join(name), name, &|_| {}).await?;
        }
        let job = job();
        std::fs::write(dir.join("job.json"), serde_json::to_string_pretty(&job)?)?;
        let queued = server.post("jobs", &job).await?;
        let id = queued["id"].as_str().context("an `id` in the answer to POST /jobs")?;
        println!("5. Fusing them into one network as {id}");
        wait(server, id).await?;
        for (resource, name) in [("model", "fused.safetensors"), ("report.html", PAGE)] {
            let path = dir.join(name);
            if path.exists() {
                std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
            }
            server.download(&format!("jobs/{id}/{resource}"), &path, &|_, _| {}).await?;
        }
        let report: Report = serde_json::from_value(server.get(&format!("jobs/{id}/report")).await?)?;
        ensure!(!report.candidates.is_empty(), "the report compares nothing");
        println!("6. Downloaded the fused model; its digest is right\n\n{report}");
        println!("{}", farewell(dir)?);
        Ok(())
    }
}

/// The job, as a user would write it.
fn job() -> Value {
    json!({
        "name": "engraft demo: distorted letters",
        "members": MEMBERS,
        "dataset": { "name": DATASET, "validation": VALIDATION, "normalize": { "mean": [members::MEAN], "std": [members::STD] } },
        "finetune": {
            "epochs": 60, "warmup_epochs": 2, "batch_size": 128,
            "temperature": 3, "soft_weight": 1, "optimizer": { "name": "adamw", "lr": 0.003 },
        },
    })
}

/// Waits for the job's end, showing every state and phase of it that is seen.
async fn wait(server: &Server, id: &str) -> Result<()> {
    let mut seen = String::new();
    loop {
        let job = server.get_later(&format!("jobs/{id}"), 1).await?;
        show_progress(&job, &mut seen);
        match job["state"].as_str() {
            Some("succeeded") => return Ok(()),
            Some("failed" | "cancelled") => bail!("the job ended as {}: {}", job["state"], job["error"]),
            _ => {}
        }
    }
}

/// Prints a line when the job's state or phase has changed.
fn show_progress(job: &Value, seen: &mut String) {
    let phase = job["progress"]["phase"].as_str().unwrap_or_default();
    let now = format!("   {} {phase}", job["state"].as_str().unwrap_or_default());
    if now != *seen {
        println!("{}", now.trim_end());
        *seen = now;
    }
}

fn write(path: &Path, train: &Glyphs, test: Option<&Glyphs>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(glyphs::write_npz(train, test, BufWriter::new(file))?)
}

/// What repeats the demo by hand: a script for bash, with curl and jq.
const REPEAT: &str = "repeat.sh";

/// The page with the comparison.
const PAGE: &str = "report.html";

/// Lines that do by hand what the demo has done, in the folder `dir`.
fn commands(dir: &Path) -> Result<String> {
    let program = quoted(&std::env::current_exe()?);
    let dir = quoted(dir);
    Ok(format!(
        "cd {dir}\n\
         {program} serve --data-dir by-hand --listen 127.0.0.1:8080 2> serve.log & SERVER=$!; U=http://127.0.0.1:8080/v1\n\
         c() {{ curl --fail-with-body -sS \"$@\"; }}\n\
         c --retry 20 --retry-connrefused --retry-delay 1 -o /dev/null http://127.0.0.1:8080/readyz\n\
         for i in 0 1 2; do c -T m$i.safetensors $U/checkpoints/; done\n\
         for d in {DATASET} {VALIDATION}; do c -T $d $U/datasets/; done\n\
         ID=$(c --json @job.json $U/jobs | jq -re .id)\n\
         c -N -H 'Accept: text/event-stream' $U/jobs/${{ID:?}}/events\n\
         c $U/jobs/$ID/report | jq -c '.candidates[] | [.name, .kind, .test.accuracy]'\n\
         c -o fused.safetensors $U/jobs/$ID/model\n\
         c $U/jobs/$ID/model.sha256 | sha256sum -c\n\
         kill $SERVER\n"
    ))
}

/// Writes the commands into the folder, and says where everything is.
fn farewell(dir: &Path) -> Result<String> {
    let commands = commands(dir)?;
    let script = format!(
        "#!/usr/bin/env bash\n# Repeats the demo by hand: a server on port 8080, uploads, a job, downloads. Needs curl and jq.\nset -euo pipefail\n\
         trap 'kill ${{SERVER:-}} 2> /dev/null || true' EXIT\n{commands}"
    );
    let path = dir.join(REPEAT);
    std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    let shown: String = commands.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    let dir = quoted(dir);
    Ok(format!(
        "Everything is in {dir}: {PAGE} has the comparison with plots. To repeat it by hand, run `bash {dir}/{REPEAT}`, or paste its commands \
         (they need curl and jq):\n\n{}",
        shown.trim_end()
    ))
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
