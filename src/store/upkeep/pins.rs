//! What retention leaves alone.

use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::store::sql;
use crate::store::{Database, StoreError};

/// The table of pins; clones share it.
#[derive(Debug, Clone)]
pub struct Pins {
    database: Database,
    clock: SharedClock,
}

impl Pins {
    /// The pins in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { database, clock }
    }

    /// Ids of the tenant's jobs, checkpoints and datasets that are pinned.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant) -> Result<Vec<String>, StoreError> {
        Ok(sql::query_scalar(
            "SELECT id FROM pins WHERE tenant = $1 AND (EXISTS (SELECT 1 FROM jobs WHERE jobs.id = pins.id) \
             OR EXISTS (SELECT 1 FROM checkpoints WHERE checkpoints.id = pins.id) \
             OR EXISTS (SELECT 1 FROM datasets WHERE datasets.id = pins.id)) ORDER BY id",
        )
        .bind(tenant.as_str())
        .fetch_all(self.database.reader())
        .await?)
    }

    /// Pins the tenant's job, checkpoint or dataset; false where there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set(&self, tenant: &Tenant, id: &str) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let made = sql::query(
            "INSERT INTO pins (id, tenant, created_at) SELECT $1, $2, $3 \
             WHERE EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND tenant = $2) \
             OR EXISTS (SELECT 1 FROM checkpoints WHERE id = $1 AND tenant = $2) \
             OR EXISTS (SELECT 1 FROM datasets WHERE id = $1 AND tenant = $2) \
             ON CONFLICT (id) DO UPDATE SET tenant = pins.tenant",
        )
        .bind(id)
        .bind(tenant.as_str())
        .bind(self.clock.now().as_millisecond())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(made.rows_affected() == 1)
    }

    /// Removes a pin; false where there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, tenant: &Tenant, id: &str) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let gone = sql::query("DELETE FROM pins WHERE id = $1 AND tenant = $2")
            .bind(id)
            .bind(tenant.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected() == 1)
    }
}
