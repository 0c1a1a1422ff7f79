//! A database for a test: SQLite, or with `ENGRAFT_TEST_POSTGRES` a schema of its own on that server, so that the same tests run on both.

use std::path::Path;

use sha2::{Digest, Sha256};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

use super::{Database, DatabaseKind};
use crate::domain::database::DatabasePlace;
use crate::store::blobs::{Backend, FOLDER};

/// Opens the database of the test whose folder this is. Clocks that are passed in say what time it is.
pub(crate) async fn open(folder: &Path) -> Database {
    let database =
        Database::open_at(&place(folder).await, folder, &Backend::Folder(folder.join(FOLDER))).await.expect("opens");
    match database.kind {
        DatabaseKind::Postgres(server) => Database { kind: DatabaseKind::Postgres(server.without_time()), ..database },
        DatabaseKind::Sqlite(_) => database,
    }
}

/// A server's database for the test whose folder this is, whose time is its own; none without `ENGRAFT_TEST_POSTGRES`, which is said aloud.
pub(crate) async fn server(folder: &Path) -> Option<Database> {
    if std::env::var_os("ENGRAFT_TEST_POSTGRES").is_none() {
        eprintln!("skipped: ENGRAFT_TEST_POSTGRES names no server");
        return None;
    }
    Some(Database::open_at(&place(folder).await, folder, &Backend::Folder(folder.join(FOLDER))).await.expect("opens"))
}

/// The server's database for the test whose folder this is, and the network on the way to it; none without `ENGRAFT_TEST_POSTGRES`, which is
/// said aloud.
pub(crate) async fn server_behind_a_network(folder: &Path) -> Option<(Database, Network)> {
    server(folder).await?;
    let DatabasePlace::Server(url) = place(folder).await else { panic!("a server") };
    let mut url = url.expose().clone();
    let network = Network::to((url.host_str().expect("a host").to_owned(), url.port().unwrap_or(5432))).await;
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(network.port)).expect("a port");
    let place = url.as_str().parse().expect("a place");
    let backend = Backend::Folder(folder.join(FOLDER));
    Some((Database::open_at(&place, folder, &backend).await.expect("opens"), network))
}

/// A network that can lose whatever goes through it, without an error.
#[derive(Debug)]
pub(crate) struct Network {
    port: u16,
    works: watch::Sender<bool>,
    forwarding: JoinHandle<()>,
}

impl Network {
    async fn to(server: (String, u16)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (works, working) = watch::channel(true);
        let forwarding = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut working) = (server.clone(), working.clone());
                connections.spawn(async move {
                    let mut upstream = TcpStream::connect(server).await.expect("the server is there");
                    let is_lost = tokio::select! {
                        _ended = copy_bidirectional(&mut client, &mut upstream) => false,
                        lost = working.wait_for(|works| !works) => lost.is_ok(),
                    };
                    if is_lost {
                        // Both ends stay open, and get nothing any more.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, works, forwarding }
    }

    /// From now on everything is lost, or only what belongs to the connections of before.
    pub(crate) fn set_works(&self, works: bool) {
        self.works.send_replace(works);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

/// Where that database is; its schema is made as needed.
async fn place(folder: &Path) -> DatabasePlace {
    let Ok(server) = std::env::var("ENGRAFT_TEST_POSTGRES") else { return DatabasePlace::DataDir };
    let schema = format!("t_{}", &hex::encode(Sha256::digest(folder.as_os_str().as_encoded_bytes()))[..24]);
    let mut connection = PgConnection::connect(&server).await.expect("ENGRAFT_TEST_POSTGRES is a server");
    let statement = sqlx::AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    sqlx::query(statement).execute(&mut connection).await.expect("makes a schema");
    connection.close().await.expect("closes");
    let mut url = Url::parse(&server).expect("an address");
    url.query_pairs_mut().append_pair("options", &format!("-csearch_path={schema}"));
    url.as_str().parse().expect("a place")
}
