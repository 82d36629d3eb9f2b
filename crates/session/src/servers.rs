//! The life of servers: conversation, start, keeper, wake, rotation, and the reaper, which detaches
//! idle servers and ends dormant sessions.

pub(crate) mod conversation;
pub(crate) mod keeper;
pub(crate) mod reaper;
pub(crate) mod renew;
pub(crate) mod rotate;
pub(crate) mod start;
pub(crate) mod wake;
