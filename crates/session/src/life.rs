//! The life of a session, as a small state machine that takes the time as an argument.
//!
//! ```text
//! Opening --go_live--> Live --end--> Ended
//!    `------------end-----------------^
//! ```
//!
//! Whether a session may take an exchange and whether it is idle is decided in the same place, so that an exchange never
//! begins on a session that the reaper has just ended or put to sleep: under one lock one of the two comes first. Whether a
//! live session has a backend is not its life's concern.

use std::time::Duration;

use tokio::time::Instant;

/// Where a session stands.
#[derive(Debug)]
pub(crate) enum Life {
    /// The backend starts, or has not yet answered the handshake: no client knows the id.
    Opening,
    /// The client has the id.
    Live {
        /// Exchanges that pin the session.
        in_flight: usize,
        /// When the last exchange began or ended.
        last_activity: Instant,
    },
    /// Over for good.
    Ended,
}

/// What a session was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// The id was never given out.
    Opening,
    /// A client holds the id.
    Live,
}

impl Life {
    /// Opens the session to exchanges. False if it has ended meanwhile.
    pub(crate) fn go_live(&mut self, now: Instant) -> bool {
        match self {
            Self::Opening => {
                *self = Self::Live {
                    in_flight: 0,
                    last_activity: now,
                };
                true
            }
            Self::Live { .. } => true,
            Self::Ended => false,
        }
    }

    /// Counts activity that does not pin the session. False if the session takes no exchanges.
    pub(crate) fn touch(&mut self, now: Instant) -> bool {
        match self {
            Self::Live { last_activity, .. } => {
                *last_activity = now;
                true
            }
            Self::Opening | Self::Ended => false,
        }
    }

    /// Begins an exchange that pins the session until [`Life::unpin`]. False if the session takes no exchanges.
    pub(crate) fn pin(&mut self, now: Instant) -> bool {
        match self {
            Self::Live {
                in_flight,
                last_activity,
            } => {
                *in_flight += 1;
                *last_activity = now;
                true
            }
            Self::Opening | Self::Ended => false,
        }
    }

    /// Ends an exchange that [`Life::pin`] began.
    pub(crate) fn unpin(&mut self, now: Instant) {
        if let Self::Live {
            in_flight,
            last_activity,
        } = self
        {
            *in_flight = in_flight.saturating_sub(1);
            *last_activity = now;
        }
    }

    /// Ends the session; `None` if that has been done before.
    pub(crate) fn end(&mut self) -> Option<Was> {
        let was = match self {
            Self::Opening => Was::Opening,
            Self::Live { .. } => Was::Live,
            Self::Ended => return None,
        };
        *self = Self::Ended;
        Some(was)
    }

    /// For how long nothing has happened; `None` while an exchange is in flight, and while there is no client.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Live {
                in_flight: 0,
                last_activity,
            } => Some(now.saturating_duration_since(*last_activity)),
            Self::Live { .. } | Self::Opening | Self::Ended => None,
        }
    }

    /// When the last exchange began or ended; `None` while there is no client.
    pub(crate) fn last_activity(&self) -> Option<Instant> {
        match self {
            Self::Live { last_activity, .. } => Some(*last_activity),
            Self::Opening | Self::Ended => None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn live(now: Instant) -> Life {
        let mut life = Life::Opening;
        assert!(life.go_live(now));
        life
    }

    #[test]
    fn an_exchange_pins_until_it_is_over() {
        let start = Instant::now();
        let mut life = live(start);
        assert!(life.pin(start) && life.pin(start));
        assert_eq!(life.idle(start + TIME), None);
        life.unpin(start + TIME);
        assert_eq!(life.idle(start + TIME), None, "one is still there");
        life.unpin(start + TIME);
        assert_eq!(life.idle(start + TIME * 2), Some(TIME));
    }

    #[test]
    fn activity_counts_without_pinning() {
        let start = Instant::now();
        let mut life = live(start);
        assert!(life.touch(start + TIME));
        assert_eq!(life.idle(start + TIME * 3), Some(TIME * 2));
        assert_eq!(life.last_activity(), Some(start + TIME));
    }

    #[test]
    fn a_session_ends_once_and_stays_ended() {
        let now = Instant::now();
        let mut life = live(now);
        assert!(life.pin(now));
        assert_eq!(life.end(), Some(Was::Live));
        life.unpin(now);
        assert_eq!(life.end(), None);
        assert!(!life.go_live(now) && !life.touch(now) && !life.pin(now));
        assert_eq!(life.idle(now + TIME), None);
    }

    #[test]
    fn an_opening_session_is_never_idle_and_takes_nothing() {
        let now = Instant::now();
        let mut life = Life::Opening;
        assert!(!life.pin(now) && !life.touch(now));
        assert_eq!(life.idle(now + TIME), None);
        assert_eq!(life.end(), Some(Was::Opening));
    }
}
