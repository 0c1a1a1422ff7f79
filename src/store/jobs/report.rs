//! What a running attempt reports: how far it is, its epochs, its plan, its log. Each write is guarded by the attempt's fence.

use serde_json::{Value, json};

use super::events::{EventKind, append};
#[cfg(test)]
use super::failure::FailurePoint;
use super::row::json as to_json;
use super::transition::{held, one_row};
use super::{JobError, Jobs};
use crate::domain::job::Fence;
use crate::domain::progress::{EpochMetrics, Level, Progress};
use crate::store::database::Extent;
use crate::store::sql;

/// A line for the job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: Level,
    /// The text.
    pub message: String,
    /// Who says so: `job`, `stderr` or `worker`.
    pub source: &'static str,
}

impl Jobs {
    /// How far the attempt has come; no event, only the latest counts.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn report_progress(&self, fence: Fence, progress: &Progress) -> Result<(), JobError> {
        let mut transaction = self.database.write_to(Extent::OneJob).await?;
        let changed = sql::query("UPDATE jobs SET progress = $1 WHERE id = $2 AND attempt = $3 AND state = 'running'")
            .bind(to_json(progress))
            .bind(fence.job.to_string())
            .bind(fence.attempt)
            .execute(&mut *transaction)
            .await?;
        one_row(changed.rows_affected(), &mut transaction, fence).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::ReportProgressBeforeCommit)?;
        Ok(transaction.commit().await?)
    }

    /// An epoch has ended. One that an earlier attempt has reported already is replaced, without another event.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn add_metrics(&self, fence: Fence, metrics: &EpochMetrics) -> Result<(), JobError> {
        let (mut transaction, now) = self.begin_for_one().await?;
        held(&mut transaction, fence).await?;
        let (id, epoch) = (fence.job.to_string(), metrics.epoch as i64);
        let known: bool =
            sql::query_scalar("SELECT EXISTS (SELECT 1 FROM job_metrics WHERE job_id = $1 AND epoch = $2)")
                .bind(&id)
                .bind(epoch)
                .fetch_one(&mut *transaction)
                .await?;
        sql::query("INSERT INTO job_metrics (job_id, epoch, data) VALUES ($1, $2, $3) ON CONFLICT (job_id, epoch) DO UPDATE SET data = excluded.data")
            .bind(&id)
            .bind(epoch)
            .bind(to_json(metrics))
            .execute(&mut *transaction)
            .await?;
        if !known {
            append(&mut transaction, fence.job, EventKind::Metric, &json!(metrics), now.date).await?;
        }
        #[cfg(test)]
        self.failures.pass(FailurePoint::AddMetricsBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::AddMetricsAfterCommit)?;
        Ok(())
    }

    /// The plan has changed: what was open when the job was queued is decided.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn replace_plan(&self, fence: Fence, plan: &Value) -> Result<(), JobError> {
        let (mut transaction, _) = self.begin_for_one().await?;
        held(&mut transaction, fence).await?;
        sql::query("UPDATE jobs SET plan = $1 WHERE id = $2")
            .bind(plan.to_string())
            .bind(fence.job.to_string())
            .execute(&mut *transaction)
            .await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::ReplacePlanBeforeCommit)?;
        Ok(transaction.commit().await?)
    }

    /// Lines for the job's log.
    ///
    /// # Errors
    /// When the fence is lost, or the database fails.
    pub async fn log(&self, fence: Fence, lines: &[LogLine]) -> Result<(), JobError> {
        let (mut transaction, now) = self.begin_for_one().await?;
        held(&mut transaction, fence).await?;
        for line in lines {
            let kind = match line.level {
                Level::Info => EventKind::Log,
                Level::Warning => EventKind::Warning,
            };
            let data = json!({ "message": line.message, "source": line.source });
            append(&mut transaction, fence.job, kind, &data, now.date).await?;
        }
        #[cfg(test)]
        self.failures.pass(FailurePoint::LogBeforeCommit)?;
        Ok(transaction.commit().await?)
    }
}
