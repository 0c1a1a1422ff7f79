//! Where a database is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use url::Url;

/// Which database keeps the state of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DatabasePlace {
    /// SQLite, in the data directory.
    #[default]
    DataDir,
    /// SQLite, in this file.
    File(PathBuf),
    /// PostgreSQL.
    Server(ServerUrl),
}

/// The address of a PostgreSQL server, which may hold a password: neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// The address with its password.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        if shown.password().is_some() {
            // Only addresses without a host have no place for a password.
            let _has_one = shown.set_password(Some("…"));
        }
        write!(f, "{shown}")
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DatabasePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir => f.write_str("engraft.db in the data directory"),
            Self::File(path) => write!(f, "sqlite:{}", path.display()),
            Self::Server(url) => write!(f, "{url}"),
        }
    }
}

impl FromStr for DatabasePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected `sqlite:PATH` or `postgres://user@host/database`";
        if text.is_empty() {
            return Ok(Self::DataDir);
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let message = || format!("{EXPECTED}, got `{text}`, which names no file");
            return if path.is_empty() { Err(message()) } else { Ok(Self::File(path.into())) };
        }
        // What cannot be read is not repeated: it may hold a password.
        let url = Url::parse(text).map_err(|error| format!("{EXPECTED}: {error}"))?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Server(ServerUrl(url))),
            other => Err(format!("{EXPECTED}, got an address that begins with `{other}:`")),
        }
    }
}

impl TryFrom<String> for DatabasePlace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_a_password_never_shown() {
        let read = |text: &str| text.parse::<DatabasePlace>();
        assert_eq!(read(""), Ok(DatabasePlace::DataDir));
        assert_eq!(read("sqlite:/srv/state.db"), Ok(DatabasePlace::File("/srv/state.db".into())));
        assert_eq!(read("sqlite://state.db"), Ok(DatabasePlace::File("state.db".into())));
        let server = read("postgresql://engraft:hunter2@db.example/engraft?password=hunter2").expect("a server");
        assert!(matches!(server, DatabasePlace::Server(_)));
        for shown in [server.to_string(), format!("{server:?}")] {
            assert!(shown.contains("db.example/engraft") && !shown.contains("hunter2"), "{shown}");
        }
        for wrong in ["sqlite:", "mysql://a:hunter2@b/c", "state.db", "postgres://a:hunter2@:x"] {
            let error = read(wrong).expect_err("no place");
            assert!(error.contains("expected `sqlite:PATH`") && !error.contains("hunter2"), "{error}");
        }
    }
}
