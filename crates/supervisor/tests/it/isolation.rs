//! Isolation of real children.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use supervisor::{ChildUsers, Config, Layer, Supervisor, SupervisorError};

use crate::support::{ChildLines, can_lease_users, done, is_root, script, soon, spec, supervisor, supervisor_with};

/// The value of a line of `/proc/self/status` that a child printed.
fn status<'a>(lines: &'a [String], name: &str) -> &'a str {
    let line = lines.iter().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {lines:?}")).trim()
}

#[tokio::test]
async fn every_layer_that_needs_no_operator_setup_is_active() {
    let supervisor = supervisor();
    let report = supervisor.isolation();
    let layers = [
        Layer::NoNewPrivileges,
        Layer::Capabilities,
        Layer::Files,
        Layer::Scopes,
        Layer::Network,
        Layer::SystemCalls,
        Layer::Directory,
    ];
    assert_eq!(report.active, layers);
    assert_eq!(report.missing, []);
}

#[tokio::test]
async fn child_has_no_privileges_and_gains_none() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &["/proc/self/status"])).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    assert_eq!(status(&lines, "NoNewPrivs:"), "1");
    assert_eq!(status(&lines, "Seccomp:"), "2");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(status(&lines, set), "0000000000000000", "{set}");
    }
    if is_root() {
        assert_eq!(status(&lines, "CapBnd:"), "0000000000000000");
    }
}

#[tokio::test]
async fn child_has_the_system_calls_of_its_own_processes() {
    let supervisor = supervisor();
    // Its own limits, priority and processors; processes, pipes and threads as usual.
    let text = "ulimit -n 32 && ulimit -n; nice -n 5 nice; taskset 1 echo pinned; chrt --idle 0 echo idle; \
                ionice -c 3 echo slow; echo piped | cat; echo $(sh -c 'echo nested')";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let expected = ["32", "5", "pinned", "idle", "slow", "piped", "nested"];
    assert_eq!(
        ChildLines::with(&child).read_all().await,
        expected,
        "{:?}",
        child.last_stderr()
    );
}

/// A script that connects to a port, binds another one, and says `yes` or `no` to each. It needs
/// Bash, whose redirections connect, and Perl.
fn network_script(port: u16) -> String {
    format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo yes || echo no
         perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(Listen => 1, LocalPort => 0)' && echo yes || echo no"
    )
}

#[tokio::test]
async fn child_connects_only_to_the_ports_of_the_configuration_and_binds_none() {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [allowed, other] = listeners
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    let restricted = supervisor_with(|config| config.isolation.connect_ports = vec![allowed]);
    // Without the other rules of Landlock, these hold too.
    let alone = supervisor_with(|config| {
        config.isolation.connect_ports = vec![allowed];
        config.isolation.landlock = false;
    });
    for supervisor in [&restricted, &alone] {
        for (port, connected) in [(allowed, "yes"), (other, "no")] {
            let child = supervisor.spawn(script(&network_script(port))).await.unwrap();
            assert_eq!(ChildLines::with(&child).read_all().await, [connected, "no"]);
        }
    }
    let unrestricted = supervisor_with(|config| config.isolation.network = false);
    assert!(!unrestricted.isolation().active.contains(&Layer::Network));
    let child = unrestricted.spawn(script(&network_script(other))).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["yes", "yes"]);
}

#[tokio::test]
async fn system_calls_are_not_filtered_if_the_configuration_says_so() {
    let supervisor = supervisor_with(|config| config.isolation.seccomp = false);
    assert!(!supervisor.isolation().active.contains(&Layer::SystemCalls));
    let child = supervisor.spawn(spec("cat", &["/proc/self/status"])).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    assert_eq!(status(&lines, "Seccomp:"), status(&own_status(), "Seccomp:"));
}

