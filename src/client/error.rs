//! Why a server did not do what was asked.

use std::error::Error;

use reqwest::{Response, StatusCode};

use crate::domain::problem::Problem;

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its address is none.
    #[error("`{url}` is no address of a server: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine knows nobody who vouches for servers.
    #[error(
        "`{url}` cannot be trusted: {reason}; install certificates of authorities, or name a PEM file of those to trust in SSL_CERT_FILE"
    )]
    Trust {
        /// What was given.
        url: String,
        /// What is missing.
        reason: String,
    },
    /// It cannot be reached.
    #[error(
        "the server at {url} does not answer ({reason}); is `engraft serve` running there? --url or ENGRAFT_URL names another"
    )]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// It refused, and said why.
    #[error("{problem}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Why.
        problem: Box<Problem>,
    },
    /// Its answer is none of engraft's.
    #[error("{0}")]
    Unexpected(String),
    /// A file of this machine cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: std::io::Error,
    },
    /// What arrived is not what the server has.
    #[error("what was downloaded has the SHA-256 {got}, the server's file {expected}: try again")]
    Damaged {
        /// Of the server's file.
        expected: String,
        /// Of what arrived.
        got: String,
    },
    /// Another file has the name.
    #[error("the server has another file called `{0}`: choose another name with --name, or delete that one")]
    NameTaken(String),
}

impl ClientError {
    pub(super) fn unreachable(url: &str, error: &reqwest::Error) -> Self {
        Self::Unreachable { url: url.to_owned(), reason: last_reason(error) }
    }

    /// Reads the problem of an answer that is no success.
    pub(super) async fn refused(response: Response) -> Self {
        let (status, url) = (response.status(), response.url().clone());
        let body = response.bytes().await.unwrap_or_default();
        if let Ok(problem) = serde_json::from_slice(&body) {
            return Self::Refused { status, problem: Box::new(problem) };
        }
        let start: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        Self::Unexpected(format!("{url} answered {status}, not as engraft does: {start}"))
    }

    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |reason| Self::File { path: path.display().to_string(), reason }
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => is_passing(*status),
            _ => false,
        }
    }
}

/// The last of the errors behind a failed request says most.
pub(crate) fn last_reason(error: &reqwest::Error) -> String {
    let mut reason: &dyn Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// Whether the same request may be answered otherwise a little later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
