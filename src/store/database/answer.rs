//! How long a database server's answers are waited for: a network that drops everything reports no error.

use std::time::Duration;

/// A server that does not answer for so long is taken for lost. Longer than locks are waited for.
pub(super) const ANSWER: Duration = Duration::from_secs(if cfg!(test) { 8 } else { 60 });
/// The same for what it answers at once.
pub(super) const PROMPTLY: Duration = Duration::from_secs(5);

/// What the server answers, if it does in time.
///
/// # Errors
/// Those of the future, and one of a lost connection.
pub(in crate::store) async fn answered<T>(
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    within(ANSWER, asked).await
}

/// The same, if it does within `patience`.
///
/// # Errors
/// Those of [`answered`].
pub(super) async fn within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
}
