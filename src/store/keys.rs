//! API keys: 256 random bits, shown once, stored as their SHA-256.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::database::Connection;
use super::sql;
use rand::TryRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Database, StoreError};
use crate::domain::access::{SECRET_PREFIX, Scope, Tenant, is_secret};
use crate::domain::clock::SharedClock;
use crate::domain::id::KeyId;
use crate::store::sql::FromRow;

/// The secret part of a key. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A fresh secret of 256 random bits.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{SECRET_PREFIX}{}", hex::encode(bytes))))
    }

    /// Reads `engraft_` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_secret(text).then(|| Self(text.to_owned()))
    }

    /// The text to hand to the key's owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, digest: &[u8]) -> bool {
        self.digest().ct_eq(digest).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public name.
    pub id: KeyId,
    /// Whose things it reaches.
    pub tenant: Tenant,
    /// What it allows.
    pub scope: Scope,
    /// What its maker wrote on it.
    pub label: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch; none while it is good.
    pub revoked_at: Option<i64>,
    /// Milliseconds since the epoch from which on it is no longer good.
    pub expires_at: Option<i64>,
    /// When it was last used, to a minute or so; milliseconds since the epoch.
    pub last_used_at: Option<i64>,
}

#[derive(FromRow)]
struct KeyRow {
    id: String,
    tenant: String,
    scope: String,
    label: String,
    secret_sha256: Vec<u8>,
    created_at: i64,
    revoked_at: Option<i64>,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("api_keys", row.id.clone(), detail);
        Ok(Self {
            id: row.id.parse().map_err(|error| wrong(format!("{error}")))?,
            tenant: row.tenant.parse().map_err(wrong)?,
            scope: row.scope.parse().map_err(wrong)?,
            label: row.label.clone(),
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
    }
}

/// What a new key is for.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose things it reaches.
    pub tenant: Tenant,
    /// What it allows.
    pub scope: Scope,
    /// A note about who has it.
    pub label: String,
    /// How long it is good; none for ever.
    pub lifetime: Option<Duration>,
}

/// The table of keys; clones share it.
#[derive(Debug, Clone)]
pub struct Keys {
    database: Database,
    clock: SharedClock,
    /// Uses that are not written down yet: when each key was last used.
    uses: Arc<Mutex<HashMap<KeyId, i64>>>,
}

impl Keys {
    /// The keys in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock, uses: Arc::default() }
    }

    /// Makes a key; the secret is not kept.
    ///
    /// # Errors
    /// When the database fails or there is no randomness.
    pub async fn create(&self, new: NewKey) -> Result<(ApiKey, Secret), StoreError> {
        let mut transaction = self.database.write().await?;
        let made = self.insert(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Makes a key like `id`, which stays good for `overlap` (as long as before without), so that its users can change over; none where there is no such
    /// key that is still good.
    ///
    /// # Errors
    /// When the database fails or there is no randomness.
    pub async fn rotate(
        &self,
        id: KeyId,
        overlap: Option<Duration>,
        lifetime: Option<Duration>,
    ) -> Result<Option<(ApiKey, Secret)>, StoreError> {
        let mut transaction = self.database.write().await?;
        let now = self.clock.now().as_millisecond();
        let row: Option<KeyRow> = sql::query_as(
            "UPDATE api_keys SET expires_at = CASE WHEN $1 IS NULL OR expires_at < $1 THEN expires_at ELSE $1 END \
             WHERE id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3) RETURNING *",
        )
        .bind(overlap.map(|overlap| after(now, overlap)))
        .bind(id.to_string())
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let ApiKey { tenant, scope, label, .. } = ApiKey::try_from(row)?;
        let made = self.insert(&mut transaction, NewKey { tenant, scope, label, lifetime }).await?;
        transaction.commit().await?;
        Ok(Some(made))
    }

    async fn insert(&self, conn: &mut Connection, new: NewKey) -> Result<(ApiKey, Secret), StoreError> {
        let secret = Secret::generate().map_err(StoreError::file("the system's random source"))?;
        let now = self.clock.now().as_millisecond();
        let NewKey { tenant, scope, label, lifetime } = new;
        let key = ApiKey {
            id: KeyId::new(),
            tenant,
            scope,
            label,
            created_at: now,
            revoked_at: None,
            expires_at: lifetime.map(|lifetime| after(now, lifetime)),
            last_used_at: None,
        };
        sql::query(
            "INSERT INTO api_keys (id, tenant, scope, label, secret_sha256, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.id.to_string())
        .bind(key.tenant.as_str())
        .bind(key.scope.as_str())
        .bind(&key.label)
        .bind(secret.digest().to_vec())
        .bind(key.created_at)
        .bind(key.expires_at)
        .execute(conn)
        .await?;
        Ok((key, secret))
    }

    /// Every key, revoked ones included, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<KeyRow> =
            sql::query_as("SELECT * FROM api_keys ORDER BY id").fetch_all(self.database.reader()).await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    /// Makes a key useless from now on; false where there is no such key that is still good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let changed = sql::query("UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
            .bind(self.clock.now().as_millisecond())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(changed.rows_affected() == 1)
    }

    /// The good key whose secret this is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, secret: &Secret) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<KeyRow> =
            sql::query_as("SELECT * FROM api_keys WHERE secret_sha256 = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)")
                .bind(secret.digest().to_vec())
                .bind(self.clock.now().as_millisecond())
                .fetch_optional(self.database.reader())
                .await?;
        row.filter(|row| secret.matches(&row.secret_sha256)).map(ApiKey::try_from).transpose()
    }

    /// Notes that a key was used just now; [`Keys::write_uses`] writes it down.
    pub fn note_use(&self, id: KeyId) {
        let now = self.clock.now().as_millisecond();
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now);
    }

    /// Writes down when keys were last used, and says how many.
    ///
    /// # Errors
    /// When the database fails; what was not written is written the next time.
    pub async fn write_uses(&self) -> Result<usize, StoreError> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return Ok(0);
        }
        let written = self.write_each(&uses).await;
        if written.is_err() {
            let mut newer = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, at) in uses {
                newer.entry(id).or_insert(at);
            }
        }
        written
    }

    async fn write_each(&self, uses: &HashMap<KeyId, i64>) -> Result<usize, StoreError> {
        let mut transaction = self.database.write().await?;
        for (id, at) in uses {
            sql::query(
                "UPDATE api_keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
            )
            .bind(at)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(uses.len())
    }

    /// Whether a key was ever made, revoked or not: from then on requests without one are refused.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn any(&self) -> Result<bool, StoreError> {
        Ok(sql::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)").fetch_one(self.database.reader()).await?)
    }
}

