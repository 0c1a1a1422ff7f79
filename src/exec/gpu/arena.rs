//! What lies where in a network's memory on the device.

use crate::exec::compile::Compiled;
use crate::exec::gpu::kernels::attention::{Sizes, Work};
use crate::exec::gpu::kernels::batch_norm::{Running, Statistics};
use crate::exec::gpu::kernels::scalars;
use crate::exec::gpu::parameters::FlatParameters;
use crate::exec::gpu::residual::Role;
use crate::exec::gpu::sharing::shared;
use crate::exec::gpu::tape::{Place, Region, Storage, Values};
use crate::exec::layer::Operation;
use crate::exec::lowering::{Plain, Weighted};
use crate::exec::memory::{BufferValue, Purpose, Slots};

/// Places begin at whole pieces of so many bytes.
const ALIGNMENT: usize = 256;

/// Results of steps that the device keeps until they are read.
pub(super) const RESULTS: usize = 128;

/// Bytes of a result: the loss, what was right, and nothing.
pub(super) const RESULT: usize = 16;

/// What training needs besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrainingPlaces {
    /// As the weights.
    pub(super) gradients: Place,
    /// The optimizer's numbers for each weight.
    pub(super) state: [Place; 2],
    /// Gradients of convolutions, stored as activations are, where those are not f32.
    pub(super) low_gradients: Option<Place>,
}

/// What one layer keeps besides its output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept {
    /// Nothing.
    Nothing,
    /// Positions of maxima, moments of groups, norms of channels.
    Numbers(Place),
    /// Those of a batch.
    Statistics(Statistics),
    /// What an attention works with.
    Attention(Work),
}

/// All places.
#[derive(Debug)]
pub(super) struct Arena {
    /// What all of it takes.
    pub(super) bytes: usize,
    /// What stays the same where an arena for training takes the place of one without.
    pub(super) kept: usize,
    pub(super) scalars: Place,
    pub(super) results: Place,
    /// 1 where a weight is not finite.
    pub(super) flag: Place,
    pub(super) weights: Place,
    /// The weights as products read them, where that is not f32.
    pub(super) low: Option<Place>,
    /// Of each BatchNorm.
    pub(super) running: Vec<Running>,
    pub(super) images: Place,
    /// Of each example of a batch which image of those that are held it is.
    pub(super) indices: Place,
    /// How it is seen.
    pub(super) views: Place,
    /// Mean and deviation of each channel of the input.
    pub(super) normalization: Place,
    pub(super) truths: Place,
    pub(super) teacher: Place,
    pub(super) losses: Place,
    pub(super) right: Place,
    pub(super) activations: Vec<Values>,
    pub(super) gradients: Vec<Values>,
    /// Of each layer.
    pub(super) kept_by: Vec<Kept>,
    pub(super) training: Option<TrainingPlaces>,
}

impl Arena {
    /// For batches of `examples` examples, from the byte `first` of the memory on.
    pub(super) fn plan(
        compiled: &Compiled<f32>,
        parameters: &FlatParameters,
        roles: &[Role],
        [examples, example]: [usize; 2],
        storage: Storage,
        purpose: Purpose,
        first: usize,
    ) -> Self {
        let mut room = Room(first);
        let [scalars, results, flag] = [scalars::BYTES, RESULTS * RESULT, 4].map(|bytes| room.place(bytes));
        let weights = room.place(parameters.numbers * 4);
        let low = (storage != Storage::F32).then(|| room.place(parameters.numbers * storage.bytes()));
        let pair = |room: &mut Room, numbers: usize| [room.place(numbers * 4), room.place(numbers * 4)];
        let features = compiled.running.iter().map(|running| running.mean.len());
        let running = features.map(|features| pair(&mut room, features)).map(|[mean, var]| Running { mean, var });
        let running = running.collect();
        let kept = room.0;
        let training = (purpose == Purpose::Training).then(|| TrainingPlaces {
            gradients: room.place(parameters.numbers * 4),
            state: pair(&mut room, parameters.numbers),
            low_gradients: low.map(|_| room.place(parameters.convolutions * storage.bytes())),
        });
        let outputs = compiled.values[compiled.output].len;
        let images = room.place(examples * example * 4);
        let [indices, views] = [4, 12].map(|bytes| room.place(examples * bytes));
        let normalization = room.place(compiled.values.first().map_or(0, |input| input.channels * 8));
        let [truths, teacher] = pair(&mut room, examples * outputs.max(1));
        let [losses, right] = pair(&mut room, examples);
        let (activations, gradients) = values(compiled, roles, [examples, storage.bytes()], purpose, &mut room);
        let kept_by = (0..compiled.layers.len()).map(|layer| keep(compiled, layer, &activations, storage, &mut room));
        let kept_by = kept_by.collect();
        let bytes = room.0;
        Self {
            bytes,
            kept,
            scalars,
            results,
            flag,
            weights,
            low,
            running,
            images,
            indices,
            views,
            normalization,
            truths,
            teacher,
            losses,
            right,
            activations,
            gradients,
            kept_by,
            training,
        }
    }
}

