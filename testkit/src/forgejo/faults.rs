//! Faults that a test turns on and off while the server runs.
//!
//! A fault belongs to a path prefix, and applies to the next requests below it or to all of them.
//! Faults of several kinds add up: a request can be slow and fail. Of several faults of one kind
//! the oldest applies first.

use std::time::Duration;

use http::StatusCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The response is this status with a line of text; the request has no effect.
    Status(StatusCode),
    /// The request waits this long before anything else happens to it. If the client gives up in
    /// the meantime, the request has no effect.
    Delay(Duration),
    /// The connection closes without an answer; the request has no effect.
    DropBefore,
    /// The request takes full effect, then the connection closes without an answer: a lost
    /// response.
    DropAfter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Next(u32),
    UntilCleared,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Rule>);

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
        let prefix = prefix.to_owned();
        self.0.push(Rule { prefix, fault, times });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn plan(&mut self, path: &str) -> Plan {
        let mut plan = Plan::default();
        for rule in self.0.iter_mut().filter(|rule| path.starts_with(&rule.prefix)) {
            if rule.times != Times::Next(0)
                && plan.add(rule.fault)
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
    fn add(&mut self, fault: Fault) -> bool {
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
    use super::*;

    #[test]
    fn fault_applies_to_its_prefix_a_given_number_of_times() {
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
