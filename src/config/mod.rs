//! Every setting, one struct per concern. A flag wins over its `ENGRAFT_*` variable, that over the file of `--config`,
//! that over the default.

mod concerns;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::access::is_secret;

pub use concerns::{
    LimitsOptions, Log, LogOptions, OutboundOptions, OutboundSettings, RequestLimits, RetentionOptions,
    RetentionSettings, Server, ServerOptions, Storage, StorageOptions, TenantDefaults, TenantsOptions, Validation,
    ValidationOptions, WorkerSettings, WorkersOptions,
};
pub use value::{Age, ByteSize, Devices, Endpoint, LogFormat, Names, OnOff, OptionalPath, Origins, Seconds, Subnets};

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that is unknown or of the wrong kind.
    #[error("configuration file {path}: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A bootstrap key that is not a key.
    #[error("{origin} does not hold an API key: expected `engraft_` and 64 hexadecimal digits in lower case")]
    BootstrapKey {
        /// Where it was set.
        origin: String,
    },
}

/// `[auth]`: the bootstrap key. It has no flag, since other users of a machine can read flags; its variable is `ENGRAFT_API_KEY`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct AuthOptions {
    /// An admin key of the tenant `default`, made known by the environment, so that containers need no set-up step.
    #[arg(skip)]
    pub api_key: Option<String>,
    /// File that holds the key instead.
    #[arg(long, env = "ENGRAFT_API_KEY_FILE", hide_env = true)]
    pub api_key_file: Option<PathBuf>,
}

/// The flags of `serve`; the sections of the file have the same names.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// TOML file with settings: sections [server], [storage], [auth], [limits], [outbound], [tenants], [retention], [workers], [validation] and [log], keys
    /// named like the flags with underscores.
    #[arg(long, env = "ENGRAFT_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    auth: AuthOptions,
    #[command(flatten)]
    limits: LimitsOptions,
    #[command(flatten)]
    outbound: OutboundOptions,
    #[command(flatten)]
    tenants: TenantsOptions,
    #[command(flatten)]
    retention: RetentionOptions,
    #[command(flatten)]
    workers: WorkersOptions,
    #[command(flatten)]
    validation: ValidationOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// The flags of `worker`: those of `serve` that matter without a socket. It reads the same file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WorkerOptions {
    /// TOML file with settings, as for `serve`.
    #[arg(long, env = "ENGRAFT_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageOptions,
    #[command(flatten)]
    tenants: TenantsOptions,
    #[command(flatten)]
    workers: WorkersOptions,
    /// Seconds that running jobs get to stop after SIGTERM.
    #[arg(long, env = "ENGRAFT_DRAIN_TIMEOUT", hide_env = true)]
    drain_timeout: Option<Seconds>,
    #[command(flatten)]
    log: LogOptions,
}

impl WorkerOptions {
    /// Reads the file, if one is named, and the environment.
    ///
    /// # Errors
    /// When the file cannot be read or has an unknown key.
    pub fn resolve(self) -> Result<Configuration, ConfigError> {
        let Self { config, storage, tenants, workers, drain_timeout, log } = self;
        let server = ServerOptions { drain_timeout, ..ServerOptions::default() };
        Options { config, server, storage, tenants, workers, log, ..Options::default() }.resolve()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileOptions {
    server: ServerOptions,
    storage: StorageOptions,
    auth: AuthOptions,
    limits: LimitsOptions,
    outbound: OutboundOptions,
    tenants: TenantsOptions,
    retention: RetentionOptions,
    workers: WorkersOptions,
    validation: ValidationOptions,
    log: LogOptions,
}

/// All settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    /// The listening socket.
    pub server: Server,
    /// Where everything is kept.
    pub storage: Storage,
    /// The key that needs no row in the database.
    pub bootstrap_key: Option<String>,
    /// What clients may request.
    pub limits: RequestLimits,
    /// What the server requests from others.
    pub outbound: OutboundSettings,
    /// What tenants may take.
    pub tenants: TenantDefaults,
    /// What is deleted after some time.
    pub retention: RetentionSettings,
    /// Who computes.
    pub workers: WorkerSettings,
    /// The child processes that read uploaded datasets.
    pub validation: Validation,
    /// What goes to stderr.
    pub log: Log,
    /// The executable that child processes run, where it is not the running one: not a setting for users.
    pub program: Option<PathBuf>,
    /// What AWS's clients read, where that is not the environment: not a setting for users.
    pub aws: Option<BTreeMap<String, String>>,
}

impl Options {
    /// Reads the file, if one is named, and the environment.
    ///
    /// # Errors
    /// When the file cannot be read or has an unknown key, or when the bootstrap key is not a key.
    pub fn resolve(self) -> Result<Configuration, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Ok(Configuration {
            bootstrap_key: bootstrap_key(self.auth.api_key_file.or(file.auth.api_key_file), file.auth.api_key)?,
            server: self.server.or(file.server),
            storage: self.storage.or(file.storage),
            limits: self.limits.or(file.limits),
            outbound: self.outbound.or(file.outbound),
            tenants: self.tenants.or(file.tenants),
            retention: self.retention.or(file.retention),
            workers: self.workers.or(file.workers),
            validation: self.validation.or(file.validation),
            log: self.log.or(file.log),
            program: None,
            aws: None,
        })
    }
}

