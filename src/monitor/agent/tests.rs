//! Snapshots with the help of agents that do as they should, and of others.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vmm_sys_util::eventfd::EventFd;

use super::testing::*;
use super::*;

/// Long where something is to come, and short where nothing is.
fn limits() -> Limits {
    Limits { answer: PATIENCE, freeze: PATIENCE, hold: PATIENCE, thaw: PATIENCE, again: Duration::from_millis(5) }
}

/// For agents that do not answer.
fn short() -> Limits {
    let short = Duration::from_millis(30);
    Limits { answer: PATIENCE, freeze: short, hold: PATIENCE, thaw: short, again: Duration::from_millis(1) }
}

/// Who drives the machine, as far as freezing is concerned.
struct Bench {
    channel: Arc<Channel>,
    freezes: Freezes,
    event: Arc<EventFd>,
    /// How often a snapshot was taken, and what is done meanwhile.
    taken: usize,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let channel = Channel::new().unwrap();
        let event = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap());
        let ringing = event.clone();
        let freezes = Freezes::new(channel.clone(), limits, Arc::new(move || ringing.write(1).unwrap()));
        Self { channel, freezes, event, taken: 0 }
    }

    /// Asks for a snapshot for `from`.
    fn begin(&mut self, from: ConnectionId, during: impl Fn()) -> Option<Answer> {
        let wanted = Wanted { from, volumes: vec!["vol-1".into()], files: Vec::new() };
        let taken = &mut self.taken;
        self.freezes.begin(wanted, &mut |_, _| {
            *taken += 1;
            during();
            Answer::done()
        })
    }

    /// Goes on until somebody is answered.
    #[track_caller]
    fn answers(&mut self, during: impl Fn()) -> Vec<(ConnectionId, Answer)> {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "nobody is answered");
            let _ = self.event.read();
            let taken = &mut self.taken;
            let answers = self.freezes.go_on(&mut |_, _| {
                *taken += 1;
                during();
                Answer::done()
            });
            if !answers.is_empty() {
                return answers;
            }
            thread::yield_now();
        }
    }

    /// Takes one; tells what the file systems were.
    #[track_caller]
    fn snapshot(&mut self, during: impl Fn()) -> FileSystems {
        let before = self.taken;
        let answer = self.begin(7, &during).unwrap_or_else(|| self.answers(&during).remove(0).1);
        assert_eq!(self.taken, before + 1, "it is taken, whatever the guest does");
        were(&answer)
    }
}

#[track_caller]
fn were(answer: &Answer) -> FileSystems {
    match answer {
        Answer::Ok(value) => serde_json::from_value(value.clone()).unwrap(),
        Answer::Error(failure) => panic!("{failure}"),
    }
}

#[track_caller]
fn is_not_frozen(were: &FileSystems, words: &str) {
    assert!(matches!(were, FileSystems::NotFrozen { why } if why.contains(words)), "{were:?} {words}");
}

/// How an agent answers.
type Answering = fn() -> Says;

const FROZEN: FileSystems = FileSystems::Frozen { count: 3, thawed: true };

#[test]
fn file_systems_are_frozen_during_the_snapshot_and_thawed_after_it() {
    let mut bench = Bench::new(limits());
    assert_eq!(bench.snapshot(|| {}), FileSystems::InUse);
    let agent = FakeAgent::good(&bench.channel);
    for _ in 0..3 {
        assert_eq!(bench.snapshot(|| assert!(agent.is_frozen())), FROZEN);
        assert!(!agent.is_frozen());
    }
    assert_eq!((agent.heard("guest-fsfreeze-freeze"), agent.heard("guest-fsfreeze-thaw")), (3, 3));
    drop(agent);
    assert_eq!(bench.snapshot(|| {}), FileSystems::InUse);
}

#[test]
fn they_are_thawed_though_the_snapshot_fails() {
    let mut bench = Bench::new(limits());
    let agent = FakeAgent::good(&bench.channel);
    let fails = &mut |_: &[String], _| Answer::failed(FailureKind::Host, "the disk is full");
    let wanted = Wanted { from: 1, volumes: Vec::new(), files: Vec::new() };
    assert_eq!(bench.freezes.begin(wanted, fails), None);
    let mut answers = Vec::new();
    until("the answer", || {
        answers.extend(bench.freezes.go_on(&mut *fails));
        !answers.is_empty()
    });
    assert_eq!(answers, [(1, Answer::failed(FailureKind::Host, "the disk is full"))]);
    assert!(!agent.is_frozen() && agent.heard("guest-fsfreeze-thaw") == 1);
}

