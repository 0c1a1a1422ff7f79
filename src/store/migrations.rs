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
];

/// Everything that brings a database of any earlier version up to date.
pub(super) fn migrator() -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(ALL.iter().map(migration).collect())
}
