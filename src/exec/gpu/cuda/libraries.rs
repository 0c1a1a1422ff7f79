//! Finds NVIDIA's libraries and loads them, without a panic: cudarc looks for them by name at its first call, and panics where one
//! is missing. A library that is loaded already answers to its name wherever it lies, so what is found here is what is used there.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

use super::folders;

/// CUDA's version that the libraries are made for, and that the driver must know.
const CUDA: i64 = 13;
/// The oldest cuDNN that plans convolutions as they are asked for here.
const LEAST_CUDNN: [i64; 2] = [9, 8];
/// What has all the libraries.
const HINT: &str = "the container image with CUDA has all of them; folders of one's own go into ENGRAFT_CUDA_LIBRARIES";

/// A library that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The name that is asked for.
    pub name: &'static str,
    /// Its file, where the system says.
    pub path: Option<PathBuf>,
    /// Its version.
    pub version: String,
}

/// All libraries, loaded for as long as the process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The driver; its version is that of CUDA up to which it goes.
    pub driver: Library,
    /// The compiler.
    pub nvrtc: Library,
    /// Matrix products.
    pub cublaslt: Library,
    /// Convolutions.
    pub cudnn: Library,
}

/// Why the libraries cannot be used, and how to get them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no driver.
    #[error("no NVIDIA driver (`libcuda.so.1`) was found on this machine; in a container it comes with `--gpus all`")]
    Driver,
    /// The driver is older than the libraries.
    #[error("NVIDIA's driver goes up to CUDA {found}, and {CUDA}.0 is needed: install driver 580 or a newer one")]
    OldDriver {
        /// CUDA's version up to which it goes.
        found: String,
    },
    /// A library was not found.
    #[error("NVIDIA's {title} (`{name}`) was not found: `pip install {package}` brings it, {HINT}")]
    Library {
        /// What it is called.
        title: &'static str,
        /// The file.
        name: &'static str,
        /// The package that brings it.
        package: &'static str,
    },
    /// A library is there and cannot be loaded.
    #[error("NVIDIA's {title} is there and cannot be loaded: `pip install {package}` brings one, {HINT}")]
    Unloadable {
        /// What it is called.
        title: &'static str,
        /// What the loader says, with the file.
        why: String,
        /// The package that brings it.
        package: &'static str,
    },
    /// A library is of another version.
    #[error("NVIDIA's {title} {found} does not fit: expected {expected}, which `pip install {package}` brings")]
    Version {
        /// What it is called.
        title: &'static str,
        /// Its version.
        found: String,
        /// Its file.
        path: Option<PathBuf>,
        /// What would fit.
        expected: String,
        /// The package that brings it.
        package: &'static str,
    },
}

impl Missing {
    /// What only whoever runs the machine may know: files, and what the loader says.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Driver | Self::OldDriver { .. } | Self::Library { .. } => None,
            Self::Unloadable { why, .. } => Some(why.clone()),
            Self::Version { path, .. } => path.as_ref().map(|path| path.display().to_string()),
        }
    }
}

/// A library that is wanted.
struct Wanted {
    title: &'static str,
    /// The file, with the version of its interface.
    name: &'static str,
    /// What cudarc calls it.
    stem: &'static str,
    package: &'static str,
}

const NVRTC: Wanted =
    Wanted { title: "compiler NVRTC", name: "libnvrtc.so.13", stem: "nvrtc", package: "'nvidia-cuda-nvrtc==13.*'" };
const CUBLASLT: Wanted =
    Wanted { title: "cuBLASLt", name: "libcublasLt.so.13", stem: "cublasLt", package: "'nvidia-cublas==13.*'" };
const CUDNN: Wanted = Wanted { title: "cuDNN", name: "libcudnn.so.9", stem: "cudnn", package: "nvidia-cudnn-cu13" };
const DRIVER: Wanted = Wanted { title: "driver", name: "libcuda.so.1", stem: "cuda", package: "" };

/// Loads the driver and the libraries, once for the process.
///
/// # Errors
/// Says which of them is missing, and how to get it.
pub fn load() -> Result<&'static Loaded, Missing> {
    static LOADED: OnceLock<Result<Loaded, Missing>> = OnceLock::new();
    LOADED
        .get_or_init(|| Ok(Loaded { driver: driver()?, nvrtc: nvrtc()?, cublaslt: cublaslt()?, cudnn: cudnn()? }))
        .as_ref()
        .map_err(Clone::clone)
}

