//! One child process: spawn, watch, stop, reap.
//!
//! A [`Supervisor`] starts programs as children with piped standard streams and hands out a [`Child`] for
//! each. What holds for every child, whatever happens to it or to its handle:
//!
//! - It is started without a shell, in a session and process group of its own, with an environment that consists
//!   of an allow-list and of what the [`ChildSpec`] names, and of nothing else.
//! - It cannot read, signal or trace other children or this process, nor touch files that are not on a list, as
//!   far as the machine has the means ([`Isolation`], [`IsolationReport`]).
//! - It is reaped exactly once. Nothing is signalled after that.
//! - Nothing that it started outlives it: its process group is killed when it ends, asked or not, and so is
//!   whatever left the group.
//! - It ends when it is asked to ([`Child::stop`]), when its handle is dropped, when the supervisor stops
//!   ([`Supervisor::stop_all`]), when the runtime goes away, and when this process dies in any way.
//! - Its standard error is read without ever blocking it, and reaches the log line by line, no faster than it
//!   may, with the secrets of the order replaced.
//!
//! The crate knows nothing about what is spoken over the streams, and it starts nothing again: a child that
//! ended is reported ([`Child::done`], [`Child::exit`]) and that is all.
//!
//! It runs on Linux 5.4 or later, since it rests on pidfds. It makes the process a child subreaper, so that
//! orphans come to it, and expects that nothing else in the process waits for children that it did not start.
//! What others in the process start is left alone, unless it begins a session of its own *and* has
//! `no_new_privs` set, for then it looks like what a child left behind. If this process is killed, its children
//! die at once, and what they started only as far as it notices; whoever must be sure of that lets an init system
//! or a container end the whole control group.

mod config;
mod error;
mod exit;
mod spec;

mod child;
mod supervisor;

mod child_process;
mod child_task;
mod clone_exec;
mod io;
mod isolation;
mod launch;
mod orphans;
mod program;
mod spawn_thread;
mod stderr;
mod stop_sequence;

pub use child::Child;
pub use config::{Config, DEFAULT_INHERITED, Delivery};
pub use error::{InvalidConfigError, InvalidField, ReadyError, SpawnError, SupervisorError};
pub use exit::Exit;
pub use io::ChildIo;
pub use isolation::{DEFAULT_READABLE, Isolation, IsolationLimits, IsolationReport, Layer, MissingLayer};
pub use spec::ChildSpec;
pub use supervisor::Supervisor;