/// The time `span` after `now`, in milliseconds since the epoch.
fn after(now: i64, span: Duration) -> i64 {
    now.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::{ManualClock, SystemClock};
    use crate::store::testing;
    use jiff::Timestamp;

    #[test]
    fn a_secret_is_read_back_and_anything_else_is_refused() {
        let secret = Secret::generate().expect("randomness");
        assert_eq!(Secret::parse(secret.expose()), Some(secret.clone()));
        assert!(secret.matches(&secret.digest()));
        assert!(!secret.matches(&[0; 32]));
        assert_eq!(Secret::parse(&secret.expose().to_uppercase()), None);
        assert_eq!(Secret::parse("engraft_12"), None);
        assert!(!format!("{secret:?}").contains(&secret.expose()[8..]));
    }

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = testing::open(folder.path()).await;
        let keys = Keys::new(database, Arc::new(SystemClock));
        assert!(!keys.any().await.expect("reads"));
        let tenant: Tenant = "vision".parse().expect("a tenant");
        let new =
            |lifetime| NewKey { tenant: tenant.clone(), scope: Scope::Write, label: "laptop".to_owned(), lifetime };
        let (key, secret) = keys.create(new(None)).await.expect("makes");
        assert_eq!(keys.find(&secret).await.expect("reads"), Some(key.clone()));
        assert_eq!(keys.find(&Secret::generate().expect("randomness")).await.expect("reads"), None);
        assert!(keys.revoke(key.id).await.expect("writes"));
        assert!(!keys.revoke(key.id).await.expect("writes"), "only once");
        assert_eq!(keys.find(&secret).await.expect("reads"), None);
        assert!(keys.any().await.expect("reads"), "a revoked key still closes the open door");
        assert_eq!(keys.list().await.expect("reads").len(), 1);
    }

    #[tokio::test]
    async fn a_key_expires_is_rotated_and_knows_when_it_was_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = testing::open(folder.path()).await;
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let keys = Keys::new(database, clock.clone());
        let new = NewKey {
            tenant: Tenant::default(),
            scope: Scope::Read,
            label: "ci".to_owned(),
            lifetime: Some(Duration::from_hours(2)),
        };
        let (first, secret) = keys.create(new).await.expect("makes");
        clock.advance(Duration::from_mins(1));
        keys.note_use(first.id);
        assert_eq!(keys.write_uses().await.expect("writes"), 1);
        assert_eq!(keys.write_uses().await.expect("writes"), 0, "each use once");
        let seen = keys.list().await.expect("reads").remove(0);
        assert_eq!(seen.last_used_at, Some(first.created_at + 60_000));

        let (second, other) =
            keys.rotate(first.id, Some(Duration::from_mins(10)), None).await.expect("writes").expect("a good key");
        assert_eq!((second.scope, second.label.as_str(), second.expires_at), (Scope::Read, "ci", None));
        assert!(keys.find(&secret).await.expect("reads").is_some(), "both are good for a while");
        clock.advance(Duration::from_mins(11));
        assert_eq!(keys.find(&secret).await.expect("reads"), None);
        assert!(keys.find(&other).await.expect("reads").is_some());
        assert_eq!(keys.rotate(first.id, None, None).await.expect("reads"), None, "it is not good any more");
    }
}