fn own_status() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn child_inherits_no_descriptor() {
    // A descriptor without close-on-exec, which a plain exec would inherit.
    let forgotten = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("ls", &["/proc/self/fd"])).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    // `ls` itself opens the fourth, for the directory.
    assert_eq!(lines, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn child_works_in_a_private_empty_directory_that_is_removed_with_it() {
    let parent = tempfile::tempdir().unwrap();
    let supervisor = supervisor_with(|config| config.isolation.directory = Some(parent.path().into()));
    let text = "pwd; ls -A; echo $HOME; echo $TMPDIR; umask; mkdir -p a/b/c; echo data > a/b/c/file; \
                chmod 0 a/b; mv a b; cat; stat -c %a b/../b; exit 0";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let directory = stdio.read_line().await.unwrap();
    assert!(Path::new(&directory).starts_with(parent.path()));
    assert_eq!(stdio.read_line().await.as_deref(), Some(directory.as_str()));
    assert_eq!(stdio.read_line().await.as_deref(), Some(directory.as_str()));
    assert_eq!(stdio.read_line().await.as_deref(), Some("0077"));
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

    let other = supervisor.spawn(script("pwd; cat")).await.unwrap();
    assert_ne!(
        ChildLines::with(&other).read_line().await.as_deref(),
        Some(directory.as_str())
    );

    drop(stdio);
    done(&child).await;
    assert_eq!(child.exit().unwrap().code, Some(0), "{:?}", child.last_stderr());
    assert!(!Path::new(&directory).exists());
    soon("the stop", supervisor.stop_all()).await;
    drop((child, other, supervisor));
    // The spawn thread holds the directory last and ends by itself.
    soon("everything to be removed", async {
        while fs::read_dir(parent.path()).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn child_cannot_execute_files_that_it_writes() {
    let supervisor = supervisor();
    let text = "cp /bin/true mine; chmod 700 mine; ./mine; echo $?; /bin/true; echo $?";
    let child = supervisor.spawn(script(text)).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["126", "0"]);
}

/// That written files are not executable is no boundary: interpreters read them. The restrictions
/// belong to the process and hold for any code.
#[tokio::test]
async fn code_that_a_child_writes_has_the_restrictions_of_the_child() {
    let supervisor = supervisor();
    let text = "echo 'echo runs; cat /etc/shadow || echo refused; grep Seccomp: /proc/$$/status' > mine; exec sh mine";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    assert_eq!(lines[..2], ["runs", "refused"]);
    assert_eq!(status(&lines, "Seccomp:"), "2");
}

#[tokio::test]
async fn configuration_adds_readable_and_writable_paths() {
    let (readable, writable) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(readable.path().join("data"), "data\n").unwrap();
    let (r, w) = (readable.path().display(), writable.path().display());
    let text = format!("cat {r}/data; echo x > {r}/new || echo no; echo x > {w}/new && cat {w}/new");
    for added in [true, false] {
        let supervisor = supervisor_with(|config| {
            if added {
                config.isolation.readable = vec![readable.path().into()];
                config.isolation.writable = vec![writable.path().into()];
            }
        });
        let child = supervisor.spawn(script(&text)).await.unwrap();
        let expected: &[&str] = if added { &["data", "no", "x"] } else { &["no"] };
        assert_eq!(ChildLines::with(&child).read_all().await, expected);
    }
}

#[tokio::test]
async fn file_named_by_an_argument_is_readable_and_its_sibling_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (file, sibling) = (directory.path().join("script"), directory.path().join("sibling"));
    fs::write(&sibling, "sibling\n").unwrap();
    fs::write(&file, format!("echo script; cat {} || echo no\n", sibling.display())).unwrap();
    let supervisor = supervisor();
    let child = supervisor
        .spawn(spec("/bin/sh", &[file.to_str().unwrap()]))
        .await
        .unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["script", "no"]);
}

#[tokio::test]
async fn certificates_named_by_the_environment_are_readable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    fs::write(&file, "certificate\n").unwrap();
    let supervisor = supervisor();
    let mut spec = script("cat $SSL_CERT_FILE");
    spec.env = vec![("SSL_CERT_FILE".into(), file.to_str().unwrap().into())];
    let child = supervisor.spawn(spec).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["certificate"]);
}

#[tokio::test]
async fn common_devices_and_files_are_accessible() {
    let supervisor = supervisor();
    let text = "echo lost > /dev/null && head -c 4 /dev/urandom | wc -c && head -c 2 /dev/zero | wc -c \
                && cat /etc/hosts /etc/nsswitch.conf /etc/passwd > /dev/null; echo $?; \
                exec cat /proc/self/comm";
    let child = supervisor.spawn(script(text)).await.unwrap();
    assert_eq!(
        ChildLines::with(&child).read_all().await,
        ["4", "2", "0", "cat"],
        "{:?}",
        child.last_stderr()
    );
}

#[tokio::test]
async fn each_child_has_a_private_user_if_a_range_is_configured() {
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let supervisor = supervisor_with(|config| {
        config.isolation.users = ChildUsers::Range(3_000_000..=3_000_001);
        config.isolation.directory = Some(parent.path().into());
    });
    if !can_lease_users() {
        assert_eq!(supervisor.isolation().missing[0].layer, Layer::User);
        return;
    }
    let start = || supervisor.spawn(script("id -u; id -g; id -G; pwd; echo data > file; cat"));
    let (one, two) = (start().await.unwrap(), start().await.unwrap());
    assert!(matches!(start().await, Err(supervisor::SpawnError::Exhausted(_))));
    for (child, user) in [(&one, "3000000"), (&two, "3000001")] {
        let mut stdio = ChildLines::with(child);
        for _ in ["user", "group", "groups"] {
            assert_eq!(stdio.read_line().await.as_deref(), Some(user));
        }
        let directory = stdio.read_line().await.unwrap();
        let owner = fs::metadata(directory).unwrap();
        assert_eq!(
            [owner.uid(), owner.gid()].map(|number| number.to_string()),
            [user, user]
        );
        stdio.write_line("wait").await.unwrap();
        assert_eq!(stdio.read_line().await.as_deref(), Some("wait"));
        // The child exits at the end of its input and its user number is returned.
        drop(stdio);
        done(child).await;
        assert_eq!(child.exit().unwrap().code, Some(0), "{:?}", child.last_stderr());
    }
    // Children with other users leave the dumpable flag of this process unchanged.
    assert_eq!(
        rustix::process::dumpable_behavior().unwrap(),
        rustix::process::DumpableBehavior::Dumpable
    );
    let again = start().await.unwrap();
    assert_eq!(ChildLines::with(&again).read_line().await.as_deref(), Some("3000000"));
}

