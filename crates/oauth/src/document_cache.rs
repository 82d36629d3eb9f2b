//! A cache of documents that clients publish.
//!
//! - The cache holds only documents that were parsed: no errors and no malformed documents (client
//!   ID metadata document draft section 4.4). It follows the freshness that the server states,
//!   within a minimum and a maximum.
//! - If a document cannot be read now, the last good copy serves for another day, so that an outage
//!   of a client's server does not lock out the client's users. The draft lets the server set such
//!   bounds, whatever the headers say. A document that is refused (gone, malformed) is removed.
//! - Fetches are limited in total and per host, since anyone can cause them. A fetch above a limit
//!   fails as a passing error.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use url::Url;

use crate::{
    fetch::{Document, Fetch, FetchError},
    ports::Clock,
    rate_limiter::RateLimiter,
};

/// A cache of parsed documents of one kind.
#[derive(Debug)]
pub(crate) struct DocumentCache<T> {
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    max_bytes: usize,
    entries: Mutex<HashMap<String, Entry<T>>>,
    all_fetches: RateLimiter<()>,
    host_fetches: RateLimiter<String>,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    read_at: SystemTime,
    fresh_until: SystemTime,
}

/// The shortest time for which a document is fresh, since a sign-in reads it twice.
const MIN_FRESH: Duration = Duration::from_secs(60);
/// The time for which a document is fresh whose server does not say.
const DEFAULT_FRESH: Duration = Duration::from_secs(5 * 60);
/// The longest time for which a document is fresh.
const MAX_FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// The time after which a stale copy no longer stands in for a document that cannot be read.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest number of entries. At the limit the entry that goes stale first is evicted.
const MAX_ENTRIES: usize = 1024;
impl<T> DocumentCache<T> {
    pub(crate) fn new(fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>, max_bytes: usize) -> Self {
        Self {
            fetch,
            clock,
            max_bytes,
            entries: Mutex::default(),
            all_fetches: RateLimiter::new(120, Duration::from_millis(500)),
            host_fetches: RateLimiter::new(20, Duration::from_secs(3)),
        }
    }

    /// The document at a URL, from the cache while it is fresh. With `reload`, an entry older than
    /// a minute is read again. `name` is what the document is known by, if not by the URL as such.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`]; [`FetchError::Refused`] also if `parse` fails.
    pub(crate) async fn get(
        &self,
        name: &str,
        url: &Url,
        reload: bool,
        parse: impl FnOnce(&[u8]) -> Result<T, &'static str> + Send,
    ) -> Result<Arc<T>, FetchError> {
        let now = self.clock.now();
        let is_fresh = |entry: &Entry<T>| {
            let until = if reload {
                entry.read_at + MIN_FRESH
            } else {
                entry.fresh_until
            };
            until > now
        };
        if let Some(value) = self.find(name, is_fresh) {
            return Ok(value);
        }
        let read = self.fetch(url).await.and_then(|document| {
            let value = parse(&document.body).map_err(FetchError::Refused)?;
            Ok((value, document.fresh_for))
        });
        match read {
            Ok((value, fresh_for)) => Ok(self.insert(name, value, fresh_for, now)),
            Err(error @ FetchError::Unavailable(_)) => {
                let copy = self.find(name, |entry| entry.fresh_until + MAX_STALE > now);
                copy.ok_or(error)
            }
            Err(error @ (FetchError::Refused(_) | FetchError::Forbidden(_))) => {
                self.entries().remove(name);
                Err(error)
            }
        }
    }

    /// The cached copy, however old.
    pub(crate) fn cached(&self, name: &str) -> Option<Arc<T>> {
        self.entries().get(name).map(|entry| Arc::clone(&entry.value))
    }

    async fn fetch(&self, url: &Url) -> Result<Document, FetchError> {
        let now = self.clock.uptime();
        let host = url.host_str().unwrap_or_default();
        self.host_fetches
            .check(host, now)
            .and_then(|()| self.all_fetches.check(&(), now))
            .map_err(|_| FetchError::Unavailable("too many documents were read"))?;
        self.fetch.fetch(url, self.max_bytes).await
    }

    fn find(&self, name: &str, is_good: impl FnOnce(&Entry<T>) -> bool) -> Option<Arc<T>> {
        let entries = self.entries();
        let found = entries.get(name).filter(|entry| is_good(entry))?;
        Some(Arc::clone(&found.value))
    }

