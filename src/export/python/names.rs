//! Names in sources of Python.

/// Words that are no names.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Whether `name` can stand behind `self.`; names with two underscores in front mean another attribute within a class.
pub(super) fn is_attribute(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with("__")
        && !KEYWORDS.contains(&name)
}

/// A text as a literal; the escapes of JSON mean the same in Python.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One number where all are equal, else a tuple.
pub(super) fn sizes(values: &[usize]) -> String {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => first.to_string(),
        _ => format!("({})", values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_never_written_as_one() {
        assert!(["conv1", "_x", "A9"].into_iter().all(is_attribute));
        assert!(["", "0", "a-b", "lambda", "__x", "é", "a b", "a\n"].into_iter().all(|name| !is_attribute(name)));
        assert_eq!(quoted("a\"\n\\"), r#""a\"\n\\""#);
        assert_eq!((sizes(&[3, 3]), sizes(&[1, 3])), ("3".to_owned(), "(1, 3)".to_owned()));
    }
}
