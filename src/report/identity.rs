//! Which job a report is of, and of which files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Hexadecimal digits of a digest that are shown where there is little room.
const SHORT_DIGEST: usize = 12;

/// Which job a report is of, when it was made, and of which files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReportIdentity {
    /// Id of the job; none of a fusion without a server.
    #[schema(example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    pub job: Option<String>,
    /// The name that its owner has given it.
    #[schema(example = "MNIST, two members")]
    pub name: Option<String>,
    /// When the attempt that made it began.
    #[schema(example = "2026-01-31T12:00:01Z", format = DateTime)]
    pub date: Option<String>,
    /// The fused model; none in reports of versions that did not say.
    pub model: Option<ReportFile>,
    /// The members, in the order of the job.
    pub members: Vec<ReportFile>,
    /// The dataset, where there is one.
    pub dataset: Option<ReportFile>,
    /// The dataset that networks were chosen on, where it is another.
    pub validation: Option<ReportFile>,
    /// The dataset that was tested on, where it is another.
    pub test: Option<ReportFile>,
    /// Whether the network is known, and its PyTorch module can be had.
    pub has_source: bool,
    /// The file of the module's source, where it was written beside the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "model.py")]
    pub source: Option<String>,
}

/// A file that went into a fusion, or came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReportFile {
    /// Its name.
    #[schema(example = "m0.safetensors")]
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub sha256: String,
}

/// A file and what it is to the job.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRole<'a> {
    /// In a word.
    pub(super) role: &'static str,
    pub(super) file: &'a ReportFile,
}

impl ReportIdentity {
    /// What the report is called: the job's name, else its id, else the model's file.
    pub(super) fn title(&self) -> Option<&str> {
        let model = self.model.as_ref().map(|model| model.name.as_str());
        self.name.as_deref().or(self.job.as_deref()).or(model)
    }

    /// Every file, with what it is: the model, the members and the data.
    pub(super) fn files(&self) -> impl Iterator<Item = FileRole<'_>> {
        let model = self.model.iter().map(|file| FileRole { role: "this model", file });
        let members = self.members.iter().map(|file| FileRole { role: "member", file });
        let dataset = self.dataset.iter().map(|file| FileRole { role: "dataset", file });
        let validation = self.validation.iter().map(|file| FileRole { role: "validation", file });
        let test = self.test.iter().map(|file| FileRole { role: "test", file });
        model.chain(members).chain(dataset).chain(validation).chain(test)
    }
}

impl ReportFile {
    /// The beginning of the digest.
    pub(super) fn short_digest(&self) -> &str {
        self.sha256.get(..SHORT_DIGEST).unwrap_or(&self.sha256)
    }
}

impl fmt::Display for ReportIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [self.name.as_ref(), self.job.as_ref(), self.date.as_ref()];
        let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
        if !known.is_empty() {
            writeln!(f, "{}", known.join("  "))?;
        }
        let width = self.files().map(|file| file.role.len()).max().unwrap_or(0);
        for FileRole { role, file } in self.files() {
            writeln!(f, "{role:<width$}  {}  sha256 {}", file.name, file.short_digest())?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn file(name: &str, digit: &str) -> ReportFile {
        ReportFile { name: name.to_owned(), sha256: digit.repeat(64) }
    }

    /// A job with two members and a dataset.
    pub(in crate::report) fn identity() -> ReportIdentity {
        ReportIdentity {
            job: Some("job_019324a5b7c07f3e8d1c2b3a4f5e6d7c".to_owned()),
            name: Some("letters & digits".to_owned()),
            date: Some("2026-01-31T12:00:01Z".to_owned()),
            model: Some(file("fused.safetensors", "a")),
            members: vec![file("m0|`x`", "b"), file("m1", "c")],
            dataset: Some(file("a: [b]", "d")),
            validation: None,
            test: None,
            has_source: true,
            source: None,
        }
    }

    #[test]
    fn a_report_is_called_by_its_name_else_its_job_else_its_model() {
        let whole = identity();
        assert_eq!(whole.title(), Some("letters & digits"));
        let unnamed = ReportIdentity { name: None, ..whole };
        assert_eq!(unnamed.title(), unnamed.job.as_deref());
        assert_eq!(ReportIdentity { job: None, ..unnamed }.title(), Some("fused.safetensors"));
        assert_eq!(ReportIdentity::default().title(), None);
    }

    #[test]
    fn the_text_names_the_job_and_every_file() {
        let text = identity().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "letters & digits  job_019324a5b7c07f3e8d1c2b3a4f5e6d7c  2026-01-31T12:00:01Z");
        assert_eq!(lines[1], "this model  fused.safetensors  sha256 aaaaaaaaaaaa");
        assert_eq!(lines[4], "dataset     a: [b]  sha256 dddddddddddd");
        assert_eq!(ReportIdentity::default().to_string(), "");
    }
}
