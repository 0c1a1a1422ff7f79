//! Prefixed identifiers: `job_01932f…`. The prefix makes a wrong id visible, the UUIDv7 sorts by time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}…`")]
pub struct IdError {
    text: String,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; ids made later sort later.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { text: text.chars().take(80).collect(), prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or_else(error)?;
                if digits.len() != 32 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(error());
                }
                Uuid::try_parse(digits).map(Self).map_err(|_| error())
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// An uploaded checkpoint.
    CheckpointId,
    "ckpt_"
);
id!(
    /// An uploaded dataset.
    DatasetId,
    "data_"
);
id!(
    /// A fusion job.
    JobId,
    "job_"
);
id!(
    /// A group of jobs that are compared.
    ComparisonId,
    "cmp_"
);
id!(
    /// An unfinished upload.
    UploadId,
    "up_"
);
id!(
    /// A worker process.
    WorkerId,
    "work_"
);
id!(
    /// An API key (its public name, not the secret).
    KeyId,
    "key_"
);
id!(
    /// Where a tenant is called when something ends.
    WebhookId,
    "hook_"
);
id!(
    /// One call of a webhook, however often it is tried.
    DeliveryId,
    "msg_"
);
id!(
    /// A file that the server fetches from elsewhere.
    ImportId,
    "imp_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_refuses_other_kinds() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        assert!(id.to_string().parse::<DatasetId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<JobId>().is_err());
        assert!("job_".parse::<JobId>().is_err());
    }
}
