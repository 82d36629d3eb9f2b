//! One child process: spawn, watch, stop, reap.
//!
//! A [`Supervisor`] starts programs as children with piped standard streams and hands out a [`Child`] for
//! each. What holds for every child, whatever happens to it or to its handle:
//!
//! - It is started without a shell, in a process group of its own, with an environment that consists of an
//!   allow-list and of what the [`Order`] names, and of nothing else.
//! - It is reaped exactly once, by the one task that watches it. Nothing is signalled after that.
//! - Its process group does not outlive it: the members are killed when the first process ends, asked or not.
//! - It ends when it is asked to ([`Child::stop`]), when its handle is dropped, when the supervisor stops
//!   ([`Supervisor::stop_all`]), when the runtime goes away, and when this process dies in any way.
//! - Its standard error is read without ever blocking it, and reaches the log line by line, with the secrets
//!   of the order replaced.
//!
//! The crate knows nothing about what is spoken over the streams, and it starts nothing again: a child that
//! ended is reported ([`Child::done`], [`Child::exit`]) and that is all. Processes that leave the group
//! (`setsid`) are not found. It runs on Linux 5.4 or later, since it rests on pidfds, and expects that
//! nothing else in the process waits for children that it did not start.

mod config;
mod error;
mod order;

mod child;
mod supervisor;

mod death;
mod forker;
mod group;
mod io;
mod leash;
mod stderr;
mod stopping;
mod watch;

pub use child::{Child, Exit};
pub use config::{Config, DEFAULT_INHERITED};
pub use error::{SpawnError, StartError};
pub use io::ChildIo;
pub use order::Order;
pub use supervisor::Supervisor;
