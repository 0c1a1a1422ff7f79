//! Where results may go: never over what they are made of, and over another file only when that is asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::plan::request::JobRequest;
use crate::tensors::CheckpointFiles;

/// Checks every file that will be written before anything is computed.
///
/// # Errors
/// Names the first that is one of `inputs` or of the files beside one that it names, by whatever name or link, that another output
/// names too, or that exists without `force`.
pub(super) fn check(outputs: &[&Path], inputs: &[&Path], force: bool) -> Result<()> {
    let inputs: Vec<PathBuf> = inputs.iter().flat_map(|input| files(input)).collect();
    for (index, output) in outputs.iter().enumerate() {
        if outputs[..index].contains(output) {
            bail!("{} is named for two results: give each a file of its own", output.display());
        }
        if let Some(input) = inputs.iter().find(|input| is_same(output, input)) {
            bail!("{} would be written over the input {}: give another name", output.display(), input.display());
        }
        if !force && fs::symlink_metadata(output).is_ok() {
            bail!("{} exists: give another name, or --force to replace it", output.display());
        }
    }
    Ok(())
}

/// The files that a job reads.
pub(super) fn read_by(job: &JobRequest) -> impl Iterator<Item = &Path> {
    let dataset = job.dataset.iter();
    let data = dataset.flat_map(|data| [Some(&data.name), data.validation.as_ref(), data.test.as_ref()]).flatten();
    let reference = job.reference.iter().map(|reference| &reference.name);
    job.members.iter().chain(data).chain(reference).map(Path::new)
}

/// The files of an input. What cannot be read is one file; who reads it says why it cannot.
fn files(input: &Path) -> Vec<PathBuf> {
    CheckpointFiles::open(input).map_or_else(|_| vec![input.to_owned()], |files| files.paths)
}

/// Whether both lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_other_files_are_safe() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("member"), "weights").unwrap();
        fs::write(at("other"), "weights").unwrap();
        std::os::unix::fs::symlink(at("member"), at("link")).unwrap();
        fs::hard_link(at("member"), at("hard")).unwrap();
        let inputs = [&*at("member")];
        for (output, force, said) in [
            ("new", false, None),
            ("other", false, Some("--force")),
            ("other", true, None),
            ("member", true, Some("over the input")),
            ("link", true, Some("over the input")),
            ("hard", true, Some("over the input")),
            ("./member", true, Some("over the input")),
        ] {
            let refused = check(&[&at(output)], &inputs, force).err().map(|error| error.to_string());
            let fits = refused.as_deref().is_some_and(|error| said.is_some_and(|said| error.contains(said)));
            assert!(fits || refused.is_none() && said.is_none(), "{output}: {refused:?}");
        }
        assert!(check(&[&at("new"), &at("new")], &inputs, true).is_err());
    }
}
