//! `engraft keys`: makes, lists and revokes API keys in a data directory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;

use crate::domain::access::{Scope, Tenant};
use crate::domain::clock::{SystemClock, from_millis};
use crate::domain::id::KeyId;
use crate::runtime::privacy::keep_files_private;
use crate::store::Database;
use crate::store::keys::Keys;

const EXAMPLE: &str = "\
Keys work at once, also while a server runs on the same data directory:

  engraft keys create --data-dir /srv/engraft --tenant vision --scope write --label laptop
  curl -H 'Authorization: Bearer engraft_…' http://127.0.0.1:8080/v1/checkpoints

From the first key on, requests without one are refused, even if all keys are revoked.";

/// Make, list and revoke API keys.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct KeysCommand {
    /// Data directory of the server.
    #[arg(long, env = "ENGRAFT_DATA_DIR", hide_env = true, default_value = "engraft-data", global = true)]
    data_dir: PathBuf,
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
            let create = || format!("data directory {}", self.data_dir.display());
            std::fs::create_dir_all(&self.data_dir).with_context(create)?;
            let database = Database::open(&self.data_dir).await?;
            let keys = Keys::new(database.clone(), Arc::new(SystemClock));
            let code = act(&keys, self.action).await?;
            database.close().await;
            Ok(code)
        })
    }
}

async fn act(keys: &Keys, action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Create { tenant, scope, label } => {
            let (key, secret) = keys.create(&tenant, scope, &label).await?;
            eprintln!("key {} for tenant {tenant}, scope {scope}; its secret, shown this once only:", key.id);
            println!("{}", secret.expose());
        }
        Action::List => {
            println!("{:<37} {:<16} {:<6} {:<20} {:<20} label", "id", "tenant", "scope", "created", "revoked");
            for key in keys.list().await? {
                let time = |millis| format!("{:.0}", from_millis(millis));
                let revoked = key.revoked_at.map_or_else(|| "-".to_owned(), time);
                let (id, tenant, scope) = (key.id.to_string(), key.tenant.as_str(), key.scope.as_str());
                println!("{id:<37} {tenant:<16} {scope:<6} {:<20} {revoked:<20} {}", time(key.created_at), key.label);
            }
        }
        Action::Revoke { id } if keys.revoke(id).await? => eprintln!("key {id} is revoked"),
        Action::Revoke { id } => {
            eprintln!("engraft: there is no key {id} that is still good; `engraft keys list` shows all");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
