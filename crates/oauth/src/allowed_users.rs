//! The decision whether a user of the upstream may use this server. It is made at each sign-in and
//! at each renewal of the account, with the login and the organizations that the user has then.

use std::sync::Arc;

use secrecy::SecretString;

use crate::{
    config::Settings,
    ports::{Upstream, UpstreamError, UpstreamUser},
};

/// The allow-lists of users and organizations.
#[derive(Debug)]
pub(crate) struct AllowedUsers {
    settings: Arc<Settings>,
    upstream: Arc<dyn Upstream>,
}

impl AllowedUsers {
    pub(crate) fn new(settings: Arc<Settings>, upstream: Arc<dyn Upstream>) -> Self {
        Self { settings, upstream }
    }

    /// Returns whether a user, whose access token this is, may use this server: active at the
    /// upstream, and on one of the two allow-lists unless both are empty.
    ///
    /// # Errors
    ///
    /// Any [`UpstreamError`] of a lookup of members.
    pub(crate) async fn allows(&self, access_token: &SecretString, user: &UpstreamUser) -> Result<bool, UpstreamError> {
        if !user.active {
            return Ok(false);
        }
        if self.settings.allows_everyone() || self.settings.lists_user(&user.login) {
            return Ok(true);
        }
        for organization in &self.settings.config.allowed_orgs {
            if self.upstream.is_member(access_token, organization, &user.login).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
