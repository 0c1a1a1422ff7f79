//! How fast this machine computes, measured on small networks in a fraction of a second: what plans estimate times by.

use std::time::Instant;

use rayon::ThreadPoolBuilder;
use rustix::time::{ClockId, clock_gettime};

use super::phases::Halt;
use crate::cost;
use crate::domain::problem::{Code, Problem};
use crate::domain::speed::Speed;
use crate::exec::{self, Inputs, Update};
use crate::fusion::compensate;
use crate::kernels::dropout::Draw;
use crate::kernels::loss::Targets;
use crate::model::families::fresh;
use crate::model::graph::{Graph, GraphError};
use crate::settings::{ComputeOptions, Optimizer};
use crate::train::{TrainError, init};

/// How often each network takes a step at least; the fastest counts, for a machine is never faster than it is.
const STEPS: usize = 3;
/// Seconds after which no further step is taken.
const ENOUGH: f64 = 0.1;
/// Steps before, in which a device compiles what it needs and memory is touched for the first time.
const WARM_UP: usize = 2;
/// Seconds after which a slow machine is spared all further steps.
const TOO_LONG: f64 = 1.0;
/// How many times longer than its share of the processors something takes where these are busy with something else.
const CROWDED: f64 = 2.0;
/// Speeds of what is not in question while another is measured.
const UNLIMITED: Speed = Speed {
    products: f64::INFINITY,
    convolutions: f64::INFINITY,
    elements: f64::INFINITY,
    solving: f64::INFINITY,
    step_seconds: 0.0,
};

/// Measures the device of `options`.
///
/// # Errors
/// When the device fails, or no threads can be had.
pub fn measure(options: &ComputeOptions) -> Result<Speed, Problem> {
    measured(options).map_err(|halt| match halt {
        Halt::Failed(problem) => problem,
        Halt::Stopped => Problem::new(Code::Internal, "measuring was stopped"),
    })
}

fn measured(options: &ComputeOptions) -> Result<Speed, Halt> {
    let pool = ThreadPoolBuilder::new().num_threads(options.threads.max(1)).build();
    let pool = pool.map_err(|error| Problem::new(Code::ResourcesExhausted, format!("no threads: {error}")))?;
    pool.install(|| {
        let [pixels, image] = [vec![1, 28, 28], vec![3, 32, 32]];
        let network = |graph: Result<Graph, GraphError>| graph.map_err(Problem::from);
        let mut speed =
            Speed { step_seconds: step(options, &network(fresh::mlp(&vec![2], &[2], 2))?, 1)?, ..UNLIMITED };
        let rate = |graph: &Graph, batch: usize, known: Speed, unit: Speed| -> Result<f64, Halt> {
            let seconds = (step(options, graph, batch)? - known.step_seconds) / batch as f64;
            // What is known already takes its part; the rest, and a tenth at least, is what is in question.
            let rest = (seconds - cost::step_seconds(graph, &known)).max(seconds / 10.0);
            Ok(cost::step_seconds(graph, &unit) / rest)
        };
        let dense = network(fresh::mlp(&pixels, &[512, 512], 10))?;
        speed.products = rate(&dense, 128, speed, Speed { products: 1.0, ..UNLIMITED })?;
        let convolutional = network(fresh::vgg11(&image, 16, 10))?;
        speed.convolutions = rate(&convolutional, 32, speed, Speed { convolutions: 1.0, ..UNLIMITED })?;
        let normalised = network(fresh::resnet18(&image, 16, 10))?;
        speed.elements = rate(&normalised, 16, speed, Speed { elements: 1.0, ..UNLIMITED })?;
        speed.solving = compensate::solving_speed(|solve| {
            let stopwatch = Stopwatch::start(&ComputeOptions::cpu(options.threads));
            solve();
            stopwatch.seconds()
        });
        Ok(speed)
    })
}

/// The time of something that is computed.
struct Stopwatch {
    start: Instant,
    /// Processor seconds of this process before, and the processors that it computes on; none on a GPU.
    processors: Option<(f64, f64)>,
}

impl Stopwatch {
    fn start(options: &ComputeOptions) -> Self {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = (!options.device.is_gpu()).then(|| (own_seconds(), options.threads.clamp(1, most) as f64));
        Self { start: Instant::now(), processors }
    }

    /// Seconds since. Where other processes have taken the processors meanwhile, only what this one had of them counts: a job is not
    /// estimated by the load of the moment in which its worker started.
    fn seconds(&self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        let own = self.processors.map(|(before, processors)| (own_seconds() - before) / processors);
        own.filter(|own| seconds > CROWDED * own).unwrap_or(seconds)
    }
}

/// Processor seconds of all threads of this process.
fn own_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds of the fastest of some training steps on `batch` examples.
fn step(options: &ComputeOptions, graph: &Graph, batch: usize) -> Result<f64, Halt> {
    let mut network = exec::compile(options, graph, batch)?;
    network.load(&init(graph, 0).map_err(TrainError::from)?).map_err(TrainError::from)?;
    network.init_optimizer(&Optimizer::default());
    let images: Vec<f32> = (0..batch * network.example_len()).map(|index| (index % 251) as f32 / 251.0).collect();
    let labels: Vec<u32> = (0..batch).map(|index| (index % graph.classes()) as u32).collect();
    let update = Update { lr_scale: 1e-3, clip_norm: None };
    let (mut fastest, begin) = (f64::INFINITY, Instant::now());
    for index in 0.. {
        let stopwatch = Stopwatch::start(options);
        let draw = Draw { seed: 0, step: index as u64 };
        network.step(Inputs::Images(&images), Targets::of(&labels), update, draw).map_err(TrainError::from)?;
        network.take_steps(true).map_err(TrainError::from)?;
        fastest = fastest.min(stopwatch.seconds());
        let enough = if index < WARM_UP + STEPS { TOO_LONG } else { ENOUGH };
        if begin.elapsed().as_secs_f64() > enough && (index >= WARM_UP || !options.device.is_gpu()) {
            break;
        }
    }
    Ok(fastest)
}
