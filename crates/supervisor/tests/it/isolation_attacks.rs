//! Attacks of a child on files, on a sibling and on the parent.
//!
//! The attacker is a role of this binary: it tries every attack and prints each result. It runs
//! twice, with and without isolation: a refusal proves the isolation only if the attack succeeds
//! without it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, XattrFlags, setxattr, utimensat};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getpriority_process, kill_process, pidfd_getfd,
    pidfd_open, pidfd_send_signal, prlimit, setpriority_process,
};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use supervisor::{Isolation, IsolationReport, Layer};

use crate::support::{ChildLines, is_root, role, script, supervisor_with};

/// Variables with the attacker's targets.
const ENVIRONMENT: [&str; 6] = [
    "TARGET_SIBLING",
    "TARGET_PARENT",
    "TARGET_STORE",
    "TARGET_SOCKET",
    "TARGET_PORT",
    "TARGET_PATH",
];

/// Attempts that only a private user refuses.
const BY_USER: [&str; 4] = [
    "change mode of store",
    "change times of store",
    "change attributes of store",
    "connect to socket at path",
];

/// Attempts for which there is no safe function, as scripts. The first two remove what they create.
const COMMANDS: [(&str, &str); 6] = [
    ("create shared memory", "ipcrm -m $(ipcmk -M 1 | tr -dc 0-9)"),
    ("create semaphores", "ipcrm -s $(ipcmk -S 1 | tr -dc 0-9)"),
    ("create user namespace", "unshare --user true"),
    ("create mount namespace", "unshare --mount true"),
    ("create network namespace", "unshare --net true"),
    ("mount", "unshare --mount mount -t tmpfs none /mnt"),
];

/// The result of every attempt: `done`, or the error.
type Outcome = BTreeMap<String, String>;

