//! Convolutions by cuDNN.
#![expect(unsafe_code, reason = "cuDNN is a C library")]

use std::ffi::c_void;

use cudarc::cudnn::sys;
use cudarc::driver::sys::CUdeviceptr;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::descriptors::{Attribute, Descriptor, Kind, Of};
use crate::exec::gpu::cuda::faults::cudnn;
use crate::exec::gpu::cuda::session::Session;
use crate::exec::gpu::tape::{Convolution, ConvolutionPass, Place, Storage};
use crate::settings::Precision;

/// Plans that the library is asked for.
const PLANS: usize = 24;

/// Names of the three tensors in a plan.
const X: i64 = 1;
const WEIGHT: i64 = 2;
const Y: i64 = 3;

/// What a plan has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands {
    /// How exactly it computes.
    pub(super) precision: Precision,
    /// Whether it has to give the same bits every time.
    pub(super) deterministic: bool,
}

/// What plans are made for.
#[derive(Debug, Clone, Copy)]
enum Target<'a> {
    /// The GPU of a handle.
    Handle(sys::cudnnHandle_t),
    /// A GPU that need not be there.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests plan for GPUs that are not there"))]
    Described(&'a Descriptor),
}

impl Target<'_> {
    /// `descriptor`, made for this GPU: by the one attribute or the other.
    fn set(self, descriptor: Descriptor, handle: Attribute, described: Attribute) -> Result<Descriptor, DeviceFault> {
        match self {
            Self::Handle(own) => descriptor.with(handle, Kind::CUDNN_TYPE_HANDLE, &[own]),
            Self::Described(properties) => descriptor.of(described, &[properties]),
        }
    }
}

/// A convolution that is ready to run, once it has its workspace.
#[derive(Debug)]
pub(super) struct PreparedConvolution {
    plan: Descriptor,
    variant: Option<Descriptor>,
    /// Bytes that it needs besides.
    pub(super) workspace: usize,
    tensors: [CUdeviceptr; 3],
}

impl PreparedConvolution {
    /// The first `most` plans, in the library's order of expected speed, that are as `demands` say.
    pub(super) fn candidates(
        session: &Session,
        convolution: &Convolution,
        demands: Demands,
        most: usize,
        address: &impl Fn(Place) -> CUdeviceptr,
    ) -> Result<Vec<Self>, DeviceFault> {
        let tensors = [convolution.x, convolution.weight, convolution.y].map(address);
        let plans = chosen(Target::Handle(session.cudnn), convolution, demands, most)?;
        Ok(plans.into_iter().map(|(plan, workspace)| Self { plan, variant: None, workspace, tensors }).collect())
    }

