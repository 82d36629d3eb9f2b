//! Starting a process, and the kernel calls that have no safe wrapper.
//!
//! This is the one module of the project with `unsafe` in it. A child is started as posix_spawn(3) does it: by a
//! clone that shares the parent's memory until the program runs, and suspends the calling thread until then. The
//! cost of a fork grows with the memory of the parent, whose tables it copies; the cost of this does not. In
//! between the child takes its [`ChildSetup`], which posix_spawn has no place for.
#![expect(
    unsafe_code,
    reason = "only code that runs in the child can restrict it before its program does, and four kernel calls have no \
              wrapper that may be used there"
)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::isolation::{ChildSetup, SetupStep};

/// What is to run.
pub(crate) struct ExecImage {
    pub(crate) program: CString,
    /// With the name under which the program is called.
    pub(crate) args: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
    pub(crate) directory: CString,
}

/// Why nothing runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetupError {
    /// There could be no process.
    Clone(Errno),
    /// The process could not take a step.
    Step(SetupStep, Errno),
    /// The program could not be executed.
    Exec(Errno),
}

/// What parent and child both have in hand while the parent is suspended.
struct ChildContext<'a> {
    program: &'a CStr,
    /// Pointers to the arguments, and a null pointer.
    args: Vec<*const libc::c_char>,
    /// Pointers to the variables, and a null pointer.
    env: Vec<*const libc::c_char>,
    directory: &'a CStr,
    streams: [RawFd; 3],
    steps: &'a ChildSetup,
    /// Written by the child if it fails, read by the parent when it goes on.
    failure: Option<SetupError>,
}

/// `struct landlock_path_beneath_attr` of linux/landlock.h, which is packed there.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH` of linux/landlock.h.
const RULE_PATH_BENEATH: libc::c_int = 1;

/// The stack of a child until its program runs, in words of 16 bytes: 256 KiB, of which it uses a few.
const STACK_WORDS: usize = 16 * 1024;

/// The highest number of a signal.
const LAST_SIGNAL: libc::c_int = 64;

/// Starts a process and gives its number and a descriptor for it. `streams` become its stdin, stdout and stderr,
/// and must be numbered above 2. Of signals it blocks and ignores none.
///
/// # Errors
///
/// See [`SetupError`]. There is no process left then.
pub(crate) fn start(
    image: &ExecImage,
    streams: [BorrowedFd<'_>; 3],
    steps: &ChildSetup,
) -> Result<(Pid, OwnedFd), SetupError> {
    debug_assert!(streams.iter().all(|stream| stream.as_raw_fd() > 2));
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    let mut shared = ChildContext {
        program: &image.program,
        args: pointers(&image.args),
        env: pointers(&image.env),
        directory: &image.directory,
        streams: streams.map(|stream| stream.as_raw_fd()),
        steps,
        failure: None,
    };
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_WORDS);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: RawFd = -1;
    // SAFETY: with CLONE_VFORK the calling thread does not run before the child has executed its program or
    // ended, so `shared`, what it points to, and the stack outlive the child's use of them, and the child has
    // them to itself meanwhile, as a called function would. With CLONE_VM the child's writes to memory are seen
    // here afterwards. Its stack is a block of its own, large enough, aligned to 16 bytes as the alignment of its
    // elements says, and grows down from its end. The other threads go on running in the same memory; the child
    // is one more thread to them, which `in_child` accounts for. No signal handler of this process can run in the
    // child: all signals are blocked in this thread, hence in the child, until the child has no handlers left.
    // `pidfd` is where clone(2) stores the descriptor with CLONE_PIDFD. The set of signals is written by
    // sigfillset before it is read, and the old mask by pthread_sigmask before it is restored.
    let (pid, error) = unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        let pid = libc::clone(
            in_child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut shared).cast(),
            &raw mut pidfd,
        );
        let error = last_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
        (pid, error)
    };
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        return Err(SetupError::Clone(error));
    };
    // SAFETY: clone succeeded, so it has stored an open descriptor that nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // The child wrote to it behind the compiler's back.
    let shared = std::hint::black_box(&mut shared);
    match shared.failure {
        None => Ok((pid, pidfd)),
        Some(failure) => {
            // It ends by itself at once. An error could only be that someone else reaped it.
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
            Err(failure)
        }
    }
}

/// What the child does until its program runs. It shares all memory with the parent, whose other threads may
/// hold any lock, so it makes system calls and nothing else: it does not allocate or free, takes no lock, does not
/// panic, and touches nothing but its stack, `ChildContext`, and the `errno` of the suspended thread. It has its own
/// descriptors, working directory, signal handlers, limits and credentials, none of which are memory.
extern "C" fn in_child(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the pointer that `start` gave to clone, to a value that nobody else uses until this process has
    // executed a program or ended.
    let shared = unsafe { &mut *shared.cast::<ChildContext<'_>>() };
    let failure = run(shared);
    shared.failure = Some(failure);
    // SAFETY: ends this process without running anything that belongs to the parent.
    unsafe { libc::_exit(127) }
}

/// Comes back only if it fails.
fn run(shared: &ChildContext<'_>) -> SetupError {
    reset_handlers();
    for (stream, number) in shared.streams.iter().zip(0..) {
        // SAFETY: takes two numbers. The child's table of descriptors is a copy.
        if unsafe { libc::dup2(*stream, number) } == -1 {
            return SetupError::Step(SetupStep::Descriptors, last_error());
        }
    }
    if let Err(error) = rustix::process::chdir(shared.directory) {
        return SetupError::Step(SetupStep::Directory, error);
    }
    if let Err((step, error)) = shared.steps.take() {
        return SetupError::Step(step, error);
    }
    // SAFETY: the set is written by sigemptyset before it is read. The pointers are those of strings that end with
    // a zero byte and of arrays that end with a null pointer, all of which outlive the call.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(shared.program.as_ptr(), shared.args.as_ptr(), shared.env.as_ptr());
    }
    SetupError::Exec(last_error())
}

/// Gives every signal its default action. Exec would do it for those that are handled, but not for those that are
/// ignored, as Rust programs ignore SIGPIPE; and a handler must not run here.
fn reset_handlers() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: a `sigaction` of zeros is valid: the default action, no flags, no signals blocked. The child's
        // table of handlers is a copy. The signals whose action cannot be set are refused, which is fine.
        unsafe {
            let default = MaybeUninit::<libc::sigaction>::zeroed();
            libc::sigaction(signal, default.as_ptr(), ptr::null_mut());
        }
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
pub(crate) fn allow_beneath(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
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
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Restricts the calling thread, and what it starts, by a Landlock ruleset (landlock_restrict_self(2)).
pub(crate) fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes two numbers, of which one is a descriptor that is open for as long as it is borrowed, and
    // touches no memory of the process.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// The `errno` of the calling thread.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
