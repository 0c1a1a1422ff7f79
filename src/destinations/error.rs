//! Why a destination did not take what it was to get.

use std::fmt;
use std::path::Path;

use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use crate::client::ClientError;

/// Characters of an answer that are shown where it is none of the service's own.
const SHOWN: usize = 200;

/// Why a destination did not take what it was to get.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Its address is none, or it cannot be trusted.
    #[error(transparent)]
    Address(#[from] ClientError),
    /// It cannot be reached.
    #[error("{service} at {url} does not answer: {reason}")]
    Unreachable {
        /// What it is.
        service: &'static str,
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// It refused.
    #[error("{service} refused: {refusal}{advice}")]
    Refused {
        /// What it is.
        service: &'static str,
        /// What it said.
        refusal: Box<Refusal>,
        /// What to do.
        advice: Advice,
    },
    /// What it answers is not what its interface says.
    #[error("{service}: {what}")]
    Unexpected {
        /// What it is.
        service: &'static str,
        /// What is unexpected.
        what: String,
    },
    /// Something is to be done before.
    #[error("{0}")]
    Unprepared(String),
    /// A file of this machine cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: std::io::Error,
    },
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// The service's word for what is wrong.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// What it was asked for, without what may be secret.
    pub url: String,
}

/// What to do behind a refusal; nothing where it says enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice(pub Option<String>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, message, url, .. } = self;
        if message.is_empty() { write!(f, "{url} answered {status}") } else { write!(f, "{message} ({url}: {status})") }
    }
}

impl Refusal {
    /// Reads an answer that is no success: headers as the Hub has them, JSON as the Hub and MLflow have it.
    pub(super) async fn of(response: Response) -> Self {
        let (status, url) = (response.status(), shown(response.url()));
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let body = response.bytes().await.unwrap_or_default();
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let start = || String::from_utf8_lossy(&body).chars().take(SHOWN).collect::<String>();
        let plain = || if json.is_null() { start().trim().to_owned() } else { String::new() };
        Self {
            status,
            code: code.or_else(|| text("error_code")),
            message: message.or_else(|| text("message")).or_else(|| text("error")).unwrap_or_else(plain),
            url,
        }
    }

    /// Whether the service's word for what is wrong is `code`.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// An address without its query, which may hold a signature, and without a user.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _without = (url.set_username(""), url.set_password(None));
    url.to_string()
}

impl DestinationError {
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |reason| Self::File { path: path.display().to_string(), reason }
    }

    /// The refusal, where it is one.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused { refusal, .. } = self { Some(refusal) } else { None }
    }

    /// The same with what to do, where nobody closer to it has said that.
    pub(super) fn advised(self, advise: impl FnOnce(&Refusal) -> Option<String>) -> Self {
        match self {
            Self::Refused { service, refusal, advice: Advice(None) } => {
                let advice = Advice(advise(&refusal));
                Self::Refused { service, refusal, advice }
            }
            other => other,
        }
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { refusal, .. } => {
                let status = refusal.status;
                status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT
                    || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            }
            _ => false,
        }
    }
}
