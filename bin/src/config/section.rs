//! Definition of keys: [`section!`] turns one list of documented fields into a struct, its reader and its reference.

use super::reader::Reader;

/// One key, as the reference shows it.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// The dotted path: `section.name`.
    pub path: String,
    /// The kind of value, in words.
    pub form: &'static str,
    /// The default as TOML, `required` or `unset`.
    pub default: &'static str,
    /// Whether `NAME_file` may name a file with the value.
    pub secret: bool,
    /// The documentation, in Markdown.
    pub text: &'static str,
}

/// A table of keys, or of further tables.
pub trait Section: Sized {
    /// Appends all keys below `path`.
    fn keys(path: &str, keys: &mut Vec<ConfigKey>);

    /// Reads all keys below `path`. A key in error is reported, and gets a stand-in.
    fn read(reader: &mut Reader, path: &str) -> Self;
}

/// Joins the path of a section and a name.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Defines a section: `name: kind = default` is a key, `name: type` a section inside. A default is TOML, `required` or
/// `unset`; a kind implements [`Kind`](super::kinds::Kind). The `impl` form fills a struct of another crate.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident { $( $(#[doc = $text:literal])+ $field:ident: $kind:ty $(= $default:tt)?, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub struct $name { $( $(#[doc = $text])+ pub $field: section!(@type $kind $(, $default)?), )+ }
        section! { impl $name { $( $(#[doc = $text])+ $field: $kind $(= $default)?, )+ } }
    };
    (
        impl $name:ty { $( $(#[doc = $text:literal])+ $field:ident: $kind:ty $(= $default:tt)?, )+ $(..$rest:expr)? }
    ) => {
        impl $crate::config::section::Section for $name {
            fn keys(path: &str, keys: &mut Vec<$crate::config::section::ConfigKey>) {
                $( section!(@key keys, path, $field, concat!($($text),+), $kind $(, $default)?); )+
            }

            fn read(reader: &mut $crate::config::reader::Reader, path: &str) -> Self {
                Self { $( $field: section!(@read reader, path, $field, $kind $(, $default)?), )+ $(..$rest)? }
            }
        }
    };
    (@type $kind:ty) => { $kind };
    (@type $kind:ty, $default:tt) => { <$kind as $crate::config::kinds::Kind>::Value };
    (@key $keys:ident, $path:ident, $field:ident, $text:expr, $kind:ty) => {
        <$kind as $crate::config::section::Section>::keys(
            &$crate::config::section::join($path, stringify!($field)),
            $keys,
        )
    };
    (@key $keys:ident, $path:ident, $field:ident, $text:expr, $kind:ty, $default:tt) => {
        $keys.push($crate::config::section::ConfigKey {
            path: $crate::config::section::join($path, stringify!($field)),
            form: <$kind as $crate::config::kinds::Kind>::FORM,
            default: stringify!($default),
            secret: <$kind as $crate::config::kinds::Kind>::SECRET,
            text: $text,
        })
    };
    (@read $reader:ident, $path:ident, $field:ident, $kind:ty) => {
        <$kind as $crate::config::section::Section>::read(
            $reader,
            &$crate::config::section::join($path, stringify!($field)),
        )
    };
    (@read $reader:ident, $path:ident, $field:ident, $kind:ty, $default:tt) => {
        $reader.read::<$kind>(&$crate::config::section::join($path, stringify!($field)), stringify!($default))
    };
}
pub(super) use section;
