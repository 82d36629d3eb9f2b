//! Looking up the file of a program.
//!
//! The lookup happens before the spawn, not by `execvp` in the child, since the file must be on the
//! child's allow-list.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use secrecy::ExposeSecret;

use crate::error::SpawnError;
use crate::spec::ChildSpec;

/// The search path without a `PATH`, as in the C library.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The absolute path of the program of `spec`, for a child that inherits these variables.
pub(crate) fn of(spec: &ChildSpec, inherited: &[(OsString, OsString)]) -> Result<PathBuf, SpawnError> {
    let own = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let own = own.map(|(_, value)| OsStr::new(value.expose_secret()));
    let inherited = inherited.iter().rev().find(|(name, _)| name == "PATH");
    let path = own.or(inherited.map(|(_, value)| value.as_os_str()));
    find(&spec.program, path).map_err(|source| SpawnError::from_exec(&spec.program, source))
}

/// The absolute path of `program`, looked up in `path` if it is a bare name. Links are not
/// resolved: some programs depend on the name under which they are called. Fails as exec does:
/// `NotFound`, or `PermissionDenied` if only files that are not executable were found.
fn find(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if program.as_bytes().contains(&b'/') {
        let absolute = std::path::absolute(program)?;
        return executable(&absolute).map(|()| absolute);
    }
    let mut denied = None;
    for directory in env::split_paths(path.unwrap_or(DEFAULT_PATH.as_ref())) {
        let candidate = std::path::absolute(directory.join(program))?;
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            // Ignores a directory that cannot be entered, since its contents are unknown.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && candidate.exists() => {
                denied = Some(error);
            }
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| Errno::NOENT.into()))
}

/// Checks that `file` looks like a program that this user may execute. Only exec can decide it.
fn executable(file: &Path) -> io::Result<()> {
    if !fs::metadata(file)?.is_file() {
        return Err(Errno::ACCESS.into());
    }
    Ok(access(file, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory(name: &str, mode: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        directory
    }

    #[test]
    fn bare_name_is_the_first_program_of_that_name_in_path() {
        let (data, program) = (directory("tool", 0o644), directory("tool", 0o755));
        let path = env::join_paths([data.path(), program.path(), Path::new("/usr/bin")]).unwrap();
        assert_eq!(find("tool".as_ref(), Some(&path)).unwrap(), program.path().join("tool"));
    }

    #[test]
    fn path_is_not_searched_for() {
        let program = directory("tool", 0o755);
        let absolute = program.path().join("tool");
        assert_eq!(find(absolute.as_os_str(), None).unwrap(), absolute);
        let error = find("./tool".as_ref(), Some(program.path().as_os_str())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn file_that_is_not_executable_is_distinguished_from_a_missing_one() {
        let data = directory("tool", 0o644);
        let path = Some(data.path().as_os_str());
        assert_eq!(
            find("tool".as_ref(), path).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        assert_eq!(find("other".as_ref(), path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(find("".as_ref(), path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            find(data.path().as_os_str(), None).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
    }
}
