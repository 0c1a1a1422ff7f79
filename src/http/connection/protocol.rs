//! What one connection may hold, in both versions of HTTP.

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

use crate::config::Server;

/// Headers of one request.
const HEADERS: usize = 100;
/// The least that a buffer for headers may have: the HTTP library insists.
const LEAST_BUFFER: usize = 8 << 10;
/// Requests at the same time on one connection of HTTP/2.
const STREAMS: u32 = 100;
/// Bytes of request bodies that nobody has read yet, on one connection of HTTP/2 altogether.
const WINDOW: u32 = 1 << 20;
/// Bytes of an answer that its client has not taken yet.
const SEND_BUFFER: usize = 256 << 10;
/// Requests that a client may take back before they were looked at; one that goes on opening and resetting is cut off.
const RESETS: usize = 20;

/// Speaks both versions, within the limits of `server`.
pub(super) fn builder(server: &Server) -> Builder<TokioExecutor> {
    let header_bytes = usize::try_from(server.max_header_bytes.0).unwrap_or(usize::MAX);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(server.header_timeout.0)
        .max_headers(HEADERS)
        .max_buf_size(header_bytes.max(LEAST_BUFFER));
    // The pings find peers that are gone; those that live and ask for nothing answer them.
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(server.body_idle_timeout.0)
        .keep_alive_timeout(server.body_idle_timeout.0)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS);
    builder
}
