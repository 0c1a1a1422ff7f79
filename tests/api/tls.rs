//! HTTPS on the server's own socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use engraft::config::{Configuration, OptionalPath, Seconds};
use hyper::Request;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Certificate, StatusCode, Version};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::common::app::{TestApp, client_builder};
use crate::common::samples::member;

/// A server with a certificate of its own for `localhost`, and that certificate.
async fn server(folder: &tempfile::TempDir, header_timeout: Seconds) -> (TestApp, Certificate) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        OptionalPath(Some(path))
    };
    let (certificate, key) = (file("server.crt", cert.pem()), file("server.key", signing_key.serialize_pem()));
    let set = |settings: &mut Configuration| {
        (settings.server.tls_cert, settings.server.tls_key) = (certificate, key);
        settings.server.header_timeout = header_timeout;
    };
    let app = TestApp::builder().settings(set).start().await;
    (app, Certificate::from_pem(cert.pem().as_bytes()).expect("PEM"))
}

/// What `/healthz` says to a client of HTTP/2.
async fn health_by_http2(app: &TestApp, folder: &tempfile::TempDir) -> StatusCode {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(folder.path().join("server.crt")).expect("PEM");
    roots.add(certificate).expect("a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a connection of HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(format!("https://localhost:{}/healthz", app.address.port()));
    let answer = requests.send_request(request.body(Body::empty()).expect("a request")).await.expect("an answer");
    answer.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_speaks_https_of_both_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, certificate) = server(&folder, Seconds(Duration::from_secs(15))).await;
    let base = format!("https://localhost:{}", app.address.port());
    let client = client_builder().http1_only().tls_certs_only([certificate.clone()]).build().expect("a client");
    let put = client.put(format!("{base}/v1/checkpoints/m0")).body(member()).send().await.expect("an answer");
    assert_eq!((put.status(), put.version()), (StatusCode::CREATED, Version::HTTP_11));
    let content = client.get(format!("{base}/v1/checkpoints/m0/content")).send().await.expect("an answer");
    assert_eq!(content.bytes().await.expect("a body"), member(), "bytes come back whole");
    assert_eq!(health_by_http2(&app, &folder).await, StatusCode::OK);
    let stranger = client_builder().build().expect("a client");
    assert!(stranger.get(format!("{base}/healthz")).send().await.is_err(), "nobody vouches for it");
    assert!(stranger.get(format!("http://{}/healthz", app.address)).send().await.is_err(), "it speaks TLS only");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_greet_is_cut_off_and_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, certificate) = server(&folder, Seconds(Duration::from_millis(400))).await;
    let address = app.address;
    let silent = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket.write_all(b"\x16\x03\x01").expect("writes");
        // An end or a reset, and not the timeout.
        !socket.read(&mut [0; 16]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    let client = client_builder().tls_certs_only([certificate]).build().expect("a client");
    let healthy = client.get(format!("https://localhost:{}/healthz", address.port())).send().await.expect("an answer");
    assert_eq!(healthy.status(), StatusCode::OK);
    assert!(silent.await.expect("a thread"), "it is cut off");
    app.stop().await;
}
