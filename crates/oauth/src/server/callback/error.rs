//! A sign-in that failed: the page for the user, or the error response to the client.

use http::Response;

use crate::{
    ports::{StoreError, UpstreamError},
    records::Purpose,
    server::{
        Body, authorization_response, authorize,
        oauth_error::log_store_error,
        pages::{self, ErrorPage},
        response,
        state::ServerState,
    },
};

/// The reason why a sign-in failed.
pub(super) enum SignInError {
    /// Forgejo sent the browser back without a code.
    Forgejo { denied: bool },
    /// The user may not use this server. `login` is absent if Forgejo has locked the user out.
    NotAllowed { login: Option<String> },
    /// The user's grant at Forgejo has another scope than this server needs.
    ScopeMismatch { granted: Vec<String> },
    /// The remembered approval is another user's, or no longer valid.
    ApprovalInvalid,
    /// Forgejo or the store has not answered in time; the sign-in goes on without the browser.
    TooSlow,
    /// Forgejo is not available; a later sign-in may succeed.
    UpstreamUnavailable(UpstreamError),
    /// Forgejo refused the user, or the broker itself.
    UpstreamRefused(UpstreamError),
    /// The store failed.
    Store(StoreError),
}

impl SignInError {
    /// Converts a failed sign-in to HTTP; no other place does.
    pub(super) fn into_response(self, state: &ServerState, purpose: &Purpose) -> Response<Body> {
        let request = match purpose {
            Purpose::Client(request) => Some(request),
            Purpose::Connections => None,
        };
        let error_location = |error| {
            request.map(|request| authorization_response::error_location(state.settings.issuer(), request, error))
        };
        let restart_uri = || match request {
            Some(request) => authorize::restart_uri(&state.settings, request),
            None => state.settings.endpoint("connections"),
        };
        let refused = |error, description| (error, description, ErrorPage::UpstreamRefused);
        let (error, description, page) = match self {
            Self::NotAllowed { login } => {
                let back = error_location(("access_denied", "the user may not use this server"));
                return pages::access_denied(state.upstream.name(), login.as_deref(), back.as_deref());
            }
            Self::ScopeMismatch { granted } => {
                return pages::scope_mismatch(&*state.upstream, granted, &restart_uri());
            }
            Self::ApprovalInvalid => return response::see_other(&restart_uri()),
            Self::Forgejo { denied: true } => refused("access_denied", "the user declined at Forgejo"),
            Self::Forgejo { denied: false } => refused("server_error", "Forgejo refused the authorization"),
            Self::TooSlow => {
                tracing::warn!("sign-in not answered in time: Forgejo or the store is slow or not available");
                let description = "Forgejo is not available now";
                ("temporarily_unavailable", description, ErrorPage::UpstreamUnavailable)
            }
            Self::UpstreamUnavailable(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "sign-in failed for now: Forgejo is not available");
                let description = "Forgejo is not available now";
                ("temporarily_unavailable", description, ErrorPage::UpstreamUnavailable)
            }
            Self::UpstreamRefused(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "sign-in failed: Forgejo refused the code or the broker's client credentials: check [forgejo]"
                );
                refused("server_error", "Forgejo refused the sign-in")
            }
            Self::Store(error) => {
                log_store_error(&error);
                ("temporarily_unavailable", "try again in a moment", ErrorPage::Store)
            }
        };
        match error_location((error, description)) {
            Some(location) => response::see_other(&location),
            None => page.into_response(),
        }
    }
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<UpstreamError> for SignInError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Busy { .. } | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_) => {
                Self::UpstreamUnavailable(error)
            }
            UpstreamError::LockedOut(_) => Self::NotAllowed { login: None },
            UpstreamError::Refused(_) | UpstreamError::Unconfirmed(_) | UpstreamError::Misconfigured(_) => {
                Self::UpstreamRefused(error)
            }
        }
    }
}
