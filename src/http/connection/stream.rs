//! The bytes of a connection: given up when its client stops reading, and observed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;

/// When bytes were written last.
#[derive(Debug, Clone)]
pub(super) struct LastWrite(Arc<Mutex<Instant>>);

impl LastWrite {
    /// When bytes were written last.
    pub(super) fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: &Poll<io::Result<usize>>) {
        if matches!(outcome, Poll::Ready(Ok(_))) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

/// A socket whose writes fail once the client has taken no byte for some time.
#[derive(Debug)]
pub(super) struct ConnectionStream {
    socket: Pin<Box<TimeoutStream<TcpStream>>>,
    last_write: LastWrite,
}

impl ConnectionStream {
    /// `socket`, which is given up when its client reads nothing for `patience`.
    pub(super) fn new(socket: TcpStream, patience: Duration) -> Self {
        let mut socket = TimeoutStream::new(socket);
        socket.set_write_timeout(Some(patience));
        Self { socket: Box::pin(socket), last_write: LastWrite(Arc::new(Mutex::new(Instant::now()))) }
    }

    /// Tells when bytes were written last, also when the stream is elsewhere.
    pub(super) fn last_write(&self) -> LastWrite {
        self.last_write.clone()
    }
}

impl AsyncRead for ConnectionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.socket.as_mut().poll_write(context, bytes);
        self.last_write.note(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.socket.as_mut().poll_write_vectored(context, slices);
        self.last_write.note(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_mut().poll_shutdown(context)
    }
}
