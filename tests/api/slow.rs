//! Clients that are slow on purpose, by raw sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::app::TestApp;
use crate::common::samples::member;
use engraft::config::Seconds;

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
    let change = |settings: &mut engraft::config::Configuration| {
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
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHo").expect("sends");
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
async fn a_client_that_drips_its_body_is_cut_off_and_what_came_is_kept() {
    let app = app().await;
    let mut socket = connect(&app);
    socket
        .write_all(b"PUT /v1/datasets/d0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        .expect("sends");
    let mut sent = 0;
    while sent < 100 && socket.write_all(b"x").is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answer = String::new();
    // A reset after the answer is as good as an end.
    let _ended = socket.read_to_string(&mut answer);
    assert!(sent < 100 || answer.starts_with("HTTP/1.1 408"), "the server went on listening for 5 s: {answer}");
    let head = app.request(reqwest::Method::HEAD, "/v1/datasets/d0").send().await.expect("an answer");
    let offset: usize = head.headers()["upload-offset"].to_str().expect("text").parse().expect("a number");
    assert!((1..=sent).contains(&offset), "{offset} of {sent} bytes");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let app = app().await;
    let file = vec![0x5a; 32 << 20];
    let put = app.put("/v1/datasets/d0", file.clone()).send().await.expect("an answer");
    assert_eq!(put.status(), reqwest::StatusCode::CREATED);
    let mut socket = connect(&app);
    socket.write_all(b"GET /v1/datasets/d0/content HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sends");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = Vec::new();
    // A reset is as good as an end.
    let _ended = socket.read_to_end(&mut got);
    assert!(!got.is_empty() && got.len() < file.len(), "{} of {} bytes", got.len(), file.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_does_not_hold_up_the_end() {
    let app = TestApp::start().await;
    let mut socket = connect(&app);
    socket
        .write_all(b"PUT /v1/datasets/d0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        .expect("sends");
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
