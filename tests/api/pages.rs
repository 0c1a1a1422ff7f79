//! The pages that a browser shows, and signing in to them.

use crate::common::app::{TestApp, problem};
use engraft::domain::access::Scope;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_with_the_program_and_load_nothing_else() {
    let app = TestApp::start().await;
    let start = app.get("/").send().await.expect("an answer");
    assert_eq!(start.status(), StatusCode::OK);
    let policy = start.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let tag = start.headers()["etag"].clone();
    let text = start.text().await.expect("text");
    let mut loaded = 0;
    for path in text.split('"').filter(|part| part.starts_with("/page/")) {
        let file = app.get(path).send().await.expect("an answer");
        let media_type = file.headers()["content-type"].to_str().expect("text").to_owned();
        let expected = match path.rsplit('.').next() {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            _ => "image/svg+xml",
        };
        assert!(file.status() == StatusCode::OK && media_type.starts_with(expected), "{path}: {media_type}");
        loaded += 1;
    }
    assert!(loaded >= 4, "styles, an icon and a script");
    let again = app.get("/").header("if-none-match", tag).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    for path in ["/page/none.js", "/page/..%2Fmod.rs", "/page/index.html"] {
        assert_eq!(problem(app.get(path).send().await.expect("an answer")).await.1, "not_found", "{path}");
    }
    let answer = app.get("/v1/jobs").send().await.expect("an answer");
    assert!(answer.headers()["content-security-policy"].to_str().expect("text").starts_with("default-src 'none'"));
    let docs = app.get("/docs").send().await.expect("an answer");
    assert_eq!(docs.url().path(), "/", "the description of the API is one of the pages");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_cookie_is_good_for_the_pages_alone() {
    let app = TestApp::start().await;
    let (writer, reader) = (app.key("vision", Scope::Write).await, app.key("vision", Scope::Read).await);
    let session = |cookie: String| {
        let request = app.get("/session").header("cookie", cookie);
        async move { request.send().await.expect("an answer").json::<Value>().await.expect("JSON") }
    };
    assert_eq!(session(String::new()).await, json!({"key_required": true, "tenant": null, "scope": null}));

    let sign_in =
        |body: Value, origin: String| app.request(Method::POST, "/session").header("origin", origin).json(&body);
    let own = format!("http://{}", app.address);
    let unknown = sign_in(json!({"key": format!("engraft_{}", "0".repeat(64))}), own.clone()).send().await;
    assert_eq!(problem(unknown.expect("an answer")).await.1, "unauthorized");
    let nothing = sign_in(json!({"secret": 1}), own.clone()).send().await.expect("an answer");
    assert_eq!(problem(nothing).await.2["errors"][0]["pointer"], "/key");
    let foreign = sign_in(json!({"key": writer}), "http://evil.example".to_owned()).send().await.expect("an answer");
    assert!(foreign.headers().get("set-cookie").is_none());
    assert_eq!(problem(foreign).await.1, "cross_origin");

    let good = sign_in(json!({"key": writer}), own.clone()).send().await.expect("an answer");
    let kept = good.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(kept.contains("; HttpOnly; SameSite=Strict;") && !kept.contains("Secure"), "{kept}");
    let view: Value = good.json().await.expect("JSON");
    assert_eq!(view, json!({"key_required": true, "tenant": "vision", "scope": "write"}));
    let cookie = kept.split(';').next().expect("a cookie").to_owned();
    assert_eq!(session(cookie.clone()).await["tenant"], "vision");

    let ask = |method: Method, cookie: &str, headers: &[(&str, &str)]| {
        let mut request = app.request(method, "/v1/checkpoints/none").header("cookie", cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move { request.send().await.expect("an answer").status() }
    };
    let page = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(Method::GET, &cookie, &[]).await, StatusCode::NOT_FOUND, "it is the tenant's to look");
    assert_eq!(ask(Method::DELETE, &cookie, &page).await, StatusCode::NOT_FOUND, "and to delete");
    for headers in [
        &[][..],
        &page[1..],
        &[("origin", "http://evil.example")],
        &[("origin", own.as_str()), ("sec-fetch-site", "same-site")],
        &[("origin", own.as_str()), ("sec-fetch-site", "none")],
    ] {
        assert_eq!(ask(Method::DELETE, &cookie, headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_eq!(ask(Method::GET, &cookie, &link).await, StatusCode::FORBIDDEN, "a link on another site");
    let reads = format!("engraft_key={reader}");
    assert_eq!(ask(Method::DELETE, &reads, &page).await, StatusCode::FORBIDDEN, "its scope holds");
    let bearer = app.get("/v1/checkpoints").header("cookie", &cookie).bearer_auth("engraft_00").send().await;
    assert_eq!(
        bearer.expect("an answer").status(),
        StatusCode::UNAUTHORIZED,
        "a key that is sent is the one that counts"
    );

    let out = app.request(Method::DELETE, "/session").header("cookie", &cookie).send().await.expect("an answer");
    assert!(out.headers()["set-cookie"].to_str().expect("text").contains("Max-Age=0"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_takes_no_notice_of_another_server_s_cookie() {
    let app = TestApp::start().await;
    let cookie = format!("engraft_key=engraft_{}", "0".repeat(64));
    let jobs = app.get("/v1/jobs").header("cookie", &cookie).send().await.expect("an answer");
    assert_eq!(jobs.status(), StatusCode::OK);
    let session: Value = app.get("/session").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(session, json!({"key_required": false, "tenant": "default", "scope": "admin"}));
    app.stop().await;
}
