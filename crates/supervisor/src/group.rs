//! Waiting until nothing of a process group is left alive.
//!
//! Used after the group was killed and its leader reaped. From then on nothing is signalled: the question is
//! put with the null signal, which is never delivered. Should the number belong to a new group by then, the
//! worst that follows is a short wait.

use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process_group};
use tokio::time::{Instant, sleep};

/// How long to wait for members that were killed. Only one that hangs in the kernel takes so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until no member of `group` is alive, or until patience ends; tells which. Cancel safe.
pub(crate) async fn gone(group: Pid) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        // The cheap question first. It counts dead members that nobody has reaped yet, and some init processes
        // in containers never reap; so where it finds someone, look closer.
        if test_kill_process_group(group) == Err(Errno::SRCH) || !has_living_member(group) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Looks through `/proc` for a member that is not a zombie.
fn has_living_member(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .first()
                .is_some_and(u8::is_ascii_digit)
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .any(|stat| is_living_member(&stat, group))
}

/// Reads one line of `/proc/PID/stat` (proc_pid_stat(5)): `pid (name) state ppid pgrp ..`. The name may
/// contain anything, parentheses included, so the fields are counted from its last one.
fn is_living_member(stat: &str, group: Pid) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let member = fields.nth(1).and_then(|number| number.parse().ok()) == Some(group.as_raw_nonzero().get());
    member && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpgrp, getpid};

    use super::*;

    #[test]
    fn a_zombie_is_no_living_member() {
        let group = Pid::from_raw(77).unwrap();
        assert!(is_living_member("80 (sleep) S 1 77 77 0 -1", group));
        assert!(!is_living_member("80 (sleep) Z 1 77 77 0 -1", group));
        assert!(!is_living_member("80 (sleep) S 77 78 77 0 -1", group));
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let group = Pid::from_raw(77).unwrap();
        assert!(is_living_member("80 (a) S 1 5 (b) R 1 77 77 0", group));
        assert!(!is_living_member("80 ) Z 1 77", group));
    }

    #[test]
    fn the_group_of_this_process_is_alive() {
        assert!(has_living_member(getpgrp()), "own process {:?}", getpid());
    }
}