    fn insert(&self, name: &str, value: T, fresh_for: Option<Duration>, now: SystemTime) -> Arc<T> {
        let value = Arc::new(value);
        let fresh_for = fresh_for.unwrap_or(DEFAULT_FRESH).clamp(MIN_FRESH, MAX_FRESH);
        let mut entries = self.entries();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(name) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.fresh_until);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                entries.remove(&oldest);
            }
        }
        let entry = Entry {
            value: Arc::clone(&value),
            read_at: now,
            fresh_until: now + fresh_for,
        };
        entries.insert(name.to_owned(), entry);
        value
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports::BoxFuture, testing::ManualClock};

    /// Returns the set answer and counts fetches.
    #[derive(Debug)]
    struct ScriptedFetch {
        answer: Mutex<Result<Document, FetchError>>,
        fetches: std::sync::atomic::AtomicU32,
    }

    struct Harness {
        fetch: Arc<ScriptedFetch>,
        clock: Arc<ManualClock>,
        cache: DocumentCache<String>,
    }

    impl Fetch for ScriptedFetch {
        fn fetch<'a>(&'a self, _url: &'a Url, _max: usize) -> BoxFuture<'a, Result<Document, FetchError>> {
            self.fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().clone();
            Box::pin(async move { answer })
        }
    }

    impl Harness {
        fn new() -> Self {
            let fetch = Arc::new(ScriptedFetch {
                answer: Mutex::new(Err(FetchError::Unavailable("not set"))),
                fetches: 0.into(),
            });
            let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            let cache = DocumentCache::new(Arc::clone(&fetch) as _, Arc::clone(&clock) as _, 100);
            Self { fetch, clock, cache }
        }

        fn respond(&self, body: &str, fresh_for: Option<u64>) {
            *self.fetch.answer.lock().unwrap() = Ok(Document {
                body: body.into(),
                fresh_for: fresh_for.map(Duration::from_secs),
            });
        }

        fn fail(&self, error: FetchError) {
            *self.fetch.answer.lock().unwrap() = Err(error);
        }

        async fn get(&self, url: &str) -> Result<String, FetchError> {
            let parse = |body: &[u8]| match body {
                b"bad" => Err("it is bad"),
                good => Ok(String::from_utf8_lossy(good).into_owned()),
            };
            self.cache
                .get(url, &Url::parse(url).unwrap(), false, parse)
                .await
                .map(|value| (*value).clone())
        }

        fn fetches(&self) -> u32 {
            self.fetch.fetches.load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    const URL: &str = "https://client.example/x";

    #[tokio::test]
    async fn freshness_has_a_minimum_and_a_maximum() {
        for (stated, fresh) in [
            (Some(0), 60),
            (Some(5), 60),
            (None, 300),
            (Some(3600), 3600),
            (Some(10_000_000), 86_400),
        ] {
            let harness = Harness::new();
            harness.respond("a", stated);
            harness.get(URL).await.unwrap();
            harness.clock.advance(Duration::from_secs(fresh - 1));
            harness.get(URL).await.unwrap();
            assert_eq!(harness.fetches(), 1, "{stated:?}");
            harness.clock.advance(Duration::from_secs(1));
            harness.get(URL).await.unwrap();
            assert_eq!(harness.fetches(), 2, "{stated:?}");
        }
    }

    #[tokio::test]
    async fn errors_and_malformed_documents_are_not_cached() {
        let harness = Harness::new();
        assert!(harness.get(URL).await.is_err());
        harness.respond("bad", Some(3600));
        assert_eq!(harness.get(URL).await, Err(FetchError::Refused("it is bad")));
        harness.respond("good", Some(3600));
        assert_eq!(harness.get(URL).await.unwrap(), "good");
    }

    #[tokio::test]
    async fn a_stale_copy_serves_when_the_server_is_down_but_not_when_it_refuses() {
        let harness = Harness::new();
        harness.respond("good", Some(60));
        harness.get(URL).await.unwrap();
        harness.fail(FetchError::Unavailable("down"));
        harness.clock.advance(Duration::from_secs(60 + 86_399));
        assert_eq!(harness.get(URL).await.unwrap(), "good");
        harness.clock.advance(Duration::from_secs(1));
        assert!(harness.get(URL).await.is_err());

        harness.respond("good", Some(60));
        harness.get(URL).await.unwrap();
        harness.clock.advance(Duration::from_secs(61));
        harness.fail(FetchError::Refused("gone"));
        assert!(harness.get(URL).await.is_err());
        harness.fail(FetchError::Unavailable("down"));
        assert!(harness.get(URL).await.is_err(), "a refused document is removed");
    }

    #[tokio::test]
    async fn fetches_from_one_host_are_limited() {
        let harness = Harness::new();
        for n in 0..30 {
            let _ = harness.get(&format!("https://client.example/{n}")).await;
        }
        assert_eq!(harness.fetches(), 20);
        harness.respond("good", None);
        assert!(harness.get("https://other.example/").await.is_ok());
        harness.clock.advance(Duration::from_secs(3));
        assert!(harness.get(URL).await.is_ok());
    }

    #[tokio::test]
    async fn the_number_of_entries_is_limited() {
        let harness = Harness::new();
        harness.respond("a", Some(86_400));
        for n in 0..MAX_ENTRIES + 10 {
            harness.clock.advance(Duration::from_secs(1));
            harness.get(&format!("https://host{n}.example/")).await.unwrap();
        }
        assert_eq!(harness.cache.entries().len(), MAX_ENTRIES);
        assert!(harness.cache.cached("https://host9.example/").is_none());
        assert!(harness.cache.cached("https://host10.example/").is_some());
    }
}
