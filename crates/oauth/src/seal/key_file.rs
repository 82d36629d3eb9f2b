//! The key file: one key a line, as `NUMBER HEX`, the newest last; empty lines and lines that begin
//! with `#` are skipped.
//!
//! The first start creates it with one random key. A file that others can read is refused, not
//! repaired: they may have read it. To introduce a new key, add a line with a higher number; after
//! a start has sealed all accounts with it, the old line can go.
//!
//! The same text can come from elsewhere ([`Sealer::from_text`]), with commas instead of line ends.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretBox, SecretString, zeroize::Zeroize as _};

use super::Sealer;
use crate::secret;

/// A key file on disk.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

/// The reason why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or created.
    #[error("cannot {action} key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `create`.
        action: &'static str,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Group or others can read or write the file.
    #[error("cannot use key file {}: mode {mode:03o} (must not be accessible by others, as with mode 600)", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not hold keys.
    #[error("cannot use key file {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: KeyTextError,
    },
}

/// A fault in a text of keys. It quotes nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text {what} (line {line})")]
pub struct KeyTextError {
    /// The line, from 1.
    pub line: usize,
    /// The fault of the line.
    pub what: &'static str,
}

impl KeyFile {
    /// The key file at a path. Nothing is read yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the keys, after creating the file with a random key if it does not exist.
    ///
    /// It blocks on the file system, for start only. Of two processes that start at once, one
    /// creates the file and both read the same key.
    ///
    /// # Errors
    ///
    /// Any [`KeyFileError`]; all of them are for the operator to mend.
    pub fn load_or_create(&self) -> Result<Sealer, KeyFileError> {
        match self.load() {
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.create().map_err(|source| self.io("create", source))?;
                self.load()
            }
            outcome => outcome,
        }
    }

    /// Reads the keys.
    ///
    /// It blocks on the file system, for start only.
    ///
    /// # Errors
    ///
    /// Any [`KeyFileError`]; all of them are for the operator to mend.
    pub fn load(&self) -> Result<Sealer, KeyFileError> {
        let file = fs::File::open(&self.path).map_err(|source| self.io("read", source))?;
        // The mode of the open file, which cannot be replaced in between.
        let metadata = file.metadata().map_err(|source| self.io("read", source))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions {
                path: self.path.clone(),
                mode,
            });
        }
        let text = io::read_to_string(file).map_err(|source| self.io("read", source))?;
        Sealer::from_text(&SecretString::from(text)).map_err(|source| KeyFileError::Format {
            path: self.path.clone(),
            source,
        })
    }

    /// Creates the file whole or not at all, and never replaces an existing one.
    fn create(&self) -> io::Result<()> {
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let draft = directory.join(secret::name(".key-"));
        let mut key: [u8; 32] = secret::random();
        let mut line = format!("1 {}\n", hex::encode(key));
        key.zeroize();
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(line.as_bytes())?;
                file.sync_all()
            });
        line.zeroize();
        let linked = written.and_then(|()| match fs::hard_link(&draft, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        });
        let removed = fs::remove_file(&draft);
        linked.and(removed)?;
        fs::File::open(directory)?.sync_all()
    }

    fn io(&self, action: &'static str, source: io::Error) -> KeyFileError {
        KeyFileError::Io {
            path: self.path.clone(),
            action,
            source,
        }
    }
}

