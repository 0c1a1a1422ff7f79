//! An S3 service in this process, whose buckets are folders, behind a proxy that can be told to fail some requests.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engraft::config::Configuration;
use engraft::domain::blob_location::BlobLocation;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const BUCKET: &str = "models";

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The service has too much to do.
    Refused,
    /// The connection breaks before the service knows of the request.
    Lost,
    /// The connection breaks when the service has done what was asked.
    AnswerLost,
}

impl Failure {
    /// One after the other.
    fn of(number: u64) -> Self {
        [Self::Refused, Self::Lost, Self::AnswerLost][(number % 3) as usize]
    }
}

/// A service with one bucket.
pub(crate) struct Bucket {
    folder: TempDir,
    address: SocketAddr,
    /// One request in so many fails; none where it is 0.
    fails_in: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("makes");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a service");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single("AKTEST", "secret"));
        let service = service.build();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (fails_in, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (every, count) = (fails_in.clone(), requests.clone());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, every, count) = (service.clone(), every.clone(), count.clone());
                let proxy = service_fn(move |request: Request<Incoming>| {
                    let (service, every) = (service.clone(), every.load(Ordering::Relaxed));
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    async move {
                        let failure = (every > 0 && number.is_multiple_of(every)).then(|| Failure::of(number / every));
                        match failure {
                            Some(Failure::Refused) => {
                                let slow = "<Error><Code>SlowDown</Code></Error>".to_owned();
                                let mut slow = Response::new(s3s::Body::from(slow));
                                *slow.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                                return Ok(slow);
                            }
                            Some(Failure::Lost) => return Err(io::Error::other("cut off")),
                            Some(Failure::AnswerLost) | None => {}
                        }
                        let answer = service.call(request.map(s3s::Body::from)).await.expect("an answer");
                        if failure.is_some() { Err(io::Error::other("cut off")) } else { Ok(answer) }
                    }
                });
                tokio::spawn(async move {
                    let connections = Builder::new(TokioExecutor::new());
                    let _ended = connections.serve_connection(TokioIo::new(socket), proxy).await;
                });
            }
        });
        Self { folder, address, fails_in, requests, serving }
    }

    /// From now on one request in `every` fails.
    pub(crate) fn fail_one_in(&self, every: u64) {
        self.fails_in.store(every, Ordering::Relaxed);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What AWS's clients read of the environment to use it.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://{}", self.address);
        let variables =
            [("AWS_ACCESS_KEY_ID", "AKTEST"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_ENDPOINT_URL", &endpoint)];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Where its objects with this prefix are, as `--blobs` names it.
    pub(crate) fn location(prefix: &str) -> BlobLocation {
        format!("s3://{BUCKET}/{prefix}").parse().expect("a location")
    }

    /// Has a server keep its blobs here.
    pub(crate) fn used_by(&self, settings: &mut Configuration, prefix: &str) {
        settings.storage.blobs = Self::location(prefix);
        settings.aws = Some(self.variables());
    }

    /// The file of the object `key`.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// Keys of all objects, sorted.
    pub(crate) fn keys(&self) -> Vec<String> {
        let root = self.folder.path().join(BUCKET);
        let (mut folders, mut keys) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("reads") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    keys.push(path.strip_prefix(&root).expect("inside").to_str().expect("text").to_owned());
                }
            }
        }
        keys.sort();
        keys
    }

    /// Parts of uploads that are not complete.
    pub(crate) fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).expect("reads").filter_map(Result::ok);
        let is_part = |name: &str| name.starts_with(".upload_id-") && name.contains(".part-");
        entries.filter(|entry| is_part(&entry.file_name().to_string_lossy())).count()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
