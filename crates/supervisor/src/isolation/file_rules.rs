//! Which files a child may touch: Landlock rules (landlock(7)).
//!
//! An allow-list. What is not on it cannot be opened, listed, executed or changed, whoever the user is, root
//! included; what was open before, the standard streams, can still be used. Each child gets a ruleset and with
//! it a domain of its own, which also keeps it from tracing, and where the kernel has scopes from signalling,
//! processes outside of it. `/proc` is not on the list but for the child's own directory in it: the environment
//! of every other process is there to be read.
//!
//! Rules hold on to files and not to names. Hence the list is opened for each child anew: a resolver file that
//! was replaced meanwhile is the new one for the next child.
//!
//! Landlock does not restrict `stat`, reading symbolic links, or the network here.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::io::Errno;

/// What children may read and execute unless the configuration adds to it: programs, libraries, certificates,
/// what the resolver and the C library look up, and the harmless parts of the machine's description.
///
/// ChildDirs that hold private keys beside public certificates are named by their public parts only.
/// Whatever does not exist is passed over.
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

/// Devices that take anything and give nothing.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// `LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR` of linux/landlock.h: what a child may do in its
/// own directory of `/proc`. What it starts has no such directory: its number is not known beforehand.
pub(super) const READ_BITS: u64 = AccessFs::ReadFile as u64 | AccessFs::ReadDir as u64;

/// The version of Landlock that is asked for; where the kernel has less, what it has.
const VERSION: ABI = ABI::V6;

/// What the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LandlockSupport {
    pub(super) files: bool,
    pub(super) scopes: bool,
}

/// The allow-list of all children, as far as it is the same for all.
#[derive(Clone, Debug)]
pub(super) struct FileRules {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
}

/// What one child needs beyond it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildPaths<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [OsString],
    /// Its own directory.
    pub(super) directory: Option<&'a Path>,
    /// `SSL_CERT_FILE` and the parts of `SSL_CERT_DIR` of its environment.
    pub(super) certificates: &'a [PathBuf],
}

impl LandlockSupport {
    /// Asks the kernel by making rulesets, which restrict nobody.
    pub(super) fn of_kernel() -> Self {
        let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let made = |ruleset: Result<Ruleset, RulesetError>| ruleset.and_then(Ruleset::create).is_ok();
        Self {
            files: made(strict().handle_access(AccessFs::from_all(ABI::V1))),
            scopes: made(strict().scope(Scope::from_all(VERSION))),
        }
    }
}

impl FileRules {
    /// The default list and what the configuration adds.
    pub(super) fn new(readable: &[PathBuf], writable: &[PathBuf]) -> Self {
        let defaults = DEFAULT_READABLE.iter().map(PathBuf::from);
        Self {
            readable: defaults.chain(readable.iter().cloned()).collect(),
            writable: writable.to_vec(),
        }
    }

    /// A ruleset for one child, or `None` where the kernel has no Landlock.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a rule, or descriptors have run out.
    pub(super) fn ruleset(&self, needs: &ChildPaths<'_>) -> io::Result<Option<OwnedFd>> {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(VERSION));
        let ruleset = ruleset.and_then(|ruleset| ruleset.scope(Scope::from_all(VERSION)));
        let mut ruleset = ruleset.and_then(Ruleset::create).map_err(io::Error::other)?;
        let resolver = fs::canonicalize("/etc/resolv.conf").unwrap_or_default();
        let arguments = needs.args.iter().filter_map(file_of_argument);
        let readable = self.readable.iter().map(PathBuf::as_path);
        let readable = readable
            .chain([needs.program])
            .chain(arguments)
            .chain(resolver_directory(&resolver));
        for path in readable.chain(needs.certificates.iter().map(PathBuf::as_path)) {
            ruleset = allow(ruleset, path, read())?;
        }
        for path in DEVICES {
            ruleset = allow(ruleset, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
        }
        let writable = self.writable.iter().map(PathBuf::as_path);
        for path in writable.chain(needs.directory) {
            ruleset = allow(ruleset, path, write())?;
        }
        Ok(ruleset.into())
    }
}

fn read() -> BitFlags<AccessFs> {
    AccessFs::from_read(VERSION)
}

/// Everything but making devices, and but executing, so that nothing that a child writes becomes a program.
fn write() -> BitFlags<AccessFs> {
    AccessFs::from_all(VERSION) & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar)
}

/// Allows `access` at `path` and beneath. What does not exist needs no permission.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(opened) => ruleset
            .add_rule(PathBeneath::new(opened, access))
            .map_err(io::Error::other),
        Err(PathFdError::OpenCall { source, .. }) => match Errno::from_io_error(&source) {
            // What the broker may not enter, its children may not either.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(ruleset),
            Some(_) | None => Err(source),
        },
        Err(other) => Err(io::Error::other(other)),
    }
}

/// A file that an argument names: whoever wrote the arguments wants it read, a script for example.
fn file_of_argument(argument: &OsString) -> Option<&Path> {
    let path = Path::new(argument);
    (path.is_absolute() && path.is_file()).then_some(path)
}

/// The directory of the file that `/etc/resolv.conf` points to, where that is a directory for this purpose:
/// whoever manages the file replaces it, and a rule for the file alone would be lost.
fn resolver_directory(target: &Path) -> Option<&Path> {
    let directory = target.parent()?;
    (directory != Path::new("/run") && directory.starts_with("/run")).then_some(directory)
}

/// The certificates that an environment names.
pub(super) fn certificates<'a>(variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (name, value) in variables {
        let parts = value
            .as_bytes()
            .split(|&byte| byte == b':')
            .filter(|part| !part.is_empty());
        match name.as_bytes() {
            b"SSL_CERT_FILE" => paths.push(PathBuf::from(value)),
            b"SSL_CERT_DIR" => paths.extend(parts.map(|part| PathBuf::from(OsStr::from_bytes(part)))),
            _ => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_the_default_list_leads_to_other_processes_or_to_private_keys() {
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
    fn what_may_be_written_may_not_be_executed() {
        assert!(!write().contains(AccessFs::Execute));
        assert!(write().contains(AccessFs::Truncate | AccessFs::Refer | AccessFs::WriteFile));
    }

    #[test]
    fn certificates_of_the_environment_are_found() {
        let variables = [
            ("SSL_CERT_FILE", "/a/ca.pem"),
            ("SSL_CERT_DIR", "/b::/c"),
            ("HOME", "/home"),
        ];
        let found = certificates(variables.map(|(name, value)| (name.as_ref(), value.as_ref())));
        assert_eq!(found, ["/a/ca.pem", "/b", "/c"].map(PathBuf::from));
    }

    #[test]
    fn the_resolvers_directory_is_never_one_that_others_share() {
        let directory = |target| resolver_directory(Path::new(target));
        let own = "/run/systemd/resolve";
        assert_eq!(directory("/run/systemd/resolve/stub-resolv.conf"), Some(Path::new(own)));
        for shared in ["/run/resolv.conf", "/etc/resolv.conf", "/mnt/wsl/resolv.conf", ""] {
            assert_eq!(directory(shared), None, "{shared}");
        }
    }

    #[test]
    fn only_an_argument_that_is_the_whole_path_of_a_file_allows_it() {
        let file = std::env::current_exe().unwrap();
        let flag = format!("--file={}", file.display());
        assert_eq!(file_of_argument(&file.clone().into_os_string()), Some(file.as_path()));
        for other in [flag.as_str(), "Cargo.toml", "/", "/no/such/file"] {
            assert_eq!(file_of_argument(&other.into()), None, "{other}");
        }
    }
}
