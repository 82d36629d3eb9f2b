//! When access tokens end.
//!
//! They are honoured for a minute longer than their clients are told. Only a program that was built with the feature
//! `testing` knows [`TEST_GRACE`]: there, end-to-end tests see clients meet the end of their tokens without a wait of a
//! minute for each. A program that is released is built without it, and nothing at run time can switch it on.

use anyhow::Result;

/// The variable that says how many seconds longer access tokens are honoured.
#[cfg(feature = "testing")]
const TEST_GRACE: &str = "FORGEJO_MCP_BROKER_TEST_GRACE";

#[cfg(feature = "testing")]
pub(super) fn exact_in_tests(mut config: oauth::Config) -> Result<oauth::Config> {
    use anyhow::Context as _;

    if let Some(seconds) = std::env::var_os(TEST_GRACE) {
        let seconds = seconds.to_str().and_then(|seconds| seconds.parse().ok());
        let seconds = seconds.context("the grace of tests is a number of seconds")?;
        config.access_token_grace = std::time::Duration::from_secs(seconds);
        tracing::warn!(seconds, "access tokens end as a test wants it");
    }
    Ok(config)
}

#[cfg(not(feature = "testing"))]
pub(super) fn exact_in_tests(config: oauth::Config) -> Result<oauth::Config> {
    Ok(config)
}
