//! AccessTokenCache that have been looked up, in memory: the hot path asks the store once for each, not at every request.
//!
//! Exactness is the point. An entry may be used only as long as the store would say the same, so whatever ends a grant
//! takes its entries out before it returns ([`TellingStore`](crate::endings::TellingStore)). A lookup that was under way meanwhile may
//! have read the grant before its end and must not put it back: each forgetting begins a new epoch, and an answer is
//! kept only in the epoch in which it was asked for.
//!
//! Exact it is for what this process ends; what another one ends is heard within a second (`endings`). Expiry is checked at
//! each use. An entry is asked for again after [`MAX_AGE`]: so a new login of the user that another process has learnt is
//! known within that time, and the store hears that the bearer is in use. What is unknown is not remembered: there is no end of such tokens.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    ids::{ClientId, GrantId, UserId},
    records::{AccessTokenRecord, TokenHash},
};

/// The bearers that have been looked up.
#[derive(Debug)]
pub(crate) struct AccessTokenCache {
    capacity: usize,
    state: Mutex<State>,
}

/// In which epoch a lookup began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation(u64);

/// Every token of `entries` is in the set of its grant in `grants`, and no other token is; no set is empty.
#[derive(Debug, Default)]
struct State {
    epoch: u64,
    entries: HashMap<TokenHash, Entry>,
    grants: HashMap<GrantId, HashSet<TokenHash>>,
}

#[derive(Debug)]
struct Entry {
    record: AccessTokenRecord,
    asked_at: SystemTime,
}

/// How many entries there are at most. One goes, whichever, for one that comes.
const CAPACITY: usize = 16_384;
/// How long an entry is used without asking again.
const MAX_AGE: Duration = Duration::from_secs(60);

impl Default for AccessTokenCache {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl AccessTokenCache {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// What is known of a bearer, or the epoch in which to ask.
    pub(crate) fn find(&self, token: TokenHash, now: SystemTime) -> Result<AccessTokenRecord, Generation> {
        let state = self.state();
        match state.entries.get(&token) {
            Some(entry) if entry.is_good(now) => Ok(entry.record.clone()),
            _ => Err(Generation(state.epoch)),
        }
    }

    /// Keeps what the store has said, unless something was forgotten since the question.
    pub(crate) fn keep(&self, asked_in: Generation, token: TokenHash, record: AccessTokenRecord, now: SystemTime) {
        let mut state = self.state();
        if state.epoch != asked_in.0 {
            return;
        }
        state.remove(token);
        if state.entries.len() >= self.capacity
            && let Some(any) = state.entries.keys().next().copied()
        {
            state.remove(any);
        }
        let grant = record.grant.id.clone();
        state.grants.entry(grant).or_default().insert(token);
        state.entries.insert(token, Entry { record, asked_at: now });
    }

    /// Forgets the bearers of a grant.
    pub(crate) fn forget_grant(&self, grant: &GrantId) {
        let mut state = self.state();
        state.epoch += 1;
        for token in state.grants.remove(grant).unwrap_or_default() {
            state.entries.remove(&token);
        }
    }

    /// Forgets the bearers of a user.
    pub(crate) fn forget_user(&self, user: UserId) {
        self.forget(|record| record.grant.user == user);
    }

    /// Forgets the bearers of a client.
    pub(crate) fn forget_client(&self, client_id: &ClientId) {
        self.forget(|record| record.grant.client_id == *client_id);
    }

    /// Forgets everything, when it is not known what has ended.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.entries.clear();
        state.grants.clear();
    }

    fn forget(&self, is_meant: impl Fn(&AccessTokenRecord) -> bool) {
        let mut state = self.state();
        state.epoch += 1;
        let meant: Vec<TokenHash> = state
            .entries
            .iter()
            .filter(|(_, entry)| is_meant(&entry.record))
            .map(|(token, _)| *token)
            .collect();
        for token in meant {
            state.remove(token);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, token: TokenHash) {
        let Some(entry) = self.entries.remove(&token) else {
            return;
        };
        let grant = &entry.record.grant.id;
        if let Some(tokens) = self.grants.get_mut(grant) {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.grants.remove(grant);
            }
        }
    }
}

