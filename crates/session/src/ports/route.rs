//! The place of a request without a session id.

use std::sync::Arc;

use http::Response;

use super::Body;

/// The place of a request without a session id ([`Host::route`](super::Host::route)).
///
/// An *implicit* session is one that no client has an id of: a host names it, and it is made by the
/// first request that belongs to it, from
/// [`Host::initial_snapshot`](super::Host::initial_snapshot). It is made dormant, so the first call
/// that wants a server wakes it. It cannot be deleted, leaves no ended id behind, and is made again
/// when it is needed.
#[derive(Debug)]
pub enum Route {
    /// A new session by `initialize`. Any other request is refused.
    Open,
    /// The implicit session of this name, for the grant of the caller.
    Implicit {
        /// The name, unique within a grant.
        name: [u8; 16],
    },
    /// The session that the last `initialize` of the grant has opened. If that has ended, an
    /// implicit session from the same handshake.
    LastInitialize {
        /// False for a message that needs no session. If there is none, it makes none: a POST is
        /// answered with 202, a GET with 405.
        opens: bool,
    },
    /// The session of the grant with this tag.
    Tagged {
        /// As in [`ConversationInfo::tag`](super::ConversationInfo::tag).
        tag: Arc<str>,
        /// The place if the grant has no such session.
        otherwise: Box<Route>,
    },
    /// The answer of the host.
    Reply(Response<Body>),
}
