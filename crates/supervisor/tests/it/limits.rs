//! Resource limits of children.

use std::path::PathBuf;
use std::time::Duration;

use supervisor::{Layer, Supervisor};

use crate::support::{ChildLines, ProcessWatch, done, script, soon, spec, supervisor_with};

/// The soft and hard limit of a child, as the kernel reports them (proc_pid_limits(5)).
fn limit(lines: &[String], name: &str) -> [String; 2] {
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(name))
        .expect("the limit");
    let mut fields = line.split_whitespace().map(str::to_owned);
    std::array::from_fn(|_| fields.next().unwrap())
}

#[tokio::test]
async fn configured_limits_apply_to_the_child() {
    let supervisor = supervisor_with(|config| {
        config.limits.open_files = Some(77);
        config.limits.address_space = Some(1 << 32);
        config.limits.cpu_time = Some(Duration::from_secs(600));
        config.limits.processes = Some(5000);
    });
    let child = supervisor.spawn(spec("cat", &["/proc/self/limits"])).await.unwrap();
    let lines = ChildLines::with(&child).read_all().await;
    // One byte: too small for a core file, and it also disables dumps to a program.
    assert_eq!(limit(&lines, "Max core file size"), ["1", "1"]);
    assert_eq!(limit(&lines, "Max open files"), ["77", "77"]);
    assert_eq!(limit(&lines, "Max address space"), ["4294967296", "4294967296"]);
    assert_eq!(limit(&lines, "Max cpu time"), ["600", "601"]);
    assert_eq!(limit(&lines, "Max processes"), ["5000", "5000"]);
}

#[tokio::test]
async fn child_cannot_open_more_files_than_its_limit() {
    let supervisor = supervisor_with(|config| config.limits.open_files = Some(16));
    let text = "exec 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3; sh -c 'ls /proc/self/fd >/dev/null; exec 20<&3' || echo refused";
    let child = supervisor.spawn(script(text)).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_all().await, ["refused"]);
}

#[tokio::test]
async fn child_that_exceeds_its_processor_time_is_killed() {
    let supervisor = supervisor_with(|config| config.limits.cpu_time = Some(Duration::from_secs(1)));
    let child = supervisor
        .spawn(script("trap '' XCPU; while :; do :; done"))
        .await
        .unwrap();
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.signal, exit.requested), (Some(9), false));
}

/// A new group in the control group file system, if this process may create one.
fn cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let path = PathBuf::from(mount.split(' ').nth(1)?);
    let group = path.join(format!("supervisor-test-{}", std::process::id()));
    std::fs::create_dir(&group).ok()?;
    Some(group)
}

#[tokio::test]
async fn control_group_contains_all_processes_of_a_child_and_is_removed_with_it() {
    let Some(parent) = cgroup() else {
        // Not available on this machine; another test covers the report of that.
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
    let mut stdio = ChildLines::with(&child);
    let orphan = stdio.read_number().await;
    let process = ProcessWatch::on(orphan);
    let group = std::fs::read_to_string(format!("/proc/{orphan}/cgroup")).unwrap();
    let name = parent.file_name().unwrap().to_str().unwrap();
    assert!(group.contains(&format!("{name}/supervised-")), "{group}");
    soon("the stop", child.stop()).await;
    assert!(process.is_dead());
    drop((child, stdio));
    assert_removed(supervisor, &parent).await;
}

async fn assert_removed(supervisor: Supervisor, parent: &std::path::Path) {
    soon("the stop", supervisor.stop_all()).await;
    drop(supervisor);
    // The spawn thread holds the group last and ends by itself.
    soon("the group to be removed", async {
        while std::fs::remove_dir(parent).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
