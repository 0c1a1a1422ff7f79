//! What AWS's clients read about credentials, region and endpoint: the environment, and profiles of the shared files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::store::error::BucketError;

/// Variables of AWS's clients, by name.
pub type AwsVariables = BTreeMap<String, String>;

/// Of a profile: what else it may have, and how the environment calls it.
const PLAIN: [(&str, &str); 2] = [("region", "AWS_REGION"), ("endpoint_url", "AWS_ENDPOINT_URL")];
/// Of a profile: its keys.
const KEYS: [(&str, &str); 3] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
];
/// Of a profile: a role that a token of somebody else gives.
const WEB_IDENTITY: [(&str, &str); 3] = [
    ("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("role_arn", "AWS_ROLE_ARN"),
    ("role_session_name", "AWS_ROLE_SESSION_NAME"),
];
/// Of a profile: ways to credentials that are not known here.
const UNKNOWN: [&str; 6] =
    ["sso_session", "sso_start_url", "sso_account_id", "credential_process", "source_profile", "credential_source"];

/// The variables of this process that AWS's clients read, and where its user's files are.
#[must_use]
pub fn environment() -> AwsVariables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let is_read = |(name, value): &(String, String)| (name.starts_with("AWS_") || name == "HOME") && !value.is_empty();
    std::env::vars_os().filter_map(text).filter(is_read).collect()
}

/// A client of S3 as `variables` describe it.
///
/// # Errors
/// Where a profile is named that is not there, or that gets its credentials in a way that is not known here.
pub(super) fn builder(variables: &AwsVariables) -> Result<AmazonS3Builder, BucketError> {
    let mut all = variables.clone();
    for (name, value) in profile(variables)? {
        all.entry(name.to_owned()).or_insert(value);
    }
    // A transfer may take as long as it moves; what stops moving is tried again.
    let mut builder = AmazonS3Builder::new()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "1 day")
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), "60 seconds");
    for (name, value) in &all {
        if let Some(key) = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse().ok()).flatten() {
            builder = builder.with_config(key, value);
        }
    }
    // An address that is written with `http` is meant so; one without TLS needs no authorities of certificates either.
    let endpoint = all.get("AWS_ENDPOINT_URL_S3").or_else(|| all.get("AWS_ENDPOINT_URL"));
    if endpoint.or_else(|| all.get("AWS_ENDPOINT")).is_some_and(|url| url.starts_with("http://")) {
        builder = builder.with_allow_http(true);
        if all.contains_key("AWS_ACCESS_KEY_ID") {
            builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::NoSystemCertificates), "true");
        }
    }
    Ok(builder)
}

