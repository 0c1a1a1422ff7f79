//! What an upload's headers say before its body comes.

use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::domain::problem::{Code, Problem};
use crate::http::download::REPR_DIGEST;

/// The promises of an upload's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// Where in the file the body begins.
    pub(super) start: u64,
    /// Length of the body.
    pub(super) length: Option<u64>,
    /// Length of the whole file.
    pub(super) total: Option<u64>,
    /// SHA-256 of the whole file.
    pub(super) sha256: Option<[u8; 32]>,
}

impl Announced {
    /// Length of the file, or of what is there of it after this body.
    pub(super) fn expected(&self) -> Option<u64> {
        self.total.or_else(|| self.length.map(|length| self.start + length))
    }

    /// Reads the headers.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let length = text(headers, &header::CONTENT_LENGTH)?.map(number).transpose()?;
        let sha256 = text(headers, &REPR_DIGEST)?.and_then(sha256).transpose()?;
        let Some(range) = text(headers, &header::CONTENT_RANGE)? else {
            return Ok(Self { start: 0, length, total: length, sha256 });
        };
        let (start, end, total) = content_range(range)?;
        let spanned = end - start;
        if length.is_some_and(|length| length != spanned) {
            return Err(bad(format!("Content-Range `{range}` spans {spanned} bytes, but Content-Length differs.")));
        }
        Ok(Self { start, length: Some(spanned), total, sha256 })
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose().map_err(|_| bad(format!("The header {name} is not text.")))
}

fn number(text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|&number: &u64| digits && i64::try_from(number).is_ok());
    parsed.ok_or_else(|| bad(format!("Expected a number of bytes, got `{text}`.")))
}

/// `bytes N-M/T` as N, M + 1, T; T may be `*`.
fn content_range(text: &str) -> Result<(u64, u64, Option<u64>), Problem> {
    let wrong = || bad(format!("Expected `Content-Range: bytes FIRST-LAST/TOTAL`, got `{text}`."));
    let (range, total) = text.trim().strip_prefix("bytes ").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
    let (first, last) = range.split_once('-').ok_or_else(wrong)?;
    let (first, end) = (number(first)?, number(last)? + 1);
    let total = if total == "*" { None } else { Some(number(total)?) };
    if first >= end || total.is_some_and(|total| total < end) {
        return Err(wrong());
    }
    Ok((first, end, total))
}

/// The SHA-256 of `sha-256=:…:, …` (RFC 9530); none where only other algorithms are given.
fn sha256(text: &str) -> Option<Result<[u8; 32], Problem>> {
    let value = text.split(',').find_map(|entry| entry.trim().strip_prefix("sha-256="))?;
    let digest = value.strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    let digest = digest.and_then(|digest| STANDARD.decode(digest).ok()).and_then(|digest| digest.try_into().ok());
    Some(digest.ok_or_else(|| bad(format!("Expected `Repr-Digest: sha-256=:BASE64:`, got `{text}`."))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Result<Announced, Problem> {
        let entry = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
        };
        Announced::read(&headers.iter().map(entry).collect())
    }

    #[test]
    fn a_whole_file_and_a_part_are_told_apart() {
        let whole = read(&[("content-length", "10")]).expect("valid");
        assert_eq!(whole, Announced { start: 0, length: Some(10), total: Some(10), sha256: None });
        let part = read(&[("content-range", "bytes 4-9/10"), ("content-length", "6")]).expect("valid");
        assert_eq!(part, Announced { start: 4, length: Some(6), total: Some(10), sha256: None });
        assert_eq!(read(&[("content-range", "bytes 4-9/*")]).expect("valid").total, None);
        assert_eq!(read(&[]).expect("valid"), Announced { start: 0, length: None, total: None, sha256: None });
    }

    #[test]
    fn a_digest_is_read_among_others() {
        let empty = "unixsum=:AA==:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(read(&[("repr-digest", empty)]).expect("valid").sha256.expect("a digest")[0], 0xe3);
        assert_eq!(read(&[("repr-digest", "md5=:AA==:")]).expect("valid").sha256, None);
    }

    #[test]
    fn nonsense_is_refused() {
        for range in [
            "bytes 9-4/10",
            "bytes 4-9/9",
            "bytes */10",
            "items 0-1/2",
            "bytes +1-2/3",
            "bytes 0-99999999999999999999/*",
        ] {
            assert!(read(&[("content-range", range)]).is_err(), "{range}");
        }
        assert!(read(&[("content-range", "bytes 4-9/10"), ("content-length", "7")]).is_err());
        assert!(read(&[("content-length", "18446744073709551615")]).is_err());
        assert!(read(&[("repr-digest", "sha-256=:AA==:")]).is_err());
    }
}
