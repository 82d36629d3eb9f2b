//! From figment's values to ours. Text is accepted wherever it can be read, since that is all that an environment
//! variable can hold. Refusals never repeat a value: it may be a secret that was put at the wrong key.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of figment's many kinds of values each key takes one or two and refuses the rest"
)]

use std::{fs, net::SocketAddr, ops::RangeInclusive, time::Duration};

use figment::{
    Figment,
    providers::{Format, Toml},
    value::{Dict, Value},
};
use url::Url;

/// Longer than anything that makes sense, and short enough to be added to any time.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A secret of this size or more is not one.
const MAX_SECRET_FILE: u64 = 64 * 1024;

pub(super) fn text(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "has to be text".to_owned())
}

pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
    let refusal = || "has to be an array of texts, or texts with commas between them".to_owned();
    match value {
        Value::Array(_, items) => items.iter().map(|item| text(item).map_err(|_| refusal())).collect(),
        Value::String(_, given) if given.trim_start().starts_with('[') => {
            let parsed = literal(given).ok_or_else(refusal)?;
            if matches!(parsed, Value::Array(..)) {
                list(&parsed)
            } else {
                Err(refusal())
            }
        }
        Value::String(_, given) => Ok(given
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => Err(refusal()),
    }
}

pub(super) fn table(value: &Value) -> Result<Vec<(String, String)>, String> {
    let refusal = || "has to be a table of texts".to_owned();
    match value {
        Value::Dict(_, entries) => entries
            .iter()
            .map(|(name, value)| Ok((name.clone(), text(value).map_err(|_| refusal())?)))
            .collect(),
        Value::String(_, given) => match literal(given) {
            Some(parsed @ Value::Dict(..)) => table(&parsed),
            _ => Err(refusal()),
        },
        _ => Err(refusal()),
    }
}

pub(super) fn tables(value: &Value) -> Result<Vec<Dict>, String> {
    let refusal = || "has to be an array of tables".to_owned();
    match value {
        Value::Array(_, items) => items
            .iter()
            .map(|item| item.as_dict().cloned().ok_or_else(refusal))
            .collect(),
        Value::String(_, given) => match literal(given) {
            Some(parsed @ Value::Array(..)) => tables(&parsed),
            _ => Err(refusal()),
        },
        _ => Err(refusal()),
    }
}

pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let refusal = || "has to be a duration such as \"15m\" or \"1h 30m\", ten years at most".to_owned();
    let duration = humantime::parse_duration(value.as_str().ok_or_else(refusal)?).map_err(|_| refusal())?;
    if duration <= MAX_DURATION {
        Ok(duration)
    } else {
        Err(refusal())
    }
}

pub(super) fn count(value: &Value) -> Result<usize, String> {
    let number = match value {
        Value::String(_, given) => given.trim().parse().ok(),
        other => other.to_i128().and_then(|number| usize::try_from(number).ok()),
    };
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| "has to be a whole number above zero".to_owned())
}

pub(super) fn flag(value: &Value) -> Result<bool, String> {
    let given = match value {
        Value::String(_, given) => given.trim().parse().ok(),
        other => other.to_bool(),
    };
    given.ok_or_else(|| "has to be true or false".to_owned())
}

pub(super) fn bytes(value: &Value) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let refusal = || "has to be a number of bytes such as \"512MiB\"".to_owned();
    let given = match value {
        Value::String(_, given) => given.trim(),
        other => {
            return other
                .to_u128()
                .and_then(|number| u64::try_from(number).ok())
                .ok_or_else(refusal);
        }
    };
    let unit = UNITS
        .iter()
        .find_map(|(unit, size)| Some((given.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((given, 1));
    let number: Option<u64> = number.trim().parse().ok();
    number.and_then(|number| number.checked_mul(size)).ok_or_else(refusal)
}

pub(super) fn range(value: &Value) -> Result<RangeInclusive<u32>, String> {
    let refusal = || "has to be two numbers, the first and the last: [100000, 165535]".to_owned();
    let parsed;
    let value = match value {
        Value::String(_, given) => {
            parsed = literal(given).ok_or_else(refusal)?;
            &parsed
        }
        other => other,
    };
    let number = |value: &Value| value.to_u128().and_then(|number| u32::try_from(number).ok());
    match value.as_array() {
        Some([first, last]) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(refusal()),
        },
        _ => Err(refusal()),
    }
}

pub(super) fn url(value: &Value) -> Result<Url, String> {
    let refusal = || "has to be an absolute http or https URL without user, query or fragment".to_owned();
    let url = Url::parse(value.as_str().ok_or_else(refusal)?).map_err(|_| refusal())?;
    let plain =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(url)
    } else {
        Err(refusal())
    }
}

pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    let refusal = || "has to be an address such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned();
    value.as_str().ok_or_else(refusal)?.parse().map_err(|_| refusal())
}

/// A name as it stands in `Host`: with a port or without.
pub(super) fn check_host(given: &str) -> Result<(), String> {
    let authority = given.parse::<http::uri::Authority>();
    if authority.is_ok_and(|authority| !authority.host().is_empty() && !given.contains('@')) {
        Ok(())
    } else {
        Err("each has to be a host, with a port or without: no scheme, no path".to_owned())
    }
}

/// An origin as browsers write it (RFC 6454 section 6.2).
pub(super) fn check_origin(given: &str) -> Result<(), String> {
    let origin = Url::parse(given).map(|url| url.origin());
    if origin.is_ok_and(|origin| origin.is_tuple() && origin.ascii_serialization() == given) {
        Ok(())
    } else {
        Err("each has to be an origin as browsers write it, such as \"http://localhost:6274\"".to_owned())
    }
}

pub(super) fn one_of(value: &Value, allowed: &[&str]) -> Result<String, String> {
    let given = match value {
        Value::String(_, given) => given.clone(),
        other => other.to_i128().map(|number| number.to_string()).unwrap_or_default(),
    };
    if allowed.contains(&given.as_str()) {
        Ok(given)
    } else {
        Err(format!("has to be one of {}", allowed.join(", ")))
    }
}

/// The content of a file with a secret, without the line end that editors and `echo` leave.
pub(super) fn secret_file(path: &str) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("the file cannot be read: {error}");
    if fs::metadata(path).map_err(cannot)?.len() > MAX_SECRET_FILE {
        return Err("the file is too large for a secret".to_owned());
    }
    Ok(fs::read_to_string(path)
        .map_err(cannot)?
        .trim_end_matches(['\r', '\n'])
        .to_owned())
}

fn literal(given: &str) -> Option<Value> {
    Figment::from(Toml::string(&format!("value = {given}")))
        .find_value("value")
        .ok()
}
