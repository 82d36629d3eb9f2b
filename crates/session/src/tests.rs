//! Unit tests of more than one module, and the scheduler that they run under.

pub(crate) mod permutations;
pub(crate) mod scheduled;
