//! The Landlock rules of a child: files and ports, each as far as requested.

use std::io;
use std::os::fd::OwnedFd;

use landlock::Ruleset;

use super::Isolation;
use super::file_rules::{ChildPaths, FileRules};
use super::network_rules::NetworkRules;

/// The rules of all children.
#[derive(Clone, Debug)]
pub(super) struct LandlockRules {
    files: Option<FileRules>,
    network: Option<NetworkRules>,
}

/// The rules of one child, for [`enforce_ruleset`](super::setup::enforce_ruleset).
#[derive(Debug)]
pub(crate) struct ChildRuleset {
    pub(super) descriptor: OwnedFd,
    /// True if it restricts files: the child's own directory in `/proc` is still to be allowed.
    pub(super) files: bool,
}

impl LandlockRules {
    /// The requested rules, or `None` without any.
    pub(super) fn new(isolation: &Isolation) -> Option<Self> {
        let rules = Self {
            files: isolation
                .landlock
                .then(|| FileRules::new(&isolation.readable, &isolation.writable)),
            network: isolation.network.then(|| NetworkRules::new(&isolation.connect_ports)),
        };
        (isolation.landlock || isolation.network).then_some(rules)
    }

    /// A ruleset for one child, or `None` if the kernel supports none of the rules.
    pub(super) fn ruleset(&self, child: &ChildPaths<'_>) -> io::Result<Option<ChildRuleset>> {
        let mut ruleset = Ruleset::default();
        if self.files.is_some() {
            ruleset = FileRules::deny_all(ruleset).map_err(io::Error::other)?;
        }
        if self.network.is_some() {
            ruleset = NetworkRules::deny_all(ruleset).map_err(io::Error::other)?;
        }
        let mut ruleset = ruleset.create().map_err(io::Error::other)?;
        if let Some(files) = &self.files {
            ruleset = files.allow(ruleset, child)?;
        }
        if let Some(network) = &self.network {
            ruleset = network.allow(ruleset).map_err(io::Error::other)?;
        }
        let files = self.files.is_some();
        let descriptor: Option<OwnedFd> = ruleset.into();
        Ok(descriptor.map(|descriptor| ChildRuleset { descriptor, files }))
    }
}
