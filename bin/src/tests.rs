//! Unit tests that span modules.

mod documents;
