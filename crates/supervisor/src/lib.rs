//! One child process: spawn, watch, stop, reap.
//!
//! A [`Supervisor`] starts programs as children with piped standard streams and returns a [`Child`]
//! for each. These invariants hold for every child while this process runs:
//!
//! - It starts without a shell, in its own session and process group. Its environment contains only
//!   allow-listed variables and those that the [`ChildSpec`] names.
//! - It cannot read, signal or trace other children or this process, nor touch files outside an
//!   allow-list, as far as the machine supports it ([`Isolation`], [`IsolationReport`]).
//! - It is reaped exactly once, and nothing signals it afterwards.
//! - When it ends, requested or not, its process group is killed, and so is every process that it
//!   started and that left the group.
//! - It ends on request ([`Child::stop`]), when its handle is dropped, when the supervisor stops
//!   ([`Supervisor::stop_all`]), when the runtime shuts down, and when this process dies.
//! - Its standard error is read without ever blocking it and is logged line by line, at a limited
//!   rate, with the secrets of the spec redacted.
//!
//! The crate does not know the protocol on the streams and restarts nothing: it reports the end of
//! a child ([`Child::done`], [`Child::exit`]).
//!
//! It requires Linux 5.4 for pidfds. It makes the process a child subreaper, so that orphans become
//! its children, and expects that nothing else in the process waits for children that it did not
//! start. It leaves the processes that other code starts alone, unless such a process begins its
//! own session *and* has `no_new_privs` set: it then looks like an orphan of a child. If this
//! process is killed, its children die at once, but processes that they started end only if they
//! notice. An init system or a container that ends the whole control group closes that gap.

mod config;
mod error;
mod exit;
mod spec;

mod child;
mod supervisor;

mod child_process;
mod child_task;
mod clone_exec;
mod dumpable;
mod io;
mod isolation;
mod launch;
mod orphans;
mod program;
mod setup_error;
mod spawn_thread;
mod stderr;
mod stop_sequence;
mod zombie_reaper;

pub use child::Child;
pub use config::{Config, DEFAULT_INHERITED, Delivery};
pub use error::{InvalidConfigError, InvalidField, ReadyError, SpawnError, SupervisorError};
pub use exit::Exit;
pub use io::ChildIo;
pub use isolation::{ChildUsers, DEFAULT_READABLE, Isolation, IsolationLimits, IsolationReport, Layer, MissingLayer};
pub use spec::ChildSpec;
pub use supervisor::Supervisor;