impl Entry {
    fn is_good(&self, now: SystemTime) -> bool {
        // A wall clock may go back: then the store is asked.
        let age = now.duration_since(self.asked_at);
        self.record.expires_at > now && age.is_ok_and(|age| age < MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{records::GrantRecord, secret};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn record(grant: &str, user: i64) -> AccessTokenRecord {
        AccessTokenRecord {
            grant: GrantRecord {
                id: GrantId(grant.to_owned()),
                user: UserId(user),
                login: "alice".to_owned(),
                client_id: ClientId(format!("client of {grant}")),
                scope: "mcp".to_owned(),
            },
            expires_at: NOW + Duration::from_secs(50),
        }
    }

    fn keep(bearers: &AccessTokenCache, token: &str, record: AccessTokenRecord) {
        let token = secret::hash(token);
        let epoch = bearers.find(token, NOW).expect_err("the token is new");
        bearers.keep(epoch, token, record, NOW);
    }

    fn knows(bearers: &AccessTokenCache, token: &str, after: u64) -> bool {
        bearers
            .find(secret::hash(token), NOW + Duration::from_secs(after))
            .is_ok()
    }

    #[test]
    fn an_entry_is_used_until_its_token_expires() {
        let bearers = AccessTokenCache::default();
        keep(&bearers, "a", record("g", 1));
        assert!(knows(&bearers, "a", 0) && knows(&bearers, "a", 49));
        assert!(!knows(&bearers, "a", 50) && !knows(&bearers, "b", 0));
    }

    #[test]
    fn an_old_entry_is_asked_for_again() {
        let bearers = AccessTokenCache::default();
        let mut long = record("g", 1);
        long.expires_at = NOW + Duration::from_secs(3600);
        keep(&bearers, "a", long);
        assert!(knows(&bearers, "a", 59) && !knows(&bearers, "a", 60));
    }

    #[test]
    fn the_end_of_a_grant_a_user_or_a_client_takes_its_own_bearers_out_and_no_others() {
        let bearers = AccessTokenCache::default();
        for (token, grant, user) in [
            ("a1", "a", 1),
            ("a2", "a", 1),
            ("b", "b", 1),
            ("c", "c", 2),
            ("d", "d", 3),
        ] {
            keep(&bearers, token, record(grant, user));
        }
        bearers.forget_grant(&GrantId("a".to_owned()));
        assert!(!knows(&bearers, "a1", 0) && !knows(&bearers, "a2", 0) && knows(&bearers, "b", 0));
        bearers.forget_user(UserId(1));
        assert!(!knows(&bearers, "b", 0) && knows(&bearers, "c", 0));
        bearers.forget_client(&ClientId("client of c".to_owned()));
        assert!(!knows(&bearers, "c", 0) && knows(&bearers, "d", 0));
    }

    #[test]
    fn an_answer_from_before_an_ending_is_not_kept() {
        let bearers = AccessTokenCache::default();
        let token = secret::hash("a");
        let asked = bearers.find(token, NOW).expect_err("the token is new");
        bearers.forget_grant(&GrantId("g".to_owned()));
        bearers.keep(asked, token, record("g", 1), NOW);
        assert!(!knows(&bearers, "a", 0));
    }

    #[test]
    fn there_is_a_limit_and_the_tables_stay_together() {
        let bearers = AccessTokenCache::with_capacity(3);
        for n in 0..100 {
            keep(&bearers, &n.to_string(), record(&format!("g{}", n % 7), n));
        }
        let state = bearers.state();
        assert_eq!(state.entries.len(), 3);
        assert_eq!(state.grants.values().map(HashSet::len).sum::<usize>(), 3);
        assert!(state.grants.values().all(|tokens| !tokens.is_empty()));
        drop(state);
        assert!(knows(&bearers, "99", 0), "the newest is there");
    }
}
