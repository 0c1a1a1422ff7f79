//! The `target` part of a job: one size, and what it leaves alone.

use std::collections::BTreeMap;

use serde_json::Value;

use super::MAX_MEMBERS;
use super::reader::{Object, choice, integer, list, number, text};
use crate::domain::problem::FaultCode;
use crate::settings::{Allocation, Budget, LayerSize, Resource, Size, Target};

/// Most units that a layer may be given.
const WIDEST: u64 = 1 << 23;
/// Most layers that are named one by one.
const MAX_LAYERS: usize = 4096;

/// Reads the object `target`.
pub(super) fn target(object: &Object<'_>) -> Target {
    Target {
        size: size(object),
        round_to: object.field("round_to", integer(1..=65_536)).unwrap_or(1) as usize,
        keep: object.field("keep", list(0..=MAX_LAYERS, text)).unwrap_or_default(),
        layers: layers(object),
    }
}

/// The one size that is given.
fn size(object: &Object<'_>) -> Size {
    let allocation = object.field(
        "allocation",
        choice(&[("uniform", Some(Allocation::Uniform)), ("sensitivity", Some(Allocation::Sensitivity))]),
    );
    let width = width(object);
    let budgets = Resource::ALL.map(|resource| {
        let limit = object.field(resource.name(), integer(1..=u64::MAX))?;
        Some(Budget { resource, limit, allocation: allocation.unwrap_or_default() })
    });
    let given: Vec<&str> =
        ["width", "params", "macs", "bytes"].into_iter().filter(|name| object.value(name).is_some()).collect();
    for name in given.iter().skip(1) {
        object.fault(
            name,
            FaultCode::InvalidValue,
            "expected one of `width`, `params`, `macs` and `bytes`, got several",
        );
    }
    let budget = budgets.into_iter().flatten().next();
    if allocation.is_some() && budget.is_none() {
        object.fault("allocation", FaultCode::InvalidValue, "goes with a budget (`params`, `macs` or `bytes`) only");
    }
    budget.map_or(width, Size::Budget)
}

fn width(object: &Object<'_>) -> Size {
    let factor = number("a factor above 0 and at most 64", |factor| factor > 0.0 && factor <= 64.0);
    match object.value("width") {
        Some(Value::Object(_)) => {
            let member = |object: &Object<'_>| {
                let index = integer(0..=MAX_MEMBERS as u64 - 1);
                let index = object.required("member", "the position of a member, from 0", index);
                index.map_or(Size::Member, |index| Size::WidthsOf(index as usize))
            };
            object.object("width", member).unwrap_or_default()
        }
        Some(Value::String(name)) if name == "member" => Size::Member,
        Some(Value::Number(_)) => object.field("width", factor).map_or(Size::Member, Size::Factor),
        Some(_) => {
            object.fault(
                "width",
                FaultCode::InvalidValue,
                "expected \"member\", {\"member\": 0} or a factor such as 0.5",
            );
            Size::Member
        }
        None => Size::Member,
    }
}

/// Sizes of single layers, by their names.
fn layers(object: &Object<'_>) -> BTreeMap<String, LayerSize> {
    object.entries("layers", MAX_LAYERS, |layer| {
        let factor = number("a factor above 0 and at most 64", |factor| factor > 0.0 && factor <= 64.0);
        let width = layer.field("width", integer(1..=WIDEST)).map(|width| LayerSize::Width(width as usize));
        let factor = layer.field("factor", factor).map(LayerSize::Factor);
        if layer.value("width").is_some() == layer.value("factor").is_some() {
            layer.fault(
                "width",
                FaultCode::MissingField,
                "expected either `width` (units) or `factor` (of the member width)",
            );
        }
        width.or(factor)
    })
}
