//! Training and evaluation, held against PyTorch and candle.

mod candle;
#[path = "../common/mod.rs"]
mod common;
mod formulas;
mod trainer;
