//! Settings of the randomized tests: environment variables with numbers, and seeds.

use std::time::UNIX_EPOCH;

/// The number in an environment variable, or the default.
pub(crate) fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

/// The seed in an environment variable, or one from the clock.
pub(crate) fn env_seed(name: &str) -> u64 {
    let since_epoch = UNIX_EPOCH.elapsed().unwrap_or_default();
    env_number(name, u64::from(since_epoch.subsec_nanos()))
}
