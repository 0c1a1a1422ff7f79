//! `engraft keys`: makes, lists, rotates and revokes API keys in a data directory.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;

use super::data_dir::DataDir;
use crate::config::Age;
use crate::domain::access::{Scope, Tenant};
use crate::domain::clock::{SystemClock, from_millis};
use crate::domain::id::KeyId;
use crate::runtime::privacy::keep_files_private;
use crate::store::keys::{ApiKey, Keys, NewKey, Secret};

const EXAMPLE: &str = "\
Keys work at once, also while a server runs on the same data directory:

  engraft keys create --data-dir /srv/engraft --tenant vision --scope write --label laptop
  curl -H 'Authorization: Bearer engraft_…' http://127.0.0.1:8080/v1/checkpoints

From the first key on, requests without one are refused, even if all keys are revoked.";

/// Make, list, rotate and revoke API keys.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct KeysCommand {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print its secret, which is shown this once only.
    Create {
        /// Whose checkpoints, datasets and jobs it reaches.
        #[arg(long, default_value = Tenant::DEFAULT)]
        tenant: Tenant,
        /// What it allows: read, write (upload, run, delete) or admin (also see what concerns the whole server).
        #[arg(long, default_value = "write")]
        scope: Scope,
        /// A note about who has it.
        #[arg(long, default_value = "")]
        label: String,
        /// How long it is good, as in `90d`, `12h` or `30m`.
        #[arg(long, default_value = "ever")]
        expires: Age,
    },
    /// Make a key like another one, which stays good for a while, and print its secret.
    Rotate {
        /// The id of the other one, as `list` shows it.
        id: KeyId,
        /// How long the other one stays good, as in `1h`.
        #[arg(long, default_value = "24h")]
        overlap: Age,
        /// How long the new one is good, as in `90d`.
        #[arg(long, default_value = "ever")]
        expires: Age,
    },
    /// List all keys, without their secrets.
    List,
    /// Make a key useless from now on.
    Revoke {
        /// Its id, as `list` shows it.
        id: KeyId,
    },
}

impl KeysCommand {
    /// Runs the action; the secret goes to stdout, alone, so that it can be captured.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        super::runtime()?.block_on(async {
            let folder = self.data_dir.path();
            std::fs::create_dir_all(folder).with_context(|| format!("data directory {}", folder.display()))?;
            let database = self.data_dir.database().await?;
            let keys = Keys::new(database.clone(), Arc::new(SystemClock));
            let code = act(&keys, self.action).await?;
            database.close().await;
            Ok(code)
        })
    }
}

async fn act(keys: &Keys, action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Create { tenant, scope, label, expires } => {
            let new = NewKey { tenant, scope, label, lifetime: expires.0 };
            reveal(&keys.create(new).await?);
        }
        Action::Rotate { id, overlap, expires } => match keys.rotate(id, overlap.0, expires.0).await? {
            Some(made) => reveal(&made),
            None => return Ok(not_good(id)),
        },
        Action::List => {
            println!(
                "{:<37} {:<16} {:<6} {:<20} {:<20} {:<20} {:<20} label",
                "id", "tenant", "scope", "created", "last used", "expires", "revoked"
            );
            for key in keys.list().await? {
                let time = |millis| format!("{:.0}", from_millis(millis));
                let [used, expires, revoked] = [key.last_used_at, key.expires_at, key.revoked_at]
                    .map(|moment| moment.map_or_else(|| "-".to_owned(), time));
                let (id, tenant, scope) = (key.id.to_string(), key.tenant.as_str(), key.scope.as_str());
                println!(
                    "{id:<37} {tenant:<16} {scope:<6} {:<20} {used:<20} {expires:<20} {revoked:<20} {}",
                    time(key.created_at),
                    key.label
                );
            }
        }
        Action::Revoke { id } if keys.revoke(id).await? => eprintln!("key {id} is revoked"),
        Action::Revoke { id } => return Ok(not_good(id)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a new key, its secret alone on stdout.
fn reveal((key, secret): &(ApiKey, Secret)) {
    let until = key.expires_at.map_or_else(String::new, |at| format!(", good until {:.0}", from_millis(at)));
    let (id, tenant, scope) = (key.id, &key.tenant, key.scope);
    eprintln!("key {id} for tenant {tenant}, scope {scope}{until}; its secret, shown this once only:");
    println!("{}", secret.expose());
}

fn not_good(id: KeyId) -> ExitCode {
    eprintln!("engraft: there is no key {id} that is still good; `engraft keys list` shows all");
    ExitCode::FAILURE
}
