//! Our kernels in CUDA C, and for each operation the function that puts its runs on a tape.

pub mod attention;
pub mod batch_norm;
pub mod convolution;
pub mod elementwise;
pub mod gradients;
pub mod layout;
pub mod norms;
pub mod objective;
pub mod optimizer;
pub mod pools;
pub mod reduce;
pub mod staging;
pub mod tokens;

/// The source of all kernels, in the order in which one text is made of them.
pub const SOURCE: &[&str] = &[
    include_str!("common.cuh"),
    include_str!("reduce.cu"),
    include_str!("elementwise.cu"),
    include_str!("layout.cu"),
    include_str!("tokens.cu"),
    include_str!("attention.cu"),
    include_str!("staging.cu"),
    include_str!("objective.cu"),
    include_str!("optimizer.cu"),
    include_str!("gradients.cu"),
    include_str!("batch_norm.cu"),
    include_str!("norms.cu"),
    include_str!("pools.cu"),
    include_str!("convolution.cu"),
];
