//! How fast fusion is beside a plain copy: two members 3072-w-w-10 without bias are fused from file to file, and in turns with
//! that both files are read and one is written. Members are in the page cache; both ways end with a sync to the disk.
//!
//! `cargo bench --bench fusion -- 1024 4096` measures these widths; without any, 1024, 4096 and 16384, which needs 5.3 GB below
//! the system's folder for temporary files (`TMPDIR` names another).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use engraft::fusion::{self, Ensemble, Member, Recipe};
use engraft::model::families;
use engraft::model::header::Dtype;
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::settings::Architecture;
use engraft::settings::Target;
use engraft::tensors::{Checkpoint, MakeRow, Number, Rows, write_rows};

/// Turns of both ways, of which criterion wants at least ten; it takes another to warm up.
const ROUNDS: usize = 10;
/// Bytes that the copy moves at once.
const BUFFER: usize = 1 << 20;

/// The benchmark's own errors end it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run this with `cargo bench --bench fusion`");
        return Ok(());
    }
    let mut widths: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if widths.is_empty() {
        widths = vec![1024, 4096, 16384];
    }
    println!("{} threads, load {}", rayon::current_num_threads(), load());
    let mut criterion = Criterion::default().sample_size(ROUNDS).without_plots();
    let rows: Vec<String> = widths.into_iter().map(|width| measure(&mut criterion, width)).collect::<Result<_>>()?;
    let heads = ["members", "copy", "its CPU", "fusion", "its CPU", "ratio", "fusion", "anonymous"];
    println!("the best of {ROUNDS} turns each, but the most memory:");
    println!("{:>6}{}", "w", heads.map(|head| format!("  {head:>9}")).concat());
    for row in rows {
        println!("{row}");
    }
    Ok(())
}

/// Lets criterion time the fusion, with a copy before every turn of it; one line of the table.
fn measure(criterion: &mut Criterion, width: usize) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let members = [member(folder.path(), width, 0)?, member(folder.path(), width, 1)?];
    let out = folder.path().join("out.safetensors");
    let read: u64 = members.iter().map(|path| path.metadata().map_or(0, |file| file.len())).sum();
    let moved = read / 2 * 3;
    let (mut copied, mut fused, mut anonymous) = (Spent::MOST, Spent::MOST, 0);
    let mut turn = || -> Result<f64> {
        copied = copied.min(&Spent::on(|| Ok(copy(&members, &out)?))?);
        std::fs::remove_file(&out)?;
        let (spent, peak) = with_peak(|| Spent::on(|| fuse(&members, &out)));
        let spent = spent?;
        fused = fused.min(&spent);
        anonymous = anonymous.max(peak);
        std::fs::remove_file(&out)?;
        Ok(spent.wall)
    };
    let mut failed = None;
    let mut group = criterion.benchmark_group("fusion");
    // One turn per sample: a file after another of the same size costs as much as the first.
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(moved));
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
    group.bench_function(width.to_string(), |bencher| {
        bencher.iter_custom(|turns| {
            let seconds = (0..turns).map(|_| turn()).sum::<Result<f64>>();
            Duration::from_secs_f64(seconds.unwrap_or_else(|error| {
                failed = Some(error);
                // What criterion makes of it is not shown.
                1e-9
            }))
        });
    });
    group.finish();
    if let Some(error) = failed {
        return Err(error);
    }
    let cells = [
        format!("{:.0} MB", read as f64 / 1e6),
        format!("{:.3} s", copied.wall),
        format!("{:.2} s", copied.cpu),
        format!("{:.3} s", fused.wall),
        format!("{:.2} s", fused.cpu),
        format!("{:.2}", fused.wall / copied.wall),
        format!("{:.2} GB/s", moved as f64 / 1e9 / fused.wall),
        format!("{:.1} MB", anonymous as f64 / 1e6),
    ];
    Ok(format!("{width:>6}{}", cells.map(|cell| format!("  {cell:>9}")).concat()))
}

/// Seconds by the clock, and seconds of all cores together, which other work on the machine changes less.
struct Spent {
    wall: f64,
    cpu: f64,
}

impl Spent {
    const MOST: Self = Self { wall: f64::INFINITY, cpu: f64::INFINITY };

    fn on(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        work()?;
        Ok(Self { wall: begin.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu })
    }

    fn min(&self, other: &Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Seconds that this process has computed, in hundredths; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // Of the fields behind the name, these are the ticks in user mode and in the kernel.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Weights by a generator that is seeded row by row.
struct Noise {
    seed: u64,
}

impl MakeRow for Noise {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        let mut state = self.seed ^ row as u64;
        for value in target {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *value = T::of((mixed >> 40) as f64 / 8_388_608.0 - 1.0);
        }
    }
}

/// A member's file with weights from a generator that is seeded by member, tensor and row.
fn member(folder: &Path, width: usize, index: u64) -> Result<PathBuf> {
    let path = folder.join(format!("m{index}.safetensors"));
    let shapes = [[width, 3072], [width, width], [10, width]];
    let tensors = shapes.into_iter().zip(1_u64..).map(|(shape, layer)| Rows {
        name: format!("fc{layer}.weight"),
        shape: shape.to_vec(),
        maker: Box::new(Noise { seed: (index << 60) ^ (layer << 50) }),
    });
    write_rows(&path, &tensors.collect::<Vec<_>>(), &[], &BTreeMap::new(), |_| Dtype::F32, |_, _| {})?;
    Ok(path)
}

/// From the members' files to the fused file: what a job without data does, but for its checks of the concatenation.
fn fuse(members: &[PathBuf], out: &Path) -> Result<()> {
    let members: Vec<Checkpoint> =
        members.iter().map(|path| Checkpoint::open(path)).collect::<std::result::Result<_, _>>()?;
    for member in &members {
        member.check_finite()?;
    }
    let headers: Vec<_> = members.iter().map(Checkpoint::header).collect();
    let detected = families::detect(&headers, &Architecture::default(), None)?;
    let precision = Precision::shared(&headers);
    let plan = FusionPlan::new(&detected.graphs, &Target::default(), &precision, None)?;
    let pairs = detected.graphs.iter().zip(&members);
    let ensemble = Ensemble::new(pairs.map(|(graph, weights)| Member { graph, weights }).collect())?;
    let selection = fusion::select(&ensemble, &plan.targets, fusion::magnitude, |_, _| {})?;
    let recipe: Recipe<'_> = fusion::gather(&ensemble, &selection)?;
    recipe.write(out, &BTreeMap::new(), &precision, |_, _| {})?;
    Ok(())
}

/// Reads all files and writes as much as one of them.
fn copy(files: &[PathBuf], out: &Path) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut len = 0;
    for path in files {
        let mut file = File::open(path)?;
        len = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => len += read,
            }
        }
    }
    let mut file = File::create(out)?;
    while len > 0 {
        let part = len.min(BUFFER);
        file.write_all(&buffer[..part])?;
        len -= part;
    }
    file.sync_all()
}

/// Runs `work` and looks every few milliseconds how many bytes of anonymous memory the process has.
fn with_peak<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or(0))
    })
}

/// `RssAnon` of this process; 0 where the system does not say.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// How busy the machine is.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split_whitespace().take(1).collect()
}
