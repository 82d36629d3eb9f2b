//! The state of the registry: sessions, their phases and servers, limits, deadlines and pending
//! changes.
//!
//! Everything here is synchronous: no module awaits a port or spawns a task. State machines take
//! the time as an argument. The layers above ([`records`](crate::records),
//! [`servers`](crate::servers), `client`) act on this state and are unknown here.

mod activity;
mod attached_server;
mod change_queue;
mod deadlines;
mod expiry;
mod initializes;
mod lifecycle;
mod quota;
mod registry_state;
mod renewal_gate;
mod restart_backoff;
mod revocations;
mod session;
mod session_id;
mod start_backoffs;
mod table;

pub(crate) use self::{
    attached_server::AttachedServer,
    change_queue::{ChangeQueue, Pending, end_change, wall_time},
    deadlines::Deadlines,
    expiry::Expiry,
    initializes::{Initializes, KnownInitialize},
    lifecycle::{EndCondition, Lifecycle, Phase, WakeId, Want},
    quota::{Quota, SessionPermit},
    registry_state::RegistryState,
    renewal_gate::{GateDecision, Generation, RenewalGate, RenewalGuard, RenewalOutcome},
    revocations::Revocations,
    session::{Identity, RetiredServer, Session, Share, WrittenRecord},
    session_id::{ImplicitName, SessionId},
    start_backoffs::StartBackoffs,
    table::{Lookup, SessionTable},
};
