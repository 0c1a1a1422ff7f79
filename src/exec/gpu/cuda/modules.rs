//! Our kernels, compiled for the GPU that is there and kept on the disk for the next start.
#![expect(unsafe_code, reason = "NVRTC and CUDA's driver are C libraries")]

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use cudarc::driver::{result, sys};
use cudarc::nvrtc;
use sha2::{Digest, Sha256};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::kernels::SOURCE;

/// The folder of compiled kernels; without this variable below the user's cache.
const FOLDER: &str = "ENGRAFT_KERNEL_CACHE";

/// Loaded kernels.
#[derive(Debug)]
pub(super) struct Kernels {
    module: sys::CUmodule,
    functions: Mutex<HashMap<String, sys::CUfunction>>,
}

// SAFETY: handles of the driver may be used from any thread that has their context.
unsafe impl Send for Kernels {}
// SAFETY: as above; the map has a lock.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Compiles all kernels for a GPU of this compute capability, or takes what an earlier start has compiled.
    pub(super) fn load([major, minor]: [i32; 2]) -> Result<Self, DeviceFault> {
        let architecture = format!("sm_{major}{minor}");
        let source = SOURCE.join("\n");
        let kept = kept(&source, &architecture);
        let image = match kept.as_ref().and_then(|path| fs::read(path).ok()) {
            Some(image) => image,
            None => {
                let image = compile(&source, &architecture)?;
                if let Some(path) = kept {
                    keep(&path, &image);
                }
                image
            }
        };
        // SAFETY: the image is a whole one, made by NVRTC.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }?;
        Ok(Self { module, functions: Mutex::default() })
    }

    /// The kernel called `name`.
    pub(super) fn function(&self, name: &str) -> Result<sys::CUfunction, DeviceFault> {
        let mut functions = self.functions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(*function);
        }
        let c_name = CString::new(name).map_err(|error| DeviceFault::Refused(error.to_string()))?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, c_name) };
        let function = function.map_err(|error| DeviceFault::Refused(format!("the kernel {name}: {error}")))?;
        functions.insert(name.to_owned(), function);
        Ok(function)
    }
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
fn keep(path: &PathBuf, image: &[u8]) {
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&unfinished, image));
    if written.and_then(|()| fs::rename(&unfinished, path)).is_err() {
        let _unused = fs::remove_file(&unfinished);
    }
}

/// The machine code of `source`.
pub(super) fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, DeviceFault> {
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
