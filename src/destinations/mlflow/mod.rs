//! MLflow: a run with parameters, metrics, tags and files, by the REST interface of a tracking server.

mod artifacts;
mod batches;
mod registry;
mod run;

use reqwest::Url;

use super::error::DestinationError;
use super::service::{Credentials, Service};
use super::{Advance, Outline, PackedFile};

use self::artifacts::Folder;
use self::run::Run;

/// The experiment that every tracking server has.
pub const EXPERIMENT: &str = "Default";

/// A push to MLflow.
#[derive(Debug)]
pub struct MlflowPush {
    /// Address of the tracking server.
    pub tracking_uri: String,
    /// What it knows its user by.
    pub sign_in: SignIn,
    /// Name of the experiment, which is made where there is none.
    pub experiment: String,
    /// Name of a registered model that gets a version.
    pub register: Option<String>,
}

/// What a tracking server knows its user by, as MLflow's own variables have it.
#[derive(Clone, Default)]
pub struct SignIn {
    /// `MLFLOW_TRACKING_TOKEN`, which comes first.
    pub token: Option<String>,
    /// `MLFLOW_TRACKING_USERNAME`.
    pub user: Option<String>,
    /// `MLFLOW_TRACKING_PASSWORD`.
    pub password: Option<String>,
}

impl std::fmt::Debug for SignIn {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("user", &self.user).finish_non_exhaustive()
    }
}

impl SignIn {
    fn is_nobody(&self) -> bool {
        self.token.is_none() && self.user.is_none()
    }
}

/// The address of a tracking server, without the user and the password that may stand in it.
fn bare(uri: &str) -> Result<String, DestinationError> {
    let parsed = Url::parse(uri).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let mut url = parsed.ok_or_else(|| {
        DestinationError::Unprepared(
            "MLflow's tracking server is named by http:// or https:// in --tracking-uri or MLFLOW_TRACKING_URI; `mlflow server` starts one on a \
             folder or a database"
                .to_owned(),
        )
    })?;
    // Neither fails on an address with a host.
    let _without = (url.set_username(""), url.set_password(None));
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl From<SignIn> for Credentials {
    fn from(sign_in: SignIn) -> Self {
        match sign_in {
            SignIn { token: Some(token), .. } => Self::Token(token),
            SignIn { user: Some(user), password, .. } => {
                Self::Password { user, password: password.unwrap_or_default() }
            }
            _ => Self::Nobody,
        }
    }
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The run.
    pub run: String,
    /// Where a browser finds it.
    pub url: String,
    /// The version of the registered model.
    pub version: Option<String>,
}

impl MlflowPush {
    /// Makes a run of the job, with all that belongs to it.
    ///
    /// # Errors
    /// What the server refuses, with what to do; that it does not answer; files that cannot be read.
    pub async fn run(
        self,
        outline: &Outline,
        files: &[PackedFile],
        advance: Advance<'_>,
    ) -> Result<Tracked, DestinationError> {
        let address = bare(&self.tracking_uri)?;
        // A user in the address counts where no variable names one; requests then take it from there.
        let base = if self.sign_in.is_nobody() { &self.tracking_uri } else { &address };
        let service = Service::new("MLflow", base, self.sign_in.clone().into())?;
        let tracked = self.track(&service, &address, outline, files, advance).await;
        tracked.map_err(|error| error.advised(|refusal| run::advice(refusal, &address)))
    }

    async fn track(
        &self,
        service: &Service,
        address: &str,
        outline: &Outline,
        files: &[PackedFile],
        advance: Advance<'_>,
    ) -> Result<Tracked, DestinationError> {
        let experiment = run::experiment(service, &self.experiment).await?;
        let run = Run::create(service, &experiment, outline).await?;
        let filled = self.fill(service, &run, outline, files, advance).await;
        // A run that is not whole does not look like one.
        let ended = run.end(service, outline, filled.is_ok()).await;
        let version = filled?;
        ended?;
        let url = format!("{address}/#/experiments/{experiment}/runs/{}", run.id);
        Ok(Tracked { run: run.id, url, version })
    }

    /// Brings everything into the run; the version of the registered model.
    async fn fill(
        &self,
        service: &Service,
        run: &Run,
        outline: &Outline,
        files: &[PackedFile],
        advance: Advance<'_>,
    ) -> Result<Option<String>, DestinationError> {
        let folder = Folder::of(run)?;
        for batch in batches::of(outline) {
            run.log(service, &batch).await?;
        }
        for file in files {
            folder.put(service, file, advance).await?;
        }
        match &self.register {
            Some(name) => registry::version(service, name, run).await.map(Some),
            None => Ok(None),
        }
    }
}