/// Loads the driver.
///
/// # Errors
/// When there is none, or an old one.
pub fn driver() -> Result<Library, Missing> {
    let handle = open(&DRIVER).map_err(|error| match error {
        Missing::Library { .. } => Missing::Driver,
        found
        @ (Missing::Driver | Missing::OldDriver { .. } | Missing::Unloadable { .. } | Missing::Version { .. }) => found,
    })?;
    let (version, path) = asked_for_one(handle, "cuDriverGetVersion").ok_or(Missing::Driver)?;
    let found = shown(&[version / 1000, version % 1000 / 10]);
    if version < CUDA * 1000 {
        return Err(Missing::OldDriver { found });
    }
    Ok(Library { name: DRIVER.name, path, version: found })
}

/// Loads the compiler.
///
/// # Errors
/// When there is none that fits.
pub fn nvrtc() -> Result<Library, Missing> {
    let compiler = open(&NVRTC)?;
    let (version, path) = asked_for_two(compiler, "nvrtcVersion").ok_or_else(|| NVRTC.missing())?;
    if let Some(folder) = path.as_deref().and_then(Path::parent) {
        // NVRTC looks for its other file by its name alone; where it is not beside it, the loader may know it.
        let _unused = handle(&folder.join(format!("libnvrtc-builtins.so.{}", shown(&version))));
    }
    NVRTC.checked(&version, path, version[0] == CUDA, format!("{CUDA}.x"))
}

/// Loads the products of matrices.
///
/// # Errors
/// When there are none that fit.
pub fn cublaslt() -> Result<Library, Missing> {
    let handle = open(&CUBLASLT)?;
    let (version, path) = returned(handle, "cublasLtGetVersion").ok_or_else(|| CUBLASLT.missing())?;
    let version = [version / 10_000, version % 10_000 / 100, version % 100];
    CUBLASLT.checked(&version, path, version[0] == CUDA, format!("{CUDA}.x"))
}

/// Loads the convolutions. cuDNN's other files lie beside the first, where that looks for them.
///
/// # Errors
/// When there are none that fit, or they are made for another CUDA.
pub fn cudnn() -> Result<Library, Missing> {
    let handle = open(&CUDNN)?;
    let (version, path) = returned(handle, "cudnnGetVersion").ok_or_else(|| CUDNN.missing())?;
    let version = [version / 10_000, version % 10_000 / 100, version % 100];
    let cuda = returned(handle, "cudnnGetCudartVersion").map_or(0, |(version, _)| version / 1000);
    let mut expected = format!("{} or newer, made for CUDA {CUDA}", shown(&LEAST_CUDNN));
    if cuda != CUDA {
        expected = format!("{expected} and not for CUDA {cuda}");
    }
    CUDNN.checked(&version, path, version[..2] >= LEAST_CUDNN[..] && cuda == CUDA, expected)
}

/// `13.0.2` from its parts.
fn shown(parts: &[i64]) -> String {
    parts.iter().map(i64::to_string).collect::<Vec<_>>().join(".")
}

impl Wanted {
    fn missing(&self) -> Missing {
        Missing::Library { title: self.title, name: self.name, package: self.package }
    }

    fn checked(
        &self,
        version: &[i64],
        path: Option<PathBuf>,
        fits: bool,
        expected: String,
    ) -> Result<Library, Missing> {
        let version = shown(version);
        if fits {
            return Ok(Library { name: self.name, path, version });
        }
        Err(Missing::Version { title: self.title, found: version, path, expected, package: self.package })
    }
}

/// Loads a library from the user's folders, as the loader finds it, or from the usual folders; then takes what cudarc takes, which may
/// be another one that lies on the loader's path under a name without a version.
fn open(wanted: &Wanted) -> Result<&'static Handle, Missing> {
    let files = |folders: Vec<PathBuf>| {
        folders.into_iter().map(|folder| folder.join(wanted.name)).filter(|file| file.is_file())
    };
    let mut refused = None;
    let mut try_file = |file: PathBuf| {
        let opened = handle(&file);
        opened
            .map_err(|why| {
                if file.is_absolute() {
                    refused.get_or_insert(why);
                }
            })
            .ok()
    };
    let found = files(folders::named())
        .find_map(&mut try_file)
        .or_else(|| try_file(PathBuf::from(wanted.name)))
        .or_else(|| files(folders::usual()).find_map(&mut try_file));
    let taken = cudarc::get_lib_name_candidates(wanted.stem).into_iter().find_map(|name| handle(Path::new(&name)).ok());
    taken.filter(|_| found.is_some()).ok_or_else(|| match refused {
        Some(why) => Missing::Unloadable { title: wanted.title, why, package: wanted.package },
        None => wanted.missing(),
    })
}

