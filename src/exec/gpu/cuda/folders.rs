//! The folders that NVIDIA's libraries may lie in, beside those that the loader knows itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Names folders with NVIDIA's libraries, separated by colons; they come before all others.
pub(super) const VARIABLE: &str = "ENGRAFT_CUDA_LIBRARIES";

/// Where toolkits, containers and systems keep the libraries.
const FIXED: [&str; 3] = ["/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/run/opengl-driver/lib"];

/// The folders that the user names.
pub(super) fn named() -> Vec<PathBuf> {
    let named = std::env::var_os(VARIABLE).unwrap_or_default();
    std::env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty()).collect()
}

/// The folders of NVIDIA's Python packages, then those of toolkits.
pub(super) fn usual() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    prefixes.extend(python_prefixes(&path));
    prefixes.extend(variable("HOME").map(|home| home.join(".local")));
    prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
    let mut folders: Vec<PathBuf> = prefixes.iter().flat_map(|prefix| wheels(prefix)).collect();
    let toolkits = matching(Path::new("/usr/local"), |name| name.starts_with("cuda"));
    folders.extend(toolkits.into_iter().rev().map(|toolkit| toolkit.join("lib64")));
    folders.extend(FIXED.map(PathBuf::from));
    let mut seen = BTreeSet::new();
    folders.retain(|folder| folder.is_dir() && seen.insert(folder.clone()));
    folders
}

/// Where the `python3` that is found first on the path `path` is installed: the environment that it belongs to, and what that is made of.
fn python_prefixes(path: &OsString) -> Vec<PathBuf> {
    let python = std::env::split_paths(path).map(|folder| folder.join("python3")).find(|file| file.is_file());
    let Some(python) = python else { return Vec::new() };
    let prefix = |file: &Path| file.parent().and_then(Path::parent).map(Path::to_owned);
    let real = python.canonicalize().ok();
    [prefix(&python), real.as_deref().and_then(prefix)].into_iter().flatten().collect()
}

/// The folders of the libraries in NVIDIA's packages for the Python below `prefix`.
fn wheels(prefix: &Path) -> Vec<PathBuf> {
    let pythons = matching(&prefix.join("lib"), |name| name.starts_with("python3"));
    let packages =
        pythons.iter().rev().flat_map(|python| ["site-packages", "dist-packages"].map(|kind| python.join(kind)));
    let parts = packages.flat_map(|packages| matching(&packages.join("nvidia"), |_| true));
    parts.map(|part| part.join("lib")).collect()
}

/// What `folder` holds whose name is as wanted, in order.
fn matching(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    let mut found: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_python_on_the_path_are_found_without_starting_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["env/bin", "env/lib/python3.12/site-packages/nvidia/cudnn/lib", "real/bin", "other"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::fs::create_dir_all(at("real/lib/python3.12/site-packages/nvidia/cu13/lib")).unwrap();
        std::fs::write(at("real/bin/python3.12"), "not a program").unwrap();
        std::os::unix::fs::symlink(at("real/bin/python3.12"), at("env/bin/python3")).unwrap();
        let path = std::env::join_paths([at("other"), at("env/bin"), at("real/bin")]).unwrap();
        let found: Vec<PathBuf> = python_prefixes(&path).iter().flat_map(|prefix| wheels(prefix)).collect();
        let packages = "lib/python3.12/site-packages/nvidia";
        let expected = [
            at(&format!("env/{packages}/cudnn/lib")),
            at("real").canonicalize().unwrap().join(packages).join("cu13/lib"),
        ];
        assert_eq!(found, expected);
        assert!(python_prefixes(&OsString::from("/nowhere")).is_empty());
    }
}
