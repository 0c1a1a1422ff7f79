//! The kinds of values that settings have, as a user writes them.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use crate::domain::blob_location::BlobLocation;
use crate::domain::database::DatabasePlace;
use crate::settings::Device;

/// Values that a file of settings has as text, as flags and variables do.
macro_rules! read_from_text {
    ($($type:ty),+) => {$(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )+};
}

read_from_text!(Age, Names, Devices, Origins, Subnets, Endpoint);

/// A span of time, written as seconds: `30`, `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds(pub Duration);

impl Seconds {
    pub(super) const fn new(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        match Duration::try_from_secs_f64(seconds) {
            Ok(span) if !span.is_zero() => Ok(Self(span)),
            _ => Err(format!("expected seconds above 0, got {seconds}")),
        }
    }
}

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<f64>().map_err(|_| format!("expected seconds, as in `30` or `0.5`, got `{text}`"))?.try_into()
    }
}

/// A span of time, written `90d`, `12h`, `30m` or `10s`; `ever` for one without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Age(pub Option<Duration>);

impl std::str::FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("expected a time, as in `90d`, `12h` or `30m`, or `ever`, got `{text}`");
        if text == "ever" {
            return Ok(Self(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let seconds = match unit {
            "d" => 86_400,
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(seconds).map(|seconds| Self(Some(Duration::from_secs(seconds)))).ok_or_else(error)
    }
}

/// A number of bytes, written `1048576`, `512KiB`, `16GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "SizeText")]
pub struct ByteSize(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeText {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeText> for ByteSize {
    type Error = String;

    fn try_from(value: SizeText) -> Result<Self, String> {
        match value {
            SizeText::Number(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("expected a size, as in `1048576`, `512KiB` or `16GiB`, got `{text}`");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).filter(|&bytes| i64::try_from(bytes).is_ok()).map(Self).ok_or_else(error)
    }
}

/// What stands between commas, each as `item` reads it.
fn listed<T>(text: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect()
}

/// Names, written `a.example,b.example`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Names(pub Vec<String>);

impl std::str::FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = |name: &str| {
            let usable = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
            usable
                .then(|| name.to_owned())
                .ok_or_else(|| format!("expected host names, as in `a.example,b.example`, got `{name}`"))
        };
        listed(text, name).map(Self)
    }
}

/// Devices, written `cpu,cuda`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Devices(pub Vec<Device>);

impl std::str::FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        listed(text, str::parse).map(Self)
    }
}

/// Origins of pages (RFC 6454, section 6.2), separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Origins(pub Vec<String>);

impl std::str::FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origin = |origin: &str| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            // As browsers write it: nothing in capitals, and no path, not even `/`.
            let is_of_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
            host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_of_host))
                .then(|| origin.to_owned())
                .ok_or_else(|| {
                    format!(
                        "expected origins of pages, as in `https://ui.example,http://localhost:5173`, got `{origin}`"
                    )
                })
        };
        listed(text, origin).map(Self)
    }
}

/// Networks in CIDR notation (RFC 4632), or single addresses, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Subnets(pub Vec<IpNet>);

impl std::str::FromStr for Subnets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let subnet = |text: &str| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map_err(|_| {
                format!("expected networks or addresses, as in `10.0.0.0/8,127.0.0.1,fd00::/8`, got `{text}`")
            })
        };
        listed(text, subnet).map(Self)
    }
}

/// The address of a service, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(pub Option<Url>);

impl std::str::FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = |why: String| format!("expected an address like `https://models.example`, got `{text}`: {why}");
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        if matches!(url.scheme(), "http" | "https") {
            Ok(Self(Some(url)))
        } else {
            Err(wrong("it is none of HTTP".to_owned()))
        }
    }
}

/// A file, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct OptionalPath(pub Option<PathBuf>);

impl std::str::FromStr for OptionalPath {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

/// Whether something is done, written `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "OnOffText")]
pub struct OnOff(pub bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum OnOffText {
    Flag(bool),
    Text(String),
}

impl TryFrom<OnOffText> for OnOff {
    type Error = String;

    fn try_from(value: OnOffText) -> Result<Self, String> {
        match value {
            OnOffText::Flag(flag) => Ok(Self(flag)),
            OnOffText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" => Ok(Self(true)),
            "off" | "false" => Ok(Self(false)),
            _ => Err(format!("expected `on` or `off`, got `{text}`")),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// A setting's value as a user would write it.
pub(super) trait Spelled {
    fn written(&self) -> String;
}

macro_rules! written {
    ($($type:ty: $value:ident => $text:expr;)+) => {
        $(impl Spelled for $type {
            fn written(&self) -> String {
                let $value = self;
                $text
            }
        })+
    };
}

written! {
    SocketAddr: address => address.to_string();
    PathBuf: path => path.display().to_string();
    Seconds: span => span.0.as_secs_f64().to_string();
    ByteSize: size => (0..4).rev().map(|unit| (size.0 >> (10 * (unit + 1)), 10 * (unit + 1), ["KiB", "MiB", "GiB", "TiB"][unit]))
        .find(|(count, shift, _)| *count > 0 && count << shift == size.0)
        .map_or_else(|| size.0.to_string(), |(count, _, unit)| format!("{count}{unit}"));
    Names: names => if names.0.is_empty() { "none".to_owned() } else { names.0.join(",") };
    Devices: devices => if devices.0.is_empty() { "none".to_owned() } else { devices.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") };
    DatabasePlace: place => place.to_string();
    Origins: origins => if origins.0.is_empty() { "none".to_owned() } else { origins.0.join(",") };
    Endpoint: endpoint => endpoint.0.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    Subnets: subnets => if subnets.0.is_empty() { "none".to_owned() } else { subnets.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") };
    OptionalPath: path => path.0.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    BlobLocation: location => location.to_string();
    OnOff: flag => if flag.0 { "on" } else { "off" }.to_owned();
    Age: age => age.0.map_or_else(|| "ever".to_owned(), |age| format!("{}s", age.as_secs()));
    usize: number => number.to_string();
    NonZero<u32>: number => number.to_string();
    Device: device => device.to_string();
    LogFormat: format => match format { LogFormat::Text => "text", LogFormat::Json => "json" }.to_owned();
    String: text => text.clone();
}
