//! A switch for end-to-end tests: the end of access tokens.
//!
//! Access tokens are accepted for a minute beyond their `expires_in`. Only a program that is built
//! with the feature `testing` has [`TEST_GRACE`], with which tests do not wait that minute.
//! Released programs are built without the feature, and nothing at run time can enable it.

use anyhow::Result;

/// The variable with the time, in seconds, for which access tokens are accepted beyond their
/// `expires_in`.
#[cfg(feature = "testing")]
const TEST_GRACE: &str = "FORGEJO_MCP_BROKER_TEST_GRACE";

#[cfg(feature = "testing")]
pub(super) fn apply(mut config: oauth::Config) -> Result<oauth::Config> {
    use anyhow::Context as _;

    if let Some(seconds) = std::env::var_os(TEST_GRACE) {
        let seconds = seconds.to_str().and_then(|seconds| seconds.parse().ok());
        let seconds = seconds.with_context(|| format!("{TEST_GRACE} must be a number of seconds"))?;
        config.access_token_grace = std::time::Duration::from_secs(seconds);
        tracing::warn!(seconds, "access tokens have the grace of a test");
    }
    Ok(config)
}

#[cfg(not(feature = "testing"))]
pub(super) fn apply(config: oauth::Config) -> Result<oauth::Config> {
    Ok(config)
}
