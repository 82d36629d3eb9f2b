//! The state machine by example, and against its rules under random transitions.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::config::Config;

const TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct TestServer(AtomicBool);

impl Retire for TestServer {
    fn retire(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl TestServer {
    fn is_retired(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A session that a client has opened.
fn open(now: Instant) -> (Lifecycle<TestServer>, Arc<TestServer>) {
    let (mut session, server) = (Lifecycle::opening(), Arc::<TestServer>::default());
    assert!(matches!(session.want(now, None), Want::Wake(_)));
    assert!(session.attach(&server, None).is_some() && session.open(now));
    (session, server)
}

#[test]
fn session_ends_once_and_stays_ended() {
    let now = Instant::now();
    let (mut session, server) = open(now);
    assert_eq!(
        session.end(EndReason::Deleted, EndCondition::Always, None),
        Some(PreviousPhase::Open)
    );
    assert_eq!(session.end(EndReason::Idle, EndCondition::Always, None), None);
    assert!(!session.open(now) && session.attach(&Arc::default(), None).is_none());
    assert_eq!(session.want(now, None), Want::Refuse(SessionError::Ended));
    assert!(matches!(session.phase(), Phase::Ended(EndReason::Deleted)) && server.is_retired());
}

#[test]
fn opening_session_has_one_wake_whose_failure_is_final() {
    let now = Instant::now();
    let mut session = Lifecycle::<TestServer>::opening();
    let Want::Wake(id) = session.want(now, None) else {
        panic!("the first call begins a wake");
    };
    assert_eq!(session.want(now, None), Want::Nothing);
    let server = Arc::default();
    assert!(session.attach(&server, None).is_some() && session.is_waking());
    let detached = session.detach(&server, DetachReason::BackendDied, true);
    assert_eq!(detached, Some(Detached::StillOpening));
    assert_eq!(session.want(now, None), Want::Nothing, "the wake goes on");
    let error = SessionError::NotStarted { retry_after: TIME };
    assert_eq!(session.fail_wake(id, error).map(|waited| waited.len()), Some(3));
    assert_eq!(session.want(now, None), Want::Refuse(error));
    assert_eq!(session.fail_wake(id, error), None);
}

#[test]
fn answer_after_the_deadline_opens_no_session() {
    let now = Instant::now();
    let mut session = Lifecycle::<TestServer>::opening();
    session.set_deadline(now);
    assert!(session.attach(&Arc::default(), None).is_some());
    assert!(!session.open(now + Duration::from_millis(1)) && session.open(now));
}

#[test]
fn wake_is_over_in_the_step_that_attaches_its_server() {
    let now = Instant::now();
    let mut session = Lifecycle::<TestServer>::dormant();
    let Want::Wake(first) = session.want(now, None) else {
        panic!("the first call begins a wake");
    };
    let server = Arc::default();
    assert_eq!(session.attach(&server, None).as_deref(), Some(&[now][..]));
    assert_eq!(session.want(now, None), Want::Nothing);
    let detached = session.detach(&server, DetachReason::BackendDied, true);
    assert_eq!(detached, Some(Detached::Dormant));
    assert!(matches!(session.want(now, None), Want::Wake(second) if second != first));
    assert_eq!(session.fail_wake(first, SessionError::Aborted), None);
    assert!(session.is_waking());
}

#[test]
fn backoff_of_the_session_or_its_user_refuses_a_wake() {
    let (now, config) = (Instant::now(), Config::default());
    let mut session = Lifecycle::<TestServer>::dormant();
    for _ in 0..2 {
        let Want::Wake(id) = session.want(now, None) else {
            panic!("no delay yet");
        };
        session.backoff.record_failure(now, &config);
        assert!(session.fail_wake(id, SessionError::Unavailable).is_some());
    }
    let refused = |delay| Want::Refuse(SessionError::BackingOff(delay));
    assert_eq!(session.want(now, None), refused(config.backoff));
    assert_eq!(session.want(now, Some(TIME)), refused(TIME));
    let later = now + config.backoff;
    assert_eq!(session.want(later, Some(TIME)), refused(TIME));
    assert!(matches!(session.want(later, None), Want::Wake(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    AttachVacant,
    /// Replaces one of the servers so far.
    Replace(usize),
    SetDeadline,
    Open,
    Detach(usize, DetachReason, bool),
    EndSession(EndCondition, Option<Duration>),
    Want,
    FailWake(usize),
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
    let idle = prop_oneof![Just(None), Just(Some(TIME / 2)), Just(Some(TIME))];
    prop_oneof![
        3 => (0_u64..15).prop_map(Step::Wait),
        4 => Just(Step::AttachVacant),
        2 => any::<usize>().prop_map(Step::Replace),
        1 => Just(Step::SetDeadline),
        4 => Just(Step::Open),
        4 => (any::<usize>(), detach_reason, any::<bool>()).prop_map(|(i, reason, with)| Step::Detach(i, reason, with)),
        1 => (condition, idle).prop_map(|(condition, idle)| Step::EndSession(condition, idle)),
        4 => Just(Step::Want),
        2 => any::<usize>().prop_map(Step::FailWake),
    ]
}

fn ended_reason(session: &Lifecycle<TestServer>) -> Option<EndReason> {
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
    fn rules_hold_after_every_transition(steps in vec(step(), 1..60)) {
        let mut now = Instant::now();
        let mut session = Lifecycle::<TestServer>::opening();
        let (mut servers, mut wakes): (Vec<Arc<TestServer>>, Vec<WakeId>) = (vec![], vec![]);
        let (mut deadline, mut was_open) = (None, false);
        for step in steps {
            let before = session.server().cloned();
            let (open, opening, waking) = (session.is_open(), session.is_opening(), session.is_waking());
            let ended = ended_reason(&session);
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::AttachVacant => {
                    let server = Arc::default();
                    let attached = session.attach(&server, None).is_some();
                    prop_assert_eq!(attached, before.is_none() && ended.is_none());
                    prop_assert_eq!(session.is_waking(), waking && (opening || !attached));
                    if attached {
                        servers.push(server);
                    }
                }
                Step::Replace(index) => if let Some(old) = pick(&servers, index).cloned() {
                    let server = Arc::default();
                    let attached = session.attach(&server, Some(&old)).is_some();
                    prop_assert_eq!(attached, before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &old)));
                    if attached {
                        servers.push(server);
                    }
                },
                Step::SetDeadline => {
                    session.set_deadline(now);
                    deadline = Some(now);
                }
                Step::Open => {
                    let in_time = deadline.is_none_or(|deadline| now <= deadline);
                    let opened = session.open(now);
                    prop_assert_eq!(opened, opening && before.is_some() && in_time);
                    was_open |= opened;
                }
                Step::Detach(index, reason, retained) => if let Some(server) = pick(&servers, index) {
                    let current = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, server));
                    let outcome = session.detach(server, reason, retained);
                    prop_assert_eq!(outcome.is_some(), current);
                    prop_assert_eq!(outcome == Some(Detached::Dormant), current && open && retained);
                    prop_assert_eq!(outcome == Some(Detached::StillOpening), current && opening);
                    prop_assert!(!current || session.server().is_none());
                },
                Step::EndSession(condition, idle) => {
                    let allowed = match condition {
                        EndCondition::Always => ended.is_none(),
                        EndCondition::IfDormant => open && before.is_none() && idle.is_some(),
                        EndCondition::IfIdleFor(time) => open && idle.is_some_and(|idle| idle >= time),
                    };
                    let previous = session.end(EndReason::Deleted, condition, idle);
                    prop_assert_eq!(previous.is_some(), allowed);
                    prop_assert_eq!(previous == Some(PreviousPhase::Open), allowed && open);
                }
                Step::Want => match session.want(now, None) {
                    Want::Wake(id) => {
                        prop_assert!(!waking && ended.is_none() && !wakes.contains(&id));
                        prop_assert!(!(open && before.is_some()));
                        wakes.push(id);
                    }
                    Want::Nothing => prop_assert!(waking || (open && before.is_some())),
                    Want::Refuse(_) => prop_assert!(ended.is_some() || (opening && !waking)),
                }
                Step::FailWake(index) => if let Some(wake) = pick(&wakes, index) {
                    let failed = session.fail_wake(*wake, SessionError::Unavailable).is_some();
                    prop_assert_eq!(failed, waking && wakes.last() == Some(wake));
                    prop_assert!(!failed || !session.is_waking());
                },
            }
            prop_assert!(ended.is_none() || ended == ended_reason(&session), "an end is final");
            prop_assert!(!was_open || !session.is_opening(), "a session opens once");
            for server in &servers {
                prop_assert_eq!(server.is_retired(), !session.is_attached_to(server), "retired unless attached");
            }
        }
    }
}
