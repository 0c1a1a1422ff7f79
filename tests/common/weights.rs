//! Weights that Python and Rust make alike, bit for bit, from the name and the shape of a tensor:
//! `tests/fixtures/families/weights.py` says how, and why so.

use std::collections::BTreeMap;

use engraft::model::header::{CheckpointHeader, Dtype, TensorInfo};
use engraft::model::natural;
use engraft::tensors::StateDict;
use serde::Deserialize;
use serde_json::Value;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED_STEP: u64 = 0xd134_2543_de82_ef95;

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Multiples of 2^-23 in [-1, 1).
fn uniform(name: &str, seed: u64) -> impl Iterator<Item = f32> {
    let start = fnv1a(name).wrapping_add(seed.wrapping_mul(SEED_STEP));
    (1_u64..).map(move |index| {
        let z = start.wrapping_add(index.wrapping_mul(GAMMA));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = (z ^ (z >> 31)) >> 40;
        bits as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The float tensor `name`.
pub(crate) fn tensor(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let role = name.rsplit('.').next().unwrap_or_default();
    let below: usize = shape.iter().skip(1).product();
    let bound = |numerator: f64| (numerator / below as f64).sqrt() as f32;
    let value: Box<dyn Fn(f32) -> f32> = match (role, shape) {
        ("running_var", _) => Box::new(|u| 1.5 + u / 2.0),
        ("running_mean", _) => Box::new(|u| u / 8.0),
        (role, _) if role.ends_with("bias") => Box::new(|u| u / 8.0),
        (_, [_]) | ("layer_scale" | "gamma", _) => Box::new(|u| 1.0 + u / 4.0),
        (_, [1, _, _]) => Box::new(|u| u / 2.0),
        (_, [_, 1, _, _]) => Box::new(move |u| u * bound(24.0)),
        _ => Box::new(move |u| u * bound(6.0)),
    };
    uniform(name, seed).take(shape.iter().product()).map(value).collect()
}

/// A batch of examples.
pub(crate) fn inputs(shape: &[usize], seed: u64) -> Vec<f32> {
    let scale = 3.0_f64.sqrt() as f32;
    uniform("input", seed).take(shape.iter().product()).map(|u| u * scale).collect()
}

/// Weights for all tensors of a header.
pub(crate) fn state_dict(header: &CheckpointHeader, seed: u64) -> StateDict {
    let mut weights = StateDict::from_iter(BTreeMap::new());
    for info in &header.tensors {
        if info.dtype.is_float() {
            weights.insert_f32(&info.name, &info.shape, tensor(&info.name, &info.shape, seed)).expect("fits its shape");
        } else {
            weights.insert_counter(&info.name, 0).expect("a counter");
        }
    }
    weights
}

/// Unfolds the tree of names.
pub(crate) fn header(tensors: &Value) -> CheckpointHeader {
    fn walk(name: &str, value: &Value, list: &mut Vec<TensorInfo>) {
        match value {
            Value::Object(children) => {
                for (part, child) in children {
                    let name = if name.is_empty() { part.clone() } else { format!("{name}.{part}") };
                    walk(&name, child, list);
                }
            }
            shape => list.push(TensorInfo {
                name: name.to_owned(),
                dtype: if name.ends_with("num_batches_tracked") { Dtype::I64 } else { Dtype::F32 },
                shape: Vec::deserialize(shape).expect("a shape"),
            }),
        }
    }
    let mut list = Vec::new();
    walk("", tensors, &mut list);
    list.sort_by(|a, b| natural::compare(&a.name, &b.name));
    CheckpointHeader::new(list)
}
