//! The kernels as a shared library for the processor, built once for all tests of a process.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use libloading::Library;
use tempfile::TempDir;

use crate::exec::gpu::kernels::{COMMON, FILES};

/// Name, grid, threads, pointers to the arguments and their kinds; the answer is null or says what went wrong.
type Entry = unsafe extern "C" fn(*const c_char, *const u32, u32, *mut *mut c_void, *const c_char) -> *const c_char;

/// Blocks run one after another in global variables, so that only one test at a time may run kernels.
static LIBRARY: LazyLock<Mutex<Result<Built, String>>> =
    LazyLock::new(|| Mutex::new(Built::new(&[&[COMMON], FILES].concat())));

struct Built {
    library: Library,
    _folder: TempDir,
}

/// An argument as its bits, with the kind that the kernel has to agree to: a pointer, an `int` or a `float`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bits {
    Pointer(*mut u8),
    Int(i32),
    Float(f32),
}

/// Runs a kernel in all threads of its grid.
///
/// # Panics
/// With the compiler's or the shim's words.
pub(super) fn run(kernel: &str, grid: [u32; 3], threads: u32, arguments: &[Bits]) {
    let guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let trouble = match &*guard {
        Ok(built) => built.run(kernel, grid, threads, arguments),
        Err(words) => Some(words.clone()),
    };
    drop(guard);
    if let Some(words) = trouble {
        panic!("{kernel}: {words}");
    }
}

impl Built {
    fn new(kernels: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (source, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
        std::fs::write(&source, text(kernels)).map_err(|error| error.to_string())?;
        let mut compiler = Command::new("c++");
        compiler.args([
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-fno-strict-aliasing",
            "-ffp-contract=off",
            "-w",
            "-o",
        ]);
        let output = compiler.arg(&library).arg(&source).output().map_err(|error| format!("c++: {error}"))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(words.lines().take(40).collect::<Vec<_>>().join("\n"));
        }
        #[expect(unsafe_code, reason = "code that was built from our own source is loaded")]
        // SAFETY: the library's only code that runs on loading is that of the C++ library.
        let library = unsafe { Library::new(library) }.map_err(|error| error.to_string())?;
        Ok(Self { library, _folder: folder })
    }

    fn run(&self, kernel: &str, grid: [u32; 3], threads: u32, arguments: &[Bits]) -> Option<String> {
        let name = CString::new(kernel).ok()?;
        let kinds: String = arguments.iter().map(|bits| bits.kind()).collect();
        let kinds = CString::new(kinds).ok()?;
        let mut values: Vec<u64> = arguments.iter().map(|bits| bits.word()).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        #[expect(unsafe_code, reason = "a C function is called")]
        // SAFETY: the entry has this type, and compares the kinds of the arguments with those of the kernel before it
        // reads them; the answer lives until the next call, which the lock on the library prevents.
        unsafe {
            let entry = self.library.get::<Entry>(b"engraft_launch").ok()?;
            let answer = entry(name.as_ptr(), grid.as_ptr(), threads, pointers.as_mut_ptr(), kinds.as_ptr());
            (!answer.is_null()).then(|| CStr::from_ptr(answer).to_string_lossy().into_owned())
        }
    }
}

impl Bits {
    fn kind(self) -> char {
        match self {
            Self::Pointer(_) => 'p',
            Self::Int(_) => 'i',
            Self::Float(_) => 'f',
        }
    }

    /// In the lower bytes, as the processors that tests run on have them first.
    fn word(self) -> u64 {
        match self {
            Self::Pointer(pointer) => pointer as u64,
            Self::Int(number) => u64::from(number.cast_unsigned()),
            Self::Float(number) => u64::from(number.to_bits()),
        }
    }
}

/// All of the library's source.
fn text(kernels: &[&str]) -> String {
    let mut text = String::from(include_str!("shim.h"));
    for (index, part) in kernels.iter().enumerate() {
        let _ = write!(text, "\n#line 1 \"part {index} of the kernels\"\n{part}");
    }
    let mut table = String::new();
    for (symbol, path) in names(&kernels.concat()) {
        let _ = write!(table, "ENTRY_OF({symbol}, {path}) ");
    }
    text + "\nENTRY(" + &table + ")\n"
}

