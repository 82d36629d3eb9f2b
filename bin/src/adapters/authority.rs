//! `broker`'s authority: `oauth`'s authorization server, whose callers become `session`'s callers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use broker::ports::{Authority, BoxFuture, GrantKey, ResponseBody};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use oauth::AuthorizationServer;
use session::ports::{AuthenticatedAt, Caller, ClientId, GrantId, UserId};
use tokio::time::Instant;

use super::credentials::AccountCredentials;

/// The authorization server as the authority of the HTTP layer.
#[derive(Debug)]
pub(crate) struct OAuthAuthority {
    server: AuthorizationServer,
    /// The callers that requests and sessions hold. Others are removed before the map grows.
    callers: Mutex<HashMap<oauth::ids::GrantId, Weak<Caller>>>,
}

impl OAuthAuthority {
    pub(crate) fn new(server: AuthorizationServer) -> Self {
        Self {
            server,
            callers: Mutex::default(),
        }
    }

    /// The one caller of a grant, shared by its requests and sessions.
    fn session_caller(&self, caller: &oauth::Caller) -> Arc<Caller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = callers.get(caller.grant()).and_then(Weak::upgrade) {
            return shared;
        }
        // Before the map would grow.
        if callers.len() == callers.capacity() {
            callers.retain(|_, caller| caller.strong_count() > 0);
        }
        let shared = Arc::new(Caller {
            grant: grant_id(caller.grant()),
            user: user_id(caller.user()),
            client: ClientId(Arc::from(caller.client().0.as_str())),
            credentials: Arc::new(AccountCredentials(caller.account())),
        });
        callers.insert(caller.grant().clone(), Arc::downgrade(&shared));
        shared
    }
}

impl Authority for OAuthAuthority {
    fn authenticate<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<GrantKey, Response<ResponseBody>>> {
        Box::pin(async move {
            // Taken before the look-up: a later end of the grant reaches the registry later.
            let checked = AuthenticatedAt(Instant::now());
            let caller = self.server.authenticate(&parts.headers).await?;
            parts.extensions.insert(checked);
            let caller = self.session_caller(&caller);
            let grant = GrantKey(Arc::clone(&caller.grant.0));
            parts.extensions.insert(caller);
            Ok(grant)
        })
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(self.server.serve(request))
    }
}

/// The grant that a session is bound to.
pub(super) fn grant_id(grant: &oauth::ids::GrantId) -> GrantId {
    GrantId(Arc::from(grant.0.as_str()))
}

/// The user of a session, by Forgejo's numeric id: logins can change.
pub(super) fn user_id(user: oauth::ids::UserId) -> UserId {
    UserId(Arc::from(user.to_string()))
}
