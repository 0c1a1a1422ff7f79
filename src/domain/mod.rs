//! Plain types that every other module may use: no I/O, no candle, no SQL.

pub mod access;
pub mod blob_location;
pub mod clock;
pub mod comparison;
pub mod database;
pub mod dataset;
pub mod epoch_choice;
mod fault;
pub mod gpu;
pub mod id;
pub mod job;
pub mod name;
pub mod problem;
pub mod progress;
pub mod quota;
pub mod remote_file;
pub mod retention;
pub mod score;
pub mod speed;
pub mod webhook;
