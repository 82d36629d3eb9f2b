//! From Forgejo's code to the broker's: the part of a sign-in that has to come to its end.
//!
//! Whatever the sign-in comes to, the pair that the exchange has yielded is kept if the user has an account: it has
//! killed the refresh token that earlier grants live on.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::super::ServerState;
use crate::{
    code_exchanges::ExchangePermit,
    ids::{ExchangeId, GrantId, UserId},
    ports::{GrantedScope, StoreError, UpstreamError, UpstreamTokens, UpstreamUser},
    records::{ClientRequest, CodeRecord, GrantRecord, Purpose},
    secret,
};

/// What a sign-in has come to.
pub(super) enum CompletedSignIn {
    /// A code for the client.
    Code {
        code: SecretString,
        user: UserId,
        request: ClientRequest,
    },
    /// Somebody who wants to see their connections.
    User { user: UserId, login: String },
}

/// Why a sign-in came to nothing.
pub(super) enum SignInError {
    /// Forgejo sent the browser back without a code.
    AtForgejo { denied: bool },
    /// The user may not use this server. Without a login: Forgejo has locked them out.
    NotAllowed { login: Option<String> },
    /// What the user has granted at Forgejo is not what this server asks for.
    OtherScope { granted: Vec<String> },
    /// The approval that the browser remembered is not this user's, or not good any more.
    AskAgain,
    /// Forgejo could not be asked; a later try may succeed.
    Passing(UpstreamError),
    /// Forgejo refused, or refuses the broker itself.
    Refused(UpstreamError),
    /// The store cannot be used.
    Store(StoreError),
}

/// Finishes a sign-in. The slot is held until it is done.
pub(super) async fn finish(
    inner: Arc<ServerState>,
    _permit: ExchangePermit,
    purpose: Purpose,
    code: SecretString,
    verifier: SecretString,
) -> Result<CompletedSignIn, SignInError> {
    let finished = async |exchange| finish_exchange(&inner, exchange, purpose, code, verifier).await;
    inner.code_exchanges.run(finished).await
}

async fn finish_exchange(
    inner: &ServerState,
    exchange: ExchangeId,
    purpose: Purpose,
    code: SecretString,
    verifier: SecretString,
) -> Result<CompletedSignIn, SignInError> {
    let pair = inner.upstream.exchange(&code, &verifier, &inner.callback_uri()).await;
    let pair = pair.map_err(SignInError::upstream)?;
    // Asking again is harmless, and the pair would be lost without an answer.
    let user = match inner.upstream.user(&pair.access_token).await {
        Err(UpstreamError::Unavailable(_)) => inner.upstream.user(&pair.access_token).await,
        outcome => outcome,
    };
    let user = match user {
        // The token has just been made, so that it is the user who is refused.
        Err(UpstreamError::Refused(_)) => return Err(SignInError::NotAllowed { login: None }),
        outcome => outcome.map_err(SignInError::upstream)?,
    };
    match judge(inner, &purpose, &pair, &user).await {
        Ok(()) => {}
        Err(failure @ SignInError::NotAllowed { .. }) => {
            tracing::warn!(user = user.id.0, login = user.login, "the user may not use this server");
            // Whoever may not sign in may not go on with an earlier sign-in either.
            inner.revocations.end_user(user.id).await.map_err(SignInError::Store)?;
            return Err(failure);
        }
        Err(failure) => {
            inner.code_exchanges.place(exchange, user.id, pair, None).await?;
            return Err(failure);
        }
    }
    match purpose {
        Purpose::Connections => {
            inner.code_exchanges.place(exchange, user.id, pair, None).await?;
            Ok(CompletedSignIn::User {
                user: user.id,
                login: user.login,
            })
        }
        Purpose::Client(request) => {
            let code = secret::mint(secret::CODE);
            let grant = new_grant(inner, &request, &user, &code);
            inner.code_exchanges.place(exchange, user.id, pair, Some(grant)).await?;
            Ok(CompletedSignIn::Code {
                code,
                user: user.id,
                request,
            })
        }
    }
}

/// Whether the sign-in may come to what it is for.
async fn judge(
    inner: &ServerState,
    purpose: &Purpose,
    pair: &UpstreamTokens,
    user: &UpstreamUser,
) -> Result<(), SignInError> {
    if !is_allowed(inner, pair, user).await.map_err(SignInError::upstream)? {
        return Err(SignInError::NotAllowed {
            login: Some(user.login.clone()),
        });
    }
    let Purpose::Client(request) = purpose else {
        return Ok(());
    };
    if let Some(approver) = request.approved_by {
        let grants = inner.grants.grants_of_user(user.id).await.map_err(SignInError::Store)?;
        let goes_on = grants
            .iter()
            .any(|summary| summary.grant.client_id == request.client_id);
        if approver != user.id || !goes_on {
            tracing::info!(
                user = user.id.0,
                client = request.client_id.0,
                "a remembered approval does not count: the user is asked"
            );
            return Err(SignInError::AskAgain);
        }
    }
    let scope = inner.upstream.granted_scope(&pair.access_token).await;
    match scope.map_err(SignInError::upstream)? {
        GrantedScope::AsAsked => Ok(()),
        GrantedScope::Unknown => {
            tracing::warn!("Forgejo does not tell which scope a token has: it is taken to be the one asked for");
            Ok(())
        }
        GrantedScope::Other(granted) => {
            tracing::warn!(
                user = user.id.0,
                "the user's grant at Forgejo has another scope than the one asked for"
            );
            Err(SignInError::OtherScope { granted })
        }
    }
}

/// Whether a user may use this server: let in by Forgejo, and by one of the two lists unless both are empty.
async fn is_allowed(inner: &ServerState, pair: &UpstreamTokens, user: &UpstreamUser) -> Result<bool, UpstreamError> {
    let settings = &inner.settings;
    if !user.active {
        return Ok(false);
    }
    if (settings.allowed_users.is_empty() && settings.allowed_orgs.is_empty()) || inner.is_listed(&user.login) {
        return Ok(true);
    }
    for organization in &settings.allowed_orgs {
        if inner
            .upstream
            .is_member(&pair.access_token, organization, &user.login)
            .await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn new_grant(
    inner: &ServerState,
    request: &ClientRequest,
    user: &UpstreamUser,
    code: &SecretString,
) -> (GrantRecord, CodeRecord) {
    let grant = GrantRecord {
        id: GrantId(secret::name("grant_")),
        user: user.id,
        login: user.login.clone(),
        client_id: request.client_id.clone(),
        scope: request.scope.clone(),
    };
    let code = CodeRecord {
        code: secret::hash(code.expose_secret()),
        grant: grant.id.clone(),
        user: user.id,
        client_id: request.client_id.clone(),
        redirect_uri: request.redirect_uri.clone(),
        code_challenge: request.code_challenge.clone(),
        expires_at: inner.clock.now() + inner.settings.code_ttl,
    };
    (grant, code)
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl SignInError {
    fn upstream(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_) => Self::Passing(error),
            UpstreamError::Refused(_) | UpstreamError::Misconfigured(_) => Self::Refused(error),
        }
    }
}
