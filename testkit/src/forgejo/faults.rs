//! Faults that a test turns on and off while the server runs.
//!
//! A fault belongs to a path prefix, and applies to the next requests below it or to all of them.
//! Faults of several kinds add up: a request can be slow and fail. Of several faults of one kind
//! the oldest applies first.

use std::{mem::discriminant, time::Duration};

use http::StatusCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The response is this status with a line of text; the request has no effect.
    Status(StatusCode),
    /// The request waits this long before anything else happens to it. If the client gives up in
    /// the meantime, the request has no effect.
    Delay(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Next(u32),
    UntilCleared,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Rule>);

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

    /// The faults of one request, at most one of each kind, which are counted down.
    pub(super) fn plan(&mut self, path: &str) -> Vec<Fault> {
        self.0.retain(|rule| rule.times != Times::Next(0));
        let mut plan: Vec<Fault> = Vec::new();
        for rule in self.0.iter_mut().filter(|rule| path.starts_with(&rule.prefix)) {
            let kind = discriminant(&rule.fault);
            if plan.iter().all(|fault| discriminant(fault) != kind) {
                plan.push(rule.fault);
                if let Times::Next(left) = &mut rule.times {
                    *left -= 1;
                }
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_applies_to_its_prefix_a_given_number_of_times() {
        let delay = Fault::Delay(Duration::from_secs(1));
        let mut faults = Faults::default();
        faults.inject("/api", delay, Times::Next(2));
        assert_eq!(faults.plan("/login/oauth/keys"), []);
        assert_eq!(faults.plan("/api/v1/user"), [delay]);
        assert_eq!(faults.plan("/api/v1/version"), [delay]);
        assert_eq!(faults.plan("/api/v1/user"), []);
    }

    #[test]
    fn faults_of_different_kinds_add_up_and_of_one_kind_queue() {
        let [bad_gateway, unavailable] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE].map(Fault::Status);
        let delay = Fault::Delay(Duration::from_secs(1));
        let mut faults = Faults::default();
        faults.inject("/", bad_gateway, Times::Next(1));
        faults.inject("/", unavailable, Times::Next(1));
        faults.inject("/", delay, Times::UntilCleared);
        assert_eq!(faults.plan("/x"), [bad_gateway, delay]);
        assert_eq!(faults.plan("/x"), [unavailable, delay]);
        assert_eq!(faults.plan("/x"), [delay]);
        faults.clear();
        assert_eq!(faults.plan("/x"), []);
    }
}
