//! What a device is to do, as data: a list of commands over places in its memory.
//!
//! A network is compiled to tapes once for each size of batch; a device plays them, or captures one and repeats it as a whole.
//! Nothing in here knows of a device.

use std::fmt;

use crate::kernels::Geometry;

/// How activations and their gradients are stored. Parameters, their gradients and statistics are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// 32 bits.
    F32,
    /// The upper 16 bits of an f32, rounded to the nearest.
    Bf16,
}

impl Storage {
    /// Bytes of one number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Numbers between two rows of `channels` channels: whole pieces of 16 bytes, as tensor cores and wide loads want them.
    #[must_use]
    pub const fn stride(self, channels: usize) -> usize {
        channels.next_multiple_of(16 / self.bytes())
    }
}

/// Which of a device's memories a place is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Region {
    /// What lives as long as the network: parameters, optimizer, activations.
    Arena,
    /// What a command or two right after each other need; the next operation uses the same bytes.
    Scratch,
    /// Tables that never change, written once.
    Constant,
    /// Images that the device holds, with their normalisation.
    Held,
}

/// A part of a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The memory.
    pub region: Region,
    /// Bytes before it.
    pub offset: usize,
    /// Its bytes.
    pub bytes: usize,
}

impl Place {
    /// A part of it.
    ///
    /// # Panics
    /// When it is not all inside.
    #[must_use]
    pub fn part(self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes, "a part lies inside its place");
        Self { offset: self.offset + offset, bytes, ..self }
    }
}

/// The values of a batch: examples x positions x channels, channels last. Between two positions there are `stride` numbers; those
/// behind the channels are always 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values {
    /// Where they are.
    pub place: Place,
    /// Examples of the batch.
    pub examples: usize,
    /// Positions of an example.
    pub positions: usize,
    /// Channels.
    pub channels: usize,
    /// Numbers from one position to the next.
    pub stride: usize,
}

impl Values {
    /// Positions of all examples.
    #[must_use]
    pub const fn rows(self) -> usize {
        self.examples * self.positions
    }

    /// Numbers in all, with those behind the channels.
    #[must_use]
    pub const fn numbers(self) -> usize {
        self.rows() * self.stride
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// A pointer.
    Place(Place),
    /// A null pointer.
    Null,
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl From<Place> for Argument {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

impl From<Values> for Argument {
    fn from(values: Values) -> Self {
        Self::Place(values.place)
    }
}

impl<T: Into<Self>> From<Option<T>> for Argument {
    fn from(argument: Option<T>) -> Self {
        argument.map_or(Self::Null, Into::into)
    }
}

impl From<usize> for Argument {
    fn from(count: usize) -> Self {
        Self::Int(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::Int(i32::from(flag))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

impl From<f64> for Argument {
    fn from(number: f64) -> Self {
        Self::Float(number as f32)
    }
}

/// A kernel by its name in the source, of which there is one for each storage unless it only touches parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// Without the suffix.
    pub name: &'static str,
    /// Which of its forms.
    pub storage: Option<Storage>,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.storage {
            Some(Storage::F32) => "_f32",
            Some(Storage::Bf16) => "_bf16",
            None => "",
        };
        write!(f, "{}{suffix}", self.name)
    }
}

/// One run of a kernel of ours. Blocks have one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Which kernel.
    pub kernel: Kernel,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, whole warps.
    pub threads: u32,
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Argument>,
}

/// A matrix of a product, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor {
    /// Where it begins.
    pub place: Place,
    /// How its numbers are stored.
    pub storage: Storage,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// Whether it is read as its transpose.
    pub transposed: bool,
    /// Numbers from one matrix of a batch of products to the next.
    pub step: usize,
}

/// What a product does with each result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finish {
    /// Added to each row, `columns` numbers, stored as the result is.
    pub bias: Option<Place>,
    /// Negative results become 0, after the bias.
    pub relu: bool,
}

/// `result = scale left right`, `rows` x `columns` by `depth`, for each of a batch of products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// `rows` x `depth`, unless transposed.
    pub left: Factor,
    /// `depth` x `columns`, unless transposed.
    pub right: Factor,
    /// `rows` x `columns`, never transposed.
    pub result: Factor,
    /// Rows, columns, and numbers that are multiplied for each result.
    pub sizes: [usize; 3],
    /// How many products.
    pub batch: usize,
    /// A factor of all results.
    pub scale: f32,
    /// Whether the result is added to what is there.
    pub accumulate: bool,
    /// Whether all bits of the factors count, however exactly everything else is computed.
    pub exact: bool,
    /// The last step.
    pub finish: Finish,
}

