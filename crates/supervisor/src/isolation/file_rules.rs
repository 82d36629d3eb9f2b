//! Landlock rules for the files that a child may access (landlock(7)).
//!
//! The rules are an allow-list. A child cannot open, list, execute or change any other file,
//! whatever its user, root included; it can still use files that are already open, such as the
//! standard streams. Each child gets its own ruleset and so its own Landlock domain, which also
//! keeps it from tracing outside processes and, if the kernel has scopes, from signaling them.
//! `/proc` is not on the list, except for the child's own directory, since it exposes the
//! environment of every process.
//!
//! Rules refer to files, not to names. So the list is opened again for each child: if a resolver
//! file was replaced, the next child gets the new one.
//!
//! Landlock does not restrict `stat`, reading symbolic links, changes of modes, owners, times and
//! attributes, and before its version 9 not connections to UNIX sockets by path either.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::io::Errno;

/// The files that children may read and execute by default: programs, libraries, certificates,
/// files that the resolver and the C library read, and harmless descriptions of the machine.
///
/// Of directories that also hold private keys, only the public parts are listed.
/// Paths that do not exist are skipped.
pub const DEFAULT_READABLE: [&str; 51] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/machine-info",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/var/lib/ca-certificates",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/random",
    "/dev/urandom",
];

/// Devices that store nothing and reveal nothing.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// `LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR` of linux/landlock.h: the access of
/// a child to its own directory in `/proc`. Its descendants have no access to theirs, since their
/// numbers are not known beforehand.
pub(super) const READ_BITS: u64 = AccessFs::ReadFile as u64 | AccessFs::ReadDir as u64;

/// The requested version of Landlock. An older kernel applies the rules that it knows.
const VERSION: ABI = ABI::V9;

/// Directories of the sockets with which a C library resolves names: systemd-resolved and nscd.
const RESOLVER_SOCKETS: [&str; 3] = ["/run/systemd/resolve", "/run/nscd", "/var/run/nscd"];

/// The part of the allow-list that is the same for all children.
#[derive(Clone, Debug)]
pub(super) struct FileRules {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
}

/// The parameters of the part that is specific to one child.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildPaths<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [OsString],
    /// The child's own directory.
    pub(super) directory: Option<&'a Path>,
    /// The child's environment, which may name certificates.
    pub(super) variables: &'a BTreeMap<OsString, OsString>,
}

impl FileRules {
    /// The default list and the additions of the configuration.
    pub(super) fn new(readable: &[PathBuf], writable: &[PathBuf]) -> Self {
        let defaults = DEFAULT_READABLE.iter().map(PathBuf::from);
        Self {
            readable: defaults.chain(readable.iter().cloned()).collect(),
            writable: writable.to_vec(),
        }
    }

    /// Makes a ruleset deny all files, and all scopes.
    pub(super) fn deny_all(ruleset: Ruleset) -> Result<Ruleset, RulesetError> {
        let ruleset = ruleset.handle_access(AccessFs::from_all(VERSION))?;
        ruleset.scope(Scope::from_all(VERSION))
    }

    /// Adds the files that one child may access.
    pub(super) fn allow(&self, mut ruleset: RulesetCreated, child: &ChildPaths<'_>) -> io::Result<RulesetCreated> {
        let resolver = fs::canonicalize("/etc/resolv.conf").unwrap_or_default();
        let certificates = certificates(child.variables);
        let readable = self.readable.iter().chain(&certificates).map(PathBuf::as_path);
        let readable = readable
            .chain([child.program])
            .chain(child.args.iter().filter_map(file_of_argument))
            .chain(resolver_directory(&resolver));
        for path in readable {
            ruleset = allow(ruleset, path, AccessFs::from_read(VERSION))?;
        }
        for path in DEVICES {
            ruleset = allow(ruleset, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
        }
        for path in RESOLVER_SOCKETS {
            ruleset = allow(ruleset, Path::new(path), AccessFs::ResolveUnix.into())?;
        }
        let writable = self.writable.iter().map(PathBuf::as_path);
        for path in writable.chain(child.directory) {
            ruleset = allow(ruleset, path, write_access())?;
        }
        Ok(ruleset)
    }
}

/// Returns true if the kernel has scopes. Creates a ruleset, which restricts nothing.
pub(super) fn scopes_are_supported() -> bool {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let ruleset = strict.scope(Scope::from_all(VERSION));
    ruleset.and_then(Ruleset::create).is_ok()
}

/// All access except creating devices and executing, so that no file that a child writes becomes a
/// program.
fn write_access() -> BitFlags<AccessFs> {
    AccessFs::from_all(VERSION) & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar)
}

