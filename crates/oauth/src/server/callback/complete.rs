//! The completion of a sign-in, from Forgejo's code to the broker's code or a browser session. It
//! must run to its end.
//!
//! The exchange has invalidated the refresh token on which earlier grants live. If the user has an
//! account, the new tokens are therefore stored even if the sign-in itself fails.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::error::SignInError;
use crate::{
    ids::{ExchangeId, GrantId, UserId},
    ports::{GrantStore, GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser},
    records::{ClientRequest, CodeRecord, GrantRecord, Purpose},
    secret,
    server::{browser_session::BrowserSession, state::ServerState},
};

/// The waits between requests for the user of new tokens. Each doubles the one before.
const FIRST_USER_RETRY: Duration = Duration::from_millis(200);
const LAST_USER_RETRY: Duration = Duration::from_secs(10);

/// The result of a sign-in.
pub(super) enum CompletedSignIn {
    /// A code for the client.
    Code {
        code: SecretString,
        user: UserId,
        request: ClientRequest,
    },
    /// A session for *Your connections*.
    Session(BrowserSession),
}

/// Completes a sign-in.
pub(super) async fn complete(
    state: &ServerState,
    exchange: ExchangeId,
    purpose: Purpose,
    code: SecretString,
    verifier: SecretString,
) -> Result<CompletedSignIn, SignInError> {
    let upstream = &*state.upstream;
    let callback = state.settings.endpoint("callback");
    let tokens = upstream.exchange(&code, &verifier, &callback).await?;
    let user = match fetch_user(upstream, &tokens).await {
        Err(UpstreamError::LockedOut(_)) => return Err(SignInError::NotAllowed { login: None }),
        outcome => outcome?,
    };
    let checked = match check_sign_in(state, &purpose, &tokens, &user).await {
        Err(error @ SignInError::NotAllowed { .. }) => {
            tracing::warn!(
                user = user.id.0,
                login = user.login,
                "sign-in refused, all grants of the user ended: the user is locked out at Forgejo or on no allow-list \
                 (forgejo.allowed_users, forgejo.allowed_orgs)"
            );
            // The user's earlier sign-ins must not continue either.
            state.revocations.end_user(user.id).await?;
            return Err(error);
        }
        checked => checked,
    };
    let id = user.id;
    let (grant, completed) = match (checked, purpose) {
        (Err(error), _) => (None, Err(error)),
        (Ok(()), Purpose::Connections) => {
            let login = user.login;
            (None, Ok(CompletedSignIn::Session(BrowserSession { user: id, login })))
        }
        (Ok(()), Purpose::Client(request)) => {
            let code = secret::mint(secret::CODE);
            let record = code_record(state, &request, user, &code);
            let completed = CompletedSignIn::Code {
                code,
                user: id,
                request,
            };
            (Some(record), Ok(completed))
        }
    };
    state
        .code_exchanges
        .store_sign_in_tokens(exchange, id, tokens, grant)
        .await;
    completed
}

/// Asks for the user of new tokens for as long as they live: without an answer they would be lost,
/// and with them the user's earlier access.
async fn fetch_user(upstream: &dyn Upstream, tokens: &UpstreamTokens) -> Result<UpstreamUser, UpstreamError> {
    let end = Instant::now() + tokens.expires_in;
    let mut wait = FIRST_USER_RETRY;
    loop {
        match upstream.user(&tokens.access_token).await {
            Err(
                error @ (UpstreamError::Busy { .. } | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_)),
            ) if Instant::now() + wait < end => {
                if wait == FIRST_USER_RETRY {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "Forgejo does not tell who has signed in: asked again until it does"
                    );
                }
            }
            outcome => return outcome,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_USER_RETRY);
    }
}

/// Checks the user against the allow-lists and, for a client, the remembered approval and the scope
/// of the grant at Forgejo.
async fn check_sign_in(
    state: &ServerState,
    purpose: &Purpose,
    tokens: &UpstreamTokens,
    user: &UpstreamUser,
) -> Result<(), SignInError> {
    if !state.allowed_users.allows(&tokens.access_token, user).await? {
        let login = Some(user.login.clone());
        return Err(SignInError::NotAllowed { login });
    }
    if let Purpose::Client(request) = purpose {
        check_approval(&*state.grants, request, user.id).await?;
        check_scope(&*state.upstream, tokens, user.id).await?;
    }
    Ok(())
}

async fn check_approval(grants: &dyn GrantStore, request: &ClientRequest, user: UserId) -> Result<(), SignInError> {
    let Some(approver) = request.approved_by else {
        return Ok(());
    };
    let grants = grants.grants_of_user(user).await?;
    let mut clients = grants.iter().map(|summary| &summary.grant.client_id);
    if approver == user && clients.any(|client_id| *client_id == request.client_id) {
        return Ok(());
    }
    tracing::info!(
        user = user.0,
        client = request.client_id.0,
        "remembered approval is not valid: asking the user"
    );
    Err(SignInError::ApprovalInvalid)
}

async fn check_scope(upstream: &dyn Upstream, tokens: &UpstreamTokens, user: UserId) -> Result<(), SignInError> {
    match upstream.granted_scope(&tokens.access_token).await? {
        GrantedScope::AsRequested => Ok(()),
        GrantedScope::Unknown => {
            tracing::warn!(
                user = user.0,
                "scope of a new token not checked, since Forgejo does not report it: if tools are refused, the user \
                 must revoke the grant at Forgejo and sign in again"
            );
            Ok(())
        }
        GrantedScope::Other(granted) => {
            tracing::warn!(
                user = user.0,
                "sign-in refused: the user's grant at Forgejo has another scope than forgejo.scopes; the user \
                 must revoke it there"
            );
            Err(SignInError::ScopeMismatch { granted })
        }
    }
}

/// A code for the client, under a new grant.
fn code_record(state: &ServerState, request: &ClientRequest, user: UpstreamUser, code: &SecretString) -> CodeRecord {
    CodeRecord {
        code: secret::hash(code.expose_secret()),
        grant: GrantRecord {
            id: GrantId(secret::name("grant_")),
            user: user.id,
            login: user.login,
            client_id: request.client_id.clone(),
            scope: request.scope.clone(),
        },
        redirect_uri: request.redirect_uri.clone(),
        code_challenge: request.code_challenge.clone(),
        expires_at: state.clock.now() + state.settings.config.code_ttl,
    }
}
