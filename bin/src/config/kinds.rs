//! Kinds of values: how each is read and what the reference calls it. Text is accepted wherever it
//! can be read, since that is all that an environment variable can hold. Reasons never repeat a
//! value: it may be a secret at the wrong key.

mod parse;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use toml::Value;
use url::Url;

use parse::{address, count, duration, flag, positive, url};
pub(super) use parse::{bytes, collect, each, filled, list, literal, range, secret_file, structure, tables, text};

/// A kind of value.
pub(crate) trait Kind {
    /// The type of a value.
    type Value;

    /// The kind in words, for the reference.
    const FORM: &'static str;

    /// A key `NAME` of this kind has a twin `NAME_file`, which names a file with the value.
    const SECRET: bool = false;

    /// A valid value for the rest of the reading when a required key is missing or in error.
    const STAND_IN: &'static str = "x";

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// The reason why the value is not of this kind; never with the value itself.
    fn read(value: &Value) -> Result<Self::Value, String>;

    /// The value of a key that has no default and is not set; `None` if the key is required.
    fn unset() -> Option<Self::Value> {
        None
    }

    /// [`Self::STAND_IN`] as a value.
    ///
    /// # Panics
    ///
    /// If a kind of required keys has no valid stand-in: a test reads all of them.
    fn stand_in() -> Self::Value {
        Self::read(&Value::from(Self::STAND_IN)).expect("a stand-in is valid")
    }
}

impl<K: Kind> Kind for Option<K> {
    type Value = Option<K::Value>;
    const FORM: &'static str = K::FORM;
    const SECRET: bool = K::SECRET;

    fn read(value: &Value) -> Result<Self::Value, String> {
        K::read(value).map(Some)
    }

    fn unset() -> Option<Self::Value> {
        Some(None)
    }
}

/// Implements [`Kind`]: `kind!(Type, "form", function)`, or `kind!(/// What it is. Marker: Type,
/// ...)` for a kind that is stricter than its type.
macro_rules! kind {
    ($(#[doc = $about:literal])+ $marker:ident: $($rest:tt)+) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub(crate) struct $marker;
        kind!(@impl $marker, $($rest)+);
    };
    (@impl $kind:ty, $value:ty, $form:expr, $read:expr $(, $name:ident = $constant:expr)?) => {
        impl Kind for $kind {
            type Value = $value;
            const FORM: &'static str = $form;
            $(kind!(@constant $name, $constant);)?

            fn read(value: &Value) -> Result<Self::Value, String> {
                $read(value)
            }
        }
    };
    (@constant SECRET, $constant:expr) => { const SECRET: bool = $constant; };
    (@constant STAND_IN, $constant:expr) => { const STAND_IN: &'static str = $constant; };
    ($type:ty, $($rest:tt)+) => { kind!(@impl $type, $type, $($rest)+); };
}

/// Implements [`Kind`] for an enum by the texts of its variants.
macro_rules! choice {
    ($type:ident: $first:ident = $first_text:literal $(, $variant:ident = $text:literal)+) => {
        impl Kind for $type {
            type Value = Self;
            const FORM: &'static str = concat!("`", $first_text, "`" $(, " or `", $text, "`")+);

            fn read(value: &Value) -> Result<Self, String> {
                let number = value.as_integer().map(|number| number.to_string());
                match number.as_deref().or_else(|| value.as_str()) {
                    Some($first_text) => Ok(Self::$first),
                    $(Some($text) => Ok(Self::$variant),)+
                    _ => Err(concat!("must be one of ", $first_text $(, ", ", $text)+).to_owned()),
                }
            }
        }
    };
}

pub(super) use {choice, kind};

kind!(String, "text", text);
kind!(
    SecretString,
    "secret text",
    |value| filled(value).map(SecretString::from),
    SECRET = true
);
kind!(Url, "URL", url, STAND_IN = "http://localhost");
kind!(SocketAddr, "address", address);
kind!(Duration, "duration", duration);
kind!(usize, "number", count);
kind!(u32, "number", count);
kind!(u64, "number", count);
kind!(bool, "`true` or `false`", flag);
kind!(PathBuf, "path", |value| text(value).map(PathBuf::from));
kind!(Vec<String>, "texts", list);
kind!(Vec<PathBuf>, "texts", |value| Ok(list(value)?
    .into_iter()
    .map(PathBuf::from)
    .collect()));
kind!(
    /// Text that is not empty.
    FilledText: String, "text", filled
);
kind!(
    /// A duration above zero.
    PositiveDuration: Duration, "duration", positive
);
kind!(
    /// A number of bytes.
    Bytes: u64, "bytes", bytes
);
