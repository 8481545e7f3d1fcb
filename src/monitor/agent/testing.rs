//! An agent of a guest, as good or as bad as is wished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lines::{Lines, MARK};
use super::*;

/// Longer than anything takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a fake agent answers to a command, if it does: a value to return, or bytes as they are.
pub enum Says {
    Returns(Value),
    Fails(&'static str),
    Bytes(Vec<u8>),
    Nothing,
}

type Manner = Box<dyn FnMut(&str, &mut State) -> Option<Says> + Send>;

/// How the fake guest is.
#[derive(Default)]
pub struct State {
    pub is_frozen: bool,
    /// Commands that came, in order.
    pub heard: Vec<String>,
}

/// A process of the guest that has the port open until it is dropped.
pub struct FakeAgent {
    pub state: Arc<Mutex<State>>,
    channel: Arc<Channel>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// One that does all as it should.
    pub fn good(channel: &Arc<Channel>) -> Self {
        Self::start(channel, |_, _| None)
    }

    /// One that does as `manner` says, and where that says nothing, as it should.
    pub fn start(
        channel: &Arc<Channel>,
        manner: impl FnMut(&str, &mut State) -> Option<Says> + Send + 'static,
    ) -> Self {
        channel.set_open(true);
        let (state, ends) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let of_thread = (channel.clone(), state.clone(), ends.clone());
        let thread = thread::spawn(move || attend(&of_thread.0, &of_thread.1, &of_thread.2, Box::new(manner)));
        Self { state, channel: channel.clone(), ends, thread: Some(thread) }
    }

    pub fn is_frozen(&self) -> bool {
        self.state.lock().unwrap().is_frozen
    }

    pub fn heard(&self, command: &str) -> usize {
        self.state.lock().unwrap().heard.iter().filter(|heard| *heard == command).count()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        self.channel.set_open(false);
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn attend(channel: &Channel, state: &Mutex<State>, ends: &AtomicBool, mut manner: Manner) {
    let mut lines = Lines::default();
    while !ends.load(Ordering::SeqCst) {
        lines.put(channel.take(1000));
        while let Some(line) = lines.next() {
            let asked: Value = serde_json::from_slice(&line.bytes).unwrap();
            let command = asked["execute"].as_str().unwrap();
            let mut state = state.lock().unwrap();
            state.heard.push(command.into());
            let says = manner(command, &mut state).unwrap_or_else(|| properly(command, &asked, &mut state));
            drop(state);
            let mark: &[u8] = if command == "guest-sync-delimited" { &[MARK] } else { &[] };
            let text = |value: Value| [mark, value.to_string().as_bytes(), b"\n"].concat();
            let mut rest = match says {
                Says::Returns(value) => text(json!({ "return": value })),
                Says::Fails(why) => text(json!({ "error": { "class": "GenericError", "desc": why } })),
                Says::Bytes(bytes) => bytes,
                Says::Nothing => Vec::new(),
            };
            // Where there is no room, a guest waits or gives up.
            while !rest.is_empty() && !ends.load(Ordering::SeqCst) {
                let put = channel.put(&rest);
                rest.drain(..put);
                if put == 0 {
                    break;
                }
            }
        }
        thread::yield_now();
    }
}

fn properly(command: &str, asked: &Value, state: &mut State) -> Says {
    match command {
        "guest-sync-delimited" => Says::Returns(asked["arguments"]["id"].clone()),
        "guest-fsfreeze-status" => Says::Returns(if state.is_frozen { "frozen" } else { "thawed" }.into()),
        "guest-fsfreeze-freeze" => {
            state.is_frozen = true;
            Says::Returns(3.into())
        }
        "guest-fsfreeze-thaw" => Says::Returns(if std::mem::take(&mut state.is_frozen) { 3 } else { 0 }.into()),
        _ => Says::Fails("unknown"),
    }
}

pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        thread::yield_now();
    }
}
