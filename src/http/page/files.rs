//! The files of the pages, as they are part of the program.

/// A file of the pages.
#[derive(Debug)]
pub(super) struct PageFile {
    /// Its name below `/page/`.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) text: &'static str,
}

macro_rules! page_file {
    ($name:literal) => {
        PageFile { name: $name, text: include_str!(concat!("assets/", $name)) }
    };
}

/// What all pages begin with.
pub(super) static INDEX: PageFile = page_file!("index.html");

/// What it loads, and what that loads.
pub(super) static FILES: &[PageFile] = &[
    page_file!("api.js"),
    page_file!("base.css"),
    page_file!("chart.js"),
    page_file!("checkpoint.js"),
    page_file!("comparison.js"),
    page_file!("comparisons.js"),
    page_file!("components.css"),
    page_file!("curves.js"),
    page_file!("dataset.js"),
    page_file!("docs.js"),
    page_file!("docs_schema.js"),
    page_file!("dom.js"),
    page_file!("downloads.js"),
    page_file!("dropzone.js"),
    page_file!("events.js"),
    page_file!("files.js"),
    page_file!("form.js"),
    page_file!("form_fields.js"),
    page_file!("form_inputs.js"),
    page_file!("form_outcome.js"),
    page_file!("format.js"),
    page_file!("icon.svg"),
    page_file!("job.js"),
    page_file!("job_actions.js"),
    page_file!("jobs.js"),
    page_file!("log.js"),
    page_file!("main.js"),
    page_file!("measures.js"),
    page_file!("notation.js"),
    page_file!("planned.js"),
    page_file!("poll.js"),
    page_file!("progress.js"),
    page_file!("prose.js"),
    page_file!("repeat.js"),
    page_file!("request.js"),
    page_file!("result.js"),
    page_file!("router.js"),
    page_file!("schema.js"),
    page_file!("session.js"),
    page_file!("ui.js"),
    page_file!("uploads.js"),
    page_file!("views.css"),
    page_file!("workers.js"),
];

impl PageFile {
    /// Its media type, by the end of its name.
    pub(super) fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, end)| end) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page/assets");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("a name of ASCII")
        };
        let there: BTreeSet<String> = std::fs::read_dir(folder).expect("the folder").map(name).collect();
        let served = FILES.iter().chain([&INDEX]).map(|file| file.name.to_owned()).collect();
        assert_eq!(there, served);
    }

    /// What stands in `text` between each `before` and the next `after`.
    fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).map(move |rest| rest.split(after).next().unwrap_or_default())
    }

    #[test]
    fn every_file_that_is_loaded_is_there() {
        let mut loaded = BTreeSet::new();
        for file in FILES.iter().chain([&INDEX]) {
            for name in between(file.text, "from './", '\'').chain(between(file.text, "\"/page/", '"')) {
                assert!(FILES.iter().any(|other| other.name == name), "{} loads {name}", file.name);
                loaded.insert(name);
            }
        }
        let idle: Vec<&str> = FILES.iter().map(|file| file.name).filter(|name| !loaded.contains(name)).collect();
        assert!(idle.is_empty(), "nothing loads {idle:?}");
    }

    #[test]
    fn nothing_in_the_pages_makes_markup_of_text() {
        for file in FILES.iter().chain([&INDEX]) {
            for made in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!file.text.contains(made), "{} has {made}", file.name);
            }
        }
    }
}
