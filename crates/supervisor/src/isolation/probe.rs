//! Finding out by trying what this process may do to its children.
//!
//! Most of what a child does to itself changes only the calling thread, so a thread that is thrown away
//! afterwards can try it all: what the kernel lacks and what a container forbids both show. What would change
//! the whole process, limits and the user, is not tried but looked up.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

use super::setup;

/// What came of trying. A reason is given for what failed.
#[derive(Debug)]
pub(super) struct ProbeResults {
    pub(super) no_new_privileges: Result<(), Errno>,
    pub(super) capabilities: Result<(), Errno>,
    /// Whether the bounding set can be emptied too, which is left out without CAP_SETPCAP.
    pub(super) bounding_set: bool,
    pub(super) landlock: Result<(), Errno>,
}

/// Tries everything on a thread of its own, in the order of [`ChildSetup`](super::ChildSetup).
///
/// # Errors
///
/// If the thread does not start.
pub(super) fn try_all(ruleset: Option<OwnedFd>) -> io::Result<ProbeResults> {
    let probe = thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let bounding_set = has(CapabilitySet::SETPCAP) && setup::empty_bounding_set().is_ok();
        ProbeResults {
            bounding_set,
            capabilities: setup::drop_capabilities(),
            no_new_privileges: set_no_new_privs(true),
            landlock: ruleset.map_or(Err(Errno::NOSYS), |ruleset| setup::enforce(&ruleset)),
        }
    })?;
    probe.join().map_err(|_| io::Error::other("the probe panicked"))
}

/// Whether this process can start children as other users and still end them and tidy up after them.
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
    fn trying_changes_nothing_for_this_process() {
        let before = (capabilities(None).unwrap(), rustix::thread::no_new_privs().unwrap());
        let outcome = try_all(None).unwrap();
        assert_eq!(outcome.no_new_privileges, Ok(()));
        assert_eq!(outcome.landlock, Err(Errno::NOSYS));
        let after = (capabilities(None).unwrap(), rustix::thread::no_new_privs().unwrap());
        assert_eq!(before, after);
    }
}
