//! A server in this process, on a port of its own, with a data directory that goes away with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engraft::app::Application;
use engraft::config::Configuration;
use engraft::domain::access::{Scope, Tenant};
use engraft::domain::clock::{SharedClock, SystemClock};
use engraft::domain::database::DatabasePlace;
use engraft::http::AppState;
use engraft::runtime::lifecycle::Shutdown;
use engraft::store::keys::NewKey;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A running server.
pub(crate) struct TestApp {
    pub(crate) client: Client,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) folder: TempDir,
    pub(crate) state: AppState,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

/// Where the database of a server on `folder` is: in it, or with `ENGRAFT_TEST_POSTGRES` a schema of its own on that server, so that the same
/// tests run on both.
pub(crate) fn database(folder: &Path) -> String {
    let Ok(server) = std::env::var("ENGRAFT_TEST_POSTGRES") else { return String::new() };
    let schema = format!("t_{}", &hex::encode(Sha256::digest(folder.as_os_str().as_encoded_bytes()))[..24]);
    let made = std::process::Command::new("psql")
        .args([
            "--no-psqlrc",
            "--quiet",
            "--dbname",
            &server,
            "--command",
            &format!("CREATE SCHEMA IF NOT EXISTS {schema}"),
        ])
        .stderr(std::process::Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "psql makes a schema at ENGRAFT_TEST_POSTGRES");
    let joint = if server.contains('?') { '&' } else { '?' };
    format!("{server}{joint}options=-csearch_path%3D{schema}")
}

/// A client that asks no proxy and trusts nobody who has to show a certificate.
pub(crate) fn client_builder() -> ClientBuilder {
    let _already = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([])
}

/// What a [`TestApp`] is to be like.
pub(crate) struct Builder {
    settings: Configuration,
    clock: SharedClock,
    folder: TempDir,
}

impl Builder {
    pub(crate) fn settings(mut self, change: impl FnOnce(&mut Configuration)) -> Self {
        change(&mut self.settings);
        self
    }

    /// This clock says what time it is: a database server has a time of its own, so the database is a file.
    pub(crate) fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self.in_data_dir()
    }

    /// The database is a file in the data directory.
    pub(crate) fn in_data_dir(self) -> Self {
        self.settings(|settings| settings.storage.database = DatabasePlace::DataDir)
    }

    /// A data directory that another server had before.
    pub(crate) fn folder(mut self, folder: TempDir) -> Self {
        self.settings.storage.data_dir = folder.path().into();
        self.settings.storage.database = database(folder.path()).parse().expect("a place");
        self.folder = folder;
        self
    }

    pub(crate) async fn start(self) -> TestApp {
        let shutdown = Shutdown::new();
        let application = Application::build(self.settings, self.clock, shutdown.clone()).await.expect("a server");
        TestApp {
            client: client_builder().build().expect("a client"),
            address: application.address(),
            folder: self.folder,
            state: application.state().clone(),
            shutdown,
            running: tokio::spawn(application.run_until_stopped()),
        }
    }
}

impl TestApp {
    pub(crate) fn builder() -> Builder {
        let folder = tempfile::tempdir().expect("a folder");
        Builder { settings: Self::settings(folder.path()), clock: Arc::new(SystemClock), folder }
    }

    /// The settings of a server without workers on `folder`.
    pub(crate) fn settings(folder: &Path) -> Configuration {
        let mut settings =
            Configuration { program: Some(env!("CARGO_BIN_EXE_engraft").into()), ..Configuration::default() };
        settings.server.listen = ([127, 0, 0, 1], 0).into();
        settings.storage.data_dir = folder.into();
        settings.storage.database = database(folder).parse().expect("a place");
        settings.storage.keep_free = engraft::config::ByteSize(0);
        settings.workers.workers = 0;
        settings
    }

    pub(crate) async fn start() -> TestApp {
        Self::builder().start().await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::PUT, path).body(body)
    }

    pub(crate) async fn key(&self, tenant: &str, scope: Scope) -> String {
        let tenant: Tenant = tenant.parse().expect("a tenant");
        let (_, secret) = self
            .state
            .keys
            .create(NewKey { tenant, scope, label: "test".to_owned(), lifetime: None })
            .await
            .expect("a key");
        secret.expose().to_owned()
    }

    /// Polls a dataset until it has been read.
    pub(crate) async fn dataset(&self, name: &str) -> Value {
        for _ in 0..600 {
            let view = self.get(&format!("/v1/datasets/{name}")).send().await.expect("an answer");
            let view: Value = view.json().await.expect("JSON");
            if view["state"] != "validating" {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("dataset {name} is still validating after 30 s");
    }

    /// Drains and ends the server; its data directory remains.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.drain();
        drop(self.client);
        tokio::time::timeout(Duration::from_secs(30), self.running)
            .await
            .expect("the server ends within 30 s")
            .expect("its task ends well")
            .expect("it ends without an error");
        self.folder
    }
}

/// A problem's status and code; fails on anything else.
pub(crate) async fn problem(response: Response) -> (StatusCode, String, Value) {
    let status = response.status();
    let media_type = response.headers().get("content-type").map(|value| value.to_str().expect("text").to_owned());
    assert!(response.headers().contains_key("x-request-id"), "an answer without a request id");
    let text = response.text().await.expect("a body");
    assert_eq!(media_type.as_deref(), Some("application/problem+json"), "{status}: {text}");
    let body: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(body["status"], status.as_u16());
    (status, body["code"].as_str().expect("a code").to_owned(), body)
}
