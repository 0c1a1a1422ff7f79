//! The schema's history, built into the binary, for each database. A migration that has been released is never edited. A new one is written
//! twice; `tests` compares what both have led to.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, name and text of every migration, in order.
const SQLITE: &[(i64, &str, &str)] = &[
    (1, "core", include_str!("../../../migrations/sqlite/0001_core.sql")),
    (2, "jobs", include_str!("../../../migrations/sqlite/0002_jobs.sql")),
    (3, "pauses", include_str!("../../../migrations/sqlite/0003_pauses.sql")),
    (4, "comparisons", include_str!("../../../migrations/sqlite/0004_comparisons.sql")),
    (5, "storage", include_str!("../../../migrations/sqlite/0005_storage.sql")),
    (6, "reference", include_str!("../../../migrations/sqlite/0006_reference.sql")),
    (7, "tenants", include_str!("../../../migrations/sqlite/0007_tenants.sql")),
    (8, "upkeep", include_str!("../../../migrations/sqlite/0008_upkeep.sql")),
    (9, "reading", include_str!("../../../migrations/sqlite/0009_reading.sql")),
    (10, "speeds", include_str!("../../../migrations/sqlite/0010_speeds.sql")),
    (11, "owners", include_str!("../../../migrations/sqlite/0011_owners.sql")),
    (12, "webhooks", include_str!("../../../migrations/sqlite/0012_webhooks.sql")),
    (13, "imports", include_str!("../../../migrations/sqlite/0013_imports.sql")),
    (14, "tus", include_str!("../../../migrations/sqlite/0014_tus.sql")),
    (15, "parts", include_str!("../../../migrations/sqlite/0015_parts.sql")),
    (16, "claims", include_str!("../../../migrations/sqlite/0016_claims.sql")),
    (17, "queue", include_str!("../../../migrations/sqlite/0017_queue.sql")),
];

const POSTGRES: &[(i64, &str, &str)] = &[
    (1, "schema", include_str!("../../../migrations/postgres/0001_schema.sql")),
    (2, "queue", include_str!("../../../migrations/postgres/0002_queue.sql")),
];

/// Everything that brings a file of any earlier version up to date.
pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

/// Everything that brings a server's schema of any earlier version up to date.
pub(super) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

fn migrator(all: &'static [(i64, &str, &str)]) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(all.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use crate::store::{Database, sql, testing};

    #[tokio::test]
    async fn checks_of_columns_that_may_be_null_hold_in_every_version_of_sqlite() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open(folder.path()).await.expect("opens");
        let tables: Vec<String> =
            sql::query_scalar("SELECT sql FROM sqlite_schema WHERE name IN ('datasets', 'jobs') AND type = 'table'")
                .fetch_all(database.reader())
                .await
                .expect("reads");
        assert_eq!(tables.len(), 2);
        for sql in tables {
            let careless = sql.lines().find(|line| line.contains("json_valid") && !line.contains("NULL"));
            assert_eq!(careless, None);
        }
        let damage = database.reader().acquire().await.expect("connects").damage().await.expect("checks");
        assert_eq!(damage, Vec::<String>::new());
        let mut transaction = database.write().await.expect("begins");
        let refused = sql::query(
            "INSERT INTO datasets (id, tenant, name, sha256, bytes, blob_key, labels, state, problem, created_at)
             VALUES ('d', 't', 'n', printf('%064d', 0), 1, 'datasets/d', '{}', 'invalid', 'no JSON', 0)",
        )
        .execute(&mut *transaction)
        .await;
        assert!(refused.expect_err("no JSON").to_string().contains("CHECK"), "the check still holds");
    }

    /// Names of tables, of columns with whether they may be null, and of indexes with a name of their own.
    const OF_SQLITE: &str = "SELECT m.name || '.' || c.name || CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN '' ELSE '?' END
         FROM sqlite_schema AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\'
         UNION SELECT 'index ' || name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    const OF_POSTGRES: &str =
        "SELECT table_name || '.' || column_name || CASE is_nullable WHEN 'NO' THEN '' ELSE '?' END
         FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_sqlx%'
         UNION SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = current_schema()
             AND indexname NOT LIKE '%\\_pkey' AND indexname NOT LIKE '%\\_key' AND indexname NOT LIKE '\\_sqlx%'";

    #[tokio::test]
    async fn both_databases_have_the_same_tables_columns_and_indexes() {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(server) = testing::server(folder.path()).await else { return };
        let file = Database::open(tempfile::tempdir().expect("a folder").path()).await.expect("opens");
        let said = async |database: &Database| {
            let mut said: Vec<String> =
                sql::query_scalar(sql::each(OF_SQLITE, OF_POSTGRES)).fetch_all(database.reader()).await.expect("reads");
            said.sort();
            said
        };
        let (file, server) = (said(&file).await, said(&server).await);
        assert!(file.len() > 100, "{file:?}");
        assert_eq!(file, server);
    }
}
