//! *Your connections*: a user sees the clients that have a grant, and ends any of the grants.
//!
//! The user signs in at Forgejo as for a client (state, PKCE, the browser's cookie), but gets a
//! [`BrowserSession`] instead of a code. It allows nothing but this page. Changes are POST requests
//! with a CSRF token over the browser and the session.

mod date;
mod page;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use url::Url;

use super::{
    Body,
    browser_session::BrowserSession,
    client_lookup,
    cookie::BrowserId,
    csrf,
    pages::{self, ErrorPage, UNNAMED_CLIENT},
    params::Params,
    response, sign_in,
    state::ServerState,
};
use crate::{
    cimd,
    ids::{GrantId, UserId},
    ports::StoreError,
    records::Purpose,
};
use page::{Connection, ConnectionsPage, SignInPage};

/// The purpose of the CSRF token in the forms of the page.
const FORM: &str = "connections form";

/// `GET`: shows the page, or the way to sign in for it.
pub(super) async fn show(state: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    let secure = state.settings.secure;
    let browser = BrowserId::from_headers(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    let session = BrowserSession::from_request(state, request.headers(), &browser);
    let csrf = csrf::token(&state.sealer, FORM, &csrf_parts(&browser, session.as_ref()));
    let action = state.settings.endpoint("connections");
    let upstream = state.upstream.name();
    let csrf = &csrf;
    let response = match session {
        None => pages::html(StatusCode::OK, &SignInPage { upstream, action, csrf }),
        Some(session) => match connections(state, session.user).await {
            Ok(rows) => {
                let page = ConnectionsPage {
                    upstream,
                    settings: state.upstream.settings_url().into(),
                    login: &session.login,
                    action,
                    csrf,
                    ended: request.uri().query() == Some("ended"),
                    rows,
                };
                pages::html(StatusCode::OK, &page)
            }
            Err(error) => ErrorPage::from(error).into_response(),
        },
    };
    response::with_cookie(response, browser.set_cookie(secure))
}

/// `POST`: the user signs in or out, or ends grants.
pub(super) async fn act(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, ErrorPage> {
    if !csrf::is_same_origin(&state.settings.origin, request.headers()) {
        return Err(ErrorPage::OtherSite);
    }
    let params = Params::from_form(request, &["action", "grant", csrf::FIELD])?;
    let secure = state.settings.secure;
    let browser = BrowserId::from_headers(request.headers(), secure).ok_or(ErrorPage::OtherBrowser)?;
    let session = BrowserSession::from_request(state, request.headers(), &browser);
    if !csrf::verify(&state.sealer, FORM, &csrf_parts(&browser, session.as_ref()), &params) {
        return Err(ErrorPage::OldPage);
    }
    let page = state.settings.endpoint("connections");
    match (params.value("action"), session) {
        (Some("sign-in"), _) => return sign_in::begin(state, &browser, Purpose::Connections).await,
        (Some("sign-out"), _) => {
            let response = response::see_other(&page);
            return Ok(response::with_cookie(response, BrowserSession::clear_cookie(secure)));
        }
        (Some("end"), Some(session)) => {
            let grant = params.value("grant").unwrap_or_default();
            end_grant(state, session.user, &GrantId(grant.to_owned())).await?;
        }
        (Some("end-all"), Some(session)) => {
            state.revocations.end_user(session.user).await?;
            tracing::info!(user = session.user.0, "all grants ended by their user");
        }
        // The session expired after the page was made. The page asks the user to sign in.
        (Some("end" | "end-all"), None) => return Ok(response::see_other(&page)),
        (Some(_) | None, _) => return Err(ErrorPage::BadRequest),
    }
    Ok(response::see_other(&format!("{page}?ended")))
}

/// Ends a grant of the user. An unknown grant or that of another user is ignored.
async fn end_grant(state: &ServerState, user: UserId, grant: &GrantId) -> Result<(), StoreError> {
    let grants = state.grants.grants_of_user(user).await?;
    if grants.iter().any(|summary| summary.grant.id == *grant) {
        state.revocations.end_grant(grant.clone()).await?;
        tracing::info!(user = user.0, grant = grant.0, "grant ended by its user");
    }
    Ok(())
}

async fn connections(state: &ServerState, user: UserId) -> Result<Vec<Connection>, StoreError> {
    let mut connections = Vec::new();
    for summary in state.grants.grants_of_user(user).await? {
        let grant = summary.grant;
        let client = client_lookup::find_cached(state, &grant.client_id).await?;
        let (name, domain) = client.map_or((None, None), |client| (client.name, client.domain));
        // The identifier of a client with a document is its URL, which was fetched at consent.
        let document = Url::parse(&grant.client_id.0)
            .ok()
            .filter(|_| cimd::is_url(&grant.client_id.0));
        let document_domain = || Some(document?.host_str()?.to_owned());
        connections.push(Connection {
            name: name.unwrap_or_else(|| UNNAMED_CLIENT.to_owned()),
            domain: domain.or_else(document_domain),
            granted: summary.created_at.into(),
            used: summary.last_used_at.into(),
            sessions: state.events.sessions(&grant.id),
            grant: grant.id,
        });
    }
    Ok(connections)
}

/// The parts that the CSRF token covers.
fn csrf_parts<'a>(browser: &'a BrowserId, session: Option<&'a BrowserSession>) -> [&'a str; 2] {
    [browser.as_str(), session.map_or("", |session| session.login.as_str())]
}
