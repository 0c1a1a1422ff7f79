//! `engraft import`: has a server fetch files from elsewhere.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{ServerOptions, bars, text};
use crate::client::Server;

const EXAMPLE: &str = "\
Two members from a hub and a bucket:

  engraft import hf://timm/resnet18.a1_in1k@main/model.safetensors --name m0.safetensors
  engraft import s3://runs/7/m1.safetensors";

/// Have a server fetch members and datasets from elsewhere.
///
/// It fetches them by itself: what is cut goes on, also when this command has ended. Their names are printed, as a job takes them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    server: ServerOptions,
    /// Where the files are: `https://HOST/FILE`, `hf://ORG/NAME@REVISION/FILE`, `hf://datasets/ORG/NAME@REVISION/FILE` or `s3://BUCKET/KEY`.
    #[arg(required = true, value_name = "ADDRESS")]
    from: Vec<String>,
    /// They are datasets, not checkpoints.
    #[arg(long)]
    dataset: bool,
    /// What the server calls it, where it is one file; the last part of its address unless given.
    #[arg(long)]
    name: Option<String>,
    /// The SHA-256 that it must have, where it is one file.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Sent to the host of the files as `Authorization: Bearer …`; for the Hub `HF_TOKEN` is taken without it.
    #[arg(long)]
    token: Option<String>,
}

impl Import {
    /// Asks for all, then waits for one after another.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, from, dataset, name, sha256, token } = self;
        let is_one = from.len() == 1;
        ensure!(is_one || name.is_none() && sha256.is_none(), "--name and --sha256 are for one file");
        let kind = if dataset { "dataset" } else { "checkpoint" };
        server.run(async |server| {
            let mut imports = Vec::with_capacity(from.len());
            for address in &from {
                let of_hub =
                    || std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty() && address.starts_with("hf://"));
                let token = token.clone().or_else(of_hub);
                let body = json!({ "kind": kind, "from": address, "name": name, "sha256": sha256, "token": token });
                imports.push(server.post("imports", &body).await?);
            }
            for import in imports {
                println!("{}", arrived(server, import).await?);
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Waits until a file is there; its name.
async fn arrived(server: &Server, mut import: Value) -> Result<String> {
    let (id, name) = (text(&import, "/id").to_owned(), text(&import, "/name").to_owned());
    let bar = bars::bytes(&name);
    let mut said = String::new();
    loop {
        match text(&import, "/state") {
            "succeeded" => {
                bar.finish_and_clear();
                eprintln!("{name}: fetched as {}", text(&import, "/file"));
                return Ok(name);
            }
            "failed" => {
                bar.finish_and_clear();
                bail!("{name} was not fetched: {}", text(&import, "/error/detail"));
            }
            _ => {}
        }
        let why = text(&import, "/error/detail");
        if !why.is_empty() && why != said {
            why.clone_into(&mut said);
            bar.suspend(|| eprintln!("{name}: {why} It is tried again at {}.", text(&import, "/next_attempt_at")));
        }
        if let Some(bytes) = import["bytes"].as_u64() {
            bars::show(&bar, &name, bytes, import["total"].as_u64().unwrap_or(bytes));
        }
        import = server.get_later(&format!("imports/{id}"), 1).await?;
    }
}
