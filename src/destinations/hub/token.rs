//! Where the token of a user of the Hub is found, as `huggingface_hub` finds it.

use std::path::{Path, PathBuf};

/// The token of the environment, else that of the file where `hf auth login` leaves it.
///
/// `variable` reads the environment, `read` a file.
pub fn token(variable: impl Fn(&str) -> Option<String>, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let of_environment = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
    of_environment.and_then(|token| cleaned(&token)).or_else(|| cleaned(&read(&file(&variable)?)?))
}

/// Where the file is.
fn file(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let place = |name: &str| {
        let given = variable(name)?;
        match given.strip_prefix("~/") {
            Some(rest) => Some(home.as_ref()?.join(rest)),
            None => Some(PathBuf::from(given)),
        }
    };
    if let Some(path) = place("HF_TOKEN_PATH") {
        return Some(path);
    }
    let hub = place("HF_HOME").or_else(|| {
        let caches = place("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")))?;
        Some(caches.join("huggingface"))
    });
    Some(hub?.join("token"))
}

/// Without lines and spaces around it.
fn cleaned(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "").trim().to_owned();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Option<String> {
        let of = |from: &[(&str, &str)], name: &str| {
            from.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        token(|name| of(variables, name), |path| of(files, &path.display().to_string()))
    }

    #[test]
    fn the_environment_comes_first_and_then_the_file() {
        let home = ("HOME", "/home/a");
        let files = [
            ("/home/a/.cache/huggingface/token", "of home\n"),
            ("/hub/token", "of hub"),
            ("/caches/huggingface/token", "of caches"),
            ("/home/a/own", "own"),
        ];
        let cases = [
            (&[home][..], Some("of home")),
            (&[home, ("HF_TOKEN", " set \n")], Some("set")),
            (&[home, ("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "old")], Some("old")),
            (&[home, ("HF_HOME", "/hub")], Some("of hub")),
            (&[home, ("XDG_CACHE_HOME", "/caches")], Some("of caches")),
            (&[home, ("HF_HOME", "/hub"), ("HF_TOKEN_PATH", "~/own")], Some("own")),
            (&[home, ("HF_TOKEN_PATH", "/absent")], None),
            (&[], None),
        ];
        for (variables, expected) in cases {
            assert_eq!(found(variables, &files).as_deref(), expected, "{variables:?}");
        }
    }
}