fn read_file(path: &Path) -> Result<FileOptions, ConfigError> {
    let text = read(path)?;
    toml::from_str(&text).map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// The environment's key, else the key file's, else the configuration file's.
fn bootstrap_key(file: Option<PathBuf>, configured: Option<String>) -> Result<Option<String>, ConfigError> {
    let (origin, text) = if let Some(text) = std::env::var("ENGRAFT_API_KEY").ok().filter(|text| !text.is_empty()) {
        ("ENGRAFT_API_KEY".to_owned(), text)
    } else if let Some(path) = file {
        (path.display().to_string(), read(&path)?)
    } else if let Some(text) = configured {
        ("`api_key`".to_owned(), text)
    } else {
        return Ok(None);
    };
    let text = text.trim();
    if is_secret(text) { Ok(Some(text.to_owned())) } else { Err(ConfigError::BootstrapKey { origin }) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::value::Spelled;
    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
    }

    fn resolve(flags: &[&str], file: &str) -> Result<Configuration, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("engraft.toml");
        std::fs::write(&path, file).expect("writes");
        let path = path.display().to_string();
        let arguments = ["engraft", "--config", &path].into_iter().chain(flags.iter().copied());
        let flags = Flags::try_parse_from(arguments).map_err(|error| error.to_string())?;
        flags.options.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file =
            "[server]\nlisten = '127.0.0.1:1'\ndrain_timeout = 0.5\n[limits]\nmax_checkpoint = '2GiB'\nmax_json = 10";
        let settings = resolve(&["--listen", "127.0.0.1:2"], file).expect("valid");
        assert_eq!(settings.server.listen.port(), 2);
        assert_eq!(settings.server.drain_timeout.0, Duration::from_millis(500));
        assert_eq!((settings.limits.max_checkpoint.0, settings.limits.max_json.0), (2 << 30, 10));
        assert_eq!(settings.workers, WorkerSettings::default());
    }

    #[test]
    fn the_help_says_what_holds_without_a_flag_and_a_value_reads_as_it_is_written() {
        let help = <Flags as clap::CommandFactory>::command().render_help().to_string();
        let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains("goes to another one [env: ENGRAFT_LEASE] [default: 60]"), "{help}");
        for size in [0, 1000, 1 << 10, 5 << 20, (1 << 30) + 1, 64 << 30, 3 << 40] {
            assert_eq!(ByteSize(size).written().parse(), Ok(ByteSize(size)));
        }
        assert_eq!(ByteSize(64 << 30).written(), "64GiB");
    }

    #[test]
    fn what_is_unknown_or_wrong_is_named() {
        let error = resolve(&[], "[server]\nlissten = '127.0.0.1:1'").expect_err("unknown key");
        assert!(error.contains("lissten") && error.contains("listen"), "{error}");
        let error = resolve(&[], "[limits]\nmax_json = '3 parsecs'").expect_err("wrong size");
        assert!(error.contains("3 parsecs"), "{error}");
        let error = resolve(&["--heartbeat", "0"], "").expect_err("zero");
        assert!(error.contains("heartbeat"), "{error}");
        let error = resolve(&[], "[auth]\napi_key = 'hunter2'").expect_err("not a key");
        assert!(error.contains("64 hexadecimal") && !error.contains("hunter2"), "{error}");
    }
}