/// The kernels of a source, each with its path: those that `KERNEL(` makes in two forms, and those with `__global__
/// void` before their name.
fn names(source: &str) -> BTreeMap<String, String> {
    let mut code = String::new();
    let mut directive = false;
    for line in source.lines() {
        directive |= line.trim_start().starts_with('#');
        if !directive {
            code += line.split("//").next().unwrap_or("");
            code.push('\n');
        }
        directive &= line.trim_end().ends_with('\\');
    }
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeMap::new();
    for (at, _) in code.match_indices("KERNEL") {
        let name = code[at..].split_once('(').map(|(_, rest)| word(rest.trim_start())).unwrap_or_default();
        names.extend(["f32", "bf16"].map(|form| (format!("{name}_{form}"), format!("{form}_{name}::{name}_{form}"))));
    }
    for (at, found) in code.match_indices("__global__ void ") {
        let mut rest = code[at + found.len()..].trim_start();
        if rest.starts_with("__launch_bounds__") {
            rest = rest.split_once(')').map_or("", |(_, rest)| rest.trim_start());
        }
        let name = word(rest);
        names.insert(name.clone(), name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels with mistakes.
    const BAD: &str = r#"
extern "C" __global__ void some_return(float* to) {
    if (threadIdx.x > 40) return;
    SYNC();
    to[0] = 1.f;
}
extern "C" __global__ void some_shuffle(float* to) {
    if (threadIdx.x % 32 < 16) to[threadIdx.x] = SHFL_XOR(1.f, 1);
}
extern "C" __global__ void two_barriers(float* to) {
    if (threadIdx.x < 32) SYNC();
    else to[0] = SHFL_XOR(1.f, 1), to[1] = SHFL_XOR(2.f, 1), SHFL(3.f, 0);
    if (threadIdx.x >= 32)
        SYNC();
}
// extern "C" __global__ void no_kernel(float* to);
extern "C" __global__ void __launch_bounds__(64) sums(float* to, int count, float more) {
    SHARED(float, part, 64);
    part[threadIdx.x] = warp_sum(float(threadIdx.x));
    SYNC();
    if (threadIdx.x == 0) to[blockIdx.x] = part[0] + part[32] + count + more;
}
"#;

    #[test]
    fn mistakes_are_told_in_words() {
        let built = Built::new(&[COMMON, BAD]).unwrap();
        let mut to = [f32::NAN; 64];
        let place = Bits::Pointer(to.as_mut_ptr().cast());
        let words = |kernel, threads, arguments: &[Bits]| built.run(kernel, [2, 1, 1], threads, arguments);
        for (kernel, threads, arguments, expected) in [
            ("some_return", 64, &[place][..], "not all threads of a block meet at a barrier (block 0, 0, 0)"),
            ("some_shuffle", 32, &[place], "not all lanes of a warp meet at a shuffle (block 0, 0, 0)"),
            ("two_barriers", 64, &[place], "not all threads of a block meet at a barrier (block 0, 0, 0)"),
            ("no_kernel", 32, &[place], "no such kernel"),
            ("some_return", 64, &[Bits::Int(1)], "it takes p and was given i"),
            ("some_return", 65, &[place], "blocks are 1 to 32 whole warps"),
        ] {
            assert_eq!(words(kernel, threads, arguments).as_deref(), Some(expected));
        }
        assert_eq!(words("sums", 64, &[place, Bits::Int(3), Bits::Float(0.5)]), None);
        assert!(to[..2].iter().all(|sum| (sum - (2016.0 + 3.5)).abs() < 1e-3), "{:?}", &to[..2]);
    }

    #[test]
    fn the_compiler_says_what_is_wrong() {
        let words = Built::new(&[COMMON, "int broken = missing;"]).err().unwrap();
        assert!(words.contains("missing"), "{words}");
    }
}
