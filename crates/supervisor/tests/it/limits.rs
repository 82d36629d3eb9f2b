//! What a child may use.

use std::path::PathBuf;
use std::time::Duration;

use supervisor::{Layer, Supervisor};

use crate::support::{ChildLines, ProcessWatch, done, script, soon, spec, supervisor_with};

/// The limits of a child, soft and hard, as its kernel sees them (proc_pid_limits(5)).
fn limit(lines: &[String], name: &str) -> [String; 2] {
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(name))
        .expect("the limit");
    let mut fields = line.split_whitespace().map(str::to_owned);
    std::array::from_fn(|_| fields.next().unwrap())
}

#[tokio::test]
async fn the_limits_are_those_of_the_configuration() {
    let supervisor = supervisor_with(|config| {
        config.limits.open_files = Some(77);
        config.limits.address_space = Some(1 << 32);
        config.limits.cpu_time = Some(Duration::from_secs(600));
        config.limits.processes = Some(5000);
    });
    let child = supervisor.spawn(spec("cat", &["/proc/self/limits"])).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    // One byte: too little for a core file, and what the kernel takes for "no dump to a program either".
    assert_eq!(limit(&lines, "Max core file size"), ["1", "1"]);
    assert_eq!(limit(&lines, "Max open files"), ["77", "77"]);
    assert_eq!(limit(&lines, "Max address space"), ["4294967296", "4294967296"]);
    assert_eq!(limit(&lines, "Max cpu time"), ["600", "601"]);
    assert_eq!(limit(&lines, "Max processes"), ["5000", "5000"]);
}

#[tokio::test]
async fn a_child_that_opens_too_much_is_refused_more() {
    let supervisor = supervisor_with(|config| config.limits.open_files = Some(16));
    let text = "exec 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3; sh -c 'ls /proc/self/fd >/dev/null; exec 20<&3' || echo refused";
    let child = supervisor.spawn(script(text)).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["refused"]);
}

#[tokio::test]
async fn a_child_that_burns_its_processor_time_is_ended() {
    let supervisor = supervisor_with(|config| config.limits.cpu_time = Some(Duration::from_secs(1)));
    let child = supervisor
        .spawn(script("trap '' XCPU; while :; do :; done"))
        .await
        .unwrap();
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.signal, exit.requested), (Some(9), false));
}

/// A place in the control group file system where this process may make groups.
fn cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let path = PathBuf::from(mount.split(' ').nth(1)?);
    let group = path.join(format!("supervisor-test-{}", std::process::id()));
    std::fs::create_dir(&group).ok()?;
    Some(group)
}

#[tokio::test]
async fn a_control_group_holds_all_of_a_child_and_ends_with_it() {
    let Some(parent) = cgroup() else {
        // Nothing to be had on this machine; that it is reported then has a test of its own.
        return;
    };
    let supervisor = supervisor_with(|config| config.isolation.cgroup = Some(parent.clone()));
    assert!(
        supervisor.isolation().active.contains(&Layer::Cgroup),
        "{:?}",
        supervisor.isolation()
    );
    let text = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & read go";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let mut talk = ChildLines::with(&child);
    let stray = talk.read_number().await;
    let eye = ProcessWatch::on(stray);
    let group = std::fs::read_to_string(format!("/proc/{stray}/cgroup")).unwrap();
    let name = parent.file_name().unwrap().to_str().unwrap();
    assert!(group.contains(&format!("{name}/supervised-")), "{group}");
    soon("the stop", child.stop()).await;
    assert!(eye.is_dead());
    drop((child, talk));
    everything_is_removed(supervisor, &parent).await;
}

async fn everything_is_removed(supervisor: Supervisor, parent: &std::path::Path) {
    soon("the stop", supervisor.stop_all()).await;
    drop(supervisor);
    // The thread that forks, which has it last, ends on its own.
    soon("the group to be removed", async {
        while std::fs::remove_dir(parent).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
