//! API keys: 256 random bits, shown once, stored as their SHA-256.

use rand::TryRng;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use subtle::ConstantTimeEq;

use super::{Database, StoreError};
use crate::domain::access::{SECRET_PREFIX, Scope, Tenant, is_secret};
use crate::domain::clock::SharedClock;
use crate::domain::id::KeyId;

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
        })
    }
}

/// The table of keys.
#[derive(Debug, Clone)]
pub struct Keys {
    database: Database,
    clock: SharedClock,
}

impl Keys {
    /// The keys in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock }
    }

    /// Makes a key; the secret is not kept.
    ///
    /// # Errors
    /// When the database fails or there is no randomness.
    pub async fn create(&self, tenant: &Tenant, scope: Scope, label: &str) -> Result<(ApiKey, Secret), StoreError> {
        let secret = Secret::generate().map_err(StoreError::file("the system's random source"))?;
        let key = ApiKey {
            id: KeyId::new(),
            tenant: tenant.clone(),
            scope,
            label: label.to_owned(),
            created_at: self.clock.now().as_millisecond(),
            revoked_at: None,
        };
        let mut transaction = self.database.write().await?;
        sqlx::query(
            "INSERT INTO api_keys (id, tenant, scope, label, secret_sha256, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(key.id.to_string())
        .bind(tenant.as_str())
        .bind(scope.as_str())
        .bind(label)
        .bind(secret.digest().to_vec())
        .bind(key.created_at)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((key, secret))
    }

    /// Every key, revoked ones included, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<KeyRow> =
            sqlx::query_as("SELECT * FROM api_keys ORDER BY id").fetch_all(self.database.reader()).await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    /// Makes a key useless from now on; false where there is no such key that is still good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let changed = sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
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
            sqlx::query_as("SELECT * FROM api_keys WHERE secret_sha256 = ? AND revoked_at IS NULL")
                .bind(secret.digest().to_vec())
                .fetch_optional(self.database.reader())
                .await?;
        row.filter(|row| secret.matches(&row.secret_sha256)).map(ApiKey::try_from).transpose()
    }

    /// Whether a key was ever made, revoked or not: from then on requests without one are refused.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn any(&self) -> Result<bool, StoreError> {
        let any: i64 =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)").fetch_one(self.database.reader()).await?;
        Ok(any == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::SystemClock;

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
        let database = Database::open(folder.path()).await.expect("opens");
        let keys = Keys::new(database, Arc::new(SystemClock));
        assert!(!keys.any().await.expect("reads"));
        let tenant: Tenant = "vision".parse().expect("a tenant");
        let (key, secret) = keys.create(&tenant, Scope::Write, "laptop").await.expect("makes");
        assert_eq!(keys.find(&secret).await.expect("reads"), Some(key.clone()));
        assert_eq!(keys.find(&Secret::generate().expect("randomness")).await.expect("reads"), None);
        assert!(keys.revoke(key.id).await.expect("writes"));
        assert!(!keys.revoke(key.id).await.expect("writes"), "only once");
        assert_eq!(keys.find(&secret).await.expect("reads"), None);
        assert!(keys.any().await.expect("reads"), "a revoked key still closes the open door");
        assert_eq!(keys.list().await.expect("reads").len(), 1);
    }
}
