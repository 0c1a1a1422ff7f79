//! The seam between calibration and devices with memory of their own: sums over what networks compute there.
//!
//! Fits and rankings need products of activations, added up over many examples, and no activation itself. Whoever wants them says
//! so beforehand, pass by pass, as data; a device then only gets inputs, and gives the sums when all have been through. The
//! processor has no such device: there networks are run node by node by whoever needs them.

use std::fmt::Debug;

use crate::exec::engine::EngineError;
use crate::model::graph::{Graph, NodeId, Window};
use crate::tensors::Weights;

/// Which value of a network is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// What a node hands on.
    Output(NodeId),
    /// Queries, keys and values of an attention, side by side.
    Projected(NodeId),
    /// The heads' outputs of an attention, side by side, before its last matrix.
    Mixed(NodeId),
}

/// A value of one of the networks: examples x positions x channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Position among the networks.
    pub network: usize,
    /// Which of its values.
    pub value: Reading,
}

/// A place of an example that a row is made of: a position of the value, and how far behind the channels that are named those are
/// that are read.
pub type RowPlace = [u32; 2];

/// A channel on its way into a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// The channel that is read.
    pub channel: usize,
    /// The column that it is added to.
    pub column: usize,
    /// What it is multiplied by.
    pub factor: f32,
}

/// What a part of the columns is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum RowPart {
    /// Single channels at each place.
    Picks {
        /// Of which value.
        source: Source,
        /// At which places: a position in [`StatisticsPass::places`].
        places: usize,
        /// Which channels, to which columns.
        picks: Vec<Pick>,
    },
    /// All columns: what a kernel sees whose outputs stand at the places, for each of `groups` groups of channels kh x kw x channels
    /// elements, 0 on the rim.
    Windows {
        /// Of which value.
        source: Source,
        /// At which places, of the output.
        places: usize,
        /// Sizes of the kernel.
        window: Window,
        /// Height and width of the value.
        input: [usize; 2],
        /// Width of the output.
        width: usize,
        /// How many groups.
        groups: usize,
    },
}

/// Rows, one for each example and place: the sum of their parts.
#[derive(Debug, Clone, PartialEq)]
pub struct RowLayout {
    /// Columns of a row, of all systems one after another.
    pub columns: usize,
    /// What they are made of.
    pub parts: Vec<RowPart>,
}

/// Systems of the same sizes that share their rows: each has its part of the features' columns and of the targets'.
#[derive(Debug, Clone, PartialEq)]
pub struct RowSystems {
    /// How many.
    pub count: usize,
    /// Their features x.
    pub features: RowLayout,
    /// Their targets y; without any columns where only features count.
    pub targets: RowLayout,
}

/// What is added up while all examples go through the networks once.
#[derive(Debug, Clone, PartialEq)]
pub struct StatisticsPass {
    /// How many places of an example each table of places has.
    pub places: Vec<usize>,
    /// What is added up.
    pub systems: Vec<RowSystems>,
}

/// Sums over the rows of one system.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// How many rows.
    pub rows: usize,
    /// Σ x xᵀ, features x features.
    pub xx: Vec<f64>,
    /// Σ y xᵀ, targets x features.
    pub yx: Vec<f64>,
    /// Σ y², by target.
    pub yy: Vec<f64>,
    /// Σ x.
    pub x: Vec<f64>,
    /// Σ y.
    pub y: Vec<f64>,
}

/// Into how many parts the examples of a pass are divided: those that are fitted to, and those held out.
pub const PARTS: usize = 2;

/// Networks on a device, ready for passes that were named beforehand.
pub trait Statistics: Debug + Send {
    /// Takes the weights of a network, of all nodes or of one.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size; or the device fails.
    fn load(&mut self, network: usize, node: Option<NodeId>, weights: &dyn Weights) -> Result<(), EngineError>;

    /// Begins a pass, with nothing added up.
    ///
    /// # Errors
    /// When there is no such pass, or the device fails.
    fn begin(&mut self, pass: usize) -> Result<(), EngineError>;

    /// Adds a batch of inputs (examples x channels x height x width) to a `part` of the pass that has begun, with the tables of places
    /// that count for this batch.
    ///
    /// # Errors
    /// When the inputs are not 1 to so many examples as were said, or the device fails.
    fn add(&mut self, inputs: &[f32], places: &[Vec<RowPlace>], part: usize) -> Result<(), EngineError>;

    /// The features of the last batch, rows x columns, of the systems at this position.
    ///
    /// # Errors
    /// When the device fails.
    fn features(&mut self, systems: usize) -> Result<Vec<f32>, EngineError>;

    /// A network's value for the last batch, the last one that the pass reads of it: examples x positions x channels.
    ///
    /// # Errors
    /// When the device fails.
    fn value(&mut self, source: Source) -> Result<Vec<f32>, EngineError>;

    /// What was added up since the pass began: for all [`RowSystems`] each system with its parts.
    ///
    /// # Errors
    /// When the device fails.
    fn sums(&mut self) -> Result<Vec<Vec<[Sums; PARTS]>>, EngineError>;
}

/// What networks are to be run for.
#[derive(Debug)]
pub struct StatisticsPlan {
    /// All passes.
    pub passes: Vec<StatisticsPass>,
    /// Most examples of a batch.
    pub batch: usize,
}

/// Where statistics are made.
pub trait StatisticsDevice: Debug + Sync {
    /// Networks with their weights on the device, which have one form of inputs; nothing where networks are run by the processor.
    ///
    /// # Errors
    /// When weights do not fit, or the device fails.
    fn open(
        &self,
        networks: &[(&Graph, &dyn Weights)],
        plan: StatisticsPlan,
    ) -> Result<Option<Box<dyn Statistics>>, EngineError>;
}

/// The processor, which runs networks node by node.
#[derive(Debug, Clone, Copy)]
pub struct Processor;

impl StatisticsDevice for Processor {
    fn open(
        &self,
        _networks: &[(&Graph, &dyn Weights)],
        _plan: StatisticsPlan,
    ) -> Result<Option<Box<dyn Statistics>>, EngineError> {
        Ok(None)
    }
}
