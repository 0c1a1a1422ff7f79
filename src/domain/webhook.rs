//! Webhooks as the Standard Webhooks specification (1.0.0) has them: what is announced, where, how a call is signed, and when one
//! that failed is repeated.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use url::Url;

use super::id::DeliveryId;

/// What a call tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// A job has its results.
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    /// A job has ended with an error.
    #[serde(rename = "job.failed")]
    JobFailed,
    /// A job was cancelled.
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    /// The last job of a comparison has ended.
    #[serde(rename = "comparison.ended")]
    ComparisonEnded,
    /// A dataset was read through and can be used.
    #[serde(rename = "dataset.ready")]
    DatasetReady,
    /// A dataset cannot be used.
    #[serde(rename = "dataset.invalid")]
    DatasetInvalid,
    /// The owner wants to see a call arrive.
    #[serde(rename = "webhook.test")]
    Test,
}

impl EventType {
    /// Everything that a webhook can ask for.
    pub const ALL: [Self; 6] = [
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCancelled,
        Self::ComparisonEnded,
        Self::DatasetReady,
        Self::DatasetInvalid,
    ];

    /// The name in the field `type` of a call.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::ComparisonEnded => "comparison.ended",
            Self::DatasetReady => "dataset.ready",
            Self::DatasetInvalid => "dataset.invalid",
            Self::Test => "webhook.test",
        }
    }

    /// The event of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Test]).find(|event| event.as_str() == name)
    }
}

/// Where calls go: an `http` or `https` address without credentials and without a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Url);

impl Destination {
    /// Most bytes of an address.
    const LONGEST: usize = 2048;

    /// The address.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl std::str::FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("expected an address like `https://ci.example/hooks/engraft`: {why}");
        if text.len() > Self::LONGEST {
            return Err(refused(&format!("this one has more than {} bytes", Self::LONGEST)));
        }
        let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(&format!("`{}` is not a scheme that is called", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it may hold no name and no password; calls are signed instead"));
        }
        if url.fragment().is_some() {
            return Err(refused("what follows `#` is never sent"));
        }
        Ok(Self(url))
    }
}

/// What a webhook's calls are signed with. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// Bytes of a secret that is made here; the specification asks for 24 to 64.
    pub const LENGTH: usize = 32;

    /// A secret of these bytes.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text for the webhook's owner: `whsec_` and Base64.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }

    /// The signature of a call: `v1,` and the HMAC-SHA256 of id, seconds since the epoch and body, in Base64.
    #[must_use]
    pub fn sign(&self, id: DeliveryId, sent: Timestamp, body: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { unreachable!("HMAC refused a key") };
        mac.update(format!("{id}.{}.{body}", sent.as_second()).as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// Pauses after calls that failed: ten calls within three days, most of them soon, as the specification suggests.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// How long to wait after the `tried`-th call has failed, where the receiver asks for `least`; none where it was the last one.
#[must_use]
pub fn pause(tried: u32, least: Option<Duration>) -> Option<Duration> {
    let usual = PAUSES.get(usize::try_from(tried.checked_sub(1)?).ok()?)?;
    let longest = PAUSES[PAUSES.len() - 1];
    Some(least.unwrap_or_default().min(longest).max(*usual))
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be called, for the first time or again.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// It is given up.
    Failed,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Failed];

    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it was made.
    pub at: Timestamp,
    /// Milliseconds until its answer, or until it failed.
    pub took_ms: u64,
    /// The status of the answer; none where there was none.
    pub status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<String>,
}

impl Call {
    /// Whether the receiver has it: any status from 200 to 299.
    #[must_use]
    pub fn was_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the receiver wants no more calls: 410 Gone.
    #[must_use]
    pub fn was_the_last(&self) -> bool {
        self.status == Some(410)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_one_name() {
        for event in EventType::ALL.into_iter().chain([EventType::Test]) {
            assert_eq!(EventType::named(event.as_str()), Some(event));
            assert_eq!(serde_json::json!(event), event.as_str(), "the same in JSON");
        }
        assert_eq!(EventType::named("job.begun"), None);
    }

    #[test]
    fn an_address_can_be_called_and_holds_no_secrets() {
        assert!("https://ci.example/hooks?job=1".parse::<Destination>().is_ok());
        assert!("http://127.0.0.1:9/".parse::<Destination>().is_ok());
        for wrong in ["", "ci.example/x", "ftp://a/b", "https://u:p@a/", "https://u@a/", "https://a/#b", "file:///etc"]
        {
            let refused = wrong.parse::<Destination>().expect_err(wrong);
            assert!(refused.starts_with("expected an address like `https://"), "{refused}");
        }
        assert!(format!("https://a/{}", "x".repeat(2048)).parse::<Destination>().is_err());
    }

    /// The secret, id, time and body of an example whose signature the specification's own libraries compute so:
    /// `standardwebhooks.Webhook(secret).sign(id, time, body)` of Python's package 1.0.0.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = SigningSecret::of((0..32).collect());
        assert_eq!(secret.expose(), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let id: DeliveryId = "msg_019324a5b7c07f3e8d1c2b3a4f5e6d7c".parse().expect("an id");
        let sent = Timestamp::from_second(1_767_225_600).expect("a time");
        assert_eq!(
            secret.sign(id, sent, r#"{"type":"webhook.test"}"#),
            "v1,TbmSu2dMKkZAZ/UQiygTCJIx+fXll6MFHu2H9XYEDOE="
        );
        assert!(!format!("{secret:?}").contains("AAEC"));
    }

    #[test]
    fn ten_calls_and_no_more_the_receiver_may_ask_for_a_longer_pause() {
        let pauses: Vec<_> = (1..=10).map(|tried| pause(tried, None)).collect();
        assert_eq!(pauses[0], Some(Duration::from_secs(5)));
        assert_eq!(pauses[8], Some(Duration::from_hours(24)));
        assert_eq!(pauses[9], None);
        assert_eq!(pause(0, None), None, "nothing was tried");
        assert_eq!(pause(1, Some(Duration::from_mins(1))), Some(Duration::from_mins(1)));
        assert_eq!(pause(2, Some(Duration::from_secs(1))), Some(Duration::from_mins(5)), "never sooner than usual");
        assert_eq!(pause(1, Some(Duration::from_hours(999))), Some(Duration::from_hours(24)));
    }
}