/// The values of a network on the device, nowhere yet.
pub(super) fn shapes(compiled: &Compiled<f32>, examples: usize, storage: Storage) -> Vec<Values> {
    let nowhere = Place { region: Region::Arena, offset: 0, bytes: 0 };
    let shape = |value: &BufferValue| {
        let (channels, positions) = (value.channels, value.len / value.channels);
        Values { place: nowhere, examples, positions, channels, stride: storage.stride(channels) }
    };
    compiled.values.iter().map(shape).collect()
}

/// Places for activations and their gradients.
fn values(
    compiled: &Compiled<f32>,
    roles: &[Role],
    [examples, bytes]: [usize; 2],
    purpose: Purpose,
    room: &mut Room,
) -> (Vec<Values>, Vec<Values>) {
    let storage = if bytes == 2 { Storage::Bf16 } else { Storage::F32 };
    let shapes = shapes(compiled, examples, storage);
    let mut lives: Vec<BufferValue> = compiled.values.clone();
    for (value, shape) in lives.iter_mut().zip(&shapes) {
        value.len = shape.positions * shape.stride;
    }
    for (layer, role) in roles.iter().enumerate() {
        if let Some(relu6) = role.relu6() {
            // What a ReLU6 would have written is written in place of what it would have read.
            lives[compiled.layers[relu6].output].producer = layer;
            lives[compiled.layers[layer].output].len = 0;
        }
        if let Role::Applies(residual) = role {
            // What a BatchNorm reads is read again by the sum, and what it would have written is not.
            let norm = &compiled.layers[residual.norm];
            let read = &mut lives[norm.inputs[0]];
            read.last_reader = read.last_reader.max(layer);
            lives[norm.output].len = 0;
        }
    }
    let slots = Slots::plan_shared(&lives, compiled.layers.len(), purpose, &shared(compiled, roles, &lives));
    let places: Vec<Place> = slots.lens.iter().map(|len| room.place(len * examples * bytes)).collect();
    let placed = |slots: &[usize]| -> Vec<Values> {
        let placed = shapes.iter().zip(slots).zip(&lives);
        placed
            .map(|((shape, slot), life)| {
                let bytes = (life.len * examples * bytes).min(places[*slot].bytes);
                Values { place: places[*slot].part(0, bytes), ..*shape }
            })
            .collect()
    };
    let gradients = if slots.gradient.is_empty() { Vec::new() } else { placed(&slots.gradient) };
    (placed(&slots.activation), gradients)
}

/// What a layer keeps.
fn keep(compiled: &Compiled<f32>, layer: usize, values: &[Values], storage: Storage, room: &mut Room) -> Kept {
    let layer = &compiled.layers[layer];
    let y = values[layer.output];
    match &layer.operation {
        Operation::Plain(Plain::MaxPool { .. }) => Kept::Numbers(room.place(y.numbers() * 4)),
        Operation::Plain(Plain::Attention(sizes)) => {
            let sizes = Sizes::of(sizes, y.examples);
            let [packed, probabilities, forward, backward] = Work::bytes(sizes, storage);
            let [packed, probabilities] = [packed, probabilities].map(|bytes| room.place(bytes));
            Kept::Attention(Work { packed, probabilities, passing: room.place(forward.max(backward)) })
        }
        Operation::Weighted { operation, .. } => match operation {
            Weighted::BatchNorm(_) => {
                let [mean, inverse_std] = [0; 2].map(|_| room.place(y.channels * 4));
                Kept::Statistics(Statistics { mean, inverse_std })
            }
            Weighted::GroupNorm { sizes, .. } => Kept::Numbers(room.place(sizes.moments(y.rows() * y.channels) * 8)),
            Weighted::ResponseNorm { .. } => Kept::Numbers(room.place(y.examples * (y.channels + 1) * 4)),
            Weighted::Linear(_)
            | Weighted::Conv(_)
            | Weighted::Depthwise(_)
            | Weighted::LayerScale
            | Weighted::ClassToken { .. }
            | Weighted::PositionalEmbedding => Kept::Nothing,
        },
        Operation::Input { .. } | Operation::Plain(_) => Kept::Nothing,
    }
}

/// Bytes that are given away one after another.
#[derive(Debug)]
pub(super) struct Room(pub(super) usize);

impl Room {
    pub(super) fn place(&mut self, bytes: usize) -> Place {
        let offset = self.0;
        self.0 += bytes.next_multiple_of(ALIGNMENT);
        Place { region: Region::Arena, offset, bytes }
    }
}
