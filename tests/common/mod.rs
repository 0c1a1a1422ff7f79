//! What the test binaries share.

#![expect(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod app;
pub(crate) mod bucket;
pub(crate) mod inputs;
pub(crate) mod packing;
pub(crate) mod samples;
pub(crate) mod shared_data;
pub(crate) mod weights;
