//! How fast checkpoints of each format are read beside the plain reading of their files: opened, and every weight seen once; and how much
//! memory that takes beyond the tensors that a format makes copy. Files are in the page cache. What cannot be read where it lies stands also
//! beside the plain way of getting it into memory: the file as it is, or what is deflated inflated one after the other.
//!
//! `cargo bench --bench reading -- 256` takes files of so many MiB; without a number, of 256, which needs ten times that below the
//! system's folder for temporary files (`TMPDIR` names another).

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engraft::export::onnx::OnnxFile;
use engraft::export::{self, ExportFormat, ExportOptions};
use engraft::model::families::fresh;
use engraft::process::memory::{Metered, peak_since_asked};
use engraft::tensors::{Checkpoint, CheckpointFiles, StateDict};
use engraft::train::init;

#[global_allocator]
static ALLOCATOR: Metered<mimalloc::MiMalloc> = Metered(mimalloc::MiMalloc);

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
    let heads = ["MiB", "plain GB/s", "open GB/s", "ratio", "MiB copied", "MiB beyond", "copy GB/s", "ratio"];
    println!("{:<24}{}", "format", heads.map(|head| format!("{head:>12}")).concat());
    for path in files(folder.path(), size)? {
        let all = CheckpointFiles::open(&path)?;
        let (bytes, paths) = (all.bytes(), all.paths.clone());
        drop(all);
        let (mut plain, mut opened, mut held) = (Duration::MAX, Duration::MAX, Duration::MAX);
        let (mut copied, mut beyond) = (0, 0);
        for _ in 0..ROUNDS {
            plain = plain.min(timed(|| paths.iter().try_for_each(|path| read(path)))?);
            held = held.min(timed(|| paths.iter().try_for_each(|path| read_to_memory(path)))?);
            peak_since_asked();
            let before = peak_since_asked().unwrap_or_default();
            opened = opened.min(timed(|| {
                let checkpoint = Checkpoint::open(&path)?;
                let header = checkpoint.header();
                let tensors = header.tensors.iter().map(|info| (info.elements() * info.dtype.size()) as u64);
                // What is counted of it beside the tensors are storages that are unpacked on the way.
                copied = header.copied_bytes.min(tensors.sum());
                Ok(checkpoint.check_finite()?)
            })?);
            beyond = peak_since_asked().unwrap_or_default().saturating_sub(before + copied);
        }
        let speed = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (plain, opened, held) = (speed(plain), speed(opened), speed(held));
        print!(
            "{name:<24}{:>12.0}{plain:>12.2}{opened:>12.2}{:>12.2}{:>12.0}{:>12.2}",
            mib(bytes),
            opened / plain,
            mib(copied),
            mib(beyond)
        );
        if copied == 0 { println!() } else { println!("{held:>12.2}{:>12.2}", opened / held) }
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
        export::write(format, &checkpoint, Some(&graph), &ExportOptions::default(), &mut out)?;
        out.flush()?;
        files.push(path);
    }
    let shards = ExportOptions { shards: NonZeroUsize::new(4), ..ExportOptions::default() };
    let path = folder.join("shards.tar");
    export::write(ExportFormat::Shards, &checkpoint, None, &shards, &mut BufWriter::new(File::create(&path)?))?;
    files.push(path);
    let beside = OnnxFile::new(&graph, &checkpoint, None)?;
    let (path, data) = (folder.join("beside.onnx"), "beside.onnx.data");
    std::fs::write(&path, beside.without_data(data)?)?;
    beside.write_data(&mut BufWriter::new(File::create(folder.join(data))?))?;
    files.push(path);
    for (name, order, packing) in [
        ("weights.npz", Order::Rows, zip::CompressionMethod::Stored),
        ("columns.npz", Order::Columns, zip::CompressionMethod::Stored),
        ("deflated.npz", Order::Rows, zip::CompressionMethod::Deflated),
    ] {
        let path = folder.join(name);
        npz(&checkpoint, &path, order, packing)?;
        files.push(path);
    }
    Ok(files)
}

/// How the elements of a matrix follow each other in a file.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Rows,
    /// Column by column, as Fortran has them. Their values do not matter here.
    Columns,
}

/// What `numpy.savez` and `numpy.savez_compressed` write.
fn npz(checkpoint: &Checkpoint, path: &Path, order: Order, packing: zip::CompressionMethod) -> Result<()> {
    let mut zip = zip::ZipWriter::new(File::create(path)?);
    let packed = zip::write::SimpleFileOptions::default().compression_method(packing);
    let fortran = if order == Order::Columns { "True" } else { "False" };
    for (info, bytes) in checkpoint.tensors() {
        zip.start_file(format!("{}.npy", info.name), packed)?;
        let shape: Vec<String> = info.shape.iter().map(usize::to_string).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': ({},), }}", shape.join(", "));
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

/// Gets all of a file into memory; what is deflated in it, inflated.
fn read_to_memory(path: &Path) -> Result<()> {
    if path.extension().is_none_or(|extension| extension != "npz") {
        black_box(std::fs::read(path)?);
        return Ok(());
    }
    let mut archive = zip::ZipArchive::new(BufReader::with_capacity(BUFFER, File::open(path)?))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let mut bytes = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut bytes)?;
        black_box(bytes);
    }
    Ok(())
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
