//! Restore: at start the sessions of the records exist again, dormant.
//!
//! If other processes use the records, their sessions are among them, and a request with the id of
//! one is served here. A restored session that was not used here is given up here only, and not in
//! the records, unless its time is over by them.

use std::{cmp::Reverse, sync::Arc};

use tokio::time::Instant;

use super::write_behind;
use crate::{
    ports::{EndReason, Record, Records, RecordsError},
    state::{Identity, Lifecycle, RegistryState, Session, WrittenRecord, end_change},
};

/// Loads all records and the ended sessions. Sessions whose time is over, and the oldest ones
/// beyond a quota, end.
pub(crate) async fn load(state: &RegistryState, records: &dyn Records) -> Result<(), RecordsError> {
    write_behind::forget_ended(state, records).await?;
    for key in records.ended(state.config.tombstones).await? {
        state.table.add_tombstone(key);
    }
    let mut loaded = records.all().await?;
    loaded.sort_by_key(|record| Reverse(record.last_activity));
    let all = loaded.len();
    let restored = loaded.iter().filter(|record| restore(state, record)).count();
    if all > 0 {
        tracing::info!(restored, ended = all - restored, "sessions restored from the records");
    }
    Ok(())
}

/// False if the session has ended. Its record is then removed with the next batch.
fn restore(state: &RegistryState, record: &Record) -> bool {
    let (key, now, wall_now) = (record.key, Instant::now(), state.clock.now());
    // A clock that was set back ages no session.
    let idle = wall_now.duration_since(record.last_activity).unwrap_or_default();
    let permit = if idle < state.config.retain {
        state.quota.acquire(&record.user).map_err(|_scope| EndReason::Evicted)
    } else {
        Err(EndReason::Idle)
    };
    let permit = match permit {
        Ok(permit) => permit,
        Err(reason) => {
            if !record.implicit {
                state.table.add_tombstone(key);
            }
            let change = end_change(
                key,
                record.implicit,
                reason,
                wall_now,
                record.last_activity,
                state.records_are_shared,
            );
            state.changes.push(change);
            return false;
        }
    };
    // The monotonic clock need not reach back far enough: then the session is retained for longer.
    let last_activity = now.checked_sub(idle).unwrap_or(now);
    let age = wall_now.duration_since(record.opened).unwrap_or_default();
    let opened = now.checked_sub(age).unwrap_or(last_activity);
    let identity = Identity {
        key,
        grant: record.grant.clone(),
        user: record.user.clone(),
        implicit: record.implicit,
    };
    let session = Session::new(identity, permit, Lifecycle::dormant(), opened, last_activity);
    let mut locked = session.lock();
    locked.written = Some(WrittenRecord {
        revision: None,
        as_loaded: true,
        last_activity,
    });
    state.schedule(&session, &locked.lifecycle, now);
    drop(locked);
    state.table.insert(&Arc::new(session))
}
