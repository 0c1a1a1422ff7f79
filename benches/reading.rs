//! How fast checkpoints of each format are read beside the plain reading of their files: opened, and every weight seen once. Files are in
//! the page cache.
//!
//! `cargo bench --bench reading -- 256` takes files of so many MiB; without a number, of 256, which needs four times that below the
//! system's folder for temporary files (`TMPDIR` names another).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engraft::export::{self, ExportFormat, Options};
use engraft::model::families::fresh;
use engraft::tensors::{Checkpoint, StateDict};
use engraft::train::init;

/// Turns of each way, one after the other; the best counts.
const ROUNDS: usize = 7;
/// Bytes that the plain reading takes at once.
const BUFFER: usize = 1 << 20;

/// The benchmark's own errors end it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run this with `cargo bench --bench reading`");
        return Ok(());
    }
    let size = std::env::args().find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(256);
    let folder = tempfile::tempdir()?;
    println!("{:<14}{:>10}{:>14}{:>14}{:>10}", "format", "MiB", "plain GB/s", "open GB/s", "ratio");
    for path in files(folder.path(), size)? {
        let bytes = path.metadata()?.len();
        let (mut plain, mut opened) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            plain = plain.min(timed(|| read(&path))?);
            opened = opened.min(timed(|| Ok(Checkpoint::open(&path)?.check_finite()?))?);
        }
        let speed = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
        let name = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let ratio = speed(opened) / speed(plain);
        println!("{name:<14}{:>10}{:>14.2}{:>14.2}{ratio:>10.2}", bytes >> 20, speed(plain), speed(opened));
    }
    Ok(())
}

/// One network as a file of each format.
fn files(folder: &Path, size: usize) -> Result<Vec<PathBuf>> {
    // A multi-layer perceptron of two square layers, mostly.
    let width = ((size << 20) as f64 / 8.0).sqrt() as usize;
    let graph = fresh::mlp(&vec![width], &[width, width], 10)?;
    let weights: StateDict = init::init(&graph, 1)?;
    let first = folder.join("weights.safetensors");
    weights.save(&first, &BTreeMap::new())?;
    let mut files = vec![first.clone()];
    let checkpoint = Checkpoint::open(&first)?;
    for format in [ExportFormat::PyTorch, ExportFormat::Onnx] {
        let path = folder.join(format!("weights.{}", format.extension()));
        let mut out = BufWriter::new(File::create(&path)?);
        export::write(format, &checkpoint, Some(&graph), &Options::default(), &mut out)?;
        out.flush()?;
        files.push(path);
    }
    let path = folder.join("weights.npz");
    npz(&checkpoint, &path)?;
    files.push(path);
    Ok(files)
}

/// What `numpy.savez` writes.
fn npz(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    let mut zip = zip::ZipWriter::new(File::create(path)?);
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (info, bytes) in checkpoint.tensors() {
        zip.start_file(format!("{}.npy", info.name), stored)?;
        let shape: Vec<String> = info.shape.iter().map(usize::to_string).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", shape.join(", "));
        let header = format!("{header:<117}\n");
        zip.write_all(b"\x93NUMPY\x01\x00")?;
        zip.write_all(&(header.len() as u16).to_le_bytes())?;
        zip.write_all(header.as_bytes())?;
        zip.write_all(bytes)?;
    }
    zip.finish()?;
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Reads a file through and does nothing with it.
fn read(path: &Path) -> Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
