//! Definition of keys: [`section!`] turns one list of documented fields into a struct, its reader
//! and its reference.

use super::{key::ConfigKey, reader::Reader};

/// A table of keys, or of further tables. Its path is known only at run time, so that one
/// definition can serve several tables.
pub(crate) trait Section: Sized {
    /// Appends all keys below `path`.
    fn keys(path: &str, keys: &mut Vec<ConfigKey>);

    /// Reads all keys below `path`. A key in error is reported, and gets a stand-in.
    fn read(reader: &mut Reader, path: &str) -> Self;
}

/// Defines a section: `name: kind = default` is a key, `name: type` a section inside. A default is
/// TOML, `required` or `unset`; a kind implements [`Kind`](super::kinds::Kind). The `impl` form
/// fills a struct of another crate.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub(crate) struct $name:ident { $( $(#[doc = $text:literal])+ $field:ident: $kind:ty $(= $default:tt)?, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub(crate) struct $name { $( $(#[doc = $text])+ pub(crate) $field: section!(@type $kind $(, $default)?), )+ }
        section! { impl $name { $( $(#[doc = $text])+ $field: $kind $(= $default)?, )+ } }
    };
    (
        impl $name:ty { $( $(#[doc = $text:literal])+ $field:ident: $kind:ty $(= $default:tt)?, )+ $(..$rest:expr)? }
    ) => {
        impl $crate::config::section::Section for $name {
            fn keys(path: &str, keys: &mut Vec<$crate::config::key::ConfigKey>) {
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
            &$crate::config::key::join($path, stringify!($field)),
            $keys,
        )
    };
    (@key $keys:ident, $path:ident, $field:ident, $text:expr, $kind:ty, $default:tt) => {
        $keys.push($crate::config::key::ConfigKey {
            path: $crate::config::key::join($path, stringify!($field)),
            form: <$kind as $crate::config::kinds::Kind>::FORM,
            default: stringify!($default),
            secret: <$kind as $crate::config::kinds::Kind>::SECRET,
            text: $text,
        })
    };
    (@read $reader:ident, $path:ident, $field:ident, $kind:ty) => {
        <$kind as $crate::config::section::Section>::read(
            $reader,
            &$crate::config::key::join($path, stringify!($field)),
        )
    };
    (@read $reader:ident, $path:ident, $field:ident, $kind:ty, $default:tt) => {
        $reader.read::<$kind>(&$crate::config::key::join($path, stringify!($field)), stringify!($default))
    };
}
pub(super) use section;