/// What the profile says that is in use, as variables; what the environment says of credentials counts alone.
fn profile(variables: &AwsVariables) -> Result<Vec<(&'static str, String)>, BucketError> {
    let named = variables.get("AWS_PROFILE");
    let name = named.map_or("default", String::as_str);
    let file = |variable: &str, default: &str| -> Option<PathBuf> {
        let own = variables.get(variable).map(PathBuf::from);
        own.or_else(|| Some(PathBuf::from(variables.get("HOME")?).join(".aws").join(default)))
    };
    let mut entries = BTreeMap::new();
    let mut is_there = false;
    // The file of credentials wins.
    for (path, section) in [
        (
            file("AWS_CONFIG_FILE", "config"),
            if name == "default" { name.to_owned() } else { format!("profile {name}") },
        ),
        (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name.to_owned()),
    ] {
        let Some(text) = path.and_then(|path| std::fs::read_to_string(path).ok()) else { continue };
        if let Some(found) = section_of(&text, &section) {
            is_there = true;
            entries.extend(found);
        }
    }
    if !is_there {
        return match named {
            Some(name) => Err(BucketError::NoProfile(name.clone())),
            None => Ok(Vec::new()),
        };
    }
    let mut take = |wanted: &[(&str, &'static str)]| -> Vec<(&'static str, String)> {
        wanted.iter().filter_map(|(key, name)| Some((*name, entries.remove(*key)?))).collect()
    };
    let mut taken = take(&PLAIN);
    let (keys, web_identity) = (take(&KEYS), take(&WEB_IDENTITY));
    let has = |name: &str| variables.contains_key(name);
    if has("AWS_ACCESS_KEY_ID") || has("AWS_WEB_IDENTITY_TOKEN_FILE") {
        return Ok(taken);
    }
    if keys.len() >= 2 {
        taken.extend(keys);
    } else if web_identity.iter().any(|(name, _)| *name == "AWS_WEB_IDENTITY_TOKEN_FILE") {
        taken.extend(web_identity);
    } else if let Some(way) = UNKNOWN.into_iter().find(|way| entries.contains_key(*way)) {
        return Err(BucketError::UnknownCredentials { profile: name.to_owned(), way });
    }
    Ok(taken)
}

/// The entries of a section of a file in AWS's form; those that are indented belong to another entry and are left out.
fn section_of(text: &str, wanted: &str) -> Option<BTreeMap<String, String>> {
    let mut found = None;
    let mut is_inside = false;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = header.split_whitespace().collect::<Vec<_>>().join(" ") == wanted;
            if is_inside {
                found.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, false, Some((key, value))) =
            (is_inside, line.starts_with(char::is_whitespace), bare.split_once('='))
        {
            found.get_or_insert_with(BTreeMap::new).insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key=s3cret\n\n\
                               [work]\naws_access_key_id = AKWORK\naws_secret_access_key = w\naws_session_token = t\n";
    const CONFIG: &str = "# shared\n[default]\nregion = eu-west-1\ns3 =\n  region = nonsense\n[profile work]\nregion=eu-north-1\n\
                          endpoint_url = http://127.0.0.1:9000\n[profile role]\nrole_arn = arn:aws:iam::1:role/r\n\
                          web_identity_token_file = /token\n[profile login]\nsso_session = company\n";

    fn variables(more: &[(&str, &str)]) -> (tempfile::TempDir, AwsVariables) {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(home.path().join(".aws")).expect("makes");
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).expect("writes");
        std::fs::write(home.path().join(".aws/config"), CONFIG).expect("writes");
        let home_variable = ("HOME".to_owned(), home.path().display().to_string());
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        (home, more.chain([home_variable]).collect())
    }

    fn value(variables: &AwsVariables, key: AmazonS3ConfigKey) -> Option<String> {
        builder(variables).expect("a client").get_config_value(&key)
    }

    #[test]
    fn credentials_come_from_the_environment_then_from_the_profile() {
        let (_home, plain) = variables(&[]);
        assert_eq!(value(&plain, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("AKDEFAULT"));
        assert_eq!(value(&plain, AmazonS3ConfigKey::Region).as_deref(), Some("eu-west-1"));
        let (_home, own) =
            variables(&[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "e"), ("AWS_PROFILE", "work")]);
        assert_eq!(value(&own, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("AKENV"));
        assert_eq!(value(&own, AmazonS3ConfigKey::Token), None, "a token of other keys is none of these");
        assert_eq!(value(&own, AmazonS3ConfigKey::Region).as_deref(), Some("eu-north-1"));
        let (_home, work) = variables(&[("AWS_PROFILE", "work")]);
        assert_eq!(value(&work, AmazonS3ConfigKey::Token).as_deref(), Some("t"));
        assert_eq!(value(&work, AmazonS3ConfigKey::Endpoint).as_deref(), Some("http://127.0.0.1:9000"));
        let (_home, role) = variables(&[("AWS_PROFILE", "role")]);
        assert_eq!(value(&role, AmazonS3ConfigKey::WebIdentityTokenFile).as_deref(), Some("/token"));
        assert_eq!(value(&role, AmazonS3ConfigKey::RoleArn).as_deref(), Some("arn:aws:iam::1:role/r"));
        let (_home, pod) =
            variables(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/pod"), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/p")]);
        assert_eq!(value(&pod, AmazonS3ConfigKey::WebIdentityTokenFile).as_deref(), Some("/pod"));
        assert_eq!(value(&pod, AmazonS3ConfigKey::AccessKeyId), None, "the profile's keys do not go before a role");
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_refused_by_name() {
        let (_home, absent) = variables(&[("AWS_PROFILE", "nobody")]);
        assert!(matches!(builder(&absent), Err(BucketError::NoProfile(name)) if name == "nobody"));
        let (_home, login) = variables(&[("AWS_PROFILE", "login")]);
        let error = builder(&login).expect_err("not known here").to_string();
        assert!(error.contains("login") && error.contains("sso_session"), "{error}");
    }
}
