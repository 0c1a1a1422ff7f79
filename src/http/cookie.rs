//! The key of somebody who has signed in to the pages, in a cookie that no script can read.

use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::domain::problem::{Code, Problem};
use crate::store::keys::Secret;

const NAME: &str = "engraft_key";
/// Thirty days: a key that is revoked or expires earlier is no longer good then, whatever the browser keeps.
const SECONDS: u32 = 30 * 24 * 60 * 60;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The key in the cookie; none where there is no cookie, or where it holds no key.
pub(super) fn secret(headers: &HeaderMap) -> Option<Secret> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| Secret::parse(value).filter(|_| name == NAME))
}

/// Refuses what a browser may send with the cookie although no page of this server has asked for it. Another origin was
/// refused before ([`super::origin`]); here a change has to name its origin, so that nothing changes where a browser names neither
/// that nor the kind of site.
///
/// # Errors
/// `cross_origin`.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get(SEC_FETCH_SITE);
    if site.is_some_and(|site| site != "same-origin") {
        let detail =
            "The cookie of the pages is good for requests of the pages only. Send `Authorization: Bearer engraft_…`.";
        return Err(Problem::new(Code::CrossOrigin, detail));
    }
    if !matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::ORIGIN) {
        let detail = "A change that is made with the cookie of the pages names its Origin. Send `Authorization: Bearer engraft_…`.";
        return Err(Problem::new(Code::CrossOrigin, detail));
    }
    Ok(())
}

/// The header that makes a browser keep the key; over TLS alone where the page `origin` came that way.
pub(super) fn keep(secret: &Secret, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    let origin = origin.and_then(|origin| origin.to_str().ok()?.parse::<Uri>().ok());
    let secure = if origin.is_some_and(|origin| origin.scheme_str() == Some("https")) { "; Secure" } else { "" };
    let text = format!("{NAME}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SECONDS}{secure}", secret.expose());
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The header that makes a browser forget the key.
pub(super) fn forget() -> HeaderValue {
    HeaderValue::from_static("engraft_key=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_key_is_found_among_other_cookies() {
        let key = format!("engraft_{}", "0a".repeat(32));
        let found = |cookies: &str| secret(&headers(&[("cookie", cookies)])).map(|secret| secret.expose().to_owned());
        assert_eq!(found(&format!("theme=dark; {NAME}={key}; other=1")), Some(key.clone()));
        assert_eq!(found(&format!("{NAME}=engraft_short; {NAME}={key}")), Some(key.clone()));
        for none in [format!("x{NAME}={key}"), format!("{NAME}={key}0"), format!("other={key}"), NAME.to_owned()] {
            assert_eq!(found(&none), None, "{none}");
        }
    }

    #[test]
    fn only_pages_of_the_server_use_it() {
        let allowed = |method: Method, pairs: &[(&'static str, &str)]| check(&method, &headers(pairs)).is_ok();
        let origin = ("origin", "http://localhost:8080");
        assert!(allowed(Method::GET, &[]) && allowed(Method::GET, &[("sec-fetch-site", "same-origin")]));
        for site in ["none", "same-site", "cross-site", ""] {
            assert!(!allowed(Method::GET, &[("sec-fetch-site", site)]), "{site}");
            assert!(!allowed(Method::POST, &[("sec-fetch-site", site), origin]), "{site}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(!allowed(method.clone(), &[]) && !allowed(method.clone(), &[("sec-fetch-site", "same-origin")]));
            assert!(allowed(method, &[("sec-fetch-site", "same-origin"), origin]));
        }
    }

    #[test]
    fn it_stays_on_tls_where_it_came_by_tls() {
        let secret = Secret::parse(&format!("engraft_{}", "0a".repeat(32))).expect("a key");
        let kept = |origin: &str| {
            let origin = HeaderValue::from_str(origin).expect("a value");
            keep(&secret, Some(&origin)).expect("a header").to_str().expect("text").to_owned()
        };
        assert!(kept("https://models.example").ends_with("; Secure"));
        assert!(kept("http://localhost:8080").ends_with("Max-Age=2592000"));
        assert!(kept("null").contains("; HttpOnly; SameSite=Strict;"));
    }
}
