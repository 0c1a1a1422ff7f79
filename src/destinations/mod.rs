//! Where a fused model goes when its job is done: a repository of the Hugging Face Hub, a run of MLflow, event files of TensorBoard.
//!
//! `outline` is what trackers of experiments take of a job, as data; the folders know one destination each.

mod error;
pub mod hub;
pub mod mlflow;
mod outline;
mod service;
pub mod tensorboard;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use crate::report::Report;

pub use error::{DestinationError, Refusal};
pub use outline::{Measured, Outline};

use self::hub::Repository;

/// Where a fused model goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A repository of models.
    Hub(Repository),
    /// A new run of a tracking server.
    Mlflow,
    /// A folder of event files.
    TensorBoard(PathBuf),
}

/// Why a text names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no destination: {reason}; expected hf://OWNER/NAME, hf://OWNER/NAME@BRANCH, mlflow or tensorboard:FOLDER"
)]
pub struct NoDestination {
    given: String,
    reason: String,
}

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| NoDestination { given: given.to_owned(), reason: reason.to_owned() };
        if let Some(repository) = given.strip_prefix("hf://") {
            return repository.parse().map(Self::Hub).map_err(|reason: String| wrong(&reason));
        }
        match given.split_once(':') {
            None if given == "mlflow" => Ok(Self::Mlflow),
            Some(("mlflow", _)) => Err(wrong("--tracking-uri names the server, --experiment the experiment")),
            Some(("tensorboard", "")) => Err(wrong("the folder has no name")),
            Some(("tensorboard", folder)) => Ok(Self::TensorBoard(folder.into())),
            _ => Err(wrong("nothing is known of this form")),
        }
    }
}

/// What is published of a job.
#[derive(Debug)]
pub struct Package {
    /// The comparison, with the training's curves.
    pub report: Report,
    /// The request with every default filled in, where it is known.
    pub settings: Option<Value>,
    /// The model and what belongs to it.
    pub files: Vec<PackedFile>,
}

/// A file that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFile {
    /// What it is called at its destination.
    pub name: String,
    /// Where it lies here.
    pub path: PathBuf,
}

impl PackedFile {
    /// The file at `path`, which is called `name` at its destination.
    #[must_use]
    pub fn new(name: &str, path: &Path) -> Self {
        Self { name: name.to_owned(), path: path.to_owned() }
    }
}

/// What is called with a file's name, its bytes that are on their way, and all of them.
pub type Advance<'a> = &'a (dyn Fn(&str, u64, u64) + Sync);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_repository_a_run_or_a_folder() {
        let parsed = |text: &str| text.parse::<Destination>();
        let Ok(Destination::Hub(repository)) = parsed("hf://org/letters@v2") else { panic!("a repository") };
        assert_eq!((repository.id(), repository.revision()), ("org/letters".to_owned(), "v2"));
        assert_eq!(parsed("mlflow"), Ok(Destination::Mlflow));
        assert_eq!(parsed("tensorboard:runs/a"), Ok(Destination::TensorBoard("runs/a".into())));
        for (text, part) in [
            ("hf://letters", "owner"),
            ("hf://datasets/org/letters", "models"),
            ("mlflow:letters", "--experiment"),
            ("tensorboard:", "no name"),
            ("s3://bucket", "nothing is known"),
            ("", "nothing is known"),
        ] {
            let said = parsed(text).expect_err(text).to_string();
            assert!(said.contains(part) && said.contains("hf://OWNER/NAME"), "{said}");
        }
    }
}
