//! Descriptors of cuDNN's graph API, from which plans are made.
#![expect(unsafe_code, reason = "cuDNN is a C library")]

use cudarc::cudnn::sys;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::faults::cudnn;

pub(super) use sys::cudnnBackendAttributeName_t as Attribute;
pub(super) use sys::cudnnBackendAttributeType_t as Kind;
pub(super) use sys::cudnnBackendDescriptorType_t as Of;

/// A descriptor.
#[derive(Debug)]
pub(super) struct Descriptor(pub(super) sys::cudnnBackendDescriptor_t);

// SAFETY: descriptors are memory of the process that no thread owns.
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// Without any attribute.
    pub(super) fn new(of: Of) -> Result<Self, DeviceFault> {
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: the place is one for a descriptor.
        cudnn(unsafe { sys::cudnnBackendCreateDescriptor(of, &raw mut descriptor) })?;
        Ok(Self(descriptor))
    }

    /// With an attribute of some values of one kind.
    pub(super) fn with<V>(self, attribute: Attribute, kind: Kind, values: &[V]) -> Result<Self, DeviceFault> {
        // SAFETY: the descriptor exists; the values are as many as it is told.
        cudnn(unsafe {
            sys::cudnnBackendSetAttribute(self.0, attribute, kind, values.len() as i64, values.as_ptr().cast())
        })?;
        Ok(self)
    }

    /// With other descriptors as an attribute.
    pub(super) fn of(self, attribute: Attribute, others: &[&Self]) -> Result<Self, DeviceFault> {
        let others: Vec<_> = others.iter().map(|other| other.0).collect();
        self.with(attribute, Kind::CUDNN_TYPE_BACKEND_DESCRIPTOR, &others)
    }

    /// Checked by the library; nothing can be added any more.
    pub(super) fn finished(self) -> Result<Self, DeviceFault> {
        // SAFETY: the descriptor exists.
        cudnn(unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// Reads an attribute into `values`; returns how many there are.
    pub(super) fn get<V>(&self, attribute: Attribute, kind: Kind, values: &mut [V]) -> Result<usize, DeviceFault> {
        let mut count = 0;
        // SAFETY: there is room for as many values as it is told.
        cudnn(unsafe {
            let room = values.len() as i64;
            sys::cudnnBackendGetAttribute(self.0, attribute, kind, room, &raw mut count, values.as_mut_ptr().cast())
        })?;
        Ok(usize::try_from(count).unwrap_or(0).min(values.len()))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it was made once and is destroyed once.
        let _unused = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}