/// Allows `access` at `path` and beneath it. Skips a path that does not exist.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(opened) => ruleset
            .add_rule(PathBeneath::new(opened, access))
            .map_err(io::Error::other),
        Err(PathFdError::OpenCall { source, .. }) => match Errno::from_io_error(&source) {
            // If the broker has no access, its children have none either.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(ruleset),
            Some(_) | None => Err(source),
        },
        Err(other) => Err(io::Error::other(other)),
    }
}

/// A file that an argument names, such as a script: the operator who wrote the argument wants the
/// child to read it.
pub(super) fn file_of_argument(argument: &OsString) -> Option<&Path> {
    let path = Path::new(argument);
    (path.is_absolute() && path.is_file()).then_some(path)
}

/// The directory of the file that `/etc/resolv.conf` points to, if it is dedicated to the resolver.
/// Its manager replaces the file, which would void a rule for the file alone.
fn resolver_directory(target: &Path) -> Option<&Path> {
    let directory = target.parent()?;
    (directory != Path::new("/run") && directory.starts_with("/run")).then_some(directory)
}

/// The certificates that an environment names: `SSL_CERT_FILE` and the parts of `SSL_CERT_DIR`.
pub(super) fn certificates<'a>(variables: impl IntoIterator<Item = (&'a OsString, &'a OsString)>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (name, value) in variables {
        let parts = value.as_bytes().split(|&byte| byte == b':');
        match name.as_bytes() {
            b"SSL_CERT_FILE" => paths.push(PathBuf::from(value)),
            b"SSL_CERT_DIR" => {
                let parts = parts.filter(|part| !part.is_empty());
                paths.extend(parts.map(|part| PathBuf::from(OsStr::from_bytes(part))));
            }
            _ => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_list_exposes_no_other_process_and_no_private_key() {
        for path in DEFAULT_READABLE.iter().chain(&DEVICES).map(Path::new) {
            for private in [
                "/proc/1/environ",
                "/etc/shadow",
                "/etc/ssl/private/key",
                "/etc/pki/tls/private/key",
                "/home/someone/x",
            ] {
                assert!(!Path::new(private).starts_with(path), "{}", path.display());
            }
        }
    }

    #[test]
    fn writable_files_are_not_executable() {
        assert!(!write_access().contains(AccessFs::Execute));
        assert!(write_access().contains(AccessFs::Truncate | AccessFs::Refer | AccessFs::WriteFile));
        assert!(write_access().contains(AccessFs::MakeSock | AccessFs::ResolveUnix));
    }

    #[test]
    fn rule_for_sockets_is_valid_on_any_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let ruleset = FileRules::deny_all(Ruleset::default())
            .and_then(Ruleset::create)
            .unwrap();
        allow(ruleset, directory.path(), AccessFs::ResolveUnix.into()).unwrap();
    }

    #[test]
    fn certificates_of_the_environment_are_allowed() {
        let variables = [
            ("SSL_CERT_FILE", "/a/ca.pem"),
            ("SSL_CERT_DIR", "/b::/c"),
            ("HOME", "/home"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let found = certificates(variables.iter().map(|(name, value)| (name, value)));
        assert_eq!(found, ["/a/ca.pem", "/b", "/c"].map(PathBuf::from));
    }

    #[test]
    fn resolver_directory_is_never_a_shared_one() {
        let directory = |target| resolver_directory(Path::new(target));
        let own = "/run/systemd/resolve";
        assert_eq!(directory("/run/systemd/resolve/stub-resolv.conf"), Some(Path::new(own)));
        for shared in ["/run/resolv.conf", "/etc/resolv.conf", "/mnt/wsl/resolv.conf", ""] {
            assert_eq!(directory(shared), None, "{shared}");
        }
    }

    #[test]
    fn only_an_argument_that_is_an_absolute_path_of_a_file_allows_it() {
        let file = std::env::current_exe().unwrap();
        let flag = format!("--file={}", file.display());
        assert_eq!(file_of_argument(&file.clone().into_os_string()), Some(file.as_path()));
        for other in [flag.as_str(), "Cargo.toml", "/", "/no/such/file"] {
            assert_eq!(file_of_argument(&other.into()), None, "{other}");
        }
    }
}
