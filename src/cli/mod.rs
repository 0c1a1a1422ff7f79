//! The commands, one file each.

mod compare;
mod compute;
mod convert;
mod data_dir;
mod demo;
mod devices;
mod fuse;
mod inspect;
mod inspect_dataset;
mod interrupt;
mod job;
mod keys;
mod manuals;
mod measure_speed;
mod migrate;
mod openapi;
mod outputs;
mod plan;
mod progress;
mod remote;
mod run_job;
mod schema;
mod serve;
mod tenants;
mod train;
mod upkeep;
mod worker;
mod written;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};

use crate::config::Configuration;
use crate::exec;
use crate::runtime::lifecycle::{Shutdown, listen_for_signals};
use crate::runtime::privacy::keep_files_private;
use crate::runtime::telemetry;

/// Turns an ensemble of trained neural networks into one compact network.
#[derive(Debug, Parser)]
#[command(name = "engraft", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Worker(Box<worker::WorkerCommand>),
    Fuse(Box<fuse::Fuse>),
    Plan(Box<plan::PlanCommand>),
    Train(train::Train),
    Compare(compare::Compare),
    Inspect(inspect::Inspect),
    Convert(convert::Convert),
    Demo(demo::Demo),
    Push(remote::Push),
    Import(remote::Import),
    Submit(remote::Submit),
    Wait(remote::Wait),
    Logs(remote::Logs),
    Pull(remote::Pull),
    Ls(remote::Ls),
    Cancel(remote::Cancel),
    Rm(remote::Rm),
    Keys(keys::KeysCommand),
    Tenants(tenants::TenantsCommand),
    Verify(upkeep::VerifyCommand),
    Backup(upkeep::BackupCommand),
    Restore(upkeep::RestoreCommand),
    Gc(upkeep::GcCommand),
    Migrate(migrate::MigrateCommand),
    Devices(devices::Devices),
    Openapi(openapi::OpenApi),
    Schema(schema::SchemaCommand),
    Completions(manuals::Completions),
    Man(manuals::Man),
    RunJob(run_job::RunJobCommand),
    #[command(name = exec::PROBE_COMMAND)]
    ProbeGpus(devices::ProbeGpus),
    InspectDataset(inspect_dataset::InspectDataset),
    MeasureSpeed(measure_speed::MeasureSpeed),
}

/// Reads the command line and runs the command; errors go to stderr.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    end_with_the_reader();
    let result = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Worker(command) => command.run(),
        Command::Fuse(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Push(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Submit(command) => command.run(),
        Command::Wait(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Ls(command) => command.run(),
        Command::Cancel(command) => command.run(),
        Command::Rm(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Tenants(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Backup(command) => command.run(),
        Command::Restore(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Migrate(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Openapi(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Completions(command) => Ok(command.run()),
        Command::Man(command) => command.run(),
        Command::RunJob(command) => Ok(command.run()),
        Command::ProbeGpus(command) => command.run(),
        Command::InspectDataset(command) => command.run(),
        Command::MeasureSpeed(command) => command.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("engraft: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Lets the program end without a word where nobody reads its output any more, as behind `engraft ls | head`: `print!` knows but a panic,
/// which still removes what is temporary.
fn end_with_the_reader() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_of_the_pipe = |text: &str| text.starts_with("failed printing to stdout: Broken pipe");
        if !panic.payload_as_str().is_some_and(is_of_the_pipe) {
            others(panic);
        }
    }));
}

/// The error and its causes, from the outermost on, without those that the words before them end with.
fn with_causes(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    let join = |text: String, cause: String| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") };
    causes.reduce(join).unwrap_or_default()
}

/// The runtime of the commands that do many things at once.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Runs a service that a signal ends, with its log and with files that nobody else may read.
fn run_service(
    settings: Configuration,
    service: impl AsyncFnOnce(Configuration, Shutdown) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    telemetry::start(&settings.log).map_err(|error| anyhow!(error))?;
    keep_files_private();
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        listen_for_signals(shutdown.clone(), settings.server.drain_timeout.0)?;
        service(settings, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let error = anyhow!("no such file").context("m0.pt: no such file").context("cannot inspect m0.pt");
        assert_eq!(with_causes(&error), "cannot inspect m0.pt: m0.pt: no such file");
        assert_eq!(with_causes(&anyhow!("ends early").context("cannot read")), "cannot read: ends early");
    }
}
