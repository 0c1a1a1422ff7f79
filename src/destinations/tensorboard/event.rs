//! The messages of an event file; field numbers are those of TensorBoard's `event.proto` and `summary.proto`.

use super::super::Measured;
use crate::model::formats::protobuf::{put_bytes, put_double, put_float, put_integer};

/// What every file of events begins with.
const VERSION: &[u8] = b"brain.Event:2";

/// The `Event` that says what the file is, at `time` in seconds since 1970.
pub(super) fn version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, time);
    put_bytes(&mut event, 3, VERSION);
    event
}

/// The `Event` of one figure.
pub(super) fn scalar(time: f64, metric: &Measured) -> Vec<u8> {
    let mut value = Vec::new();
    put_bytes(&mut value, 1, metric.name.as_bytes());
    put_float(&mut value, 2, metric.value as f32);
    let mut summary = Vec::new();
    put_bytes(&mut summary, 1, &value);
    let mut event = Vec::new();
    put_double(&mut event, 1, time);
    put_integer(&mut event, 2, i64::try_from(metric.step).unwrap_or(i64::MAX));
    put_bytes(&mut event, 5, &summary);
    event
}
