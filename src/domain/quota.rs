//! What one tenant may take of a server that others use, too.

use super::problem::{Code, Problem};

/// Something that a tenant may take only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TenantResource {
    /// Bytes of checkpoints, datasets, results and unfinished uploads.
    Bytes,
    /// Checkpoints and datasets.
    Files,
    /// Unfinished uploads.
    Uploads,
    /// Jobs that wait.
    Queued,
    /// Jobs that run at the same time.
    Running,
    /// Requests in a second, on average.
    RequestsPerSecond,
    /// Seconds within an hour for which its datasets are read through.
    ReadingSeconds,
}

impl TenantResource {
    /// Every resource.
    pub const ALL: [Self; 7] = [
        Self::Bytes,
        Self::Files,
        Self::Uploads,
        Self::Queued,
        Self::Running,
        Self::RequestsPerSecond,
        Self::ReadingSeconds,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Uploads => "uploads",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::RequestsPerSecond => "requests_per_second",
            Self::ReadingSeconds => "reading_seconds",
        }
    }

    /// What it counts, in words.
    fn counted(self) -> &'static str {
        match self {
            Self::Bytes => "bytes of files, results and unfinished uploads",
            Self::Files => "checkpoints and datasets",
            Self::Uploads => "unfinished uploads (GET /v1/uploads lists them)",
            Self::Queued => "queued jobs",
            Self::Running => "running jobs",
            Self::RequestsPerSecond => "requests per second",
            Self::ReadingSeconds => "seconds of reading datasets in an hour",
        }
    }
}

impl std::str::FromStr for TenantResource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|resource| resource.as_str() == text);
        found.ok_or_else(|| format!("expected one of {}, got `{text}`", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A number for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PerResource([u64; TenantResource::ALL.len()]);

/// How much of each resource a tenant may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota(PerResource);

/// How much of each resource a tenant has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage(PerResource);

impl Quota {
    /// The quota with another limit; 0 stands for none.
    #[must_use]
    pub fn with(mut self, resource: TenantResource, most: u64) -> Self {
        self.0.0[resource as usize] = most;
        self
    }

    /// The most that a tenant may have; none where there is no limit.
    #[must_use]
    pub fn limit(&self, resource: TenantResource) -> Option<u64> {
        Some(self.0.0[resource as usize]).filter(|most| *most > 0)
    }

    /// Those of `resources` that have a limit.
    #[must_use]
    pub fn limited(&self, resources: &[TenantResource]) -> Vec<TenantResource> {
        resources.iter().copied().filter(|resource| self.limit(*resource).is_some()).collect()
    }

    /// Checks that a tenant may take `more` of a resource beside what it has.
    ///
    /// # Errors
    /// `quota_exceeded` or `too_many`, with limit and use.
    pub fn check(&self, resource: TenantResource, usage: &Usage, more: u64) -> Result<(), Problem> {
        let (used, counted) = (usage.of(resource), resource.counted());
        match self.limit(resource) {
            Some(most) if used.saturating_add(more) > most => {
                let (code, advice) = match resource {
                    TenantResource::Bytes | TenantResource::Files => {
                        (Code::QuotaExceeded, "Delete what is not needed any more")
                    }
                    _ => (Code::TooMany, "Try again later"),
                };
                let detail =
                    format!("At most {most} {counted} for a tenant; {used} are there, this adds {more}. {advice}.");
                Err(Problem::new(code, detail))
            }
            _ => Ok(()),
        }
    }
}

impl Usage {
    /// The usage with another number.
    #[must_use]
    pub fn with(mut self, resource: TenantResource, used: u64) -> Self {
        self.0.0[resource as usize] = used;
        self
    }

    /// How much a tenant has taken.
    #[must_use]
    pub fn of(&self, resource: TenantResource) -> u64 {
        self.0.0[resource as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_and_names_itself_and_its_use() {
        let quota = Quota::default().with(TenantResource::Bytes, 10).with(TenantResource::Queued, 2);
        let usage = Usage::default()
            .with(TenantResource::Bytes, 7)
            .with(TenantResource::Queued, 2)
            .with(TenantResource::Files, 900);
        assert_eq!(quota.check(TenantResource::Bytes, &usage, 3), Ok(()));
        let refused = quota.check(TenantResource::Bytes, &usage, 4).unwrap_err();
        assert_eq!((refused.code, refused.code.status()), (Code::QuotaExceeded, 507));
        assert!(["10 bytes", "7 are there", "adds 4"].iter().all(|part| refused.detail.contains(part)), "{refused:?}");
        assert_eq!(quota.check(TenantResource::Queued, &usage, 1).unwrap_err().code.status(), 429);
        assert_eq!(quota.check(TenantResource::Files, &usage, u64::MAX), Ok(()), "there is no limit");
        for resource in TenantResource::ALL {
            assert_eq!(resource.as_str().parse(), Ok(resource));
        }
    }
}
