//! Our kernels in CUDA C, and for each operation the function that puts its runs on a tape.

pub mod attention;
pub mod batch_norm;
pub mod calibration;
pub mod convolution;
pub mod elementwise;
pub mod gradients;
pub mod layout;
pub mod norms;
pub mod objective;
pub mod optimizer;
pub mod pools;
pub mod reduce;
pub mod scalars;
pub mod staging;
pub mod tokens;

use crate::exec::gpu::tape::{Kernel, Storage};

/// What all kernels share.
pub const COMMON: &str = include_str!("common.cuh");

/// The kernels, file by file, in the order in which one text is made of them.
pub const FILES: &[&str] = &[
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
    include_str!("calibration.cu"),
];

/// The kernels that are compiled together: those of one file in one form. Compiling all of them at once takes a minute, and no
/// network needs all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    /// Position in [`FILES`].
    pub file: usize,
    /// The form; without one the kernels that only touch parameters.
    pub storage: Option<Storage>,
}

impl Unit {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let forms = [None, Some(Storage::F32), Some(Storage::Bf16)];
        (0..FILES.len()).flat_map(move |file| forms.map(|storage| Self { file, storage }))
    }

    /// The one that `kernel` is in.
    #[must_use]
    pub fn of(kernel: Kernel) -> Option<Self> {
        let starts = match kernel.storage {
            Some(_) => [format!("KERNEL({},", kernel.name), format!("KERNEL({} ", kernel.name)],
            None => [format!("void {}(", kernel.name), format!(") {}(", kernel.name)],
        };
        let file = FILES.iter().position(|file| starts.iter().any(|start| file.contains(start)))?;
        Some(Self { file, storage: kernel.storage })
    }

    /// The text to compile: of all files what kernels are made of, and of its own file the kernels. The kernels that there are in one form
    /// are functions that nobody calls, which cost nothing, except in their own unit.
    #[must_use]
    pub fn source(self) -> String {
        let none = "#undef KERNEL\n#define KERNEL(name, parameters, arguments)\n";
        let form = match self.storage {
            None => "",
            Some(Storage::F32) => "KERNEL_FORM(name, f32, float, parameters, arguments)",
            Some(Storage::Bf16) => "KERNEL_FORM(name, bf16, bf16, parameters, arguments)",
        };
        let form = format!("#undef KERNEL\n#define KERNEL(name, parameters, arguments) {form}\n");
        let mut text = format!("{COMMON}\n{none}");
        for (index, file) in FILES.iter().enumerate() {
            let is_own = index == self.file;
            let file = match self.storage {
                None if is_own => (*file).to_owned(),
                _ => file.replace("extern \"C\" __global__", "static __device__"),
            };
            text.extend(if is_own { [form.as_str(), &file, none] } else { ["", &file, ""] });
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_one_unit() {
        let kernel = |name, storage| Unit::of(Kernel { name, storage });
        assert_eq!(kernel("no_such_kernel", None), None);
        let norm = kernel("batch_norm_apply", Some(Storage::F32)).unwrap();
        assert!(FILES[norm.file].contains("batch_norm_apply") && norm.source().contains("batch_norm_apply"));
        assert!(kernel("adamw_step", None).is_some() && Unit::all().count() == 3 * FILES.len());
    }
}
