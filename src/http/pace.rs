//! How fast tenants send requests: a bucket of tokens each, filled at its limit, with room for ten seconds of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::access::Tenant;
use crate::domain::problem::Problem;
use crate::domain::quota::{Quota, TenantResource, Usage};
use crate::store::tenants::Tenants;

/// How long a limit is believed before it is read again.
const BELIEVED: Duration = Duration::from_secs(5);

/// Seconds of requests that may come at once.
const BURST: f64 = 10.0;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    quota: Quota,
    read: Instant,
    tokens: f64,
    filled: Instant,
}

/// The buckets of all tenants that have sent a request.
#[derive(Debug, Default)]
pub struct RequestRate(Mutex<HashMap<Tenant, Bucket>>);

impl RequestRate {
    /// Lets a request of the tenant pass, or refuses it.
    ///
    /// # Errors
    /// `too_many`, or when the database fails.
    pub async fn admit(&self, tenants: &Tenants, tenant: &Tenant) -> Result<(), Problem> {
        let now = Instant::now();
        let known = self.with(|buckets| buckets.get(tenant).filter(|bucket| now - bucket.read < BELIEVED).copied());
        let (quota, read) = match known {
            Some(bucket) => (bucket.quota, bucket.read),
            None => (tenants.quota(tenant).await?, now),
        };
        let Some(most) = quota.limit(TenantResource::RequestsPerSecond) else {
            self.with(|buckets| buckets.insert(tenant.clone(), Bucket { quota, read, tokens: 0.0, filled: now }));
            return Ok(());
        };
        let room = most as f64 * BURST;
        let passed = self.with(|buckets| {
            let full = Bucket { quota, read, tokens: room, filled: now };
            let bucket = buckets.entry(tenant.clone()).or_insert(full);
            if bucket.quota.limit(TenantResource::RequestsPerSecond) != Some(most) {
                *bucket = full;
            }
            (bucket.quota, bucket.read) = (quota, read);
            let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * most as f64;
            bucket.tokens = (bucket.tokens + gained).min(room);
            bucket.filled = now;
            let passes = bucket.tokens >= 1.0;
            bucket.tokens -= f64::from(u8::from(passes));
            passes
        });
        let used = Usage::default().with(TenantResource::RequestsPerSecond, most);
        if passed { Ok(()) } else { quota.check(TenantResource::RequestsPerSecond, &used, 1) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Tenant, Bucket>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
