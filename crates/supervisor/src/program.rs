//! Which file a program's name means.
//!
//! Found before the fork and not by `execvp` after it, since the file has to be on the child's allow-list.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Where programs are looked for without a `PATH`, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The whole path of `program`, looked up in `path` if it is a bare name. Links stay as they are: some programs
/// go by the name under which they are called.
///
/// # Errors
///
/// What exec would write_line: `NotFound`, or `PermissionDenied` if there is only something that is no program.
pub(crate) fn find(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if program.as_bytes().contains(&b'/') {
        let whole = std::path::absolute(program)?;
        return executable(&whole).map(|()| whole);
    }
    let mut denied = None;
    for directory in env::split_paths(path.unwrap_or(DEFAULT_PATH.as_ref())) {
        let candidate = std::path::absolute(directory.join(program))?;
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            // Of directories that cannot be entered it is not known what is in them.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && candidate.exists() => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or_else(|| Errno::NOENT.into()))
}

/// Whether it looks like a program. Only exec knows for sure.
fn executable(file: &Path) -> io::Result<()> {
    let found = fs::metadata(file)?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(Errno::ACCESS.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn directory(name: &str, mode: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        directory
    }

    #[test]
    fn a_bare_name_is_the_first_program_of_that_name() {
        let (data, program) = (directory("tool", 0o644), directory("tool", 0o755));
        let path = env::join_paths([data.path(), program.path(), Path::new("/usr/bin")]).unwrap();
        assert_eq!(find("tool".as_ref(), Some(&path)).unwrap(), program.path().join("tool"));
    }

    #[test]
    fn a_path_is_not_looked_up() {
        let program = directory("tool", 0o755);
        let whole = program.path().join("tool");
        assert_eq!(find(whole.as_os_str(), None).unwrap(), whole);
        let error = find("./tool".as_ref(), Some(program.path().as_os_str())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_program_is_told_apart_from_what_is_not_there() {
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
