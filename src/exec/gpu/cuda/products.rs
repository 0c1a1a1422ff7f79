//! Products of matrices by cuBLASLt.
#![expect(unsafe_code, reason = "cuBLASLt is a C library")]

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::cublaslt::sys::{cublasLtEpilogue_t as Epilogue, cublasLtMatmulDescAttributes_t as Attribute};
use cudarc::cublaslt::{result as lt, sys};
use cudarc::driver::sys::CUdeviceptr;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::session::Session;
use crate::exec::gpu::tape::{Factor, Place, Product, Storage};
use crate::settings::Precision;

/// Algorithms that are asked for at most.
const RANKS: usize = 8;

/// Memory that a product may use besides.
const WORKSPACE: usize = 32 << 20;

/// A product that is ready to run.
#[derive(Debug)]
pub(super) struct PreparedProduct {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Bytes that it needs besides.
    pub(super) workspace: usize,
    factors: [CUdeviceptr; 3],
    scale: f32,
    keep: f32,
    /// For people.
    pub(super) what: String,
}

// SAFETY: descriptors of cuBLASLt are memory of the process that no thread owns.
unsafe impl Send for PreparedProduct {}

impl PreparedProduct {
    /// The first `most` of cuBLASLt's algorithms, in its order of expected speed.
    pub(super) fn candidates(
        session: &Session,
        product: &Product,
        precision: Precision,
        most: usize,
        address: &impl Fn(Place) -> CUdeviceptr,
    ) -> Result<Vec<Self>, DeviceFault> {
        let mut made = Vec::new();
        for rank in 0..most {
            match Self::new(session, product, precision, rank, address)? {
                Some(one) => made.push(one),
                None => break,
            }
        }
        if made.is_empty() {
            return Err(DeviceFault::Refused(format!("cuBLASLt has no way to compute {product:?}")));
        }
        Ok(made)
    }

    /// Asks cuBLASLt for its algorithms and takes the one of this rank. The library counts columns first, so left and right change places: what is row after row
    /// here is column after column there.
    fn new(
        session: &Session,
        product: &Product,
        precision: Precision,
        rank: usize,
        address: &impl Fn(Place) -> CUdeviceptr,
    ) -> Result<Option<Self>, DeviceFault> {
        let compute = match precision {
            Precision::Tf32 if !product.exact => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let operation = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)?;
        let [rows, columns, depth] = product.sizes;
        let layouts = [
            layout(&product.right, [depth, columns], product.batch)?,
            layout(&product.left, [rows, depth], product.batch)?,
            layout(&product.result, [rows, columns], product.batch)?,
        ];
        let transposition = |factor: &Factor| {
            // The values of CUBLAS_OP_N and CUBLAS_OP_T.
            i32::from(factor.transposed)
        };
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposition(&product.right))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &transposition(&product.left))?;
        let epilogue = match (product.finish.bias.is_some(), product.finish.relu) {
            (false, false) => Epilogue::CUBLASLT_EPILOGUE_DEFAULT,
            (false, true) => Epilogue::CUBLASLT_EPILOGUE_RELU,
            (true, false) => Epilogue::CUBLASLT_EPILOGUE_BIAS,
            (true, true) => Epilogue::CUBLASLT_EPILOGUE_RELU_BIAS,
        };
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        if let Some(bias) = product.finish.bias {
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address(bias))?;
        }
        let preference = lt::create_matmul_pref()?;
        let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = WORKSPACE;
        use_alignment(preference, product)?;
        let [right, left, result] = layouts;
        let mut found: [MaybeUninit<sys::cublasLtMatmulHeuristicResult_t>; RANKS] =
            [const { MaybeUninit::uninit() }; RANKS];
        let mut count = 0;
        // SAFETY: all descriptors were just made, and there is room for as many results as are asked for.
        let asked = unsafe {
            lt::set_matmul_pref_attribute(preference, most, (&raw const bytes).cast(), size_of::<usize>())?;
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                session.cublaslt,
                operation,
                right,
                left,
                result,
                result,
                preference,
                (rank + 1).min(RANKS) as i32,
                found.as_mut_ptr().cast(),
                &raw mut count,
            );
            lt::destroy_matmul_pref(preference)?;
            asked
        };
        let count = usize::try_from(count).unwrap_or(0);
        let best = (asked.result().is_ok() && rank < count.min(RANKS)).then(|| {
            // SAFETY: the library has written as many as it says.
            unsafe { found[rank].assume_init() }
        });
        let made = Self {
            operation,
            layouts,
            algorithm: best.map_or_else(|| sys::cublasLtMatmulAlgo_t { data: [0; 8] }, |best| best.algo),
            workspace: best.map_or(0, |best| best.workspaceSize),
            factors: [product.right.place, product.left.place, product.result.place].map(address),
            scale: product.scale,
            keep: if product.accumulate { 1.0 } else { 0.0 },
            what: format!("product {rows}x{columns}x{depth} of {}", product.batch),
        };
        // Without an algorithm the descriptors are given back.
        Ok(best.map(|_| made))
    }

    /// Puts the product on the session's stream; `workspace` has the bytes that it needs.
    pub(super) fn run(&self, session: &Session, workspace: CUdeviceptr) -> Result<(), DeviceFault> {
        let [right, left, result] = self.layouts;
        let [a, b, d] = self.factors.map(|address| address as *mut c_void);
        // SAFETY: the addresses are those of the network's memory, as large as the layouts say.
        unsafe {
            lt::matmul(
                session.cublaslt,
                self.operation,
                (&raw const self.scale).cast(),
                (&raw const self.keep).cast(),
                a,
                right,
                b,
                left,
                d,
                result,
                d,
                result,
                &raw const self.algorithm,
                workspace as *mut c_void,
                self.workspace,
                session.stream().cast(),
            )?;
        }
        Ok(())
    }
}

