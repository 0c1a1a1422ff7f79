//! Sums over what networks compute, made where they compute it.
//!
//! Several networks lie in one memory. For every batch each of them runs up to the values that the pass reads; their rows are taken as
//! soon as they are there, and then added up: products in f32 with all bits of the factors, over blocks of rows, sums in f64. Nothing
//! is read back before a pass ends, but what somebody asks for.

mod network;
mod pass;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use crate::exec::engine::{BatchError, DeviceFault, EngineError};
use crate::exec::gpu::arena::Room;
use crate::exec::gpu::device::Device;
use crate::exec::gpu::statistics::network::ReadableNetwork;
use crate::exec::gpu::statistics::pass::{PassPrograms, parts, source};
use crate::exec::gpu::statistics::places::{PassPlaces, SumsRead};
use crate::exec::gpu::tape::{Command, Place, Storage, Tape, Values};
use crate::exec::statistics::{PARTS, RowPlace, Source, Statistics, StatisticsPass, StatisticsPlan, Sums};
use crate::model::graph::{Graph, NodeId};
use crate::tensors::Weights;

/// Networks on a device, ready for passes.
#[derive(Debug)]
pub struct GpuStatistics<D: Device> {
    device: D,
    networks: Vec<ReadableNetwork>,
    /// For each network the layers behind which one may stop, ascending.
    stops: Vec<Vec<usize>>,
    passes: Vec<StatisticsPass>,
    /// Most examples of a batch, and the numbers of one.
    sizes: [usize; 2],
    images: Place,
    /// The first byte of what a pass needs.
    first: usize,
    /// By network, examples of a batch, and first layer.
    segments: BTreeMap<(usize, usize, usize), D::Program>,
    running: Option<Running<D::Program>>,
}

/// The pass that has begun.
#[derive(Debug)]
struct Running<P> {
    pass: usize,
    places: PassPlaces,
    programs: Vec<PassPrograms<P>>,
    /// Examples of each part.
    examples: [usize; PARTS],
    /// Examples of the last batch.
    last: usize,
}

impl<D: Device> GpuStatistics<D> {
    /// Networks with their weights on `device`.
    ///
    /// # Errors
    /// When weights do not fit, or the device fails.
    pub fn open(mut device: D, networks: &[(&Graph, &dyn Weights)], plan: StatisticsPlan) -> Result<Self, EngineError> {
        let StatisticsPlan { passes, batch } = plan;
        let example = networks.first().map_or(0, |(graph, _)| graph.input_shape().iter().product());
        let mut room = Room(0);
        let images = room.place(batch * example * 4);
        let first = room.0;
        let mut end = passes.iter().map(|pass| PassPlaces::plan(pass, batch, first).end).max().unwrap_or(first);
        let mut own = Vec::with_capacity(networks.len());
        for (graph, _) in networks {
            let network = ReadableNetwork::new(graph, batch, images, end);
            end = network.end();
            own.push(network);
        }
        device.reserve(end, 0)?;
        let mut stops = vec![BTreeSet::new(); own.len()];
        for Source { network, value } in passes.iter().flat_map(parts).map(|(_, _, part)| source(part)) {
            stops[network].insert(own[network].layer_of(value));
        }
        let stops = stops.into_iter().map(|stops| stops.into_iter().collect()).collect();
        let (sizes, segments) = ([batch, example], BTreeMap::new());
        let mut statistics =
            Self { device, networks: own, stops, passes, sizes, images, first, segments, running: None };
        for (index, (_, weights)) in networks.iter().enumerate() {
            statistics.load(index, None, *weights)?;
        }
        Ok(statistics)
    }

    /// Runs a network from the layer `from` to `to`, both included.
    fn run(&mut self, network: usize, [from, to]: [usize; 2], examples: usize) -> Result<(), DeviceFault> {
        let mut next = from;
        let stops = self.stops[network].iter().filter(|stop| (from..=to).contains(*stop));
        for stop in stops.copied().collect::<Vec<_>>() {
            let key = (network, examples, next);
            if !self.segments.contains_key(&key) {
                let tape = self.networks[network].tape(next..stop + 1, examples);
                self.segments.insert(key, self.device.prepare(&tape, None)?);
            }
            if let Some(program) = self.segments.get_mut(&key) {
                self.device.play(program)?;
            }
            next = stop + 1;
        }
        Ok(())
    }

    /// Rows of f32 numbers without what is between them.
    fn read_rows(&mut self, place: Place, [count, columns, stride]: [usize; 3]) -> Result<Vec<f32>, DeviceFault> {
        let mut padded = vec![0.0_f32; count * stride];
        self.device.read(place.part(0, padded.len() * 4), bytemuck::cast_slice_mut(&mut padded))?;
        Ok(padded.chunks_exact(stride.max(1)).flat_map(|row| &row[..columns]).copied().collect())
    }

