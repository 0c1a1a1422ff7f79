//! The `architecture` part of a job: which network the members are, as far as the client knows.

use serde_json::Value;

use super::reader::{Object, boolean, integer, list, named, number, text};
use crate::domain::problem::FaultCode;
use crate::settings::{Architecture, NetworkChoice, Settings};

/// Most heads of a transformer.
const MAX_HEADS: u64 = 1024;
/// Largest stride and dilation.
const MAX_STEP: u64 = 64;
/// Most stages of a network.
const MAX_STAGES: usize = 64;
/// Most modules that are named one by one.
const MAX_NAMES: usize = 4096;

/// Reads `architecture`.
pub(super) fn architecture(body: &Object<'_>) -> Architecture {
    match body.value("architecture") {
        None => Architecture::default(),
        Some(Value::String(name)) if name == "auto" => Architecture::default(),
        Some(Value::Object(_)) => body.object("architecture", detailed).unwrap_or_default(),
        Some(_) => {
            body.fault(
                "architecture",
                FaultCode::InvalidValue,
                "expected `auto`, {\"family\": …}, {\"graph\": …} or settings such as {\"activation\": \"relu\"}",
            );
            Architecture::default()
        }
    }
}

fn detailed(object: &Object<'_>) -> Architecture {
    let settings = settings(object);
    let network = match (object.field("family", text), object.value("graph")) {
        (Some(name), None) => NetworkChoice::Family(name),
        (None, Some(graph)) => {
            for name in settings.entries().keys() {
                let detail = format!("a graph says itself what its `{name}` is: expected `graph` alone");
                object.fault(name, FaultCode::NotApplicable, detail);
            }
            NetworkChoice::Graph(graph.clone())
        }
        (None, None) => NetworkChoice::Auto,
        (Some(_), Some(_)) => {
            object.fault("family", FaultCode::InvalidValue, "expected either `family` or `graph`, got both");
            NetworkChoice::Auto
        }
    };
    Architecture {
        network,
        settings,
        assume: object.field("assume", boolean).unwrap_or(false),
        ignore: object.field("ignore", list(0..=MAX_NAMES, text)).unwrap_or_default(),
    }
}

/// What the client knows beyond names and shapes.
fn settings(object: &Object<'_>) -> Settings {
    let size = |number: u64| number as usize;
    let sizes = |name| {
        let steps = object.field(name, list(1..=MAX_STAGES, integer(1..=MAX_STEP)));
        steps.map(|steps| steps.into_iter().map(size).collect())
    };
    Settings {
        activation: object.field("activation", named),
        norm_place: object.field("norm_place", named),
        pool: object.field("pool", named),
        pool_after: object.field("pool_after", list(0..=MAX_NAMES, text)),
        padding: object.field("padding", named),
        stem_stride: object.field("stem_stride", integer(1..=MAX_STEP)).map(size),
        stem_pool: object.field("stem_pool", boolean),
        blur_pool: object.field("blur_pool", boolean),
        strides: sizes("strides"),
        strided: object.field("strided", named),
        dilation: sizes("dilation"),
        heads: object.field("heads", integer(1..=MAX_HEADS)).map(size),
        summary: object.field("summary", named),
        order: object.field("order", list(1..=MAX_NAMES, text)),
        output: object.field("output", named),
        eps: object.field("eps", number("a number above 0 and below 1", |eps| eps > 0.0 && eps < 1.0)),
    }
}