#[test]
fn snapshots_that_come_together_wait_for_each_other() {
    let mut bench = Bench::new(limits());
    let agent = FakeAgent::good(&bench.channel);
    assert!((1..=3).all(|from| bench.begin(from, || {}).is_none()));
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(bench.answers(|| assert!(agent.is_frozen())));
    }
    assert_eq!(
        all.iter().map(|(from, answer)| (*from, were(answer))).collect::<Vec<_>>(),
        [1, 2, 3].map(|n| (n, FROZEN))
    );
}

#[test]
fn an_agent_that_says_nothing_or_nonsense_costs_its_time_only() {
    let say: [(Answering, &str); 6] = [
        (|| Says::Nothing, "does not answer"),
        (|| Says::Bytes(b"\xff{\"return\":1}\n{\"return\":\xff\n".to_vec()), "does not answer"),
        (|| Says::Bytes(vec![b'\n'; 60_000]), "does not answer"),
        (|| Says::Bytes(vec![b'['; 200_000]), "does not answer"),
        (|| Says::Bytes(b"\xff{\"return\":{\"return\":\n".repeat(3000)), "does not answer"),
        (|| Says::Fails("no"), "does not answer"),
    ];
    for (says, words) in say {
        let mut bench = Bench::new(Limits { answer: Duration::from_millis(30), ..limits() });
        let agent = FakeAgent::start(&bench.channel, move |_, _| Some(says()));
        is_not_frozen(&bench.snapshot(|| {}), words);
        // It was not asked to freeze, and has nothing to thaw.
        assert_eq!((agent.heard("guest-sync-delimited"), agent.state.lock().unwrap().heard.len()), (1, 1));
        assert!(bench.freezes.now.is_none());
    }
}

#[test]
fn what_a_guest_says_of_freezing_is_told_and_it_is_thawed_in_any_case() {
    let say: [(Answering, &str); 4] = [
        (|| Says::Fails("fs\x1b[2Jfreeze hook has failed"), "refuses: fs [2Jfreeze hook"),
        (|| Says::Returns(0.into()), "none that can be frozen"),
        (|| Says::Returns(json!("many")), "cannot be understood"),
        (|| Says::Bytes(b"{\n".to_vec()), "cannot be understood"),
    ];
    for (says, words) in say {
        let mut bench = Bench::new(limits());
        let agent = FakeAgent::start(&bench.channel, move |command, _| (command == "guest-fsfreeze-freeze").then(says));
        is_not_frozen(&bench.snapshot(|| {}), words);
        assert_eq!(agent.heard("guest-fsfreeze-thaw"), 1);
    }
}

#[test]
fn what_others_have_frozen_stays_so() {
    let mut bench = Bench::new(limits());
    let agent = FakeAgent::good(&bench.channel);
    agent.state.lock().unwrap().is_frozen = true;
    is_not_frozen(&bench.snapshot(|| {}), "somebody else");
    assert!(agent.is_frozen());
}

#[test]
fn file_systems_that_were_thawed_before_the_snapshot_are_not_called_frozen() {
    let mut bench = Bench::new(limits());
    let agent = FakeAgent::good(&bench.channel);
    is_not_frozen(&bench.snapshot(|| agent.state.lock().unwrap().is_frozen = false), "before its time");
    drop(agent);
    // Nor where it comes too late: nobody holds a guest for longer.
    let mut bench = Bench::new(Limits { hold: Duration::from_millis(1), ..limits() });
    let agent = FakeAgent::good(&bench.channel);
    assert_eq!(bench.begin(1, || {}), None);
    until("the thaw", || agent.heard("guest-fsfreeze-thaw") == 1);
    is_not_frozen(&were(&bench.answers(|| {})[0].1), "not taken in time");
    assert_eq!(bench.taken, 1);
}

#[test]
fn a_freeze_that_is_answered_too_late_is_thawed() {
    // It is frozen, but says so only when it is asked to thaw.
    let mut bench = Bench::new(short());
    let mut is_late = true;
    let agent = FakeAgent::start(&bench.channel, move |command, state| match command {
        "guest-fsfreeze-freeze" => {
            state.is_frozen = true;
            Some(Says::Nothing)
        }
        // What is asked first after it is answered by what was asked before.
        "guest-sync-delimited" | "guest-fsfreeze-thaw" if state.is_frozen && std::mem::take(&mut is_late) => {
            Some(Says::Bytes(b"{\"return\":3}\n".to_vec()))
        }
        _ => None,
    });
    is_not_frozen(&bench.snapshot(|| {}), "does not answer");
    until("the thaw", || !agent.is_frozen());
    // Once that is known, the next one is frozen again: for this agent, as before.
    until("its end", || bench.freezes.now.as_ref().is_none_or(|now| now.thread.is_finished()));
    is_not_frozen(&bench.snapshot(|| {}), "does not answer");
}