impl Drop for PreparedProduct {
    fn drop(&mut self) {
        // SAFETY: each was made once and is destroyed once.
        unsafe {
            let _unused = lt::destroy_matmul_desc(self.operation);
            for layout in self.layouts {
                let _unused = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// A matrix of `[rows, columns]` as it is multiplied; it is stored the other way round where it is transposed.
fn layout(
    factor: &Factor,
    [rows, columns]: [usize; 2],
    batch: usize,
) -> Result<sys::cublasLtMatrixLayout_t, DeviceFault> {
    let [stored_rows, stored_columns] = if factor.transposed { [columns, rows] } else { [rows, columns] };
    let kind = match factor.storage {
        Storage::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Storage::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let layout = lt::create_matrix_layout(kind, stored_columns as u64, stored_rows as u64, factor.stride as i64)?;
    if batch > 1 {
        use sys::cublasLtMatrixLayoutAttribute_t as OfLayout;
        let (count, step) = (batch as i32, factor.step as i64);
        // SAFETY: the layout was just made; both attributes have these types.
        unsafe {
            let (count, step) = ((&raw const count).cast(), (&raw const step).cast());
            lt::set_matrix_layout_attribute(layout, OfLayout::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count, 4)?;
            lt::set_matrix_layout_attribute(layout, OfLayout::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, step, 8)?;
        }
    }
    Ok(layout)
}

fn set<V>(
    operation: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &V,
) -> Result<(), DeviceFault> {
    // SAFETY: the descriptor exists, and the value has the attribute's type.
    Ok(unsafe { lt::set_matmul_desc_attribute(operation, attribute, (&raw const *value).cast(), size_of::<V>()) }?)
}

/// Says what the addresses are multiples of, where that is less than the library takes for granted.
fn use_alignment(preference: sys::cublasLtMatmulPreference_t, product: &Product) -> Result<(), DeviceFault> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Of;
    let alignment = |factor: &Factor| if factor.place.offset.is_multiple_of(256) { 256_u32 } else { 16 };
    for (attribute, factor) in [
        (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &product.right),
        (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &product.left),
        (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &product.result),
        (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &product.result),
    ] {
        let bytes = alignment(factor);
        // SAFETY: the preference exists, and the attribute is a number of 32 bits.
        unsafe { lt::set_matmul_pref_attribute(preference, attribute, (&raw const bytes).cast(), 4) }?;
    }
    Ok(())
}
