//! Faults that a test turns on and off while the server runs.
//!
//! A fault belongs to a path prefix, and to the next so many requests below it or to all of them until it is cleared.
//! Faults of several kinds add up: a request can be slow and fail. Of several faults of one kind the oldest is used up
//! first.

use std::time::Duration;

use http::StatusCode;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status and a line of text; it has no effect.
    Status(StatusCode),
    /// The request waits so long before anything else happens to it. Who gives up in the meantime has taken it back: it
    /// then has no effect.
    Delay(Duration),
    /// The connection closes without an answer, and the request had no effect.
    DropBefore,
    /// The request takes full effect, then the connection closes without an answer: a lost response.
    DropAfter,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The next so many requests below the prefix.
    Next(u32),
    /// All requests below the prefix, until the faults are cleared.
    UntilCleared,
}

/// The faults that are turned on.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Rule>);

/// What the faults make of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) delay: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    pub(super) drop_before: bool,
    pub(super) drop_after: bool,
}

#[derive(Debug)]
struct Rule {
    prefix: String,
    fault: Fault,
    times: Times,
}

impl Faults {
    pub(super) fn inject(&mut self, prefix: &str, fault: Fault, times: Times) {
        self.0.push(Rule {
            prefix: prefix.to_owned(),
            fault,
            times,
        });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Decides one request and uses up what it met.
    pub(super) fn plan(&mut self, path: &str) -> Plan {
        let mut plan = Plan::default();
        for rule in self.0.iter_mut().filter(|rule| path.starts_with(&rule.prefix)) {
            if rule.times != Times::Next(0)
                && plan.take(rule.fault)
                && let Times::Next(left) = &mut rule.times
            {
                *left -= 1;
            }
        }
        self.0.retain(|rule| rule.times != Times::Next(0));
        plan
    }
}

impl Plan {
    /// Adds a fault, unless one of its kind is there.
    fn take(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Status(status) => self.status.is_none() && self.status.replace(status).is_none(),
            Fault::Delay(delay) => self.delay.is_none() && self.delay.replace(delay).is_none(),
            Fault::DropBefore => !std::mem::replace(&mut self.drop_before, true),
            Fault::DropAfter => !std::mem::replace(&mut self.drop_after, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::{Fault, Faults, Plan, Times};

    #[test]
    fn a_fault_strikes_its_prefix_as_often_as_told() {
        let mut faults = Faults::default();
        faults.inject("/api", Fault::DropBefore, Times::Next(2));
        assert_eq!(faults.plan("/login/oauth/keys"), Plan::default());
        assert!(faults.plan("/api/v1/user").drop_before);
        assert!(faults.plan("/api/v1/version").drop_before);
        assert_eq!(faults.plan("/api/v1/user"), Plan::default());
    }

    #[test]
    fn faults_of_different_kinds_add_up_and_of_one_kind_queue() {
        let mut faults = Faults::default();
        faults.inject("/", Fault::Status(StatusCode::BAD_GATEWAY), Times::Next(1));
        faults.inject("/", Fault::Status(StatusCode::SERVICE_UNAVAILABLE), Times::Next(1));
        faults.inject("/", Fault::Delay(Duration::from_secs(1)), Times::UntilCleared);
        let first = faults.plan("/x");
        assert_eq!(first.status, Some(StatusCode::BAD_GATEWAY));
        assert_eq!(first.delay, Some(Duration::from_secs(1)));
        assert_eq!(faults.plan("/x").status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(faults.plan("/x").status, None);
        faults.clear();
        assert_eq!(faults.plan("/x"), Plan::default());
    }
}
