//! `engraft devices`: where networks can be computed, and why not elsewhere.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::compute::gpus;
use crate::domain::gpu::{Gpu, Gpus};
use crate::exec;
use crate::exec::gpu::cuda::probe;
use crate::settings::Device;

const EXAMPLE: &str = "\
Compute on the first GPU, and serve with every GPU of the machine:

  engraft fuse --member m0.pt --member m1.pt --device cuda:0 --out fused.pt
  engraft serve --device cuda

NVIDIA's libraries are looked for when the program runs: in the folders of ENGRAFT_CUDA_LIBRARIES, where the loader looks, in the
packages of the Python on the path (nvidia-cuda-nvrtc, nvidia-cublas, nvidia-cudnn-cu13), and below /usr/local/cuda.";

/// Show where networks can be computed, and why not on a GPU.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Devices {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Devices {
    /// Prints what there is; that there is no GPU is no failure.
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpus = gpus()?;
        let threads = super::fuse::threads(None);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&document(gpus, threads))?);
        } else {
            print!("{}", text(gpus, threads));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Look for GPUs; for `engraft` itself.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct ProbeGpus {}

impl ProbeGpus {
    /// Writes what it finds as JSON.
    #[expect(clippy::unused_self, reason = "commands are run alike")]
    pub(super) fn run(self) -> Result<ExitCode> {
        probe::serve(io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The devices as JSON.
fn document(gpus: &Gpus, threads: usize) -> serde_json::Value {
    let device = |gpu: &Gpu| {
        let [major, minor] = gpu.compute_capability;
        json!({
            "device": Device::Cuda(gpu.index),
            "name": gpu.name,
            "memory_bytes": gpu.memory_bytes,
            "compute_capability": format!("{major}.{minor}"),
            "multiprocessors": gpu.multiprocessors,
            "why_not": gpus.refusal(gpu.index),
        })
    };
    json!({
        "cpu": { "threads": threads },
        "gpus": gpus.devices.iter().map(device).collect::<Vec<_>>(),
        "versions": {
            "driver": gpus.versions.driver,
            "cuda": gpus.versions.cuda,
            "nvrtc": gpus.versions.nvrtc,
            "cublaslt": gpus.versions.cublaslt,
            "cudnn": gpus.versions.cudnn,
        },
        "libraries": gpus.libraries,
        "why_not": gpus.why_not,
        "detail": gpus.detail,
        "auto": if exec::AUTO_TAKES_GPUS && gpus.usable().next().is_some() { "cuda" } else { "cpu" },
    })
}

/// The devices for a reader.
fn text(gpus: &Gpus, threads: usize) -> String {
    let mut out = format!("cpu     {threads} thread{}\n", if threads == 1 { "" } else { "s" });
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(out, "{text}");
    };
    for gpu in &gpus.devices {
        let [major, minor] = gpu.compute_capability;
        let (name, memory, count) = (&gpu.name, gpu.memory_bytes as f64 / f64::from(1 << 30), gpu.multiprocessors);
        line(format_args!(
            "cuda:{:<2} {name}, {memory:.1} GiB, compute capability {major}.{minor}, {count} multiprocessors",
            gpu.index
        ));
        if let Some(why) = gpu.why_not().filter(|_| gpus.why_not.is_none()) {
            line(format_args!("        not used: {why}"));
        }
    }
    let versions = &gpus.versions;
    let cuda = versions.cuda.as_ref().map(|cuda| format!("up to CUDA {cuda}"));
    let driver = match (&versions.driver, cuda) {
        (Some(driver), Some(cuda)) => Some(format!("{driver}, {cuda}")),
        (driver, cuda) => cuda.or_else(|| driver.clone()),
    };
    let all = [
        ("driver", "libcuda.so.1", &driver),
        ("NVRTC", "libnvrtc.so.13", &versions.nvrtc),
        ("cuBLASLt", "libcublasLt.so.13", &versions.cublaslt),
        ("cuDNN", "libcudnn.so.9", &versions.cudnn),
    ];
    if driver.is_some() {
        line(format_args!(""));
        for (title, name, version) in all {
            let file = gpus.libraries.iter().find(|library| library.name == name);
            let file = file.and_then(|library| library.path.as_ref()).map(|path| format!("  {}", path.display()));
            let (version, file) = (version.as_deref().unwrap_or("-"), file.unwrap_or_default());
            line(format_args!("{title:<9} {version}{file}"));
        }
    }
    line(format_args!(""));
    match gpus.why_not_in_full() {
        Some(why) => line(format_args!("No GPU is used: {why}")),
        None if exec::AUTO_TAKES_GPUS => line(format_args!("`auto` takes a GPU.")),
        None => line(format_args!("`auto` takes the processor; `--device cuda` or `cuda:N` takes a GPU.")),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gpu::GpuVersions;

    #[test]
    fn what_there_is_is_shown_and_what_is_missing_said() {
        let gpu = |index, compute_capability| Gpu {
            index,
            name: "NVIDIA H200".to_owned(),
            memory_bytes: 150_000_000_000,
            compute_capability,
            multiprocessors: 132,
        };
        let some = |text: &str| Some(text.to_owned());
        let versions = GpuVersions {
            driver: some("580.1"),
            cuda: some("13.0"),
            nvrtc: some("13.0"),
            cublaslt: some("13.1.0"),
            cudnn: None,
        };
        let gpus = Gpus { devices: vec![gpu(0, [9, 0]), gpu(1, [7, 5])], versions, ..Gpus::default() };
        let shown = text(&gpus, 4);
        let expected = [
            "cpu     4 threads",
            "cuda:0  NVIDIA H200, 139.7 GiB, compute capability 9.0, 132 multiprocessors",
            "        not used: the NVIDIA H200 has compute capability 7.5",
            "driver    580.1, up to CUDA 13.0",
            "cuDNN     -",
        ];
        assert!(expected.iter().all(|line| shown.contains(line)), "{shown}");
        let none = text(&Gpus::none("because"), 1);
        assert_eq!(none, "cpu     1 thread\n\nNo GPU is used: because\n");
        let document = document(&gpus, 4);
        assert!(document["gpus"][1]["why_not"].is_string() && document["gpus"][0]["why_not"].is_null());
    }
}
