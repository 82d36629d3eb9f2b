//! `broker`'s authority: `oauth`'s authorization server, whose callers become `session`'s callers.

use std::sync::Arc;

use broker::ports::{Authority, BoxFuture, ResponseBody};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use oauth::AuthorizationServer;
use session::ports::{AuthenticatedAt, Caller, ClientId, GrantId, UserId};
use tokio::time::Instant;

use super::credentials::AccountCredentials;

/// The authorization server as the authority of the HTTP layer.
#[derive(Clone, Debug)]
pub struct OAuthAuthority(pub AuthorizationServer);

impl Authority for OAuthAuthority {
    fn authenticate<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Response<ResponseBody>>> {
        Box::pin(async move {
            // Taken before the look-up: a later end of the grant reaches the registry later.
            let checked = AuthenticatedAt(Instant::now());
            let caller = self.0.authenticate(&parts.headers).await?;
            parts.extensions.insert(checked);
            parts.extensions.insert(Arc::new(session_caller(&caller)));
            Ok(())
        })
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(self.0.serve(request))
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

fn session_caller(caller: &oauth::Caller) -> Caller {
    Caller {
        grant: grant_id(caller.grant()),
        user: user_id(caller.user()),
        client: ClientId(Arc::from(caller.client().0.as_str())),
        credentials: Arc::new(AccountCredentials(caller.account())),
    }
}
