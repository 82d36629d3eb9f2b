//! The start: sessions that were there before are there again, dormant.
//!
//! Where others are at work on the records, theirs are among them. Whoever comes with the id of one is served here. What is loaded
//! and does not come to that is given up here only, and not in the records, unless its time is over by these.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    caps::Hold,
    ending, journal,
    life::Life,
    ports::{EndReason, Record, Records, RecordsError},
    registry::Shared,
    seat::{Session, Written},
};

/// Loads all records, and what has ended before. Sessions whose time is over, and the oldest ones beyond a cap, end.
pub(crate) async fn load(shared: &Shared, records: &dyn Records) -> Result<(), RecordsError> {
    journal::forget(shared, records).await?;
    for key in records.ended(shared.config.tombstones).await? {
        shared.table.bury(key);
    }
    let mut loaded = records.all().await?;
    loaded.sort_by_key(|record| std::cmp::Reverse(record.last_activity));
    let all = loaded.len();
    let kept = loaded.into_iter().filter(|record| admit(shared, record)).count();
    if all > 0 {
        tracing::info!(kept, ended = all - kept, "sessions are there from before");
    }
    Ok(())
}

/// False if the session has ended. Its record then goes with the next batch.
fn admit(shared: &Shared, record: &Record) -> bool {
    let key = record.key;
    let now = Instant::now();
    // A clock that was set back makes nobody older.
    let idle = shared
        .clock
        .now()
        .duration_since(record.last_activity)
        .unwrap_or_default();
    let slot = if idle < shared.config.retain {
        shared.caps.take(&record.user).ok()
    } else {
        None
    };
    let Some(slot) = slot else {
        shared.table.bury(key);
        let why = if idle < shared.config.retain {
            EndReason::Evicted
        } else {
            EndReason::Idle
        };
        let borrowed = shared.journal.is_shared();
        if let Some(ending) = ending::ending(record.key, why, shared.clock.now(), record.last_activity, borrowed) {
            shared.journal.end(ending);
        }
        return false;
    };
    // A monotonic clock need not reach back far enough: then the session is retained for longer.
    let last_activity = now.checked_sub(idle).unwrap_or(now);
    let life = Life::Live {
        in_flight: 0,
        last_activity,
    };
    let age = shared.clock.now().duration_since(record.opened).unwrap_or_default();
    let opened = now.checked_sub(age).unwrap_or(last_activity);
    let session = Arc::new(Session::new(
        key,
        record.grant.clone(),
        record.user.clone(),
        life,
        opened,
    ));
    {
        let mut inner = session.inner();
        inner.hold = Some(Hold::new(slot, session.gone.clone().drop_guard()));
        inner.written = Some(Written {
            snapshot: None,
            last_activity,
        });
    }
    shared.plan_look(&session, last_activity + shared.config.retain);
    shared.table.insert(session).is_ok()
}
