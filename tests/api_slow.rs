//! Clients that are slow on purpose, by raw sockets.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use engraft::config::Seconds;
use support::{TestApp, member};

fn connect(app: &TestApp) -> TcpStream {
    let socket = TcpStream::connect(app.address).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    socket
}

/// Whether the server closes the connection, answering or not, well before the socket's own timeout.
fn is_closed_soon(mut socket: TcpStream) -> bool {
    let started = Instant::now();
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let ended = match socket.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    ended && started.elapsed() < Duration::from_secs(5)
}

async fn app() -> TestApp {
    let short = Seconds(Duration::from_millis(300));
    let change = |settings: &mut engraft::config::Settings| {
        settings.server.header_timeout = short;
        settings.server.body_idle_timeout = short;
    };
    TestApp::builder().settings(change).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_is_cut_off() {
    let app = app().await;
    assert!(is_closed_soon(connect(&app)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_headers_is_cut_off() {
    let app = app().await;
    let mut first = connect(&app);
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: te").expect("sends");
    assert!(is_closed_soon(first));
    // On a connection that has been used, too.
    let mut second = connect(&app);
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\nGET /healthz HTTP/1.1\r\nHo").expect("sends");
    assert!(is_closed_soon(second));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drips_its_headers_is_cut_off() {
    let app = app().await;
    let mut socket = connect(&app);
    socket.write_all(b"GET /healthz HTTP/1.1\r\n").expect("sends");
    let mut refused = false;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        refused |= socket.write_all(b"X: y\r\n").is_err();
    }
    assert!(refused, "the server went on listening for 2.5 s");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_does_not_hold_up_the_end() {
    let app = TestApp::start().await;
    let mut socket = connect(&app);
    socket.write_all(b"PUT /v1/datasets/d0 HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n").expect("sends");
    socket.write_all(&member()).expect("sends");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let state = app.state.clone();
    state.shutdown.drain();
    tokio::time::sleep(Duration::from_millis(200)).await;
    state.shutdown.stop();
    drop(state);
    let folder = app.stop().await;
    let app = TestApp::builder().folder(folder).start().await;
    let head = app.request(reqwest::Method::HEAD, "/v1/datasets/d0").send().await.expect("an answer");
    assert_eq!(head.headers()["upload-offset"], member().len().to_string().as_str(), "what came is kept");
    app.stop().await;
}
