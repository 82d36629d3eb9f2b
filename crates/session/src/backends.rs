//! The life of backends: start, attach, revive, rotate, stop, and the reaper, which detaches idle
//! backends and ends dormant sessions.

pub(crate) mod backend_task;
pub(crate) mod reaper;
pub(crate) mod renew;
pub(crate) mod revive;
pub(crate) mod rotate;
pub(crate) mod start;
