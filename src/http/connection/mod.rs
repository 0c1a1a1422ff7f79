//! Connections: how many there may be, what each may hold, and when they end. Requests begin in [`super::router`].

mod activity;
mod limit;
mod one;
mod protocol;
mod stream;
mod tls;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio_util::task::TaskTracker;

use super::state::AppState;
use limit::Tally;
use one::ConnectionTiming;

pub use limit::Connections;
pub use tls::{Tls, TlsError};

/// What a failing socket gets to recover: without a pause the loop would spin while no file can be opened.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener`, by HTTPS where there is a certificate, until the shutdown of `state` begins, then until running requests have ended or everything
/// must stop. Connections without a request end at once.
///
/// # Errors
/// When the socket cannot be used at all. A connection that cannot be accepted is logged.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Router, state: &AppState) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let settings = &state.settings.server;
    let (builder, timing) = (Arc::new(protocol::builder(settings)), ConnectionTiming::of(settings));
    let failures = Tally::new(|count| tracing::warn!(count, "connections could not be accepted"));
    let open = TaskTracker::new();
    let tls = tls.map(Arc::new);
    if let Some(tls) = tls.clone() {
        let shutdown = state.shutdown.clone();
        open.spawn(async move { tls.follow(shutdown).await });
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = state.shutdown.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                // Without a place the socket is dropped here, which closes it.
                if let Some(place) = state.connections.admit() {
                    let (builder, router, shutdown) = (builder.clone(), router.clone(), state.shutdown.clone());
                    let acceptor = tls.as_ref().map(|tls| tls.acceptor());
                    open.spawn(async move {
                        one::run(socket, acceptor, &builder, router, timing, shutdown).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                failures.count();
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    // Closed before the wait: who comes now is refused instead of left waiting.
    drop(listener);
    open.close();
    open.wait().await;
    Ok(())
}