    fn running(&self) -> Result<&Running<D::Program>, DeviceFault> {
        self.running.as_ref().ok_or_else(no_pass)
    }
}

fn no_pass() -> DeviceFault {
    DeviceFault::Refused("no pass has begun".to_owned())
}

impl<D: Device> Statistics for GpuStatistics<D> {
    fn load(&mut self, network: usize, node: Option<NodeId>, weights: &dyn Weights) -> Result<(), EngineError> {
        self.networks[network].load(&mut self.device, node, weights)
    }

    fn begin(&mut self, pass: usize) -> Result<(), EngineError> {
        // What the pass before needed goes first.
        self.running = None;
        let places = PassPlaces::plan(&self.passes[pass], self.sizes[0], self.first);
        let mut tape = Tape::new(Storage::F32);
        for sums in places.systems.iter().flat_map(|systems| &systems.sums) {
            let all = [sums.xx, sums.yx, sums.yy, sums.x, sums.y].into_iter().filter(|place| place.bytes > 0);
            tape.commands.extend(all.map(Command::Zero));
        }
        let mut program = self.device.prepare(&tape, None)?;
        self.device.play(&mut program)?;
        self.running = Some(Running { pass, places, programs: Vec::new(), examples: [0; PARTS], last: 0 });
        Ok(())
    }

    fn add(&mut self, inputs: &[f32], places: &[Vec<RowPlace>], part: usize) -> Result<(), EngineError> {
        let [most, example] = self.sizes;
        let examples = inputs.len() / example.max(1);
        if examples == 0 || examples > most || examples * example != inputs.len() {
            return Err(BatchError { most, example, got: inputs.len() }.into());
        }
        let Some(mut running) = self.running.take() else { return Err(no_pass().into()) };
        let bytes = bytemuck::cast_slice(inputs);
        self.device.write(self.images.part(0, bytes.len()), bytes)?;
        for (table, places) in running.places.tables.iter().zip(places) {
            self.device.write(table.place, bytemuck::cast_slice(places.as_flattened()))?;
        }
        if !running.programs.iter().any(|programs| programs.examples == examples) {
            let pass = &self.passes[running.pass];
            let (device, networks) = (&mut self.device, &self.networks);
            running.programs.push(PassPrograms::prepare(device, networks, pass, &running.places, examples)?);
        }
        for programs in running.programs.iter_mut().filter(|programs| programs.examples == examples) {
            self.device.play(&mut programs.start)?;
            let mut done = (0, 0);
            for step in &mut programs.steps {
                let from = if done.0 == step.network { done.1 } else { 0 };
                self.run(step.network, [from, step.layer], examples)?;
                self.device.play(&mut step.program)?;
                done = (step.network, step.layer + 1);
            }
            self.device.play(&mut programs.ends[part])?;
        }
        running.examples[part] += examples;
        running.last = examples;
        self.running = Some(running);
        Ok(())
    }

    fn features(&mut self, systems: usize) -> Result<Vec<f32>, EngineError> {
        let running = self.running()?;
        let [rows, _] = running.places.systems[systems].rows(running.last);
        Ok(self.read_rows(rows.place, [rows.count, rows.columns, rows.stride])?)
    }

    fn value(&mut self, source: Source) -> Result<Vec<f32>, EngineError> {
        let network = &self.networks[source.network];
        let values = network.value(network.layer_of(source.value), self.running()?.last);
        let Values { place, channels, stride, .. } = values;
        Ok(self.read_rows(place, [values.rows(), channels, stride])?)
    }

    fn sums(&mut self) -> Result<Vec<Vec<[Sums; PARTS]>>, EngineError> {
        let running = self.running.as_ref().ok_or_else(no_pass)?;
        let mut all = Vec::with_capacity(running.places.systems.len());
        for (systems, own) in self.passes[running.pass].systems.iter().zip(&running.places.systems) {
            let mut parts = Vec::with_capacity(PARTS);
            for places in own.sums {
                let mut read = |place: Place| -> Result<Vec<f64>, DeviceFault> {
                    let mut numbers = vec![0.0_f64; place.bytes / 8];
                    if !numbers.is_empty() {
                        self.device.read(place, bytemuck::cast_slice_mut(&mut numbers))?;
                    }
                    Ok(numbers)
                };
                let (xx, yx, yy) = (read(places.xx)?, read(places.yx)?, read(places.yy)?);
                parts.push(SumsRead { xx, yx, yy, x: read(places.x)?, y: read(places.y)? });
            }
            let of_system = |system: usize| {
                let rows = |part: usize| own.rows(running.examples[part])[0].count;
                [0, 1].map(|part| parts[part].of(system, systems.count, rows(part)))
            };
            all.push((0..systems.count).map(of_system).collect());
        }
        Ok(all)
    }
}
