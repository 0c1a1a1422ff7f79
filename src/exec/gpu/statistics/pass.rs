//! A pass as programs for batches of one size.

use std::collections::BTreeMap;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::device::Device;
use crate::exec::gpu::kernels::calibration::{self, Rows};
use crate::exec::gpu::statistics::network::ReadableNetwork;
use crate::exec::gpu::statistics::places::PassPlaces;
use crate::exec::gpu::tape::{Command, Storage, Tape};
use crate::exec::statistics::{PARTS, RowPart, Source, StatisticsPass};
use crate::kernels::Geometry;

/// What becomes rows as soon as a network has come to a value.
#[derive(Debug)]
pub(super) struct Step<P> {
    /// Which network.
    pub(super) network: usize,
    /// The layer that computes the value.
    pub(super) layer: usize,
    /// Takes the rows.
    pub(super) program: P,
}

/// All that a pass does with a batch of one size, beside running the networks.
#[derive(Debug)]
pub(super) struct PassPrograms<P> {
    /// Examples of the batch.
    pub(super) examples: usize,
    /// Empties the rows.
    pub(super) start: P,
    /// In the order in which networks and values come.
    pub(super) steps: Vec<Step<P>>,
    /// Adds up, for each part of the examples.
    pub(super) ends: [P; PARTS],
}

/// The value that a part of the columns is taken of.
pub(super) fn source(part: &RowPart) -> Source {
    match part {
        RowPart::Picks { source, .. } | RowPart::Windows { source, .. } => *source,
    }
}

/// All parts of the columns that a pass takes, with the position of their systems and whether they are features (0) or targets (1).
pub(super) fn parts(pass: &StatisticsPass) -> impl Iterator<Item = (usize, usize, &RowPart)> {
    pass.systems.iter().enumerate().flat_map(|(index, systems)| {
        let sides = [&systems.features, &systems.targets].into_iter().enumerate();
        sides.flat_map(move |(side, layout)| layout.parts.iter().map(move |part| (index, side, part)))
    })
}

impl<P> PassPrograms<P> {
    /// Makes `device` ready for batches of `examples`.
    pub(super) fn prepare<D: Device<Program = P>>(
        device: &mut D,
        networks: &[ReadableNetwork],
        pass: &StatisticsPass,
        places: &PassPlaces,
        examples: usize,
    ) -> Result<Self, DeviceFault> {
        let mut start = Tape::new(Storage::F32);
        for rows in places.systems.iter().flat_map(|systems| systems.rows(examples)).filter(|rows| rows.columns > 0) {
            start.commands.push(Command::Zero(rows.place.part(0, rows.count * rows.stride * 4)));
        }
        let mut tapes: BTreeMap<(usize, usize), Tape> = BTreeMap::new();
        for (index, side, part) in parts(pass) {
            let Source { network, value } = source(part);
            let layer = networks[network].layer_of(value);
            let tape = tapes.entry((network, layer)).or_insert_with(|| Tape::new(Storage::F32));
            let rows = places.systems[index].rows(examples)[side];
            take(tape, &networks[network], [layer, examples], part, places, rows);
        }
        let mut steps = Vec::with_capacity(tapes.len());
        for ((network, layer), tape) in tapes {
            steps.push(Step { network, layer, program: device.prepare(&tape, None)? });
        }
        let mut end = |part: usize| {
            let mut tape = Tape::new(Storage::F32);
            for (systems, own) in pass.systems.iter().zip(&places.systems) {
                calibration::add(&mut tape, systems.count, own.rows(examples), own.sums[part], places.block);
            }
            device.prepare(&tape, None)
        };
        let ends = [end(0)?, end(1)?];
        Ok(Self { examples, start: device.prepare(&start, None)?, steps, ends })
    }
}

/// Puts a part of the columns on the tape.
fn take(
    tape: &mut Tape,
    network: &ReadableNetwork,
    [layer, examples]: [usize; 2],
    part: &RowPart,
    places: &PassPlaces,
    rows: Rows,
) {
    let values = network.value(layer, examples);
    match part {
        RowPart::Picks { places: table, picks, .. } => {
            calibration::pick(tape, values, places.tables[*table], picks, rows);
        }
        RowPart::Windows { places: table, window, input, width, groups, .. } => {
            let geometry = Geometry {
                channels: values.channels,
                input: *input,
                output: [1, *width],
                kernel: window.kernel,
                stride: window.stride,
                padding: window.padding,
                dilation: window.dilation,
            };
            calibration::windows(tape, values, places.tables[*table], &geometry, *groups, rows);
        }
    }
}
