//! The schema's history, built into the binary. A migration that has been released is never edited.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, name and text of every migration, in order.
const ALL: &[(i64, &str, &str)] = &[
    (1, "core", include_str!("../../migrations/0001_core.sql")),
    (2, "jobs", include_str!("../../migrations/0002_jobs.sql")),
    (3, "pauses", include_str!("../../migrations/0003_pauses.sql")),
    (4, "comparisons", include_str!("../../migrations/0004_comparisons.sql")),
    (5, "storage", include_str!("../../migrations/0005_storage.sql")),
    (6, "reference", include_str!("../../migrations/0006_reference.sql")),
    (7, "tenants", include_str!("../../migrations/0007_tenants.sql")),
    (8, "upkeep", include_str!("../../migrations/0008_upkeep.sql")),
    (9, "reading", include_str!("../../migrations/0009_reading.sql")),
    (10, "speeds", include_str!("../../migrations/0010_speeds.sql")),
    (11, "owners", include_str!("../../migrations/0011_owners.sql")),
    (12, "webhooks", include_str!("../../migrations/0012_webhooks.sql")),
    (13, "imports", include_str!("../../migrations/0013_imports.sql")),
    (14, "tus", include_str!("../../migrations/0014_tus.sql")),
    (15, "parts", include_str!("../../migrations/0015_parts.sql")),
];

/// Everything that brings a database of any earlier version up to date.
pub(super) fn migrator() -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(ALL.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use crate::store::Database;

    #[tokio::test]
    async fn checks_of_columns_that_may_be_null_hold_in_every_version_of_sqlite() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open(folder.path()).await.expect("opens");
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name IN ('datasets', 'jobs') AND type = 'table'")
                .fetch_all(database.reader())
                .await
                .expect("reads");
        assert_eq!(tables.len(), 2);
        for sql in tables {
            let careless = sql.lines().find(|line| line.contains("json_valid") && !line.contains("NULL"));
            assert_eq!(careless, None);
        }
        let sound: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(database.reader()).await.expect("checks");
        assert_eq!(sound, "ok");
        let mut transaction = database.write().await.expect("begins");
        let refused = sqlx::query(
            "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, state, problem, created_at)
             VALUES ('d', 't', 'n', printf('%064d', 0), 1, 'datasets/d', '{}', 'invalid', 'no JSON', 0)",
        )
        .execute(&mut *transaction)
        .await;
        assert!(refused.expect_err("no JSON").to_string().contains("CHECK"), "the check still holds");
    }
}