#[test]
fn a_guest_that_does_not_thaw_is_asked_until_it_does() {
    let mut bench = Bench::new(Limits { thaw: Duration::from_millis(20), again: Duration::from_millis(1), ..limits() });
    let mut left = 5;
    let agent = FakeAgent::start(&bench.channel, move |command, _| {
        if command != "guest-fsfreeze-thaw" || left == 0 {
            return None;
        }
        left -= 1;
        Some(if left % 2 == 0 { Says::Nothing } else { Says::Fails("not now") })
    });
    assert_eq!(bench.snapshot(|| {}), FileSystems::Frozen { count: 3, thawed: false });
    until("the thaw", || !agent.is_frozen());
    assert!(agent.heard("guest-fsfreeze-thaw") >= 6);
    until("its end", || bench.freezes.now.as_ref().is_none_or(|now| now.thread.is_finished()));
    assert_eq!(bench.snapshot(|| assert!(agent.is_frozen())), FROZEN);
}

#[test]
fn while_a_guest_owes_its_thaw_nothing_is_frozen_and_nobody_waits() {
    let mut bench = Bench::new(short());
    let thaws = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let may = thaws.clone();
    let agent = FakeAgent::start(&bench.channel, move |command, _| {
        let refuses = command == "guest-fsfreeze-thaw" && !may.load(std::sync::atomic::Ordering::SeqCst);
        refuses.then_some(Says::Fails("not now"))
    });
    assert!((1..=3).all(|from| bench.begin(from, || {}).is_none()));
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(bench.answers(|| {}));
    }
    assert_eq!((all.iter().map(|(from, _)| *from).collect::<Vec<_>>(), bench.taken), (vec![1, 2, 3], 3));
    is_not_frozen(&were(&all[1].1), "has not thawed them yet");
    is_not_frozen(&bench.snapshot(|| {}), "has not thawed them yet");
    assert_eq!(agent.heard("guest-fsfreeze-freeze"), 1);
    thaws.store(true, std::sync::atomic::Ordering::SeqCst);
    until("the thaw", || !agent.is_frozen());
}

#[test]
fn an_agent_that_comes_back_thaws_what_the_one_before_has_frozen() {
    let mut bench = Bench::new(limits());
    let first = RefCell::new(Some(FakeAgent::good(&bench.channel)));
    assert_eq!(bench.begin(1, || {}), None);
    let answers = bench.answers(|| drop(first.take()));
    assert_eq!(were(&answers[0].1), FileSystems::Frozen { count: 3, thawed: false });
    let second = FakeAgent::good(&bench.channel);
    until("the thaw", || second.heard("guest-fsfreeze-thaw") == 1);
}

#[test]
fn the_machine_s_end_ends_all_and_tells_who_waits_in_vain() {
    // While it freezes, while it is frozen, and while it does not thaw.
    for deaf in ["guest-fsfreeze-freeze", "", "guest-fsfreeze-thaw"] {
        let mut bench = Bench::new(limits());
        let agent = FakeAgent::start(&bench.channel, move |command, _| (command == deaf).then_some(Says::Nothing));
        assert!((1..=2).all(|from| bench.begin(from, || {}).is_none()));
        let last = if deaf == "guest-fsfreeze-thaw" {
            let taken = std::cell::Cell::new(false);
            until("the snapshot", || {
                bench.freezes.go_on(&mut |_, _| {
                    taken.set(true);
                    Answer::done()
                });
                taken.get()
            });
            deaf
        } else {
            "guest-fsfreeze-freeze"
        };
        until(last, || agent.heard(last) == 1);
        let left: std::collections::BTreeMap<_, _> = bench.freezes.end().into_iter().collect();
        assert_eq!(left.keys().copied().collect::<Vec<_>>(), [1, 2]);
        // The first was taken in one of these cases, and is not called failed then.
        assert_eq!(matches!(left[&1], Answer::Ok(_)), deaf == "guest-fsfreeze-thaw");
        assert!(matches!(left[&2], Answer::Error(_)));
    }
}
