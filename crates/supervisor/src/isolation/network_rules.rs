//! Landlock rules for the TCP ports to which a child may connect (landlock(7), Linux 6.7).
//!
//! The rules are an allow-list of ports, whatever the host. A child binds no port. Left out, since
//! Landlock does not restrict them here: UDP, and a socket that listens without a bind, at a port
//! that the kernel chooses. The filter of system calls denies the protocols that reach TCP servers
//! past these rules.

use landlock::{
    ABI, Access, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError,
};

/// The version of Landlock that introduced them.
const VERSION: ABI = ABI::V4;

/// The ports to which children may connect.
#[derive(Clone, Debug)]
pub(super) struct NetworkRules {
    ports: Vec<u16>,
}

impl NetworkRules {
    pub(super) fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec() }
    }

    /// Makes a ruleset deny all ports.
    pub(super) fn deny_all(ruleset: Ruleset) -> Result<Ruleset, RulesetError> {
        ruleset.handle_access(AccessNet::from_all(VERSION))
    }

    /// Adds the allowed ports.
    pub(super) fn allow(&self, ruleset: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
        let add = |ruleset: RulesetCreated, port: &u16| ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp));
        self.ports.iter().try_fold(ruleset, add)
    }

    /// Returns true if the kernel can restrict ports. Creates a ruleset, which restricts nothing.
    pub(super) fn are_supported() -> bool {
        let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        Self::deny_all(strict).and_then(Ruleset::create).is_ok()
    }
}