/// The user numbers of children that live at the same time, two of each configuration.
async fn users_of(changes: [fn(&mut Config); 2]) -> Vec<u32> {
    let mut users = Vec::new();
    let (mut living, mut supervisors) = (Vec::new(), Vec::new());
    for change in changes {
        let supervisor = supervisor_with(|config| {
            config.program = Some(script("exit 0"));
            change(config);
        });
        for _ in 0..2 {
            let child = supervisor.spawn(script("id -u; cat")).await.unwrap();
            let mut stdio = ChildLines::with(&child);
            users.push(stdio.read_number().await.unsigned_abs());
            living.push((child, stdio));
        }
        supervisors.push(supervisor);
    }
    users
}

#[tokio::test]
async fn children_of_root_have_private_users_by_default_that_no_supervisor_shares() {
    let users = users_of([|_| {}, |_| {}]).await;
    if !can_lease_users() {
        let own = rustix::process::getuid().as_raw();
        assert_eq!(users, [own; 4]);
        return;
    }
    let different: std::collections::BTreeSet<u32> = users.iter().copied().collect();
    assert_eq!(different.len(), 4, "{users:?}");
    assert!(
        users.iter().all(|user| (0x7F00_0000..=0x7F00_FFFF).contains(user)),
        "{users:?}"
    );

    let off: fn(&mut Config) = |config| config.isolation.users = ChildUsers::Off;
    let unknown: fn(&mut Config) = |config| config.program = None;
    assert_eq!(users_of([off, unknown]).await, [0; 4]);
}

#[tokio::test]
async fn private_users_are_missing_if_such_a_user_cannot_run_the_program() {
    if !is_root() {
        return;
    }
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = private.path().join("program");
    fs::copy("/bin/sh", &program).unwrap();
    let mut default = Config::new(std::env::vars_os());
    default.program = Some(script("exit 0"));
    let (mut executed, mut read, mut readable, mut directory) =
        (default.clone(), default.clone(), default.clone(), default);
    executed.program = Some(spec(program.to_str().unwrap(), &[]));
    read.program = Some(spec("/bin/sh", &[program.to_str().unwrap()]));
    readable.isolation.readable = vec![private.path().into()];
    directory.isolation.directory = Some(private.path().into());
    for (config, path) in [
        (executed, program.as_path()),
        (read, &program),
        (readable, private.path()),
        (directory, private.path()),
    ] {
        let supervisor = Supervisor::new(config).unwrap();
        let missing = &supervisor.isolation().missing;
        assert_eq!(missing[0].layer, Layer::User);
        assert!(missing[0].reason.contains(path.to_str().unwrap()), "{missing:?}");
        let child = supervisor.spawn(script("id -u")).await.unwrap();
        assert_eq!(ChildLines::with(&child).read_all().await, ["0"]);
    }
    let supervisor = supervisor_with(|config| config.program = Some(spec("/no/such/program", &[])));
    assert_eq!(supervisor.isolation().missing[0].layer, Layer::User);
}

#[tokio::test]
async fn child_that_cannot_be_isolated_is_not_started() {
    let parent = tempfile::tempdir().unwrap();
    let supervisor = supervisor_with(|config| config.isolation.directory = Some(parent.path().into()));
    let runtime_dir = fs::read_dir(parent.path()).unwrap().next().unwrap().unwrap();
    fs::remove_dir(runtime_dir.path()).unwrap();
    let error = supervisor.spawn(script("exit 0")).await.unwrap_err();
    assert!(matches!(error, supervisor::SpawnError::Os(_)), "{error:?}");
    assert_eq!(supervisor.live(), 0);
}

#[tokio::test]
async fn missing_layer_is_reported_or_is_an_error_if_required() {
    let config = |required| {
        let mut config = Config::new(std::env::vars_os());
        config.isolation.required = required;
        config.isolation.cgroup = Some("/no/such/cgroup".into());
        config.limits.memory = Some(1 << 30);
        config
    };
    let supervisor = Supervisor::new(config(false)).unwrap();
    let missing: Vec<Layer> = supervisor
        .isolation()
        .missing
        .iter()
        .map(|missing| missing.layer)
        .collect();
    assert_eq!(missing, [Layer::Cgroup, Layer::Memory]);
    let child = supervisor.spawn(script("exit 0")).await.unwrap();
    done(&child).await;

    let error = Supervisor::new(config(true)).unwrap_err();
    assert!(
        matches!(&error, SupervisorError::Isolation(missing) if missing.len() == 2),
        "{error:?}"
    );
    assert!(error.to_string().contains("own control group"), "{error}");
}
