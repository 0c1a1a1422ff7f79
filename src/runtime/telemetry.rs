//! Log lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for the whole process. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be read; the text says why.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.log)
        .map_err(|error| format!("log filter `{}`: {error}; try `info` or `engraft=debug,info`", log.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The only failure is that a subscriber is there already, as in tests that start several servers.
    let _ = match log.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
