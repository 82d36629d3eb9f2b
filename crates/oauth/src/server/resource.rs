//! The `resource` of a request (RFC 8707 section 2). A server may refuse several (section 2,
//! `invalid_target`), and this one has a single resource.

use super::params::{Params, RESOURCE};
use crate::config::Settings;

/// Returns whether a request is for the resource of this server: it names that one, once, or none.
pub(super) fn is_own(settings: &Settings, params: &Params) -> bool {
    !params.is_repeated(RESOURCE) && settings.is_resource(params.value(RESOURCE))
}
