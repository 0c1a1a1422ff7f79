//! Multi-layer perceptrons: matrices with ReLU between them.

use crate::model::families::builder::Builder;
use crate::model::families::chain::{self, Layer};
use crate::model::families::modules::{Module, ModuleKind, names};
use crate::model::families::{Candidate, Unfit};
use crate::model::graph::{Op, Shape};

/// Whether all dense modules are matrices.
pub(super) fn applies(modules: &[Module]) -> bool {
    modules.iter().all(|module| !matches!(module.kind, ModuleKind::Conv { .. }))
}

/// The one network that fits.
pub(super) fn candidates(modules: &[Module], input: Option<&Shape>) -> Result<Vec<Candidate>, Unfit> {
    let layers = chain::order(modules).map_err(Unfit::Unknown)?;
    let Some(ModuleKind::Linear { input: width, .. }) = layers.first().map(|layer| layer.module.kind) else {
        return Err(Unfit::Unknown("there is no matrix".to_owned()));
    };
    let shape = input.cloned().unwrap_or_else(|| vec![width]);
    let values: usize = shape.iter().product();
    if values != width {
        let first = &layers[0].module.name;
        return Err(Unfit::Input(format!(
            "the first layer `{first}` reads {width} values, an example of shape {shape:?} has {values}"
        )));
    }
    let mut builder = Builder::new(&shape, names(modules));
    if shape.len() > 1 {
        builder.then("flatten", Op::Flatten);
    }
    add_matrices(&mut builder, &layers);
    let graph = builder.build().map_err(|error| Unfit::Unknown(error.to_string()))?;
    let assumptions = vec!["ReLU between the layers, none after the last".to_owned(), order_of(&layers)];
    Ok(vec![Candidate { family: "mlp", graph, assumptions }])
}

/// Adds matrices with their normalisations, ReLU behind all but the last.
pub(super) fn add_matrices(builder: &mut Builder, layers: &[Layer<'_>]) {
    for (index, layer) in layers.iter().enumerate() {
        builder.module(layer.module, builder.last(), 1, 0);
        if let Some(norm) = layer.norm {
            builder.module(norm, builder.last(), 1, 0);
        }
        if index + 1 < layers.len() {
            builder.then(&format!("{}.relu", layer.module.name), Op::Relu);
        }
    }
}

/// Tells in which order the layers were taken to be.
pub(super) fn order_of(layers: &[Layer<'_>]) -> String {
    let names: Vec<&str> = layers.iter().map(|layer| layer.module.name.as_str()).collect();
    format!("layers in the order {}", names.join(", "))
}
