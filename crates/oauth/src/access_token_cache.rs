//! A cache of access tokens that were looked up, so that a request does not cost a query of the
//! store.
//!
//! The cache must not serve a token that the store would refuse. Whatever ends a grant therefore
//! removes its entries before it returns ([`Revocations`](crate::revocation::Revocations)). A
//! lookup that runs meanwhile may have read the grant before its end and must not insert it again:
//! each removal starts a new generation, and an answer is inserted only in the generation in which
//! its lookup began.
//!
//! Revocations by this process take effect at once; those by other processes after about a second.
//! Expiry is checked at each use. An entry is looked up again after [`MAX_AGE`], which brings in a
//! new login of the user and tells the store that the token is in use. Unknown tokens are not
//! cached, since their number has no bound.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    ids::{ClientId, GrantId, UserId},
    records::{AccessTokenRecord, TokenHash},
};

/// The access tokens that were looked up.
#[derive(Debug, Default)]
pub(crate) struct AccessTokenCache {
    state: Mutex<State>,
}

/// The generation in which a lookup began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation(u64);

/// `grants` lists exactly the tokens of `entries`, by grant; no set is empty.
#[derive(Debug, Default)]
struct State {
    generation: u64,
    entries: HashMap<TokenHash, Entry>,
    grants: HashMap<GrantId, HashSet<TokenHash>>,
}

#[derive(Debug)]
struct Entry {
    record: AccessTokenRecord,
    looked_up_at: SystemTime,
}

/// The largest number of entries. At the limit an arbitrary entry is evicted.
const CAPACITY: usize = 16_384;
/// The time for which an entry is used without another lookup.
const MAX_AGE: Duration = Duration::from_secs(60);

impl AccessTokenCache {
    /// The entry of a token, or the generation in which to look it up.
    pub(crate) fn get(&self, token: TokenHash, now: SystemTime) -> Result<AccessTokenRecord, Generation> {
        let state = self.state();
        match state.entries.get(&token) {
            Some(entry) if entry.is_good(now) => Ok(entry.record.clone()),
            _ => Err(Generation(state.generation)),
        }
    }

    /// Inserts the answer of the store, unless entries were removed since the lookup began.
    pub(crate) fn insert(&self, generation: Generation, token: TokenHash, record: AccessTokenRecord, now: SystemTime) {
        let mut state = self.state();
        if state.generation != generation.0 {
            return;
        }
        state.remove(token);
        if state.entries.len() >= CAPACITY
            && let Some(any) = state.entries.keys().next().copied()
        {
            state.remove(any);
        }
        let grant = record.grant.id.clone();
        state.grants.entry(grant).or_default().insert(token);
        let looked_up_at = now;
        state.entries.insert(token, Entry { record, looked_up_at });
    }

    /// Removes the tokens of a grant.
    pub(crate) fn forget_grant(&self, grant: &GrantId) {
        let mut state = self.state();
        state.generation += 1;
        for token in state.grants.remove(grant).unwrap_or_default() {
            state.entries.remove(&token);
        }
    }

    /// Removes the tokens of a user.
    pub(crate) fn forget_user(&self, user: UserId) {
        self.forget(|record| record.grant.user == user);
    }

    /// Removes the tokens of a client.
    pub(crate) fn forget_client(&self, client_id: &ClientId) {
        self.forget(|record| record.grant.client_id == *client_id);
    }

    /// Removes all tokens, for a caller that does not know which grants have ended.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.entries.clear();
        state.grants.clear();
    }

    fn forget(&self, matches: impl Fn(&AccessTokenRecord) -> bool) {
        let mut state = self.state();
        state.generation += 1;
        let matching: Vec<TokenHash> = state
            .entries
            .iter()
            .filter(|(_, entry)| matches(&entry.record))
            .map(|(token, _)| *token)
            .collect();
        for token in matching {
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
        // The age of an entry is negative after the wall clock was set back: then the store is
        // asked.
        let age = now.duration_since(self.looked_up_at);
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

    fn insert(cache: &AccessTokenCache, token: &str, record: AccessTokenRecord) {
        let token = secret::hash(token);
        let generation = cache.get(token, NOW).expect_err("the token is new");
        cache.insert(generation, token, record, NOW);
    }

    fn contains(cache: &AccessTokenCache, token: &str, after: u64) -> bool {
        cache.get(secret::hash(token), NOW + Duration::from_secs(after)).is_ok()
    }

    #[test]
    fn an_entry_is_used_until_its_token_expires() {
        let cache = AccessTokenCache::default();
        insert(&cache, "a", record("g", 1));
        assert!(contains(&cache, "a", 0) && contains(&cache, "a", 49));
        assert!(!contains(&cache, "a", 50) && !contains(&cache, "b", 0));
    }

    #[test]
    fn an_old_entry_is_looked_up_again() {
        let cache = AccessTokenCache::default();
        let mut long = record("g", 1);
        long.expires_at = NOW + Duration::from_secs(3600);
        insert(&cache, "a", long);
        assert!(contains(&cache, "a", 59) && !contains(&cache, "a", 60));
    }

    #[test]
    fn ending_a_grant_user_or_client_removes_exactly_its_tokens() {
        let cache = AccessTokenCache::default();
        for (token, grant, user) in [
            ("a1", "a", 1),
            ("a2", "a", 1),
            ("b", "b", 1),
            ("c", "c", 2),
            ("d", "d", 3),
        ] {
            insert(&cache, token, record(grant, user));
        }
        cache.forget_grant(&GrantId("a".to_owned()));
        assert!(!contains(&cache, "a1", 0) && !contains(&cache, "a2", 0) && contains(&cache, "b", 0));
        cache.forget_user(UserId(1));
        assert!(!contains(&cache, "b", 0) && contains(&cache, "c", 0));
        cache.forget_client(&ClientId("client of c".to_owned()));
        assert!(!contains(&cache, "c", 0) && contains(&cache, "d", 0));
    }

    #[test]
    fn an_answer_read_before_a_revocation_is_not_inserted() {
        let cache = AccessTokenCache::default();
        let token = secret::hash("a");
        let generation = cache.get(token, NOW).expect_err("the token is new");
        cache.forget_grant(&GrantId("g".to_owned()));
        cache.insert(generation, token, record("g", 1), NOW);
        assert!(!contains(&cache, "a", 0));
    }

    #[test]
    fn capacity_is_limited_and_both_maps_stay_consistent() {
        let cache = AccessTokenCache::default();
        let count = CAPACITY + 100;
        for n in 0..count {
            insert(&cache, &n.to_string(), record(&format!("g{}", n % 7), 1));
        }
        let state = cache.state();
        assert_eq!(state.entries.len(), CAPACITY);
        assert_eq!(state.grants.values().map(HashSet::len).sum::<usize>(), CAPACITY);
        assert!(state.grants.values().all(|tokens| !tokens.is_empty()));
        drop(state);
        assert!(
            contains(&cache, &(count - 1).to_string(), 0),
            "the newest token is cached"
        );
    }
}
