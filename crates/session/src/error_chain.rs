//! The text of an error for the log.

use std::{error::Error, iter};

/// An error with its causes.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let chain = iter::successors(Some(error), |error| (*error).source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
