//! The errors of an authorization request.
//!
//! Until client and redirect URI are known to belong together, the user sees the error; from then
//! on it goes to the client (RFC 6749 section 4.1.2.1). Anyone can register a client. An error
//! therefore leads by a link to an address that is neither on this device nor in the configuration,
//! so that this server redirects to no stranger's address before the user has decided anything (RFC
//! 9700 section 4.11.2).

use http::Response;

use crate::server::{
    Body,
    pages::{self, ErrorPage},
    response,
};

/// The reason why an authorization request is refused.
pub(in crate::server) enum AuthorizeError {
    /// The user sees it, since the client is not known.
    Page(ErrorPage),
    /// The client gets it.
    Client {
        /// The address of the error response.
        location: String,
        description: &'static str,
        /// The browser is redirected there. Else the user sees a link.
        redirect: bool,
    },
}

impl AuthorizeError {
    pub(in crate::server) fn into_response(self) -> Response<Body> {
        match self {
            Self::Page(page) => page.into_response(),
            Self::Client {
                location,
                redirect: true,
                ..
            } => response::see_other(&location),
            Self::Client {
                location, description, ..
            } => pages::invalid_request(description, &location),
        }
    }
}

impl From<ErrorPage> for AuthorizeError {
    fn from(page: ErrorPage) -> Self {
        Self::Page(page)
    }
}
