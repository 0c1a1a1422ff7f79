//! Names of repositories of models.

use std::str::FromStr;

/// Most characters of a name.
const MOST: usize = 96;
const MAIN: &str = "main";

/// A repository of models on the Hub, and the branch of it that gets the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub(super) owner: String,
    pub(super) name: String,
    revision: Option<String>,
}

impl Repository {
    /// Owner and name.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The branch; `main` unless another is named.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl FromStr for Repository {
    type Err = String;

    /// Reads `OWNER/NAME` or `OWNER/NAME@BRANCH`, by the Hub's rules for names.
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, revision) = match text.split_once('@') {
            Some((_, "")) => return Err("there is no branch behind the @".to_owned()),
            Some((id, revision)) => (id, Some(revision.to_owned())),
            None => (text, None),
        };
        let id = id.strip_prefix("models/").filter(|rest| rest.contains('/')).unwrap_or(id);
        let Some((owner, name)) = id.split_once('/') else {
            return Err("a repository has an owner and a name".to_owned());
        };
        if name.contains('/') {
            return Err("it has too many parts; only repositories of models take one".to_owned());
        }
        for part in [owner, name] {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let ends = |c: char| "-.".contains(c);
            if part.is_empty() || part.len() > MOST || !part.chars().all(known) {
                return Err(format!("`{part}` is no name: 1 to {MOST} letters, digits, `-`, `_` and `.`"));
            }
            if part.starts_with(ends) || part.ends_with(ends) || part.contains("--") || part.contains("..") {
                return Err(format!("`{part}` is no name: `-` and `.` stand alone and within it"));
            }
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_hub() {
        let parsed = |text: &str| text.parse::<Repository>();
        let repository = parsed("org/letters-1.5_b").expect("a name");
        assert_eq!((repository.id().as_str(), repository.revision()), ("org/letters-1.5_b", "main"));
        assert_eq!(parsed("models/org/a@refs/pr/1").expect("a name").revision(), "refs/pr/1");
        assert_eq!(parsed("models/a").expect("an owner of this name").id(), "models/a");
        for wrong in
            ["a", "/a", "a/", "a/b/c", "a/b@", "a/-b", "a/b.", "a/b--c", "a/b..c", "a/b c", "../x", "a/ä", "a/b?c"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert!(parsed(&format!("a/{}", "b".repeat(97))).is_err());
    }
}
