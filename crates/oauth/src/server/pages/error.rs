//! The page for a user who cannot be sent on.

use http::{HeaderValue, Response, StatusCode as S, header};

use super::{html, message::Message};
use crate::{
    ports::StoreError,
    server::{Body, oauth_error::log_store_error, params::ParamsError, response::with_header},
};

/// An error that the user sees as a page.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) enum ErrorPage {
    BadRequest,
    UnknownClient,
    UnknownRedirectUri,
    /// The page was made for another browser, or the browser's cookie is gone.
    OtherBrowser,
    /// A page of another site sent the form.
    OtherSite,
    /// The user signed in or out after the page was made.
    OldPage,
    /// The sign-in is unknown, has expired or was completed before.
    SignInOver,
    TooManySignIns,
    /// The operator has blocked the client.
    ClientBlocked,
    /// The identifier of the client is a URL, and no client may be described by a document here.
    DocumentsNotAccepted,
    /// The document of the client cannot be read now.
    ClientUnavailable,
    Store,
    UpstreamUnavailable,
    /// Forgejo refused the sign-in, or the user declined it there.
    UpstreamRefused,
}

impl ErrorPage {
    pub(in crate::server) fn into_response(self) -> Response<Body> {
        let (status, title, text) = self.content();
        let page = Message {
            title,
            text,
            ..Message::default()
        };
        let response = html(status, &page);
        if status == S::SERVICE_UNAVAILABLE {
            return with_header(response, header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }

    /// The status, the title and the text.
    fn content(self) -> (S, &'static str, &'static str) {
        match self {
            Self::BadRequest => (
                S::BAD_REQUEST,
                "Invalid link",
                "The application sent a request that this server cannot read. Try again from the application.",
            ),
            Self::UnknownClient => (
                S::BAD_REQUEST,
                "Unknown application",
                "This server does not know the application that sent you here. Remove the connection in the application \
                 and add it again, so that the application registers again.",
            ),
            Self::UnknownRedirectUri => (
                S::BAD_REQUEST,
                "Unknown return address",
                "The application asked this server to send you back to an address that it has not registered. For your \
                 safety you stay here. If you know the application, remove the connection in it and add it again.",
            ),
            Self::OtherBrowser => (
                S::FORBIDDEN,
                "This page belongs to another browser",
                "The sign-in began in another browser, or this browser has no cookie of it. Start again from the \
                 application, in a browser that accepts cookies.",
            ),
            Self::OtherSite => (
                S::FORBIDDEN,
                "This request came from another site",
                "Another site tried to act on your behalf. Nothing was changed. Start again from the application.",
            ),
            Self::OldPage => (
                S::FORBIDDEN,
                "This page is out of date",
                "You have signed in or out since the page was opened, or it belongs to another browser. Load it again.",
            ),
            Self::SignInOver => (
                S::BAD_REQUEST,
                "This sign-in is over",
                "It was completed before, or it took longer than ten minutes. Start again from the application.",
            ),
            Self::TooManySignIns => (
                S::SERVICE_UNAVAILABLE,
                "Too many sign-ins",
                "Too many sign-ins are in progress. Try again in a few minutes.",
            ),
            Self::ClientBlocked => (
                S::FORBIDDEN,
                "This application is blocked",
                "The operator of this server has blocked the application that sent you here.",
            ),
            Self::DocumentsNotAccepted => (
                S::BAD_REQUEST,
                "This kind of application is not accepted",
                "The application names itself by the address of a document about it (client ID metadata document). This \
                 server accepts only applications that register or that its operator knows. If the application can \
                 register, remove the connection in it and add it again; else ask the operator of this server.",
            ),
            Self::ClientUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "The application cannot be looked up",
                "The application publishes a description of itself that cannot be read now. Try again in a moment.",
            ),
            Self::Store => (
                S::SERVICE_UNAVAILABLE,
                "Not available now",
                "This server has a problem. Try again in a moment.",
            ),
            Self::UpstreamUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "Not available now",
                "Forgejo is not available now. Try again in a moment.",
            ),
            Self::UpstreamRefused => (
                S::FORBIDDEN,
                "You are not signed in",
                "Forgejo refused the sign-in, or you declined it there.",
            ),
        }
    }
}

impl From<ParamsError> for ErrorPage {
    fn from(_: ParamsError) -> Self {
        Self::BadRequest
    }
}

impl From<StoreError> for ErrorPage {
    fn from(error: StoreError) -> Self {
        log_store_error(&error);
        Self::Store
    }
}
