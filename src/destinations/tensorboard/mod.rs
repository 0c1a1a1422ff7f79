//! TensorBoard: a file of events with the curves of a job and what its report has measured.

mod event;
mod record;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Outline;

/// Writes the figures of a job into a folder of its own below `folder`, a run of TensorBoard's; the file. The same job has the same file,
/// so that another call replaces it.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(outline: &Outline, folder: &Path) -> io::Result<PathBuf> {
    let run = folder.join(run_name(&format!("{} {}", outline.name, outline.mark)));
    std::fs::create_dir_all(&run)?;
    let began = outline.began.map_or(0, Timestamp::as_second);
    let path = run.join(format!("events.out.tfevents.{began:010}.engraft"));
    let mut file = tempfile::NamedTempFile::new_in(&run)?;
    file.write_all(&events(outline))?;
    // Others may read it, as every other file that is written there.
    file.as_file().set_permissions(readable())?;
    file.persist(&path)?;
    Ok(path)
}

fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// The bytes of the file.
fn events(outline: &Outline) -> Vec<u8> {
    let time = outline.began.map_or(0.0, |began| began.as_millisecond() as f64 / 1e3) + outline.took.as_secs_f64();
    let mut file = record::framed(&event::version(time));
    for metric in &outline.metrics {
        file.extend(record::framed(&event::scalar(time, metric)));
    }
    file
}

/// A name as a folder: a run is called by it.
fn run_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_. ".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches(['.', ' ']);
    if name.is_empty() { "fused".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::*;

    /// Two figures at two steps.
    fn outline() -> Outline {
        let measured = |name: &str, step, value| Measured { name: name.to_owned(), step, value };
        Outline {
            name: "letters".to_owned(),
            mark: "4f5e6d7c".to_owned(),
            finding: None,
            parameters: std::collections::BTreeMap::new(),
            metrics: vec![measured("train/loss", 1, 0.5), measured("fused/test/accuracy", 300, 0.875)],
            tags: std::collections::BTreeMap::new(),
            began: "2026-01-31T12:00:01Z".parse().ok(),
            took: std::time::Duration::from_millis(1500),
        }
    }

    /// Made by TensorBoard's own messages and writer.
    #[test]
    fn the_bytes_are_those_that_tensorboard_writes() {
        let expected = include_bytes!("../../../tests/fixtures/tensorboard/events.out.tfevents.fixture");
        assert_eq!(hex::encode(events(&outline())), hex::encode(expected));
    }

    #[test]
    fn a_job_has_one_file_however_often_it_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second] = [(); 2].map(|()| write(&outline(), folder.path()).expect("writes"));
        assert_eq!(first, folder.path().join("letters 4f5e6d7c/events.out.tfevents.1769860801.engraft"));
        assert_eq!(first, second);
        assert_eq!(std::fs::read_dir(folder.path().join("letters 4f5e6d7c")).expect("a folder").count(), 1);
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for (name, run) in [("a/b: c", "a_b_ c"), ("../..", "_"), (" . ", "fused"), ("MNIST, two", "MNIST_ two")] {
            assert_eq!(run_name(name), run);
        }
    }
}
