//! The state machine by example, and against its rules under random transitions.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;

const TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct TestBackend {
    retired: AtomicBool,
    answered: AtomicBool,
}

impl Retire for TestBackend {
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl TestBackend {
    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

fn config(retain: bool) -> Config {
    Config {
        retain: if retain { TIME } else { Duration::ZERO },
        idle_timeout: TIME,
        ..Config::default()
    }
}

fn snapshot() -> Option<Snapshot> {
    Some(Snapshot(Bytes::from_static(b"handshake")))
}

/// A session that a client has opened, without an exchange in flight.
fn open(now: Instant) -> (Lifecycle<TestBackend>, Arc<TestBackend>) {
    let (mut session, backend) = (Lifecycle::opening(now), Arc::<TestBackend>::default());
    assert!(session.attach(&backend, None) && session.open(&backend, now));
    session.end_exchange(now);
    (session, backend)
}

#[test]
fn session_is_not_idle_while_an_exchange_is_in_flight() {
    let start = Instant::now();
    let (mut session, _) = open(start);
    assert!(session.begin_exchange(start) && session.begin_exchange(start));
    assert_eq!(session.idle(start + TIME), None);
    session.end_exchange(start + TIME);
    assert_eq!(session.idle(start + TIME), None, "one is still in flight");
    session.end_exchange(start + TIME);
    assert_eq!(session.idle(start + TIME * 2), Some(TIME));
}

#[test]
fn touch_counts_as_activity_and_is_not_in_flight() {
    let start = Instant::now();
    let (mut session, _) = open(start);
    assert!(session.touch(start + TIME));
    assert_eq!(session.idle(start + TIME * 3), Some(TIME * 2));
    assert_eq!(session.last_activity(), Some(start + TIME));
}

#[test]
fn session_ends_once_and_stays_ended() {
    let now = Instant::now();
    let (mut session, backend) = open(now);
    assert!(session.begin_exchange(now));
    let previous = PreviousPhase::Open { last_activity: now };
    assert_eq!(
        session.end(EndReason::Deleted, EndCondition::Always, now),
        Some(previous)
    );
    session.end_exchange(now);
    assert_eq!(session.end(EndReason::Idle, EndCondition::Always, now), None);
    assert!(!session.open(&backend, now) && !session.touch(now) && !session.begin_exchange(now));
    assert_eq!(session.idle(now + TIME), None);
    assert!(matches!(session.phase(), Phase::Ended(EndReason::Deleted)) && backend.is_retired());
}

#[test]
fn opening_session_is_never_idle_and_takes_no_exchange() {
    let now = Instant::now();
    let mut session = Lifecycle::<TestBackend>::opening(now);
    assert!(!session.begin_exchange(now) && !session.touch(now));
    assert_eq!(session.idle(now + TIME), None);
    assert_eq!(
        session.end(EndReason::NotOpened, EndCondition::Always, now),
        Some(PreviousPhase::Opening)
    );
}

#[test]
fn session_becomes_dormant_only_if_it_is_retained_and_has_a_snapshot() {
    let now = Instant::now();
    for (retain, snapshot) in [(true, snapshot()), (true, None), (false, snapshot()), (false, None)] {
        let dormant = retain && snapshot.is_some();
        let (mut session, backend) = open(now);
        let outcome = session.detach(&backend, DetachReason::BackendDied, snapshot, &config(retain), now);
        assert_eq!(outcome == Detached::Dormant, dormant);
        assert_eq!(session.is_open(), dormant);
    }
}

#[test]
fn backoff_refuses_a_revival_after_two_failures() {
    let (now, config) = (Instant::now(), config(true));
    let mut session = Lifecycle::<TestBackend>::dormant(now);
    for attempt in 0..2 {
        let JoinRevival::Begun(_, receiver) = session.join_revival(now) else {
            panic!("attempt {attempt} begins a revival");
        };
        assert!(matches!(session.join_revival(now), JoinRevival::Joined(_)));
        session.backoff.record_failure(now, &config);
        session.finish_revival(&receiver);
    }
    let refused = JoinRevival::Refused(SessionError::BackingOff(config.backoff));
    assert_eq!(format!("{:?}", session.join_revival(now)), format!("{refused:?}"));
    assert!(matches!(
        session.join_revival(now + config.backoff),
        JoinRevival::Begun(..)
    ));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    AttachVacant,
    /// Replaces one of the backends so far.
    Replace(usize),
    Open(usize),
    Answer,
    Begin,
    End,
    Touch,
    Detach(usize, DetachReason, bool),
    EndSession(EndReason, EndCondition),
    JoinRevival,
    FinishRevival(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let detach_reason = prop_oneof![
        Just(DetachReason::Idle),
        Just(DetachReason::BackendDied),
        Just(DetachReason::Expired)
    ];
    let condition = prop_oneof![
        1 => Just(EndCondition::Always),
        3 => Just(EndCondition::IfDormant),
        3 => Just(EndCondition::IfIdleFor(TIME)),
    ];
    let end_reason = prop_oneof![Just(EndReason::Deleted), Just(EndReason::Revoked)];
    prop_oneof![
        3 => (0_u64..15).prop_map(Step::Wait),
        4 => Just(Step::AttachVacant),
        2 => any::<usize>().prop_map(Step::Replace),
        4 => any::<usize>().prop_map(Step::Open),
        1 => Just(Step::Answer),
        2 => Just(Step::Begin),
        2 => Just(Step::End),
        2 => Just(Step::Touch),
        4 => (any::<usize>(), detach_reason, any::<bool>()).prop_map(|(i, reason, with)| Step::Detach(i, reason, with)),
        1 => (end_reason, condition).prop_map(|(reason, condition)| Step::EndSession(reason, condition)),
        3 => Just(Step::JoinRevival),
        2 => any::<usize>().prop_map(Step::FinishRevival),
    ]
}

fn ended_reason(session: &Lifecycle<TestBackend>) -> Option<EndReason> {
    if let Phase::Ended(reason) = session.phase() {
        Some(*reason)
    } else {
        None
    }
}

fn pick<T>(all: &[T], index: usize) -> Option<&T> {
    (!all.is_empty()).then(|| &all[index % all.len()])
}

proptest! {
    #[test]
    fn rules_hold_after_every_transition(retain: bool, steps in vec(step(), 1..60)) {
        let config = config(retain);
        let mut now = Instant::now();
        let mut session = Lifecycle::<TestBackend>::opening(now);
        let (mut backends, mut revivals): (Vec<Arc<TestBackend>>, Vec<RevivalReceiver>) = (vec![], vec![]);
        let (mut in_flight, mut activity, mut was_open) = (0_usize, now, false);
        for step in steps {
            let before = session.backend().cloned();
            let (open, idle) = (session.is_open(), session.idle(now));
            let ended = ended_reason(&session);
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::AttachVacant => {
                    let backend = Arc::default();
                    let attached = session.attach(&backend, None);
                    prop_assert_eq!(attached, before.is_none() && ended.is_none());
                    if attached {
                        backends.push(backend);
                    }
                }
                Step::Replace(index) => if let Some(old) = pick(&backends, index).cloned() {
                    let backend = Arc::default();
                    let attached = session.attach(&backend, Some(&old));
                    prop_assert_eq!(attached, before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &old)));
                    if attached {
                        backends.push(backend);
                    }
                },
                Step::Open(index) => if let Some(backend) = pick(&backends, index)
                    && session.open(backend, now)
                {
                    prop_assert!(!was_open, "a session opens once");
                    (was_open, activity, in_flight) = (true, now, 1);
                },
                Step::Answer => if let Some(backend) = &before {
                    backend.answered.store(true, Ordering::Relaxed);
                },
                Step::Begin => if session.begin_exchange(now) {
                    (in_flight, activity) = (in_flight + 1, now);
                },
                Step::End => if in_flight > 0 {
                    session.end_exchange(now);
                    (in_flight, activity) = (in_flight - 1, now);
                },
                Step::Touch => if session.touch(now) {
                    activity = now;
                },
                Step::Detach(index, reason, with_snapshot) => if let Some(backend) = pick(&backends, index) {
                    let current = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, backend));
                    let snapshot = snapshot().filter(|_| with_snapshot);
                    let outcome = session.detach(backend, reason, snapshot, &config, now);
                    let idle_enough = idle.is_some_and(|idle| idle >= TIME);
                    let due = current && (reason != DetachReason::Idle || idle_enough);
                    prop_assert_eq!(outcome != Detached::Unchanged, due);
                    prop_assert_eq!(outcome == Detached::Dormant, due && open && retain && with_snapshot);
                    prop_assert!(!due || session.backend().is_none());
                },
                Step::EndSession(reason, condition) => {
                    let dormant = matches!(session.phase(), Phase::Dormant { revival: None });
                    let allowed = match condition {
                        EndCondition::Always => ended.is_none(),
                        EndCondition::IfDormant => dormant && in_flight == 0,
                        EndCondition::IfIdleFor(time) => idle.is_some_and(|idle| idle >= time),
                    };
                    let previous = session.end(reason, condition, now);
                    prop_assert_eq!(previous.is_some(), allowed);
                    let has_client = matches!(previous, Some(PreviousPhase::Open { .. }));
                    prop_assert_eq!(has_client, allowed && open);
                }
                Step::JoinRevival => {
                    let joined = session.join_revival(now);
                    let dormant = open && before.is_none();
                    prop_assert_eq!(matches!(joined, JoinRevival::Attached), open && before.is_some());
                    prop_assert_eq!(matches!(joined, JoinRevival::Joined(_) | JoinRevival::Begun(..)), dormant
                        && !matches!(joined, JoinRevival::Refused(SessionError::BackingOff(_))));
                    if let JoinRevival::Begun(_, receiver) = joined {
                        revivals.push(receiver);
                    }
                }
                Step::FinishRevival(index) => if let Some(revival) = pick(&revivals, index) {
                    session.finish_revival(revival);
                },
            }
            prop_assert!(ended.is_none() || ended == ended_reason(&session), "an end is final");
            let opening = matches!(session.phase(), Phase::Opening { .. });
            prop_assert!(!was_open || !opening, "a session opens once");
            prop_assert_eq!(session.last_activity(), session.is_open().then_some(activity));
            prop_assert_eq!(session.idle(now).is_some(), session.is_open() && in_flight == 0);
            for backend in &backends {
                prop_assert_eq!(backend.is_retired(), !session.is_attached_to(backend), "retired unless attached");
            }
            prop_assert!(session.snapshot().is_none() || retain);
        }
    }
}
