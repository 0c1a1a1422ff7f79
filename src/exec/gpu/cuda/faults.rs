//! What CUDA's libraries answer, as faults of a device.

use cudarc::cublaslt::result::CublasError;
use cudarc::cudnn::sys::cudnnStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::result::NvrtcError;

use crate::exec::engine::DeviceFault;

impl From<DriverError> for DeviceFault {
    fn from(error: DriverError) -> Self {
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory { needed: 0, free: 0 },
            CUresult::CUDA_ERROR_INVALID_VALUE
            | CUresult::CUDA_ERROR_NOT_FOUND
            | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_NOT_SUPPORTED
            | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED => Self::Refused(error.to_string()),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<CublasError> for DeviceFault {
    fn from(error: CublasError) -> Self {
        use cudarc::cublaslt::sys::cublasStatus_t as Status;
        match error.0 {
            Status::CUBLAS_STATUS_EXECUTION_FAILED | Status::CUBLAS_STATUS_INTERNAL_ERROR => {
                Self::Lost(format!("cuBLASLt says {error}"))
            }
            _ => Self::Refused(format!("cuBLASLt says {error}")),
        }
    }
}

impl From<NvrtcError> for DeviceFault {
    fn from(error: NvrtcError) -> Self {
        Self::Refused(format!("NVRTC says {error}"))
    }
}

/// What cuDNN answered.
pub(super) fn cudnn(status: cudnnStatus_t) -> Result<(), DeviceFault> {
    match status {
        cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(()),
        cudnnStatus_t::CUDNN_STATUS_EXECUTION_FAILED | cudnnStatus_t::CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER => {
            Err(DeviceFault::Lost(format!("cuDNN says {status:?}")))
        }
        _ => Err(DeviceFault::Refused(format!("cuDNN says {status:?}"))),
    }
}
