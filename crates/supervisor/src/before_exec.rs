//! What only code between fork and exec can do, and the kernel calls that have no safe wrapper.
//!
//! This is the one module of the project with `unsafe` in it. What is done here, and in which order, is
//! decided by [`Steps`](crate::isolation::Steps); this module only gets it done in the right place.
#![expect(
    unsafe_code,
    reason = "only code that runs between fork and exec can restrict a child before its program runs, and three kernel \
              calls have no wrapper that may be used there"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::isolation::Steps;

/// `struct landlock_path_beneath_attr` of linux/landlock.h, which is packed there.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH` of linux/landlock.h.
const RULE_PATH_BENEATH: libc::c_int = 1;

/// Makes `command` take the steps in the child, right before its program runs.
pub(crate) fn take(mut steps: Steps, command: &mut Command) {
    // SAFETY: the closure runs in the child after fork, where only async-signal-safe functions may be called,
    // since other threads of this process may have held any lock at the moment of the fork. `Steps::take` makes
    // system calls and nothing else: through rustix, which issues them directly, and through the three
    // functions below. It allocates nothing (all it needs was made before the fork, its errors are bare
    // numbers), frees nothing, takes no lock, and does not panic: it neither indexes nor unwraps. What it
    // touches, the steps, belongs to the closure alone.
    unsafe {
        command.pre_exec(move || steps.take());
    }
}

/// Marks all descriptors from `first` on as not to be kept over exec. A kernel that does not know how is told
/// nothing; every descriptor of this program is marked from its creation, and this is for those that are not
/// from this program.
pub(crate) fn close_all_from(first: u32) {
    // SAFETY: takes three numbers and touches no memory of the process.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}

/// Adds to a Landlock ruleset that `access` is allowed at `path` and beneath (landlock_add_rule(2)).
pub(crate) fn allow_beneath(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, access: u64) -> io::Result<()> {
    let rule = PathBeneath {
        allowed_access: access,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: both descriptors are open for as long as they are borrowed. The kernel reads the structure, which
    // has the form that it expects for this type of rule and lives on this stack, and keeps no pointer to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Restricts the calling thread, and what it starts, by a Landlock ruleset (landlock_restrict_self(2)).
pub(crate) fn restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two numbers, of which one is a descriptor that is open for as long as it is borrowed, and
    // touches no memory of the process.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