impl Sealer {
    /// A sealer with the keys of a text: `NUMBER HEX` on each line, or between commas, the newest
    /// last.
    ///
    /// # Errors
    ///
    /// [`KeyTextError`], for the operator to mend.
    pub fn from_text(text: &SecretString) -> Result<Self, KeyTextError> {
        let mut keys: Vec<(u32, SecretBox<[u8; 32]>)> = Vec::new();
        let mut last_line = 1;
        for (index, line) in text.expose_secret().lines().enumerate() {
            last_line = index + 1;
            if line.trim().starts_with('#') {
                continue;
            }
            for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let fault = |what| KeyTextError { line: index + 1, what };
                let (number, key) = entry
                    .split_once(' ')
                    .ok_or_else(|| fault("has an entry that is not `NUMBER HEX`"))?;
                let number: u32 = number.parse().map_err(|_| fault("has a key without a number"))?;
                if keys.last().is_some_and(|(before, _)| *before >= number) {
                    return Err(fault("has key numbers that do not rise"));
                }
                let mut bytes = Box::new([0; 32]);
                hex::decode_to_slice(key.trim(), bytes.as_mut_slice())
                    .map_err(|_| fault("has a key that is not 64 hexadecimal digits"))?;
                keys.push((number, SecretBox::new(bytes)));
            }
        }
        if keys.is_empty() {
            return Err(KeyTextError {
                line: last_line,
                what: "holds no key",
            });
        }
        Ok(Self { keys: keys.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(text: &str, mode: u32) -> (tempfile::TempDir, KeyFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, KeyFile::at(path))
    }

    #[test]
    fn missing_file_is_created_once_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::at(directory.path().join("broker.key"));
        let first = file.load_or_create().unwrap().keyed_hash("p", &[]);
        let second = file.load_or_create().unwrap().keyed_hash("p", &[]);
        assert_eq!(first, second);
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no draft is left behind"
        );
    }

    #[test]
    fn creation_never_replaces_a_file() {
        let (_directory, file) = file_with(&format!("1 {}\n", "ab".repeat(32)), 0o600);
        file.create().unwrap();
        assert_eq!(
            file.load().unwrap().keyed_hash("p", &[]),
            Sealer::with_key([0xab; 32]).keyed_hash("p", &[]),
        );
    }

    #[test]
    fn file_readable_by_others_is_refused() {
        for mode in [0o640, 0o604, 0o660] {
            let (_directory, file) = file_with(&format!("1 {}\n", "ab".repeat(32)), mode);
            let error = file.load_or_create().unwrap_err();
            assert!(
                matches!(error, KeyFileError::Permissions { mode: m, .. } if m == mode),
                "{error}"
            );
        }
    }

    #[test]
    fn last_key_seals() {
        let text = format!("# keys\n1 {}\n\n3 {}\n", "ab".repeat(32), "cd".repeat(32));
        let (_directory, file) = file_with(&text, 0o600);
        let sealer = file.load_or_create().unwrap();
        assert_eq!(format!("{sealer:?}"), "Sealer { keys: [1, 3] }");
        assert_eq!(
            sealer.keyed_hash("p", &[]),
            Sealer::with_key([0xcd; 32]).keyed_hash("p", &[])
        );
    }

    #[test]
    fn commas_separate_keys() {
        let text = format!("1 {},2 {}", "ab".repeat(32), "cd".repeat(32));
        let sealer = Sealer::from_text(&text.into()).unwrap();
        assert_eq!(format!("{sealer:?}"), "Sealer { keys: [1, 2] }");
        assert!(Sealer::from_text(&String::new().into()).is_err());
    }

    #[test]
    fn load_does_not_create_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::at(directory.path().join("broker.key"));
        assert!(matches!(file.load(), Err(KeyFileError::Io { action: "read", .. })));
        assert!(!file.path.exists());
    }

    #[test]
    fn error_names_its_line_and_quotes_nothing() {
        let secret = "ab".repeat(31);
        for (text, line) in [
            (String::new(), 1),
            ("# nothing\n".to_owned(), 1),
            (format!("{secret}\n"), 1),
            (format!("one {secret}ab\n"), 1),
            (format!("1 {secret}\n"), 1),
            (format!("2 {secret}ab\n1 {secret}ab\n"), 2),
        ] {
            let (_directory, file) = file_with(&text, 0o600);
            let error = file.load_or_create().unwrap_err();
            assert!(
                matches!(error, KeyFileError::Format { source, .. } if source.line == line),
                "{text}: {error}"
            );
            assert!(!format!("{error}{error:?}").contains(&secret));
        }
    }

    #[test]
    fn missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::at(directory.path().join("missing/broker.key"));
        assert!(matches!(
            file.load_or_create(),
            Err(KeyFileError::Io { action: "create", .. })
        ));
    }
}
