//! Scripted stand-ins for the ports of a registry: a [`ScriptedSpawner`] with its
//! [`ScriptedBackend`]s, a [`ScriptedHost`] with its [`ScriptedConversation`]s, and
//! [`ScriptedCredentials`].
//!
//! They record every call, answer as scripted, and fail, wait or die on command. The tests, the
//! benchmark and the permutation tests of this crate use them. An embedder can test its own service
//! with them:
//!
//! ```
//! # use std::sync::Arc;
//! # use bytes::Bytes;
//! # use http::Request;
//! use session::{
//!     Config, Registry,
//!     testing::{ScriptedSpawner, SpawnOutcome, caller},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let spawner = ScriptedSpawner::immediate(SpawnOutcome::Ready);
//! let registry = Registry::new(Config::default(), Arc::clone(&spawner) as _);
//!
//! let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
//! let mut request = Request::post("/mcp").body(Bytes::from(body)).unwrap();
//! request.extensions_mut().insert(caller("ann/phone"));
//! let response = registry.serve(request).await.response;
//!
//! assert!(response.headers().contains_key("mcp-session-id"));
//! assert_eq!(spawner.running(), 1);
//! # registry.stop().await;
//! # }
//! ```

mod backend;
mod conversation;
mod credentials;
mod host;
mod spawner;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::{
    backend::{LATE_STREAM_DELAY, ScriptedBackend},
    conversation::{ConversationCall, ScriptedConversation, ScriptedServer},
    credentials::{REJECTED_TOKEN, RefreshOutcome, ScriptedCredentials},
    host::{ScriptedHost, StartOutcome, initial_snapshot_by_header, route_by_header},
    spawner::{ScriptedSpawner, SpawnOutcome},
};
use crate::ports::{Caller, ClientId, GrantId, UserId};

/// The caller of the grant `name`, with a credential that never expires. The user is the part of
/// `name` before the first slash: `caller("ann/phone")` is one of the grants of `ann`.
#[must_use]
pub fn caller(name: &str) -> Arc<Caller> {
    let user = name.split('/').next().unwrap_or(name);
    Arc::new(Caller {
        grant: GrantId(name.into()),
        user: UserId(user.into()),
        client: ClientId("a-client".into()),
        credentials: Arc::new(ScriptedCredentials::permanent()),
    })
}

// The locks of this module are not scheduling points of the permutation tests: no task yields while
// it holds one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the scheduler of the permutation tests run another task. Elsewhere it does nothing.
async fn scheduling_point() {
    #[cfg(test)]
    shuttle::future::yield_now().await;
}
