//! Probing which isolation layers this process can apply to its children.
//!
//! Most setup steps of a child change only the calling thread, so a throw-away thread can try them
//! all: this detects both missing kernel features and container restrictions. Limits and the user
//! would change the whole process, so they are looked up and not tried.

use std::io;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

use super::landlock_rules::ChildRuleset;
use super::setup;
use super::system_calls::SystemCallFilter;

/// The results of the probe, with the reason of each failure.
#[derive(Debug)]
pub(super) struct ProbeResults {
    pub(super) no_new_privileges: Result<(), Errno>,
    pub(super) capabilities: Result<(), Errno>,
    /// True if the bounding set can be emptied too. Not tried without CAP_SETPCAP.
    pub(super) bounding_set: bool,
    pub(super) landlock: Result<(), Errno>,
    pub(super) system_calls: Result<(), Errno>,
}

/// Tries every step on a separate thread, in the order of [`ChildSetup`](super::ChildSetup).
pub(super) fn try_all(
    ruleset: Option<ChildRuleset>,
    filter: Option<Arc<SystemCallFilter>>,
) -> io::Result<ProbeResults> {
    let probe = thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let bounding_set = has(CapabilitySet::SETPCAP) && setup::empty_bounding_set().is_ok();
        ProbeResults {
            bounding_set,
            capabilities: setup::drop_capabilities(),
            no_new_privileges: set_no_new_privs(true),
            landlock: ruleset.map_or(Err(Errno::NOSYS), |ruleset| setup::enforce_ruleset(&ruleset)),
            system_calls: filter.map_or(Err(Errno::NOSYS), |filter| filter.install()),
        }
    })?;
    probe.join().map_err(|_| io::Error::other("the probe panicked"))
}

/// True if this process can start children as other users, kill them, and remove their files.
pub(super) fn other_users() -> Result<(), &'static str> {
    let needed = CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN
        | CapabilitySet::KILL
        | CapabilitySet::DAC_OVERRIDE;
    if has(needed) {
        Ok(())
    } else {
        Err("needs CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_KILL and CAP_DAC_OVERRIDE")
    }
}

fn has(needed: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_changes_nothing_for_this_process() {
        let before = (capabilities(None).unwrap(), rustix::thread::no_new_privs().unwrap());
        let results = try_all(None, None).unwrap();
        assert_eq!(results.no_new_privileges, Ok(()));
        assert_eq!(results.landlock, Err(Errno::NOSYS));
        let after = (capabilities(None).unwrap(), rustix::thread::no_new_privs().unwrap());
        assert_eq!(before, after);
    }
}
