//! `engraft tenants`: what tenants may take of a data directory, and what they have taken.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::data_dir::DataDir;
use crate::config::{ByteSize, TenantDefaults, TenantsOptions};
use crate::domain::access::Tenant;
use crate::domain::quota::TenantResource;
use crate::runtime::privacy::keep_files_private;
use crate::store::tenants::Tenants;

const EXAMPLE: &str = "\
Limits work at once, also while a server runs on the same data directory. The defaults of tenants without limits of their own are the
server's (`--tenant-bytes` and so on); give `show` the same flags, variables or file to see them:

  engraft tenants show
  engraft tenants set vision bytes 200GiB
  engraft tenants set vision running none       # no limit, whatever the default is
  engraft tenants set vision queued default     # the server's default again";

/// Show and set what tenants may take.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct TenantsCommand {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all tenants, with what they have taken and may take.
    Show(Box<TenantsOptions>),
    /// Give a tenant a limit of its own.
    Set {
        /// The tenant.
        tenant: Tenant,
        /// What is limited: bytes, files, uploads, queued, running, `requests_per_second` or `reading_seconds`.
        resource: TenantResource,
        /// The most that it may have, as in `20` or `5GiB`; `none` for no limit, `default` for the server's.
        #[arg(value_parser = limit)]
        most: Limit,
    },
}

/// A limit as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Default,
    None,
    Most(u64),
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "default" => Ok(Limit::Default),
        "none" => Ok(Limit::None),
        number => match number.parse::<ByteSize>() {
            Ok(ByteSize(most)) if most > 0 => Ok(Limit::Most(most)),
            _ => Err(format!("expected a number above 0, as in `20` or `5GiB`, `none` or `default`, got `{text}`")),
        },
    }
}

impl TenantsCommand {
    /// Runs the action.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        keep_files_private();
        super::runtime()?.block_on(async {
            let absent = || format!("{} is no data directory", self.data_dir.path().display());
            anyhow::ensure!(self.data_dir.path().join("engraft.db").exists(), absent());
            let database = self.data_dir.database().await.with_context(absent)?;
            match self.action {
                Action::Show(options) => show(&Tenants::new(database.clone(), options.resolve().quota())).await?,
                Action::Set { tenant, resource, most } => {
                    let most = match most {
                        Limit::Default => None,
                        Limit::None => Some(0),
                        Limit::Most(most) => Some(most),
                    };
                    Tenants::new(database.clone(), TenantDefaults::default().quota())
                        .set(&tenant, resource, most)
                        .await?;
                }
            }
            database.close().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Prints a line for each resource of each tenant.
async fn show(tenants: &Tenants) -> anyhow::Result<()> {
    println!("{:<24} {:<20} {:>18} {:>18}", "tenant", "resource", "used", "most");
    for tenant in tenants.list().await? {
        for resource in TenantResource::ALL {
            let most = tenant.quota.limit(resource).map_or_else(|| "-".to_owned(), |most| most.to_string());
            let used = match resource {
                TenantResource::RequestsPerSecond => "-".to_owned(),
                resource => tenant.usage.of(resource).to_string(),
            };
            println!("{:<24} {:<20} {used:>18} {most:>18}", tenant.tenant.as_str(), resource.as_str());
        }
    }
    Ok(())
}
