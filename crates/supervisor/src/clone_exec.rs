//! Starting a process, and the kernel calls that have no safe wrapper.
//!
//! This is the only module of the project with `unsafe` in it. It starts a child as posix_spawn(3)
//! does: by a clone that shares the parent's memory, and suspends the calling thread, until the
//! program runs. The cost of a fork grows with the memory of the parent, whose page tables it
//! copies; the cost of this does not. Before the exec the child runs its [`Setup`], which
//! posix_spawn has no place for.
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

use crate::setup_error::{SetupError, SetupStep};

/// The program to execute.
pub(crate) struct ExecImage {
    pub(crate) program: CString,
    /// Includes the name under which the program is called.
    pub(crate) args: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
    pub(crate) directory: CString,
}

/// Restricts the child before its program runs. It runs in the child, while that shares all memory
/// with the parent, so it must make system calls only (see [`in_child`]).
pub(crate) type Setup<'a> = dyn Fn() -> Result<(), (SetupStep, Errno)> + 'a;

/// The data that parent and child share while the parent is suspended.
struct ChildContext<'a> {
    program: &'a CStr,
    /// Pointers to the arguments, and a null pointer.
    args: Vec<*const libc::c_char>,
    /// Pointers to the variables, and a null pointer.
    env: Vec<*const libc::c_char>,
    directory: &'a CStr,
    streams: [RawFd; 3],
    setup: &'a Setup<'a>,
    /// Written by the child if it fails, read by the parent when it resumes.
    error: Option<SetupError>,
}

/// `struct landlock_path_beneath_attr` of linux/landlock.h, which is packed there.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH` of linux/landlock.h.
const RULE_PATH_BENEATH: libc::c_int = 1;

/// Size of the child's stack until its program runs, in words of 16 bytes: 256 KiB, mostly unused.
const STACK_WORDS: usize = 16 * 1024;

/// The highest signal number.
const LAST_SIGNAL: libc::c_int = 64;

/// Starts a process and returns its pid and a pidfd. `streams` become its stdin, stdout and stderr
/// and must be numbered above 2. The process blocks and ignores no signals.
/// No process is left on failure.
pub(crate) fn spawn(
    image: &ExecImage,
    streams: [BorrowedFd<'_>; 3],
    setup: &Setup<'_>,
) -> Result<(Pid, OwnedFd), SetupError> {
    debug_assert!(streams.iter().all(|stream| stream.as_raw_fd() > 2));
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
    let mut context = ChildContext {
        program: &image.program,
        args: pointers(&image.args),
        env: pointers(&image.env),
        directory: &image.directory,
        streams: streams.map(|stream| stream.as_raw_fd()),
        setup,
        error: None,
    };
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_WORDS);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: RawFd = -1;
    // SAFETY: with CLONE_VFORK the calling thread does not run before the child has executed its
    // program or ended. So `context`, the data that it points to, and the stack outlive the child's
    // use of them, and the child has them to itself meanwhile, as a called function would. With
    // CLONE_VM the child's writes to memory are visible here afterwards. Its stack is a separate
    // block, large enough, aligned to 16 bytes by the alignment of its elements, and grows down
    // from its end. The other threads keep running in the same memory; to them the child is one
    // more thread, which `in_child` accounts for. No signal handler of this process can run in the
    // child: all signals are blocked in this thread, hence in the child, until the child has no
    // handlers left. clone(2) stores the descriptor in `pidfd` with CLONE_PIDFD. The set of signals
    // is written by sigfillset before it is read, and the old mask by pthread_sigmask before it is
    // restored.
    let (pid, error) = unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        let pid = libc::clone(
            in_child,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut context).cast(),
            &raw mut pidfd,
        );
        let error = last_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
        (pid, error)
    };
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        return Err(SetupError::Clone(error));
    };
    // SAFETY: clone succeeded, so it has stored an open descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // The child wrote to it behind the compiler's back.
    let context = std::hint::black_box(&mut context);
    match context.error {
        None => Ok((pid, pidfd)),
        Some(error) => {
            // The child exits at once. An error could only mean that other code reaped it.
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
            Err(error)
        }
    }
}

/// The entry point of the child until its program runs. The child shares all memory with the
/// parent, whose other threads may hold any lock, so it makes system calls only: it does not
/// allocate or free, takes no lock, does not panic, and touches nothing but its stack, the
/// `ChildContext`, and the `errno` of the suspended thread. It has its own descriptors, working
/// directory, signal handlers, limits and credentials, none of which are memory.
extern "C" fn in_child(context: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the pointer that `spawn` gave to clone, to a value that nothing else uses until
    // this process has executed a program or ended.
    let context = unsafe { &mut *context.cast::<ChildContext<'_>>() };
    let error = set_up_and_exec(context);
    context.error = Some(error);
    // SAFETY: ends this process without running any code that belongs to the parent.
    unsafe { libc::_exit(127) }
}

/// Returns only if it fails.
fn set_up_and_exec(context: &ChildContext<'_>) -> SetupError {
    reset_handlers();
    for (stream, number) in context.streams.iter().zip(0..) {
        // SAFETY: takes two numbers. The child's table of descriptors is a copy.
        if unsafe { libc::dup2(*stream, number) } == -1 {
            return SetupError::Step(SetupStep::Descriptors, last_error());
        }
    }
    if let Err(error) = rustix::process::chdir(context.directory) {
        return SetupError::Step(SetupStep::Directory, error);
    }
    if let Err((step, error)) = (context.setup)() {
        return SetupError::Step(step, error);
    }
    // SAFETY: the set is written by sigemptyset before it is read. The strings end with a zero byte
    // and the arrays with a null pointer, and all of them outlive the call.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(context.program.as_ptr(), context.args.as_ptr(), context.env.as_ptr());
    }
    SetupError::Exec(last_error())
}

/// Gives every signal its default action. Exec does so only for handled signals, not for ignored
/// ones, such as SIGPIPE in Rust programs; and no handler may run in the child.
fn reset_handlers() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: a `sigaction` of zeros is valid: the default action, no flags, no signals
        // blocked. The child's table of handlers is a copy. The kernel rejects signals whose action
        // cannot be set, which is harmless.
        unsafe {
            let default = MaybeUninit::<libc::sigaction>::zeroed();
            libc::sigaction(signal, default.as_ptr(), ptr::null_mut());
        }
    }
}

/// Marks all descriptors from `first` on as close-on-exec. Errors of a kernel without this call are
/// ignored: this program marks each of its descriptors at creation, and the call only covers
/// descriptors that it inherited.
pub(crate) fn close_on_exec_from(first: u32) {
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

/// Adds a rule to a Landlock ruleset that allows `access` at `path` and beneath it
/// (landlock_add_rule(2)).
pub(crate) fn allow_beneath(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
    let rule = PathBeneath {
        allowed_access: access,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: both descriptors are open while they are borrowed. The kernel reads the structure,
    // which has the layout that it expects for this type of rule and lives on this stack, and keeps
    // no pointer to it.
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

/// Restricts the calling thread, and the processes that it starts, by a Landlock ruleset
/// (landlock_restrict_self(2)).
pub(crate) fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes two numbers, one of them a descriptor that is open while it is borrowed, and
    // touches no memory of the process.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// The `errno` of the calling thread.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
