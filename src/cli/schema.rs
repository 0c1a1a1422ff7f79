//! `engraft schema`: prints the JSON Schema of what clients write.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use crate::plan::schemas::{ALL, RequestSchema, page};

/// Print the JSON Schema of a job, of a plan file, of a recipe or of an assembly.
///
/// Editors complete and check files by it. A schema may refer to that of a job, which is to lie beside it: docs/schemas has all of them.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaCommand {
    /// What it is about.
    #[arg(value_parser = PossibleValuesParser::new(ALL.map(|schema| schema.name)), required_unless_present = "page")]
    name: Option<String>,
    /// All fields of all of them, as a page in Markdown.
    #[arg(long, conflicts_with = "name")]
    page: bool,
}

impl SchemaCommand {
    /// Prints it.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.name.as_deref().and_then(RequestSchema::named) {
            Some(schema) => print!("{}", schema.text()),
            None => print!("{}", page()?),
        }
        Ok(ExitCode::SUCCESS)
    }
}