async fn run_attacker(isolated: bool) -> (Outcome, IsolationReport) {
    let mut attacker = role("isolation_attacks::role_attacker");
    let supervisor = supervisor_with(|config| {
        if isolated {
            config.program = Some(attacker.clone());
        } else {
            config.isolation = Isolation {
                no_new_privileges: false,
                drop_capabilities: false,
                landlock: false,
                network: false,
                seccomp: false,
                own_directory: false,
                ..Isolation::default()
            };
        }
    });
    let report = supervisor.isolation().clone();
    // Without root, or if other users cannot execute this binary.
    let missing = report.missing.iter().filter(|missing| missing.layer != Layer::User);
    assert_eq!(missing.count(), 0, "{report:?}");
    let store = tempfile::NamedTempFile::new().unwrap();
    fs::write(store.path(), "the store").unwrap();
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let socket = format!("attacked-{}-{isolated}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).unwrap()).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let path = directory.path().join("socket");
    let _at_path = UnixListener::bind(&path).unwrap();

    let mut spec = script("pwd; cat");
    spec.env = vec![("TOKEN".into(), "t0k3n-of-the-sibling".into())];
    let sibling = supervisor.spawn(spec).await.unwrap();
    let mut sibling_stdio = ChildLines::with(&sibling);
    let directory = sibling_stdio.read_line().await.unwrap();

    let values = [
        sibling.pid().to_string(),
        std::process::id().to_string(),
        store.path().to_str().unwrap().to_owned(),
        socket,
        listener.local_addr().unwrap().port().to_string(),
        path.to_str().unwrap().to_owned(),
    ];
    attacker.env = ENVIRONMENT
        .iter()
        .zip(values)
        .map(|(name, value)| ((*name).to_owned(), value.into()))
        .collect();
    attacker.env.push(("TARGET_DIRECTORY".into(), directory.into()));
    let attacker = supervisor.spawn(attacker).await.unwrap();
    let mut stdio = ChildLines::with(&attacker);
    let mut outcome = Outcome::new();
    loop {
        let line = stdio.read_after("attacker: ").await;
        if line == "finished" {
            break;
        }
        let (attempt, result) = line.split_once(" = ").unwrap();
        outcome.insert(attempt.to_owned(), result.to_owned());
    }
    // The sibling is unharmed.
    sibling_stdio.write_line("alive").await.unwrap();
    assert_eq!(sibling_stdio.read_line().await.as_deref(), Some("alive"));
    (outcome, report)
}

#[tokio::test]
async fn isolated_child_cannot_read_or_affect_others() {
    let (mut outcome, report) = run_attacker(true).await;
    // Landlock does not restrict these.
    let by_user = BY_USER.map(|attempt| outcome.remove(attempt).unwrap());
    if report.active.contains(&Layer::User) {
        for result in by_user {
            assert!(["EACCES", "EPERM"].contains(&result.as_str()), "{result}");
        }
    }
    let refused: Vec<&str> = outcome
        .iter()
        .filter(|(_, result)| *result != "done")
        .map(|(name, _)| name.as_str())
        .collect();
    let allowed: Vec<&str> = outcome
        .iter()
        .filter(|(_, result)| *result == "done")
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(allowed, ["read own environment", "read passwd"], "{outcome:#?}");
    assert_eq!(refused.len(), 20 + 8 + COMMANDS.len(), "{outcome:#?}");
    // Each result is a refusal, and not merely "not found".
    for (attempt, result) in &outcome {
        assert!(
            ["done", "EACCES", "EPERM"].contains(&result.as_str()),
            "{attempt}: {result}"
        );
    }
}

/// The regular tests of a builder run as root or as a plain user; this covers the latter for both.
#[test]
fn isolated_child_of_a_plain_user_cannot_read_or_affect_others() {
    if !is_root() {
        return;
    }
    let binary = std::env::current_exe().unwrap();
    let as_user = |program: &Path, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=3300000", "--regid=3300000", "--clear-groups"]);
        command.arg(program).args(args).output().unwrap()
    };
    // A build below a private directory cannot be executed by others.
    if !as_user(&binary, &["--list"]).status.success() {
        return;
    }
    let test = "isolation_attacks::isolated_child_cannot_read_or_affect_others";
    let output = as_user(&binary, &["--exact", test]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[tokio::test]
async fn child_without_isolation_can_read_and_affect_others() {
    let (outcome, _) = run_attacker(false).await;
    for attempt in [
        "read sibling environ",
        "read sibling maps",
        "trace sibling",
        "signal sibling",
        "read store",
        "connect to socket",
        "connect to port",
        "bind port",
        "change mode of store",
        "change times of store",
        "connect to socket at path",
        "limit sibling",
        "slow down sibling",
        "pin sibling",
        "create shared memory",
    ] {
        assert_eq!(outcome[attempt], "done", "{outcome:#?}");
    }
    // Namespaces and mounts depend on what the tests themselves may do, in a container for one.
    if is_root() {
        for attempt in [
            "read parent environ",
            "trace parent",
            "read shadow",
            "signal parent",
            "limit parent",
            "slow down parent",
            "pin parent",
        ] {
            assert_eq!(outcome[attempt], "done", "{outcome:#?}");
        }
    }
}

#[test]
#[ignore = "a role that another test starts as a child"]
fn role_attacker() {
    let [sibling, parent, store, socket, port, path] = ENVIRONMENT.map(|name| std::env::var(name).unwrap());
    let attempt = |name: &str, result: Result<(), std::io::Error>| {
        let result = match result.as_ref().map_err(Errno::from_io_error) {
            Ok(()) => "done".to_owned(),
            Err(Some(Errno::ACCESS)) => "EACCES".to_owned(),
            Err(Some(Errno::PERM)) => "EPERM".to_owned(),
            Err(other) => format!("{other:?}"),
        };
        println!("attacker: {name} = {result}");
    };
    let read = |path: &str| fs::read(path).map(drop);
    attempt("read own environment", read("/proc/self/environ"));
    attempt("read passwd", read("/etc/passwd"));
    attempt("read shadow", read("/etc/shadow"));
    attempt("read store", read(&store));
    attempt(
        "write store",
        fs::OpenOptions::new().append(true).open(&store).map(drop),
    );
    attempt(
        "change mode of store",
        fs::set_permissions(&store, fs::Permissions::from_mode(0o600)),
    );
    let now = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
    };
    let touched = utimensat(CWD, &store, &now, AtFlags::empty());
    attempt("change times of store", touched.map_err(Into::into));
    let attribute = setxattr(&store, "user.attacked", b"yes", XattrFlags::empty());
    attempt("change attributes of store", attribute.map_err(Into::into));
    attempt("replace store", fs::remove_file(&store));
    attempt("connect to socket at path", UnixStream::connect(path).map(drop));
    attempt("list temporary files", fs::read_dir("/tmp").map(drop));
    attempt("list processes", fs::read_dir("/proc").map(drop));
    attempt("list home of root", fs::read_dir("/root").map(drop));
    attempt(
        "connect to socket",
        SocketAddr::from_abstract_name(&socket)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(drop),
    );
    attempt(
        "connect to port",
        TcpStream::connect(format!("127.0.0.1:{port}")).map(drop),
    );
    attempt("bind port", TcpListener::bind("127.0.0.1:0").map(drop));
    let directory = std::env::var("TARGET_DIRECTORY").unwrap();
    attempt("list sibling directory", fs::read_dir(directory).map(drop));
    for (who, number) in [("sibling", sibling), ("parent", parent)] {
        for file in ["environ", "maps", "mem"] {
            // `mem` is unmapped at offset 0, so opening it is the whole attempt.
            let opened = fs::File::open(format!("/proc/{number}/{file}"));
            let result = opened.and_then(|mut opened| match file {
                "mem" => Ok(()),
                _ => std::io::copy(&mut opened, &mut std::io::sink()).map(drop),
            });
            attempt(&format!("read {who} {file}"), result);
        }
        let pid = Pid::from_raw(number.parse().unwrap()).unwrap();
        // SIGCONT does not affect a running process.
        attempt(
            &format!("signal {who}"),
            kill_process(pid, Signal::CONT).map_err(Into::into),
        );
        // Taking a descriptor passes the same check as tracing (`PTRACE_MODE_ATTACH_REALCREDS`,
        // ptrace(2)).
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        let taken = pidfd.and_then(|pidfd| pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()));
        attempt(&format!("trace {who}"), taken.map(drop).map_err(Into::into));
        // Each sets what is set already.
        let unlimited = Rlimit {
            current: None,
            maximum: None,
        };
        let limited = prlimit(Some(pid), Resource::Fsize, unlimited);
        attempt(&format!("limit {who}"), limited.map(drop).map_err(Into::into));
        let priority = getpriority_process(Some(pid)).unwrap();
        let slowed = setpriority_process(Some(pid), priority);
        attempt(&format!("slow down {who}"), slowed.map_err(Into::into));
        let processors = sched_getaffinity(Some(pid)).unwrap();
        let pinned = sched_setaffinity(Some(pid), &processors);
        attempt(&format!("pin {who}"), pinned.map_err(Into::into));
        if who == "sibling" {
            let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| pidfd_send_signal(&pidfd, Signal::CONT));
            attempt("signal sibling by descriptor", sent.map_err(Into::into));
        }
    }
    for (name, script) in COMMANDS {
        let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let result = match said.to_lowercase() {
            _ if output.status.success() => Ok(()),
            refused if refused.contains("not permitted") => Err(Errno::PERM.into()),
            refused if refused.contains("permission denied") => Err(Errno::ACCESS.into()),
            _ => Err(std::io::Error::other(said)),
        };
        attempt(name, result);
    }
    println!("attacker: finished");
}
