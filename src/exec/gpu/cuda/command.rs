//! Commands of a tape, ready to run on a GPU.
#![expect(unsafe_code, reason = "CUDA's driver is a C library")]

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::convolutions::PreparedConvolution;
use crate::exec::gpu::cuda::products::PreparedProduct;
use crate::exec::gpu::cuda::session::Session;
use crate::exec::gpu::tape::{Argument, Kernel, Launch, Place};

/// A command that is ready to run.
#[derive(Debug)]
pub(super) enum Ready {
    Launch(ReadyLaunch),
    Product(PreparedProduct),
    Convolution(PreparedConvolution),
    Zero(sys::CUdeviceptr, usize),
    Copy(sys::CUdeviceptr, sys::CUdeviceptr, usize),
}

impl Ready {
    /// Puts the command on the session's stream.
    pub(super) fn run(&self, session: &Session, workspace: sys::CUdeviceptr) -> Result<(), DeviceFault> {
        match self {
            Self::Launch(launch) => launch.run(session),
            Self::Product(product) => product.run(session, workspace),
            Self::Convolution(convolution) => convolution.run(session),
            // SAFETY: the place has these bytes.
            Self::Zero(start, bytes) => Ok(unsafe { result::memset_d8_async(*start, 0, *bytes, session.stream()) }?),
            // SAFETY: both places have these bytes.
            Self::Copy(from, to, bytes) => {
                Ok(unsafe { result::memcpy_dtod_async(*to, *from, *bytes, session.stream()) }?)
            }
        }
    }

    /// What it is, for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Launch(launch) => launch.kernel.to_string(),
            Self::Product(product) => product.what.clone(),
            Self::Convolution(convolution) => convolution.what.clone(),
            Self::Zero(..) => "zero".to_owned(),
            Self::Copy(..) => "copy".to_owned(),
        }
    }
}

/// A kernel with its arguments, each in a word of its own.
#[derive(Debug)]
pub(super) struct ReadyLaunch {
    kernel: Kernel,
    function: sys::CUfunction,
    grid: [u32; 3],
    threads: u32,
    arguments: Vec<u64>,
}

/// A launch with the addresses of its places.
pub(super) fn ready(
    session: &Session,
    launch: &Launch,
    address: &impl Fn(Place) -> sys::CUdeviceptr,
) -> Result<ReadyLaunch, DeviceFault> {
    let function = session.kernels.function(launch.kernel)?;
    let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
    // SAFETY: the kernel is loaded.
    let most = unsafe { result::function::get_function_attribute(function, most) }?;
    if i64::from(launch.threads) > i64::from(most) {
        let (kernel, threads) = (launch.kernel, launch.threads);
        return Err(DeviceFault::Refused(format!("{kernel} needs registers for {threads} threads, it has for {most}")));
    }
    let word = |argument: &Argument| match argument {
        Argument::Place(place) => address(*place),
        Argument::Null => 0,
        Argument::Int(number) => u64::from(*number as u32),
        Argument::Float(number) => u64::from(number.to_bits()),
    };
    let arguments = launch.arguments.iter().map(word).collect();
    Ok(ReadyLaunch { kernel: launch.kernel, function, grid: launch.grid, threads: launch.threads, arguments })
}

impl ReadyLaunch {
    fn run(&self, session: &Session) -> Result<(), DeviceFault> {
        let word = |word: &u64| std::ptr::from_ref(word).cast_mut().cast::<c_void>();
        let mut arguments: Vec<*mut c_void> = self.arguments.iter().map(word).collect();
        let [x, y, z] = self.grid;
        // SAFETY: the arguments are those of the kernel, in its order; each word holds its argument in its first bytes.
        unsafe {
            result::launch_kernel(self.function, (x, y, z), (self.threads, 1, 1), 0, session.stream(), &mut arguments)?;
        }
        Ok(())
    }
}
