//! A service of a test on a port of its own.

use axum::Router;
use tokio::task::JoinHandle;

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) url: String,
    serving: JoinHandle<()>,
}

impl Listening {
    pub(crate) async fn start(routes: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self { url, serving }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
