//! Keeps pages that a browser shows away from a server that trusts whoever reaches it. A page of any site can send requests to
//! loopback, and with a name that its owner lets point there (DNS rebinding) read the answers too.

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::json::check_media_type;
use super::state::AppState;
use super::uploads::OFFSET_STREAM;
use crate::domain::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What answers whoever asks, by whatever name: monitors ask by an address, and there is nothing to see but whether the server
/// is well.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Refuses requests that are for another host, or that a page of another site has made.
pub(super) async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let server = &state.settings.server;
    let hosts = Hosts {
        allowed: &server.allow_host.0,
        origins: &server.allow_origin.0,
        on_loopback: server.listen.ip().is_loopback(),
    };
    match hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// For whom the server answers.
#[derive(Debug, Clone, Copy)]
struct Hosts<'a> {
    /// Names that a user has allowed.
    allowed: &'a [String],
    /// Origins of other sites' pages that a user has allowed.
    origins: &'a [String],
    /// Whether only this machine reaches the server.
    on_loopback: bool,
}

impl Hosts<'_> {
    fn check(self, request: &Request) -> Result<(), Problem> {
        let host = host(request)?;
        if !self.answers_for(&host) {
            let detail = format!(
                "This server does not answer for `{}`. If that is a name of it, start it with `--allow-host {}`.",
                host,
                host.host()
            );
            return Err(Problem::new(Code::HostNotAllowed, detail));
        }
        let headers = request.headers();
        if let Some(origin) = headers.get(ORIGIN) {
            let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")?.1.parse::<Authority>().ok());
            let known = page.as_ref().is_some_and(|page| *page == host || self.is_allowed(page.host()))
                || self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
            if !known {
                return Err(foreign(&format!("a page of {}", origin.to_str().unwrap_or("another site"))));
            }
        } else if is_foreign(headers, request.method()) {
            return Err(foreign("a page of another site"));
        }
        // No form of a page can send what uploads say they are.
        let is_upload = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == OFFSET_STREAM);
        if request.method() == Method::POST && !is_upload && (has_body(headers) || headers.contains_key(CONTENT_TYPE)) {
            check_media_type(request)?;
        }
        Ok(())
    }

    /// A server that others reach requires keys, which a page does not have: there any name may be its own, unless some are listed.
    /// Names of loopback are nobody else's, so no page can come by them from elsewhere.
    fn answers_for(self, host: &Authority) -> bool {
        let open = !self.on_loopback && self.allowed.is_empty();
        open || is_loopback(host.host()) || self.is_allowed(host.host())
    }

    fn is_allowed(self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// The one host that the request is for.
fn host(request: &Request) -> Result<Authority, Problem> {
    let bad = |detail: &str| Problem::new(Code::BadRequest, detail);
    let mut named = request.headers().get_all(HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err(bad("The request names more than one Host."));
    }
    match (request.uri().authority(), first) {
        (Some(authority), _) => Ok(authority.clone()),
        (None, Some(host)) => {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            host.ok_or_else(|| bad("The header Host is not `HOST` or `HOST:PORT`."))
        }
        (None, None) => Err(bad("The request has no Host.")),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    address || host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a browser says that a page of another site sent the request. A link that somebody follows is fine: that page sees nothing of it.
fn is_foreign(headers: &HeaderMap, method: &Method) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let foreign = text(&SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let follows_link = method == Method::GET && text(&SEC_FETCH_MODE) == Some("navigate");
    foreign && !follows_link
}

fn foreign(who: &str) -> Problem {
    let detail = format!(
        "The request was made by {who}. If that page may use this server, start it with `--allow-origin` and that origin."
    );
    Problem::new(Code::CrossOrigin, detail)
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    length || headers.contains_key(TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const LOOPBACK: Hosts<'_> = Hosts { allowed: &[], origins: &[], on_loopback: true };

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri("/v1/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    fn code(hosts: Hosts<'_>, method: &str, headers: &[(&str, &str)]) -> Option<Code> {
        hosts.check(&request(method, headers)).err().map(|problem| problem.code)
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered_for() {
        for host in
            ["localhost", "localhost:8080", "LocalHost:1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "a.localhost"]
        {
            assert_eq!(code(LOOPBACK, "GET", &[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example"]
        {
            assert_eq!(code(LOOPBACK, "GET", &[("host", host)]), Some(Code::HostNotAllowed), "{host}");
        }
        let allowed = ["models.example".to_owned()];
        let named = Hosts { allowed: &allowed, ..LOOPBACK };
        assert_eq!(code(named, "GET", &[("host", "models.example:80")]), None);
        assert_eq!(code(named, "GET", &[("host", "localhost")]), None);
        let public = Hosts { on_loopback: false, ..named };
        assert_eq!(code(public, "GET", &[("host", "evil.example")]), Some(Code::HostNotAllowed));
        assert_eq!(code(public, "GET", &[("host", "127.0.0.1:8080")]), None, "monitors on this machine");
        assert_eq!(code(Hosts { allowed: &[], ..public }, "GET", &[("host", "any.example")]), None, "keys protect it");
        assert_eq!(code(LOOPBACK, "GET", &[]), Some(Code::BadRequest));
        assert_eq!(code(LOOPBACK, "GET", &[("host", "localhost"), ("host", "localhost")]), Some(Code::BadRequest));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let with = |method: &str, headers: &[(&str, &str)]| {
            code(LOOPBACK, method, &[&[("host", "localhost:8080")][..], headers].concat())
        };
        assert_eq!(with("POST", &[("origin", "http://localhost:8080")]), None);
        for origin in ["http://evil.example", "null", "http://localhost:3000", "http://localhost"] {
            assert_eq!(with("POST", &[("origin", origin)]), Some(Code::CrossOrigin), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(with("GET", &[("sec-fetch-site", site)]), Some(Code::CrossOrigin));
            let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
            assert_eq!(with("GET", &link), None, "somebody follows a link");
            assert_eq!(with("POST", &link), Some(Code::CrossOrigin), "a form of another site");
        }
        assert_eq!(with("GET", &[("sec-fetch-site", "none")]), None, "typed in");
    }

    #[test]
    fn pages_of_allowed_origins_are_not() {
        let origins = ["http://localhost:5173".to_owned()];
        let hosts = Hosts { origins: &origins, ..LOOPBACK };
        let with = |origin| {
            code(hosts, "POST", &[("host", "localhost:8080"), ("origin", origin), ("sec-fetch-site", "same-site")])
        };
        assert_eq!(with("http://localhost:5173"), None);
        for origin in ["http://localhost:5174", "https://localhost:5173", "http://localhost:5173.evil.example", "null"]
        {
            assert_eq!(with(origin), Some(Code::CrossOrigin), "{origin}");
        }
    }

    #[test]
    fn a_post_that_says_anything_says_json() {
        let with = |headers: &[(&str, &str)]| code(LOOPBACK, "POST", &[&[("host", "localhost")][..], headers].concat());
        assert_eq!(with(&[]), None, "curl -X POST");
        assert_eq!(with(&[("content-length", "0")]), None);
        for kind in ["application/json", "application/offset+octet-stream"] {
            assert_eq!(with(&[("content-length", "2"), ("content-type", kind)]), None);
        }
        for headers in [
            &[("content-type", "text/plain")][..],
            &[("content-length", "2")],
            &[("transfer-encoding", "chunked"), ("content-type", "application/x-www-form-urlencoded")],
        ] {
            assert_eq!(with(headers), Some(Code::UnsupportedMediaType), "{headers:?}");
        }
    }
}
