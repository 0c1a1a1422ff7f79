//! Multi-layer perceptrons: matrices with an activation between them.

use crate::model::families::builder::{Builder, EPS, function};
use crate::model::families::chain::{self, Layer, Room, norm_places};
use crate::model::families::modules::{Module, ModuleKind, names};
use crate::model::families::variants::{Variants, activations, epsilons};
use crate::model::families::{Candidate, Given, Unfit, pickled};
use crate::model::graph::{Op, Shape, Window};
use crate::model::header::CheckpointHeader;
use crate::settings::{Activation, NormPlace, Settings};

/// Functions that stand between layers, the most usual first.
pub(super) const FUNCTIONS: [Activation; 16] = [
    Activation::Relu,
    Activation::Gelu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Silu,
    Activation::LeakyRelu(0.01),
    Activation::LeakyRelu(0.1),
    Activation::LeakyRelu(0.2),
    Activation::GeluTanh,
    Activation::Hardswish,
    Activation::Relu6,
    Activation::Elu,
    Activation::Selu,
    Activation::Mish,
    Activation::Softplus,
    Activation::None,
];

/// Functions that may stand behind the last layer.
pub(super) const OUTPUTS: [Activation; 3] = [Activation::None, Activation::Sigmoid, Activation::Tanh];

/// Whether all dense modules are matrices.
pub(super) fn applies(modules: &[Module]) -> bool {
    modules.iter().all(|module| !matches!(module.kind, ModuleKind::Conv { .. }))
}

/// The networks that fit.
pub(super) fn candidates(
    header: &CheckpointHeader,
    modules: &[Module],
    given: Given<'_>,
) -> Result<Vec<Candidate>, Unfit> {
    let contradicted = |candidate: &Candidate| pickled::contradiction(header, &candidate.graph).is_some();
    let orders = chain::orders(modules, given.settings.order.as_deref()).map_err(Unfit::Unknown)?;
    let variants =
        Variants::new(given.settings).with(order_settings(&orders, given.settings)).with(layer_settings(&orders));
    let variants = if orders[0].len() > 1 { variants.with(activations(&FUNCTIONS)) } else { variants };
    let variants = if given.settings.output.is_some() { variants.with(outputs()) } else { variants };
    let variants =
        if modules.iter().any(Module::is_norm) { variants.with(epsilons(&[EPS, 1e-3, 1e-6])) } else { variants };
    let mut found: Vec<Candidate> = Vec::new();
    for settings in variants.combinations() {
        let candidate = network(modules, in_order(&orders, &settings), given.input, &settings)?;
        if !found.iter().any(|other| other.graph == candidate.graph) {
            found.push(candidate);
        }
    }
    if found.iter().any(|candidate| !contradicted(candidate)) {
        found.retain(|candidate| !contradicted(candidate));
    }
    // Where nothing else is open, what stands behind the last layer is: names leave room for that everywhere.
    if let [only] = &found[..]
        && *given.settings == Settings::default()
    {
        let settings = outputs().map(|output| only.settings.clone().or(output));
        let build = |settings: &Settings| network(modules, in_order(&orders, settings), given.input, settings);
        return settings.iter().map(build).collect();
    }
    Ok(found)
}

/// One value of the setting `output` for each function that may stand behind the last layer.
fn outputs() -> [Settings; 3] {
    OUTPUTS.map(|function| Settings { output: Some(function), ..Settings::default() })
}

/// One value of the setting `order` for each order, where there are several or one is given.
pub(super) fn order_settings(orders: &[Vec<Layer<'_>>], given: &Settings) -> Vec<Settings> {
    if orders.len() < 2 && given.order.is_none() {
        return Vec::new();
    }
    let settings = |layers: &Vec<Layer<'_>>| Settings { order: Some(sequence(layers)), ..Settings::default() };
    orders.iter().map(settings).collect()
}

/// The modules of a chain by name, in order of computation.
fn sequence(layers: &[Layer<'_>]) -> Vec<String> {
    let modules = layers.iter().flat_map(|layer| [Some(layer.module), layer.norm]).flatten();
    modules.map(|module| module.name.clone()).collect()
}

/// The order that `settings` name; the first where they name none, or one with other normalisations.
pub(super) fn in_order<'a, 'b>(orders: &'b [Vec<Layer<'a>>], settings: &Settings) -> &'b [Layer<'a>] {
    let named = |layers: &&Vec<Layer<'_>>| settings.order.as_ref() == Some(&sequence(layers));
    orders.iter().find(named).unwrap_or(&orders[0])
}

/// The values of the setting `norm_place`.
pub(super) fn layer_settings(orders: &[Vec<Layer<'_>>]) -> Vec<Settings> {
    let place = |place| Settings { norm_place: Some(place), ..Settings::default() };
    norm_places(&orders[0]).into_iter().map(place).collect()
}

fn network(
    modules: &[Module],
    layers: &[Layer<'_>],
    input: Option<&Shape>,
    settings: &Settings,
) -> Result<Candidate, Unfit> {
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
    add_matrices(&mut builder, layers, settings);
    if let Some(op) = settings.output.and_then(function) {
        builder.then("output", op);
    }
    let graph = builder.build().map_err(|error| Unfit::Unknown(error.to_string()))?;
    let mut assumptions = vec![order_of(layers)];
    if settings.output.is_none() {
        assumptions.insert(0, "no activation after the last layer".to_owned());
    }
    Ok(Candidate { family: "mlp", graph, settings: settings.clone(), assumptions })
}

/// Adds matrices with their normalisations, an activation behind all but the last.
pub(super) fn add_matrices(builder: &mut Builder, layers: &[Layer<'_>], settings: &Settings) {
    for (index, layer) in layers.iter().enumerate() {
        builder.module(layer.module, builder.last(), Window::square(1, 1, 0), EPS);
        match layers.get(index + 1) {
            Some(next) => add_activation(builder, layer, Room::between(layer, next), settings),
            None => add_norm(builder, layer, settings),
        }
    }
}

/// Adds the normalisation of a layer, where it has one.
fn add_norm(builder: &mut Builder, layer: &Layer<'_>, settings: &Settings) {
    if let Some(norm) = layer.norm {
        builder.module(norm, builder.last(), Window::square(1, 1, 0), settings.eps.unwrap_or(EPS));
    }
}

/// Adds normalisation and activation behind a layer, as far as names leave room.
pub(super) fn add_activation(builder: &mut Builder, layer: &Layer<'_>, room: Room, settings: &Settings) {
    let place = match layer.norm {
        Some(_) => room.activation(settings.norm_place.unwrap_or(NormPlace::BeforeActivation)),
        None => (room.places() != Some(0)).then_some(NormPlace::BeforeActivation),
    };
    let op = function(settings.activation.unwrap_or(Activation::Relu));
    let name = format!("{}.{}", layer.module.name, settings.activation.unwrap_or(Activation::Relu).word());
    if place == Some(NormPlace::AfterActivation)
        && let Some(op) = &op
    {
        builder.then(&name, op.clone());
    }
    add_norm(builder, layer, settings);
    if place == Some(NormPlace::BeforeActivation)
        && let Some(op) = op
    {
        builder.then(&name, op);
    }
}

/// In which order the layers were taken to be.
pub(super) fn order_of(layers: &[Layer<'_>]) -> String {
    let names: Vec<&str> = layers.iter().map(|layer| layer.module.name.as_str()).collect();
    format!("layers in the order {}", names.join(", "))
}