    /// Gives it the place of its workspace.
    pub(super) fn bind(&mut self, workspace: CUdeviceptr) -> Result<(), DeviceFault> {
        let pointers = self.tensors.map(|address| address as *mut c_void);
        let variant = Descriptor::new(Of::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .with(Attribute::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Kind::CUDNN_TYPE_VOID_PTR, &pointers)?
            .with(Attribute::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, Kind::CUDNN_TYPE_INT64, &[X, WEIGHT, Y])?
            .with(Attribute::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Kind::CUDNN_TYPE_VOID_PTR, &[workspace as *mut c_void])?
            .finished()?;
        self.variant = Some(variant);
        Ok(())
    }

    /// Puts the convolution on the session's stream.
    pub(super) fn run(&self, session: &Session) -> Result<(), DeviceFault> {
        let Some(variant) = &self.variant else { return Ok(()) };
        // SAFETY: plan and variant are finished; the addresses are those of the network's memory.
        cudnn(unsafe { sys::cudnnBackendExecute(session.cudnn, self.plan.0, variant.0) })
    }
}

/// The first `most` plans that are as `demands` say, each with the bytes that it needs besides.
fn chosen(
    target: Target<'_>,
    convolution: &Convolution,
    demands: Demands,
    most: usize,
) -> Result<Vec<(Descriptor, usize)>, DeviceFault> {
    use sys::cudnnBackendHeurMode_t as Mode;
    let operation = operation(convolution)?;
    let mut graph = Descriptor::new(Of::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
        .of(Attribute::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
    if let Target::Handle(handle) = target {
        graph = graph.with(Attribute::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Kind::CUDNN_TYPE_HANDLE, &[handle])?;
    }
    let graph = graph.finished()?;
    let (mut plans, mut last) = (Vec::new(), None);
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        for configuration in configurations(target, &graph, mode)? {
            if fits(&configuration, demands)? {
                match plan(target, &configuration) {
                    Ok(plan) => plans.push(plan),
                    Err(error) => last = Some(error),
                }
            }
            if plans.len() == most {
                return Ok(plans);
            }
        }
        // What the library falls back to is slow.
        if !plans.is_empty() {
            return Ok(plans);
        }
    }
    let why = last.map_or_else(|| "none is as the job demands".to_owned(), |error| error.to_string());
    Err(DeviceFault::Refused(format!("cuDNN has no plan for {convolution:?}: {why}")))
}

/// A tensor of `[n, c, h, w]`, channels last.
fn tensor(name: i64, [n, c, h, w]: [usize; 4], storage: Storage) -> Result<Descriptor, DeviceFault> {
    let kind = match storage {
        Storage::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        Storage::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
    };
    let sizes = [n, c, h, w].map(|size| size as i64);
    let strides = [h * w * c, 1, w * c, c].map(|stride| stride as i64);
    Descriptor::new(Of::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .with(Attribute::CUDNN_ATTR_TENSOR_DATA_TYPE, Kind::CUDNN_TYPE_DATA_TYPE, &[kind])?
        .with(Attribute::CUDNN_ATTR_TENSOR_DIMENSIONS, Kind::CUDNN_TYPE_INT64, &sizes)?
        .with(Attribute::CUDNN_ATTR_TENSOR_STRIDES, Kind::CUDNN_TYPE_INT64, &strides)?
        .with(Attribute::CUDNN_ATTR_TENSOR_UNIQUE_ID, Kind::CUDNN_TYPE_INT64, &[name])?
        .with(Attribute::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, Kind::CUDNN_TYPE_INT64, &[16_i64])?
        .finished()
}

/// The convolution as the library's graph has it.
fn operation(convolution: &Convolution) -> Result<Descriptor, DeviceFault> {
    let Convolution { geometry, examples, out_channels, storage, .. } = *convolution;
    let pair = |pair: [usize; 2]| pair.map(|size| size as i64);
    let window = Descriptor::new(Of::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .with(Attribute::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, Kind::CUDNN_TYPE_INT64, &[2_i64])?
        .with(
            Attribute::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
            Kind::CUDNN_TYPE_DATA_TYPE,
            &[sys::cudnnDataType_t::CUDNN_DATA_FLOAT],
        )?
        .with(
            Attribute::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            Kind::CUDNN_TYPE_CONVOLUTION_MODE,
            &[sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
        )?
        .with(Attribute::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, Kind::CUDNN_TYPE_INT64, &pair(geometry.padding))?
        .with(Attribute::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, Kind::CUDNN_TYPE_INT64, &pair(geometry.padding))?
        .with(Attribute::CUDNN_ATTR_CONVOLUTION_DILATIONS, Kind::CUDNN_TYPE_INT64, &pair(geometry.dilation))?
        .with(Attribute::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, Kind::CUDNN_TYPE_INT64, &pair(geometry.stride))?
        .finished()?;
    let [height, width] = geometry.input;
    let x = tensor(X, [examples, geometry.channels, height, width], storage)?;
    let [height, width] = geometry.kernel;
    let weight = tensor(WEIGHT, [out_channels, geometry.channels, height, width], storage)?;
    let [height, width] = geometry.output;
    let y = tensor(Y, [examples, out_channels, height, width], storage)?;
    let (of, [own_x, own_weight, own_y, own_window, scale, keep]) = match convolution.pass {
        ConvolutionPass::Forward => (
            Of::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        ConvolutionPass::Input => (
            Of::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        ConvolutionPass::Weight => (
            Of::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let beta: f32 = if convolution.accumulate { 1.0 } else { 0.0 };
    Descriptor::new(of)?
        .of(own_x, &[&x])?
        .of(own_weight, &[&weight])?
        .of(own_y, &[&y])?
        .of(own_window, &[&window])?
        .with(scale, Kind::CUDNN_TYPE_FLOAT, &[1.0_f32])?
        .with(keep, Kind::CUDNN_TYPE_FLOAT, &[beta])?
        .finished()
}

/// The library's ways to compute a graph, those that it expects to be fastest first.
fn configurations(
    target: Target<'_>,
    graph: &Descriptor,
    mode: sys::cudnnBackendHeurMode_t,
) -> Result<Vec<Descriptor>, DeviceFault> {
    let mut heuristics = Descriptor::new(Of::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
        .of(Attribute::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[graph])?
        .with(Attribute::CUDNN_ATTR_ENGINEHEUR_MODE, Kind::CUDNN_TYPE_HEUR_MODE, &[mode])?;
    if let Target::Described(properties) = target {
        heuristics = heuristics.of(Attribute::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, &[properties])?;
    }
    let heuristics = heuristics.finished()?;
    let own = (0..PLANS).map(|_| Descriptor::new(Of::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    let mut own = own.collect::<Result<Vec<_>, _>>()?;
    let mut handles: Vec<_> = own.iter().map(|descriptor| descriptor.0).collect();
    let (attribute, kind) = (Attribute::CUDNN_ATTR_ENGINEHEUR_RESULTS, Kind::CUDNN_TYPE_BACKEND_DESCRIPTOR);
    let count = heuristics.get(attribute, kind, &mut handles)?;
    own.truncate(count);
    Ok(own)
}

/// Whether a way to compute is as it has to be: where every product has to be exact, none may round its factors on the way.
fn fits(configuration: &Descriptor, demands: Demands) -> Result<bool, DeviceFault> {
    use sys::cudnnBackendNumericalNote_t as Note;
    let engine = Descriptor::new(Of::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let mut place = [engine.0];
    let (attribute, kind) = (Attribute::CUDNN_ATTR_ENGINECFG_ENGINE, Kind::CUDNN_TYPE_BACKEND_DESCRIPTOR);
    configuration.get(attribute, kind, &mut place)?;
    // As numbers: a newer library may have notes that are not known here.
    let mut notes = [u32::MAX; 32];
    let (attribute, kind) = (Attribute::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Kind::CUDNN_TYPE_NUMERICAL_NOTE);
    let count = engine.get(attribute, kind, &mut notes)?;
    let has = |note: Note| notes[..count].contains(&(note as u32));
    let inexact = [
        Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
        Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
    ];
    Ok((!demands.deterministic || !has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC))
        && (demands.precision != Precision::F32 || !inexact.into_iter().any(has)))
}

/// A plan, and the bytes that it needs besides.
fn plan(target: Target<'_>, configuration: &Descriptor) -> Result<(Descriptor, usize), DeviceFault> {
    let plan = Descriptor::new(Of::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
    let [handle, described] =
        [Attribute::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Attribute::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP];
    let plan = target.set(plan, handle, described)?;
    let plan = plan.of(Attribute::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[configuration])?.finished()?;
    let mut bytes = [0_i64];
    plan.get(Attribute::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Kind::CUDNN_TYPE_INT64, &mut bytes)?;
    Ok((plan, usize::try_from(bytes[0]).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::cuda::libraries;
    use crate::exec::gpu::tape::Region;
    use crate::kernels::Geometry;

    /// An H100 as cuDNN describes devices.
    const H100: &str = include_str!("h100.json");

    /// Convolutions of usual networks: channels, output channels, size of the image, of the window, stride.
    const SHAPES: [[usize; 5]; 14] = [
        [4, 64, 32, 3, 1],
        [64, 64, 32, 3, 1],
        [64, 128, 32, 3, 2],
        [128, 128, 16, 3, 1],
        [128, 256, 16, 3, 2],
        [512, 512, 4, 3, 1],
        [64, 128, 32, 1, 2],
        [8, 16, 14, 5, 1],
        [40, 56, 16, 3, 1],
        [64, 128, 16, 3, 1],
        [512, 512, 2, 3, 1],
        [8, 32, 32, 3, 2],
        [8, 192, 32, 4, 4],
        [8, 8, 32, 5, 1],
    ];

    /// Needs cuDNN, and a driver's library that may be empty: `ENGRAFT_CUDA_LIBRARIES` names the folders of both.
    #[test]
    #[ignore = "needs cuDNN and the name of a driver's library; .ci/long has both"]
    fn every_usual_convolution_has_a_plan_on_a_gpu_that_is_not_here() {
        libraries::cudnn().unwrap();
        let bytes: Vec<u8> = H100.trim().bytes().collect();
        let properties = Descriptor::new(Of::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
            .unwrap()
            .with(Attribute::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, Kind::CUDNN_TYPE_CHAR, &bytes)
            .unwrap()
            .finished()
            .unwrap();
        let place = Place { region: Region::Arena, offset: 0, bytes: 0 };
        let mut most = 0;
        for (precision, storage) in
            [(Precision::F32, Storage::F32), (Precision::Tf32, Storage::F32), (Precision::Bf16, Storage::Bf16)]
        {
            for [channels, out_channels, size, kernel, stride] in SHAPES {
                let padding = if kernel == stride { 0 } else { kernel / 2 };
                let output = (size + 2 * padding - kernel) / stride + 1;
                let pair = |size| [size; 2];
                let geometry = Geometry {
                    channels,
                    input: pair(size),
                    output: pair(output),
                    kernel: pair(kernel),
                    stride: pair(stride),
                    padding: pair(padding),
                    dilation: [1, 1],
                };
                for pass in [ConvolutionPass::Forward, ConvolutionPass::Input, ConvolutionPass::Weight] {
                    for accumulate in [false, true] {
                        let convolution = Convolution {
                            pass,
                            geometry,
                            out_channels,
                            examples: 128,
                            storage,
                            x: place,
                            weight: place,
                            y: place,
                            accumulate,
                        };
                        let demands = Demands { precision, deterministic: true };
                        let plans = chosen(Target::Described(&properties), &convolution, demands, 1).unwrap();
                        let workspace = plans[0].1;
                        println!(
                            "{precision:?} {channels}>{out_channels} {size} {kernel}/{stride} {pass:?}: {workspace}"
                        );
                        most = most.max(workspace);
                    }
                }
            }
        }
        println!("at most {most} bytes besides");
    }
}
