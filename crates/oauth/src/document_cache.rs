//! Documents that clients publish, kept for as long as they say and no longer than is sensible.
//!
//! - Only what was read and understood is kept: no error and no malformed document (client ID metadata document draft
//!   section 4.4). The other side's word on freshness counts between a minimum and a maximum.
//! - A document that cannot be read now is replaced by the copy that was good before, for a day: a client's server that
//!   is down does not take the client's users with it. One that is refused (gone, malformed) is not.
//! - Fetching has a ceiling in all and for each host, since anyone can ask for it. A fetch above it counts as trouble
//!   that passes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use url::Url;

use crate::{
    fetch::{Document, Fetch, FetchError},
    ports::Clock,
    rate_limiter::{Rate, RateLimiter},
};

/// Documents of one kind.
pub(crate) struct DocumentCache<T> {
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    max_bytes: usize,
    kept: Mutex<HashMap<String, Kept<T>>>,
    in_all: RateLimiter<()>,
    by_host: RateLimiter<String>,
}

struct Kept<T> {
    value: Arc<T>,
    read_at: SystemTime,
    fresh_until: SystemTime,
}

/// How long a document is kept at least, whatever it says: one sign-in takes two looks at it.
const MIN_FRESH: Duration = Duration::from_secs(60);
/// How long one is kept that says nothing.
const USUAL_FRESH: Duration = Duration::from_secs(5 * 60);
/// How long one is kept at most.
const MAX_FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long after that a copy stands in for a document that cannot be read.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many are kept. The one that is stale first goes.
const MAX_KEPT: usize = 1024;
/// How many may be fetched in all.
const IN_ALL: Rate = Rate::new(120, Duration::from_millis(500));
/// How many may be fetched from one host.
const BY_HOST: Rate = Rate::new(20, Duration::from_secs(3));

impl<T> DocumentCache<T> {
    pub(crate) fn new(fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>, max_bytes: usize) -> Self {
        Self {
            fetch,
            clock,
            max_bytes,
            kept: Mutex::default(),
            in_all: RateLimiter::new(IN_ALL),
            by_host: RateLimiter::new(BY_HOST),
        }
    }

    /// The document at a URL, from memory if it is fresh.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`]; [`FetchError::Refused`] also if `parse` does.
    pub(crate) async fn get(
        &self,
        url: &Url,
        parse: impl FnOnce(&[u8]) -> Result<T, &'static str> + Send,
    ) -> Result<Arc<T>, FetchError> {
        let now = self.clock.now();
        if let Some(value) = self.find(url, |kept| kept.fresh_until > now) {
            return Ok(value);
        }
        self.renew(url, parse, now).await
    }

    /// The document at a URL, read anew unless that was done less than a minute ago: for who found it wanting.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As for [`DocumentCache::get`].
    pub(crate) async fn get_newer(
        &self,
        url: &Url,
        parse: impl FnOnce(&[u8]) -> Result<T, &'static str> + Send,
    ) -> Result<Arc<T>, FetchError> {
        let now = self.clock.now();
        if let Some(value) = self.find(url, |kept| kept.read_at + MIN_FRESH > now) {
            return Ok(value);
        }
        self.renew(url, parse, now).await
    }

    /// The copy that is there, however old.
    pub(crate) fn copy(&self, url: &str) -> Option<Arc<T>> {
        self.kept().get(url).map(|kept| Arc::clone(&kept.value))
    }

    async fn renew(
        &self,
        url: &Url,
        parse: impl FnOnce(&[u8]) -> Result<T, &'static str> + Send,
        now: SystemTime,
    ) -> Result<Arc<T>, FetchError> {
        let read = match self.fetch(url, now).await {
            Ok(document) => parse(&document.body)
                .map(|value| (value, document.fresh_for))
                .map_err(FetchError::Refused),
            Err(error) => Err(error),
        };
        match read {
            Ok((value, fresh_for)) => Ok(self.keep(url, value, fresh_for, now)),
            Err(error @ FetchError::Unavailable(_)) => {
                let copy = self.find(url, |kept| kept.fresh_until + MAX_STALE > now);
                copy.ok_or(error)
            }
            Err(error @ (FetchError::Refused(_) | FetchError::Forbidden(_))) => {
                self.kept().remove(url.as_str());
                Err(error)
            }
        }
    }