/// Which of a convolution's three passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvolutionPass {
    /// `y` of `x` and the weight.
    Forward,
    /// `dx` of `dy` and the weight.
    Input,
    /// `dweight` of `x` and `dy`.
    Weight,
}

/// A convolution with one group, all channels counted with those behind them: of `x` (examples x height x width x channels), a weight
/// (out x height x width x channels) and `y` (examples x height x width x out).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Convolution {
    /// What is computed.
    pub pass: ConvolutionPass,
    /// Sizes of the window, the input and the output; its channels are `x`'s stride.
    pub geometry: Geometry,
    /// The stride of `y`.
    pub out_channels: usize,
    /// Examples of the batch.
    pub examples: usize,
    /// How `x`, the weight and `y` are stored; the weight's gradient is stored alike.
    pub storage: Storage,
    /// `x` or `dx`.
    pub x: Place,
    /// The weight or its gradient.
    pub weight: Place,
    /// `y` or `dy`.
    pub y: Place,
    /// Whether the result is added to what is there.
    pub accumulate: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A kernel of ours.
    Launch(Launch),
    /// A product of matrices.
    Product(Product),
    /// A convolution.
    Convolution(Convolution),
    /// All bytes become 0.
    Zero(Place),
    /// The bytes of the first place go to the second, of the same size.
    Copy(Place, Place),
}

/// Commands in order, with the tables that they read.
#[derive(Debug)]
pub struct Tape {
    /// How the values that it works on are stored.
    pub storage: Storage,
    /// What is to be done.
    pub commands: Vec<Command>,
    /// What [`Region::Constant`] holds.
    pub constants: Vec<i32>,
    /// Bytes of [`Region::Scratch`] that the commands use.
    pub scratch: usize,
}

impl Tape {
    /// Nothing to do.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self { storage, commands: Vec::new(), constants: Vec::new(), scratch: 0 }
    }

    /// Adds a run of the kernel `name` in the form for the tape's storage.
    pub fn launch(&mut self, name: &'static str, grid: [usize; 3], threads: usize, arguments: Vec<Argument>) {
        self.run(Kernel { name, storage: Some(self.storage) }, grid, threads, arguments);
    }

    /// Adds a run of the kernel `name`, of which there is one form.
    pub fn launch_plain(&mut self, name: &'static str, grid: [usize; 3], threads: usize, arguments: Vec<Argument>) {
        self.run(Kernel { name, storage: None }, grid, threads, arguments);
    }

    fn run(&mut self, kernel: Kernel, grid: [usize; 3], threads: usize, arguments: Vec<Argument>) {
        let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (grid, threads) = (grid.map(size), size(threads));
        self.commands.push(Command::Launch(Launch { kernel, grid, threads, arguments }));
    }

    /// Bytes for what one operation keeps between its kernels; the next operation gets the same ones.
    pub fn scratch(&mut self, bytes: usize) -> Place {
        self.scratch = self.scratch.max(bytes);
        Place { region: Region::Scratch, offset: 0, bytes }
    }

    /// A table for kernels.
    pub fn constant(&mut self, table: &[i32]) -> Place {
        let offset = self.constants.len() * 4;
        self.constants.extend_from_slice(table);
        // The next one begins at whole pieces of 16 bytes again.
        self.constants.resize(self.constants.len().next_multiple_of(4), 0);
        Place { region: Region::Constant, offset, bytes: table.len() * 4 }
    }
}
