//! One connection, from its first byte to its end.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::Version;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tower::ServiceExt;

use super::activity::Activity;
use super::stream::ConnectionStream;
use super::tls;
use crate::config::Server;
use crate::runtime::lifecycle::Shutdown;

/// What a client gets to agree to the end of its connection, after the last byte that it was sent.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTiming {
    /// Up to the first request.
    first: Duration,
    /// Between two requests.
    idle: Duration,
    /// Without a byte of a body.
    body: Duration,
}

impl ConnectionTiming {
    /// As set.
    pub(super) fn of(server: &Server) -> Self {
        Self { first: server.header_timeout.0, idle: server.idle_timeout.0, body: server.body_idle_timeout.0 }
    }
}

/// Serves requests on `socket`, by TLS where there is an `acceptor`, until the client closes it, no request has come for too long, or `shutdown` begins. Requests
/// that run are answered in any case but the hard end of `shutdown`.
pub(super) async fn run(
    socket: TcpStream,
    acceptor: Option<TlsAcceptor>,
    builder: &Builder<TokioExecutor>,
    router: Router,
    timing: ConnectionTiming,
    shutdown: Shutdown,
) {
    // Small answers go out at once.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection was lost before its first request");
        return;
    }
    let stream = ConnectionStream::new(socket, timing.body);
    let (activity, last_write) = (Activity::new(), stream.last_write());
    let stream = match acceptor {
        None => Either::Left(stream),
        Some(acceptor) => {
            let greeted = tokio::select! {
                biased;
                () = shutdown.draining() => return,
                greeted = tokio::time::timeout(timing.first, acceptor.accept(stream)) => greeted,
            };
            match greeted.map_err(io::Error::from).flatten() {
                Ok(stream) => Either::Right(stream),
                Err(error) => return tls::ungreeted(&error),
            }
        }
    };
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let running = requests.begin(request.version());
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(|response| response.map(|body| running.answers(body))) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let reason = tokio::select! {
        biased;
        () = shutdown.stopping() => return,
        ended = connection.as_mut() => return ended.map_or_else(|error| lost(&*error), |()| {}),
        () = shutdown.draining() => "the server ends",
        () = activity.idle(timing.first, timing.idle) => "no request runs",
    };
    tracing::debug!(reason, "a connection is closed");
    connection.as_mut().graceful_shutdown();
    let told = Instant::now();
    let unheard = async {
        let since = |since: Instant| told.max(since);
        activity.silent(|idle| (last_write.at().max(since(idle)) + FAREWELL).min(since(idle) + timing.body)).await;
        if activity.version().is_some_and(|version| version < Version::HTTP_2) {
            // It ends by itself with its last byte, for which writes have a time limit.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = shutdown.stopping() => {}
        ended = connection => ended.map_or_else(|error| lost(&*error), |()| {}),
        () = unheard => tracing::debug!("a client did not answer the end of its connection"),
    }
}

fn lost(error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(error, "a connection was lost");
}
