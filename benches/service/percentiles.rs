//! Times, and what part of them is below what.

use std::time::Duration;

/// The median, the 99th percentile and the longest of `times`, in milliseconds.
pub(crate) fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last());
    let shown = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!("p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms", shown(at(0.5)), shown(at(0.99)), shown(times.last()))
}
