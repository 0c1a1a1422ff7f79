//! What a connection is before it carries requests: without delay for small answers, and given up when its client stops reading.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

/// Accepts connections whose writes fail once the client has taken no byte for the given time.
#[derive(Debug, Clone, Copy)]
pub struct Acceptor(pub Duration);

impl<S> Accept<TcpStream, S> for Acceptor {
    type Stream = Pin<Box<TimeoutStream<TcpStream>>>;
    type Service = S;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = stream.set_nodelay(true).map(|()| {
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.0));
            (Box::pin(stream), service)
        });
        ready(accepted)
    }
}
