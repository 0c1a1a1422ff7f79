//! Connections of both versions of HTTP: when they end, how many there may be, what one may hold.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZero;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use engraft::config::{ByteSize, Configuration, Seconds};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::common::app::TestApp;
use crate::common::samples::member;

const SOON: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_millis(400);

/// A client of HTTP/2 with one connection.
struct Client {
    requests: SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn connect(app: &TestApp) -> Self {
        let socket = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
        let handshake = handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
        let (requests, connection) = handshake.expect("a connection of HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    async fn send(&mut self, request: hyper::http::request::Builder, body: Body) -> hyper::Result<Response<Incoming>> {
        self.requests.send_request(request.body(body).expect("a request")).await
    }

    async fn metrics(&mut self, app: &TestApp) -> String {
        let answer = self.send(get(app, "/metrics"), Body::empty()).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }
}

fn get(app: &TestApp, path: &str) -> hyper::http::request::Builder {
    Request::get(format!("http://{}{path}", app.address))
}

async fn app(change: impl FnOnce(&mut Configuration)) -> TestApp {
    TestApp::builder().settings(change).start().await
}

async fn short_idle() -> TestApp {
    app(|settings| settings.server.idle_timeout = Seconds(IDLE)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_after_a_while() {
    let app = short_idle().await;
    let mut client = Client::connect(&app).await;
    let answer = client.send(get(&app, "/healthz"), Body::empty()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let started = Instant::now();
    answer.into_body().collect().await.expect("a body");
    timeout(SOON, client.connection).await.expect("HTTP/2 is closed").expect("a task").expect("in order");
    assert!(started.elapsed() >= IDLE / 2, "{:?}", started.elapsed());

    let mut socket = TcpStream::connect(app.address).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sends");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("HTTP/1 is closed");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_request_keeps_its_connection() {
    let app = short_idle().await;
    let mut client = Client::connect(&app).await;
    let part = member();
    let parts = futures_util::stream::iter([part[..10].to_vec(), part[10..20].to_vec(), part[20..].to_vec()]);
    let slow = parts.then(async |part| {
        tokio::time::sleep(IDLE * 2).await;
        Ok::<_, std::io::Error>(Bytes::from(part))
    });
    let put = Request::put(format!("http://{}/v1/checkpoints/m0", app.address));
    let answer = client.send(put, Body::from_stream(Box::pin(slow))).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED, "a long upload");

    app.put("/v1/checkpoints/m1", member()).send().await.expect("an answer");
    let body = json!({"members": ["m0", "m1"]});
    let job = app.request(reqwest::Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
    let job = job.headers()["location"].to_str().expect("text").to_owned();
    let events = get(&app, &format!("{job}/events")).header("accept", "text/event-stream");
    let mut events = client.send(events, Body::empty()).await.expect("an answer").into_body();
    events.frame().await.expect("the first event").expect("a frame");
    tokio::time::sleep(IDLE * 4).await;
    app.request(reqwest::Method::POST, &format!("{job}/cancel")).send().await.expect("an answer");
    let rest = timeout(SOON, events.collect()).await.expect("the job ends").expect("the stream went on").to_bytes();
    assert!(String::from_utf8_lossy(&rest).contains("cancelled"), "{rest:?}");
    timeout(SOON, client.connection).await.expect("then it is closed").expect("a task").expect("in order");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_are_refused() {
    let app = app(|settings| settings.server.max_connections = NonZero::new(2).expect("not zero")).await;
    let (mut first, mut second) = (Client::connect(&app).await, Client::connect(&app).await);
    second.send(get(&app, "/healthz"), Body::empty()).await.expect("an answer");
    let text = first.metrics(&app).await;
    assert!(text.contains("engraft_connections 2\n") && text.contains("engraft_connections_limit 2\n"), "{text}");

    let mut third = TcpStream::connect(app.address).expect("a connection");
    third.set_read_timeout(Some(SOON)).expect("a timeout");
    let outcome = third.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(outcome, Ok(0) | Err(ErrorKind::ConnectionReset)), "the third is closed: {outcome:?}");
    drop(second.requests);
    timeout(SOON, second.connection).await.expect("ends").expect("a task").expect("in order");
    let begun = Instant::now();
    while !first.metrics(&app).await.contains("engraft_connections 1\n") {
        assert!(begun.elapsed() < SOON, "the place is not free again");
    }
    let mut next = Client::connect(&app).await;
    next.send(get(&app, "/healthz"), Body::empty()).await.expect("there is a place again");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_do_not_hold_up_the_end() {
    let app = TestApp::start().await;
    let mut client = Client::connect(&app).await;
    client.send(get(&app, "/healthz"), Body::empty()).await.expect("an answer");
    // These do not even confirm that the server wants to end: a preface, settings, their confirmation, and then silence.
    let silent: Vec<TcpStream> = std::iter::repeat_with(|| {
        let mut socket = TcpStream::connect(app.address).expect("a connection");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0").expect("sends");
        socket
    })
    .take(50)
    .collect();
    let begun = Instant::now();
    while app.state.connections.open() < silent.len() {
        assert!(begun.elapsed() < SOON, "{} connections", app.state.connections.open());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded_in_both_versions() {
    let app = app(|settings| settings.server.max_header_bytes = ByteSize(16 << 10)).await;
    let large = "x".repeat(32 << 10);
    let answer = app.get("/healthz").header("x-large", &large).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 431);
    let mut client = Client::connect(&app).await;
    let answer = client.send(get(&app, "/healthz").header("x-large", &large), Body::empty()).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status().as_u16() == 431));
    assert_eq!(app.get("/healthz").send().await.expect("an answer").status(), 200);
    app.stop().await;
}
