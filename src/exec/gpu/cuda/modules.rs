//! Our kernels, compiled for the GPU that is there and kept on the disk for the next start.
#![expect(unsafe_code, reason = "NVRTC and CUDA's driver are C libraries")]

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};
use cudarc::nvrtc;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::kernels::Unit;
use crate::exec::gpu::tape::Kernel;

/// The folder of compiled kernels; without this variable below the user's cache.
const FOLDER: &str = "ENGRAFT_KERNEL_CACHE";

/// The kernels of a GPU, compiled when they are asked for.
#[derive(Debug)]
pub(super) struct Kernels {
    architecture: String,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<Unit, sys::CUmodule>,
    functions: HashMap<Kernel, sys::CUfunction>,
}

// SAFETY: handles of the driver may be used from any thread that has their context.
unsafe impl Send for Loaded {}

impl Kernels {
    /// Those for a GPU of this compute capability.
    pub(super) fn new([major, minor]: [i32; 2]) -> Self {
        Self { architecture: format!("sm_{major}{minor}"), loaded: Mutex::default() }
    }

    /// Compiles what is missing of all these, side by side, or takes what an earlier start has compiled.
    pub(super) fn load(&self, kernels: impl Iterator<Item = Kernel>) -> Result<(), DeviceFault> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: BTreeSet<Unit> = kernels.filter_map(Unit::of).collect();
        let missing: Vec<Unit> = wanted.into_iter().filter(|unit| !loaded.modules.contains_key(unit)).collect();
        let image = |unit: &Unit| Ok((*unit, image(*unit, &self.architecture)?));
        let images = missing.par_iter().map(image).collect::<Result<Vec<_>, DeviceFault>>()?;
        for (unit, image) in images {
            // SAFETY: the image is a whole one, made by NVRTC; the context is current.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) }?;
            loaded.modules.insert(unit, module);
        }
        Ok(())
    }

    /// A kernel that was loaded.
    pub(super) fn function(&self, kernel: Kernel) -> Result<sys::CUfunction, DeviceFault> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.functions.get(&kernel) {
            return Ok(*function);
        }
        let refused = |why: &str| DeviceFault::Refused(format!("the kernel {kernel}: {why}"));
        let module =
            Unit::of(kernel).and_then(|unit| loaded.modules.get(&unit)).ok_or_else(|| refused("not loaded"))?;
        let name = CString::new(kernel.to_string()).map_err(|error| refused(&error.to_string()))?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(*module, name) };
        let function = function.map_err(|error| refused(&error.to_string()))?;
        loaded.functions.insert(kernel, function);
        Ok(function)
    }
}

/// The machine code of `unit`, from the folder of compiled kernels or made now and put there.
///
/// # Errors
/// When NVRTC does not compile it.
pub fn image(unit: Unit, architecture: &str) -> Result<Vec<u8>, DeviceFault> {
    let source = unit.source();
    let kept = kept(&source, architecture);
    if let Some(image) = kept.as_ref().and_then(|path| fs::read(path).ok()) {
        return Ok(image);
    }
    let image = compile(&source, architecture)?;
    if let Some(path) = kept {
        keep(&path, &image);
    }
    Ok(image)
}

/// Where the compiled form of `source` is kept: a name of its own for each text, architecture and version of the compiler.
fn kept(source: &str, architecture: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.map(|cache| cache.join("engraft"))
    })?;
    let [mut major, mut minor] = [0; 2];
    // SAFETY: both are places for an int.
    let version = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    version.result().ok()?;
    let digest = Sha256::digest(format!("{major}.{minor} {architecture}\n{source}"));
    Some(folder.join(format!("{}.cubin", hex::encode(digest))))
}

/// Writes a compiled text under a name of its own first, so that nobody reads half of it. Where that fails the next start
/// compiles again.
fn keep(path: &Path, image: &[u8]) {
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&unfinished, image));
    if written.and_then(|()| fs::rename(&unfinished, path)).is_err() {
        let _unused = fs::remove_file(&unfinished);
    }
}

/// The machine code of `source`.
fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, DeviceFault> {
    let text = CString::new(source).map_err(|error| DeviceFault::Refused(error.to_string()))?;
    let program = nvrtc::result::create_program(&text, Some(c"engraft.cu"))?;
    let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "-default-device".into()];
    // SAFETY: the program was just made.
    let compiled = unsafe { nvrtc::result::compile_program(program, &options) };
    if compiled.is_err() {
        // SAFETY: the program exists until it is destroyed below.
        let log = unsafe { nvrtc::result::get_program_log(program) }.unwrap_or_default();
        let log: String = log.iter().map(|letter| char::from(*letter as u8)).collect();
        return Err(DeviceFault::Refused(format!("NVRTC does not compile the kernels: {log}")));
    }
    let mut bytes = 0;
    // SAFETY: the program is compiled; the image has the size that was asked for before.
    let image = unsafe {
        nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut bytes).result()?;
        let mut image = vec![0_u8; bytes];
        nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result()?;
        nvrtc::result::destroy_program(program)?;
        image
    };
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::cuda::libraries;

    /// Set where NVRTC has to be there, in CI.
    const REQUIRED: &str = "ENGRAFT_TEST_NVRTC";

    /// On a machine without a GPU: `pip install nvidia-cuda-nvrtc`, whose folder `ENGRAFT_CUDA_LIBRARIES` names.
    #[test]
    fn every_kernel_compiles() {
        match libraries::nvrtc() {
            Ok(_) => {}
            Err(missing) if std::env::var_os(REQUIRED).is_none() => {
                eprintln!("SKIPPED, the kernels are not compiled for GPUs: {missing}");
                return;
            }
            Err(missing) => panic!("{missing}"),
        }
        let units = ["sm_80", "sm_90"].into_iter().flat_map(|of| Unit::all().map(move |unit| (unit, of)));
        let failed = units.collect::<Vec<_>>().into_par_iter().filter_map(|(unit, architecture)| {
            let image = compile(&unit.source(), architecture);
            image.err().map(|error| format!("{unit:?} for {architecture}: {error}"))
        });
        assert_eq!(failed.collect::<Vec<String>>(), Vec::<String>::new());
        let error = compile("__global__ void broken() { missing(); }", "sm_90").unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("engraft.cu"), "{error}");
    }
}
