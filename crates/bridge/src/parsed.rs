//! A request that is parsed before it reaches its conversation.

use crate::{jsonrpc::Envelope, modern::ModernRequest};

/// A request that is parsed already. In the extensions of a request without a session id.
#[derive(Clone, Debug)]
pub(crate) enum Parsed {
    Modern(Box<ModernRequest>),
    Legacy(Box<Envelope>),
}
