//! What a job's owner reads names no path of the server.

use std::path::Path;

use crate::domain::problem::Problem;

/// Paths, and what stands in their place.
#[derive(Debug, Clone, Default)]
pub(super) struct Discretion(Vec<(String, &'static str)>);

impl Discretion {
    /// Hides where the data directory lies, whose folder of scratch files is `scratch`, and where the program does.
    pub(super) fn new(scratch: &Path, program: &Path) -> Self {
        let scratch = std::path::absolute(scratch).unwrap_or_else(|_| scratch.to_owned());
        let paths =
            [(scratch.as_path(), "SCRATCH"), (scratch.parent().unwrap_or(&scratch), "DATA"), (program, "engraft")];
        let hidden = paths.into_iter().map(|(path, name)| (path.display().to_string(), name));
        Self(hidden.filter(|(path, _)| path.len() > 1).collect())
    }

    /// The text without them.
    pub(super) fn text(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (path, name)| text.replace(path, name))
    }

    /// The problem without them.
    pub(super) fn problem(&self, problem: &Problem) -> Problem {
        let mut problem = problem.clone();
        problem.detail = self.text(problem.detail);
        for fault in &mut problem.errors {
            fault.detail = self.text(std::mem::take(&mut fault.detail));
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::problem::Code;

    #[test]
    fn paths_of_the_server_are_replaced() {
        let discretion = Discretion::new(Path::new("/srv/data/scratch"), Path::new("/opt/engraft/bin/engraft"));
        let problem =
            Problem::new(Code::DiskFull, "writing /srv/data/scratch/job-1/model: no room; /srv/data/blobs/x is whole");
        assert_eq!(discretion.problem(&problem).detail, "writing SCRATCH/job-1/model: no room; DATA/blobs/x is whole");
        assert_eq!(discretion.text("/opt/engraft/bin/engraft cannot start".to_owned()), "engraft cannot start");
    }
}
