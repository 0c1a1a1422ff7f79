//! Files of a run, through the tracking server.

use reqwest::{Method, Url};

use super::super::service::Service;
use super::super::{Advance, DestinationError, PackedFile};
use super::run::Run;

/// The scheme of files that go through the tracking server.
const PROXIED: &str = "mlflow-artifacts";
/// The folder of a run's files that holds the model and what belongs to it.
pub(super) const MODEL: &str = "model";

/// Where the files of a run go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folder(Vec<String>);

impl Folder {
    /// The folder of `run`, which is known before anything is brought there.
    pub(super) fn of(run: &Run) -> Result<Self, DestinationError> {
        let uri = Url::parse(&run.artifacts).ok().filter(|uri| uri.scheme() == PROXIED);
        let path = uri.as_ref().map(|uri| uri.path().split('/').filter(|part| !part.is_empty()));
        path.map(|parts| Self(parts.map(str::to_owned).collect())).ok_or_else(|| {
            DestinationError::Unprepared(format!(
                "the files of this experiment's runs lie at {}, not behind the tracking server: start it with `mlflow server \
                 --serve-artifacts`, and name an experiment that is made after that",
                run.artifacts
            ))
        })
    }

    /// Brings a file there.
    pub(super) async fn put(
        &self,
        service: &Service,
        file: &PackedFile,
        advance: Advance<'_>,
    ) -> Result<(), DestinationError> {
        let size = tokio::fs::metadata(&file.path).await.map_err(DestinationError::file(&file.path))?.len();
        let parts = ["api", "2.0", PROXIED, "artifacts"].into_iter().chain(self.0.iter().map(String::as_str));
        let url = service.url(parts.chain([MODEL, &file.name]));
        let advance = |bytes| advance(&file.name, bytes, size);
        let request = || service.request(Method::PUT, url.clone());
        service.send_file(request, &file.path, 0..size, &advance).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_through_the_server_or_not_at_all() {
        let folder = |uri: &str| Folder::of(&Run { id: "r".to_owned(), artifacts: uri.to_owned() });
        let parts = ["1", "abc", "artifacts"].map(str::to_owned).to_vec();
        assert_eq!(folder("mlflow-artifacts:/1/abc/artifacts").expect("proxied"), Folder(parts.clone()));
        assert_eq!(folder("mlflow-artifacts://host:5000/1/abc/artifacts").expect("proxied"), Folder(parts));
        for elsewhere in ["s3://bucket/1/abc/artifacts", "/srv/mlruns/1/abc/artifacts", "file:///srv", ""] {
            let said = folder(elsewhere).expect_err(elsewhere).to_string();
            assert!(said.contains("--serve-artifacts") && said.contains(elsewhere), "{said}");
        }
    }
}