    async fn fetch(&self, url: &Url, now: SystemTime) -> Result<Document, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let within = self.by_host.take(host, now).and_then(|()| self.in_all.take(&(), now));
        within.map_err(|_| FetchError::Unavailable("too many documents have been read"))?;
        self.fetch.fetch(url, self.max_bytes).await
    }

    fn find(&self, url: &Url, is_good: impl FnOnce(&Kept<T>) -> bool) -> Option<Arc<T>> {
        let kept = self.kept();
        let found = kept.get(url.as_str()).filter(|kept| is_good(kept))?;
        Some(Arc::clone(&found.value))
    }

    fn keep(&self, url: &Url, value: T, fresh_for: Option<Duration>, now: SystemTime) -> Arc<T> {
        let value = Arc::new(value);
        let fresh_for = fresh_for.unwrap_or(USUAL_FRESH).clamp(MIN_FRESH, MAX_FRESH);
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT && !kept.contains_key(url.as_str()) {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.fresh_until);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                kept.remove(&oldest);
            }
        }
        let entry = Kept {
            value: Arc::clone(&value),
            read_at: now,
            fresh_until: now + fresh_for,
        };
        kept.insert(url.as_str().to_owned(), entry);
        value
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for DocumentCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentCache")
            .field("fetch", &self.fetch)
            .field("kept", &self.kept().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports::BoxFuture, testing::ManualClock};

    /// Answers what it was told to, and counts.
    #[derive(Debug)]
    struct Scripted {
        answer: Mutex<Result<Document, FetchError>>,
        asked: std::sync::atomic::AtomicU32,
    }

    struct Bed {
        scripted: Arc<Scripted>,
        clock: Arc<ManualClock>,
        documents: DocumentCache<String>,
    }

    impl Fetch for Scripted {
        fn fetch<'a>(&'a self, _url: &'a Url, _max: usize) -> BoxFuture<'a, Result<Document, FetchError>> {
            self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().clone();
            Box::pin(async move { answer })
        }
    }

    impl Bed {
        fn new() -> Self {
            let scripted = Arc::new(Scripted {
                answer: Mutex::new(Err(FetchError::Unavailable("not set"))),
                asked: 0.into(),
            });
            let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            let documents = DocumentCache::new(Arc::clone(&scripted) as _, Arc::clone(&clock) as _, 100);
            Self {
                scripted,
                clock,
                documents,
            }
        }

        fn says(&self, body: &str, fresh_for: Option<u64>) {
            *self.scripted.answer.lock().unwrap() = Ok(Document {
                body: body.into(),
                fresh_for: fresh_for.map(Duration::from_secs),
            });
        }

        fn fails(&self, error: FetchError) {
            *self.scripted.answer.lock().unwrap() = Err(error);
        }

        async fn get(&self, url: &str) -> Result<String, FetchError> {
            let parse = |body: &[u8]| match body {
                b"bad" => Err("it is bad"),
                good => Ok(String::from_utf8_lossy(good).into_owned()),
            };
            let url = Url::parse(url).unwrap();
            self.documents.get(&url, parse).await.map(|value| (*value).clone())
        }

        fn asked(&self) -> u32 {
            self.scripted.asked.load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    const URL: &str = "https://client.example/x";

    #[tokio::test]
    async fn freshness_has_a_minimum_and_a_maximum() {
        for (says, kept) in [
            (Some(0), 60),
            (Some(5), 60),
            (None, 300),
            (Some(3600), 3600),
            (Some(10_000_000), 86_400),
        ] {
            let bed = Bed::new();
            bed.says("a", says);
            bed.get(URL).await.unwrap();
            bed.clock.advance(Duration::from_secs(kept - 1));
            bed.get(URL).await.unwrap();
            assert_eq!(bed.asked(), 1, "{says:?}");
            bed.clock.advance(Duration::from_secs(1));
            bed.get(URL).await.unwrap();
            assert_eq!(bed.asked(), 2, "{says:?}");
        }
    }

    #[tokio::test]
    async fn errors_and_malformed_documents_are_not_kept() {
        let bed = Bed::new();
        assert!(bed.get(URL).await.is_err());
        bed.says("bad", Some(3600));
        assert_eq!(bed.get(URL).await, Err(FetchError::Refused("it is bad")));
        bed.says("good", Some(3600));
        assert_eq!(bed.get(URL).await.unwrap(), "good");
    }

    #[tokio::test]
    async fn a_copy_stands_in_when_the_server_is_down_but_not_when_it_refuses() {
        let bed = Bed::new();
        bed.says("good", Some(60));
        bed.get(URL).await.unwrap();
        bed.fails(FetchError::Unavailable("down"));
        bed.clock.advance(Duration::from_secs(60 + 86_399));
        assert_eq!(bed.get(URL).await.unwrap(), "good");
        bed.clock.advance(Duration::from_secs(1));
        assert!(bed.get(URL).await.is_err());

        bed.says("good", Some(60));
        bed.get(URL).await.unwrap();
        bed.clock.advance(Duration::from_secs(61));
        bed.fails(FetchError::Refused("gone"));
        assert!(bed.get(URL).await.is_err());
        bed.fails(FetchError::Unavailable("down"));
        assert!(bed.get(URL).await.is_err(), "what was refused is forgotten");
    }

    #[tokio::test]
    async fn a_host_is_asked_so_often_and_no_more() {
        let bed = Bed::new();
        for n in 0..30 {
            let _ = bed.get(&format!("https://client.example/{n}")).await;
        }
        assert_eq!(bed.asked(), 20);
        bed.says("good", None);
        assert!(bed.get("https://other.example/").await.is_ok());
        bed.clock.advance(Duration::from_secs(3));
        assert!(bed.get(URL).await.is_ok());
    }

    #[tokio::test]
    async fn there_is_a_limit_to_what_is_kept() {
        let bed = Bed::new();
        bed.says("a", Some(86_400));
        for n in 0..MAX_KEPT + 10 {
            bed.clock.advance(Duration::from_secs(1));
            bed.get(&format!("https://host{n}.example/")).await.unwrap();
        }
        assert_eq!(bed.documents.kept().len(), MAX_KEPT);
        assert!(bed.documents.copy("https://host9.example/").is_none());
        assert!(bed.documents.copy("https://host10.example/").is_some());
    }
}
