//! Which GPUs this machine has, found out in a child process: a driver that crashes or hangs takes nothing else with it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError, device};
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::folders::VARIABLE;
use super::libraries::{self, Library, Missing};
use crate::domain::gpu::{FoundLibrary, Gpu, GpuVersions, Gpus};

/// What the program is called with to look for GPUs.
pub const COMMAND: &str = "probe-gpus";
/// Time that looking may take: a driver that nobody uses starts every GPU first.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks whether the child has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// What this machine has, asked once for the life of the process; `program` is the `engraft` executable.
pub fn gpus(program: &Path) -> &'static Gpus {
    static GPUS: OnceLock<Gpus> = OnceLock::new();
    GPUS.get_or_init(|| ask(program, LIMIT))
}

/// Has a child process of `program` look, for as long as `limit`.
#[must_use]
pub fn ask(program: &Path, limit: Duration) -> Gpus {
    let own = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b"ENGRAFT_") || name == VARIABLE;
    let child = Command::new(program)
        .arg(COMMAND)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| own(name)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => answer(child, limit),
        Err(error) => {
            Gpus::none(format!("nobody could look for GPUs: {} cannot be started: {error}", program.display()))
        }
    }
}

/// What the child answers, if it does.
fn answer(mut child: Child, limit: Duration) -> Gpus {
    let Some(mut stdout) = child.stdout.take() else { return Gpus::none("nobody could look for GPUs: no pipe") };
    // The answer fits into the pipe, so the child ends before it is read; one that writes on and on meets the limit.
    let Some(status) = wait(&mut child, limit) else {
        let seconds = limit.as_secs_f64();
        return Gpus::none(format!(
            "NVIDIA's driver did not answer within {seconds} s; `nvidia-smi` shows whether it works"
        ));
    };
    let mut text = String::new();
    let read = stdout.read_to_string(&mut text).ok().filter(|_| status.success());
    read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_else(|| {
        Gpus::none(format!("looking for GPUs crashed NVIDIA's driver ({status}); `nvidia-smi` shows whether it works"))
    })
}

/// How the child ended; one that has not within `limit` is killed.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            // Whatever becomes of it, it is not waited for: a process within a hanging driver may not end for a long time.
            let _killed = child.kill();
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the child does: looks, and writes what it found as JSON.
///
/// # Errors
/// When nobody reads it.
pub fn serve(mut out: impl Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut out, &look())?;
    out.flush()
}

/// Looks for the driver, its GPUs and the libraries, in this process.
#[must_use]
pub fn look() -> Gpus {
    let mut found = Gpus::default();
    found.versions.driver = driver_name();
    match libraries::driver() {
        Ok(driver) => {
            found.versions.cuda = Some(driver.version.clone());
            found.libraries.push(file_of(&driver));
        }
        Err(missing) => {
            if let Missing::OldDriver { found: version } = &missing {
                found.versions.cuda = Some(version.clone());
            }
            refuse(&mut found, &missing);
            return found;
        }
    }
    match devices() {
        Ok(devices) => found.devices = devices,
        Err(error) => found.why_not = Some(format!("NVIDIA's driver does not start: {}", in_words(error))),
    }
    let mut look = |load: fn() -> Result<Library, Missing>| match load() {
        Ok(library) => {
            found.libraries.push(file_of(&library));
            Some(library.version)
        }
        Err(missing) => {
            refuse(&mut found, &missing);
            None
        }
    };
    let [nvrtc, cublaslt, cudnn] = [libraries::nvrtc, libraries::cublaslt, libraries::cudnn].map(&mut look);
    found.versions = GpuVersions { nvrtc, cublaslt, cudnn, ..found.versions };
    if found.why_not.is_none() && found.usable().next().is_none() {
        let why = found.devices.first().and_then(Gpu::why_not);
        found.why_not =
            why.or_else(|| Some("NVIDIA's driver shows no GPU; CUDA_VISIBLE_DEVICES may hide it".to_owned()));
    }
    found
}

/// Notes what is missing; the first that is counts.
fn refuse(found: &mut Gpus, missing: &Missing) {
    if found.why_not.is_none() {
        (found.why_not, found.detail) = (Some(missing.to_string()), missing.detail());
    }
}

fn file_of(library: &Library) -> FoundLibrary {
    FoundLibrary { name: library.name.to_owned(), path: library.path.clone() }
}

/// All GPUs that the driver shows.
fn devices() -> Result<Vec<Gpu>, DriverError> {
    result::init()?;
    (0..device::get_count()?).map(gpu).collect()
}

fn gpu(ordinal: i32) -> Result<Gpu, DriverError> {
    let handle = device::get(ordinal)?;
    #[expect(unsafe_code, reason = "the handle is one that the driver has just given")]
    let (memory, attribute) =
        unsafe { (device::total_mem(handle)?, |attribute| device::get_attribute(handle, attribute)) };
    let number = |which| attribute(which).map(|number| u32::try_from(number).unwrap_or(0));
    Ok(Gpu {
        index: usize::try_from(ordinal).unwrap_or(0),
        name: device::get_name(handle)?,
        memory_bytes: memory as u64,
        compute_capability: [
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ],
        multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

/// What the driver says of an error.
fn in_words(error: DriverError) -> String {
    let said = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    said.unwrap_or_else(|| format!("{:?}", error.0))
}

/// The driver's version as the system knows it.
fn driver_name() -> Option<String> {
    let text = std::fs::read_to_string("/sys/module/nvidia/version").ok();
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that runs this.
    fn script(folder: &Path, text: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_child_that_hangs_crashes_or_talks_nonsense_is_a_machine_without_gpus() {
        let folder = tempfile::tempdir().unwrap();
        let why =
            |text: &str| ask(&script(folder.path(), text), Duration::from_millis(700)).why_not.unwrap_or_default();
        assert!(why("exec sleep 60").contains("did not answer within 0.7 s"), "{}", why("exec sleep 60"));
        assert!(why("kill -SEGV $$").contains("signal: 11"), "{}", why("kill -SEGV $$"));
        assert!(why("echo '{'").contains("crashed"));
        let none = ask(&folder.path().join("none"), LIMIT).why_not_in_full();
        assert!(none.unwrap_or_default().contains("cannot be started"));
        let gpus = Gpus::none("because");
        let text = serde_json::to_string(&gpus).unwrap();
        assert_eq!(ask(&script(folder.path(), &format!("[ \"$1\" = {COMMAND} ] && echo '{text}'")), LIMIT), gpus);
    }
}
