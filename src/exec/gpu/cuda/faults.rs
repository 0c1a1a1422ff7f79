//! What CUDA's libraries answer, as faults of a device.

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::cublasStatus_t;
use cudarc::cudnn::sys::cudnnStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::result::NvrtcError;

use crate::exec::engine::DeviceFault;

/// Answers that say that the question was wrong. Whatever else goes wrong, the device is not to be trusted any more.
const REFUSALS: [CUresult; 17] = [
    CUresult::CUDA_ERROR_INVALID_VALUE,
    CUresult::CUDA_ERROR_NO_DEVICE,
    CUresult::CUDA_ERROR_INVALID_DEVICE,
    CUresult::CUDA_ERROR_NOT_FOUND,
    CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU,
    CUresult::CUDA_ERROR_INVALID_IMAGE,
    CUresult::CUDA_ERROR_NOT_SUPPORTED,
    CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
    CUresult::CUDA_ERROR_CAPTURED_EVENT,
    CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
];

impl From<DriverError> for DeviceFault {
    fn from(error: DriverError) -> Self {
        if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            Self::OutOfMemory { needed: 0, free: 0 }
        } else if REFUSALS.contains(&error.0) {
            Self::Refused(error.to_string())
        } else {
            Self::Lost(error.to_string())
        }
    }
}

impl From<CublasError> for DeviceFault {
    fn from(error: CublasError) -> Self {
        let lost = [cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED, cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR];
        let why = format!("cuBLASLt says {error}");
        if error.0 == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
            return Self::OutOfMemory { needed: 0, free: 0 };
        }
        if lost.contains(&error.0) { Self::Lost(why) } else { Self::Refused(why) }
    }
}

impl From<NvrtcError> for DeviceFault {
    fn from(error: NvrtcError) -> Self {
        Self::Refused(format!("NVRTC says {error}"))
    }
}

/// What cuDNN answered.
pub(super) fn cudnn(status: cudnnStatus_t) -> Result<(), DeviceFault> {
    let lost = [cudnnStatus_t::CUDNN_STATUS_EXECUTION_FAILED, cudnnStatus_t::CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER];
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    if status == cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED {
        return Err(DeviceFault::OutOfMemory { needed: 0, free: 0 });
    }
    let why = format!("cuDNN says {status:?}");
    Err(if lost.contains(&status) { DeviceFault::Lost(why) } else { DeviceFault::Refused(why) })
}
