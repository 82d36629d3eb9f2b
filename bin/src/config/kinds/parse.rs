//! Functions that read values. An error never repeats the value.

use std::{fs, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use toml::{Table, Value};
use url::Url;

/// Longer than anything that makes sense, and short enough to be added to any time.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A secret of this size or more is not one.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A value that is written as TOML.
pub(in crate::config) fn literal(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    table.remove("value")
}

/// An array or a table, which the environment writes as TOML text.
pub(in crate::config) fn structure(value: &Value) -> Option<Value> {
    value.as_str().map_or_else(|| Some(value.clone()), literal)
}

pub(in crate::config) fn text(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "must be text".to_owned())
}

pub(in crate::config) fn filled(value: &Value) -> Result<String, String> {
    match text(value)? {
        text if text.is_empty() => Err("empty".to_owned()),
        text => Ok(text),
    }
}

pub(in crate::config) fn list(value: &Value) -> Result<Vec<String>, String> {
    if let Some(given) = value.as_str().filter(|given| !given.trim_start().starts_with('[')) {
        let items = given.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Ok(items.map(str::to_owned).collect());
    }
    let items = structure(value).and_then(|value| value.as_array()?.iter().map(|item| text(item).ok()).collect());
    items.ok_or_else(|| "must be an array of texts, or texts with commas between them".to_owned())
}

pub(in crate::config) fn each(
    value: &Value,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<String>, String> {
    let list = list(value)?;
    list.iter().try_for_each(|entry| check(entry))?;
    Ok(list)
}

/// The tables of an array, each read by `read`.
pub(in crate::config) fn tables<T>(
    value: &Value,
    read: impl Fn(&Table) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let error = || "must be an array of tables".to_owned();
    let tables = structure(value).ok_or_else(error)?;
    let tables = tables.as_array().ok_or_else(error)?.iter();
    collect(tables.map(|table| read(table.as_table().ok_or_else(error)?)))
}

/// All values, or all reasons.
pub(in crate::config) fn collect<T>(outcomes: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let (mut values, mut reasons) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(value) => values.push(value),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        Ok(values)
    } else {
        Err(reasons.join("; "))
    }
}

pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let given = value.as_str().and_then(|given| humantime::parse_duration(given).ok());
    given
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| "must be a duration such as \"15m\" or \"1h 30m\", ten years at most".to_owned())
}

pub(super) fn positive(value: &Value) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

pub(super) fn count<T: TryFrom<u64>>(value: &Value) -> Result<T, String> {
    let number: Option<u64> = parsed(value).or_else(|| value.as_integer()?.try_into().ok());
    let number = number.filter(|number| *number > 0);
    let number = number.ok_or_else(|| "must be a whole number above zero".to_owned())?;
    T::try_from(number).map_err(|_| "too large".to_owned())
}

pub(super) fn flag(value: &Value) -> Result<bool, String> {
    let flag = parsed(value).or_else(|| value.as_bool());
    flag.ok_or_else(|| "must be true or false".to_owned())
}

pub(in crate::config) fn bytes(value: &Value) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let with_unit = |given: &str| {
        let unit = UNITS
            .iter()
            .find_map(|(unit, size)| Some((given.strip_suffix(unit)?, *size)));
        let (number, size) = unit.unwrap_or((given, 1));
        number.trim().parse::<u64>().ok()?.checked_mul(size)
    };
    let number = match value.as_str() {
        Some(given) => with_unit(given.trim()),
        None => value.as_integer().and_then(|number| number.try_into().ok()),
    };
    number.ok_or_else(|| "must be a number of bytes such as \"512MiB\"".to_owned())
}

pub(in crate::config) fn range(value: &Value) -> Result<RangeInclusive<u32>, String> {
    let number = |value: &Value| value.as_integer().and_then(|number| u32::try_from(number).ok());
    let range = structure(value).and_then(|value| match value.as_array()?.as_slice() {
        [first, last] => Some(number(first)?..=number(last)?),
        _ => None,
    });
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| "must be two numbers, the first and the last: [100000, 165535]".to_owned())
}

pub(super) fn url(value: &Value) -> Result<Url, String> {
    let url = value.as_str().and_then(|given| Url::parse(given).ok());
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .ok_or_else(|| "must be an absolute http or https URL without user, query or fragment".to_owned())
}

pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    parsed(value).ok_or_else(|| "must be an address such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned())
}

fn parsed<T: FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.trim().parse().ok()
}

/// The content of the file with a secret, without the line end that editors and `echo` leave.
pub(in crate::config) fn secret_file(path: &Value) -> Result<Value, String> {
    let path = text(path)?;
    let error = |error: std::io::Error| format!("cannot read the file: {error}");
    if fs::metadata(&path).map_err(error)?.len() > MAX_SECRET_FILE {
        return Err("the file is too large for a secret".to_owned());
    }
    let text = fs::read_to_string(&path).map_err(error)?;
    Ok(Value::from(text.trim_end_matches(['\r', '\n'])))
}