/// Loads one file, for all that come later too. It is never unloaded: its threads may run until the process ends.
fn handle(file: &Path) -> Result<&'static Handle, String> {
    #[expect(unsafe_code, reason = "loading runs the library's own initialisers: it is NVIDIA's, by its name")]
    let handle = unsafe { Handle::open(Some(file), RTLD_NOW | RTLD_GLOBAL) };
    handle.map(|handle| &*Box::leak(Box::new(handle))).map_err(|error| in_words(&error))
}

/// What the loader says.
fn in_words(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// What a function without arguments returns, and the file that it is in.
fn returned(handle: &Handle, name: &str) -> Option<(i64, Option<PathBuf>)> {
    #[expect(unsafe_code, reason = "NVIDIA's headers declare the function so")]
    let (function, version) = unsafe {
        let function: extern "C" fn() -> usize = *handle.get(name).ok()?;
        (function, function())
    };
    Some((version as i64, file_at(function as usize)))
}

/// What a function writes to its only argument, and the file that it is in.
fn asked_for_one(handle: &Handle, name: &str) -> Option<(i64, Option<PathBuf>)> {
    let mut version = 0;
    #[expect(unsafe_code, reason = "NVIDIA's headers declare the function so, and it writes one number")]
    let (function, status) = unsafe {
        let function: extern "C" fn(*mut c_int) -> c_int = *handle.get(name).ok()?;
        (function, function(&raw mut version))
    };
    (status == 0).then(|| (i64::from(version), file_at(function as usize)))
}

/// What a function writes to its two arguments, and the file that it is in.
fn asked_for_two(handle: &Handle, name: &str) -> Option<([i64; 2], Option<PathBuf>)> {
    let mut version = [0; 2];
    let [major, minor] = &mut version;
    #[expect(unsafe_code, reason = "NVIDIA's headers declare the function so, and it writes two numbers")]
    let (function, status) = unsafe {
        let function: extern "C" fn(*mut c_int, *mut c_int) -> c_int = *handle.get(name).ok()?;
        (function, function(major, minor))
    };
    (status == 0).then(|| (version.map(i64::from), file_at(function as usize)))
}

/// The file whose bytes are mapped at `address`.
fn file_at(address: usize) -> Option<PathBuf> {
    file_in(&std::fs::read_to_string("/proc/self/maps").ok()?, address)
}

/// The file that is mapped at `address` by a list of maps in Linux' form.
fn file_in(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let [from, to] = [from, to].map(|end| usize::from_str_radix(end, 16).ok());
        let path = line.get(line.find('/')?..)?;
        (from? <= address && address < to?).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_at_an_address_is_read_from_the_list_of_maps() {
        let maps = "1000-2000 r--p 0 08:01 7   /lib/with spaces/libcudnn.so.9\n2000-3000 rw-p 0 00:00 0 \n3000-4000 r-xp 0 08:01 8 /lib/b.so\n";
        let file = |address| file_in(maps, address).map(|path| path.display().to_string());
        assert_eq!(file(0x1fff).as_deref(), Some("/lib/with spaces/libcudnn.so.9"));
        assert_eq!((file(0x2000), file(0x3000).as_deref(), file(0x4000)), (None, Some("/lib/b.so"), None));
    }

    #[test]
    fn what_is_missing_is_named_with_what_brings_it() {
        let words = CUDNN.missing().to_string();
        assert!(words.contains("`libcudnn.so.9`") && words.contains("pip install nvidia-cudnn-cu13"), "{words}");
        let wrong = CUDNN.checked(&[8, 9, 7], Some("/opt/libcudnn.so.9".into()), false, "9.8 or newer".to_owned());
        let wrong = wrong.expect_err("too old");
        assert_eq!(wrong.detail().as_deref(), Some("/opt/libcudnn.so.9"));
        let words = wrong.to_string();
        assert!(
            words.contains("cuDNN 8.9.7 does not fit: expected 9.8 or newer") && !words.contains("/opt"),
            "{words}"
        );
        assert!(Missing::Driver.to_string().contains("`libcuda.so.1`"));
    }
}
