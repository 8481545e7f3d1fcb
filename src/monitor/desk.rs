//! What the threads of an instance's process share: orders for the one that drives the machine, answers for the one that
//! talks to others, the console's output and input, and what is known of the machine.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::console::backlog::Backlog;
use super::protocol::{Answer, FailureKind, Request, Status};
use crate::vmm::memory::Ranges;

/// How many bytes may wait for the guest to read them.
const INPUT_MAX: usize = 4 << 10;

/// Which connection.
pub type ConnectionId = u64;

/// Something for the thread that drives the machine.
#[derive(Debug)]
pub struct Order {
    /// Who asks.
    pub from: ConnectionId,
    /// What.
    pub request: Request,
    /// The open files that came with it, as many as it names.
    pub files: Vec<OwnedFd>,
}

#[derive(Default)]
struct Orders {
    waiting: VecDeque<Order>,
    closed: bool,
}

/// The desk.
pub struct Desk {
    orders: Mutex<Orders>,
    answers: Mutex<Vec<(ConnectionId, Answer)>>,
    input: Mutex<Vec<u8>>,
    backlog: Mutex<Backlog>,
    status: Mutex<Status>,
    memory: Mutex<Option<Ranges>>,
    /// Readable when there is something for the thread that drives the machine.
    pub for_driver: EventFd,
    /// Readable when there is something for the thread that talks to others.
    pub for_server: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(event: &EventFd) {
    // An eventfd that is full is readable already.
    let _ = event.write(1);
}

impl Desk {
    /// A desk of an instance that is as `status` says.
    ///
    /// # Errors
    /// Where the host has no events for it.
    pub fn new(status: Status) -> io::Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        Ok(Self {
            orders: Mutex::default(),
            answers: Mutex::default(),
            input: Mutex::default(),
            backlog: Mutex::default(),
            status: Mutex::new(status),
            memory: Mutex::default(),
            for_driver: event()?,
            for_server: event()?,
        })
    }

    /// Gives an order; the answer at once where it cannot be followed any more.
    pub fn order(&self, order: Order) -> Option<Answer> {
        let mut orders = lock(&self.orders);
        if orders.closed {
            return Some(ended());
        }
        orders.waiting.push_back(order);
        drop(orders);
        ring(&self.for_driver);
        None
    }

    /// The next order.
    pub fn next_order(&self) -> Option<Order> {
        lock(&self.orders).waiting.pop_front()
    }

    /// No order is followed any more: all that wait, and all that come, are answered so.
    pub fn close(&self) {
        let mut orders = lock(&self.orders);
        orders.closed = true;
        let left = std::mem::take(&mut orders.waiting);
        drop(orders);
        left.into_iter().for_each(|order| self.answer(order.from, ended()));
    }

    /// Answers an order.
    pub fn answer(&self, to: ConnectionId, answer: Answer) {
        lock(&self.answers).push((to, answer));
        ring(&self.for_server);
    }

    /// The answers since the last call.
    pub fn answers(&self) -> Vec<(ConnectionId, Answer)> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// How many bytes of input there is room for.
    pub fn input_room(&self) -> usize {
        INPUT_MAX.saturating_sub(lock(&self.input).len())
    }

    /// Takes input for the guest, at most as much as there is room for.
    pub fn type_in(&self, bytes: &[u8]) {
        let mut input = lock(&self.input);
        let room = INPUT_MAX.saturating_sub(input.len());
        input.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        drop(input);
        ring(&self.for_driver);
    }

    /// Whether input waits for the guest.
    pub fn has_input(&self) -> bool {
        !lock(&self.input).is_empty()
    }

    /// Lets `give` take from the input; it says how many bytes it has taken.
    pub fn give_input(&self, give: impl Fn(&[u8]) -> usize) {
        let mut input = lock(&self.input);
        let was_full = input.len() >= INPUT_MAX;
        while !input.is_empty() {
            let taken = give(&input).min(input.len());
            if taken == 0 {
                break;
            }
            input.drain(..taken);
        }
        let has_room = input.len() < INPUT_MAX;
        drop(input);
        if was_full && has_room {
            ring(&self.for_server);
        }
    }

    /// Forgets what an ended machine has not read.
    pub fn clear_input(&self) {
        lock(&self.input).clear();
        ring(&self.for_server);
    }

    /// The console's newest output.
    pub fn backlog(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// Adds output of the console.
    pub fn show(&self, bytes: &[u8], not_kept: Option<(u64, String)>) {
        self.backlog().push(bytes);
        let mut status = lock(&self.status);
        status.console.not_kept = not_kept;
        let is_watched = status.console.attached > 0;
        drop(status);
        if is_watched {
            ring(&self.for_server);
        }
    }

    /// Notes something of the machine.
    pub fn note(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
    }

    /// How many are attached to the console.
    pub fn attached(&self) -> usize {
        lock(&self.status).console.attached
    }

    /// Notes where the guest's memory is, or that it is no more.
    pub fn note_memory(&self, memory: Option<Ranges>) {
        *lock(&self.memory) = memory;
    }

    /// How the instance is.
    pub fn status(&self) -> Status {
        let memory = lock(&self.memory).clone();
        let mut status = lock(&self.status).clone();
        status.console.written = self.backlog().end();
        // A dead /proc only costs the figure.
        status.resident = memory.and_then(|memory| memory.resident().ok());
        status
    }
}

fn ended() -> Answer {
    Answer::failed(FailureKind::Ended, "the machine has ended")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::monitor::protocol::{ConsoleStatus, State};

    pub fn desk() -> Desk {
        Desk::new(Status {
            id: "i-0".into(),
            state: State::Starting,
            pid: 1,
            program: String::new(),
            began_ms: 0,
            started_ms: None,
            restarts: 0,
            panicked: false,
            memory: 0,
            cpus: 1,
            kernel: None,
            firmware: None,
            volumes: Vec::new(),
            console: ConsoleStatus::default(),
            forwards: Vec::new(),
            resident: None,
        })
        .unwrap()
    }

    #[test]
    fn orders_are_followed_in_turn_and_answered_when_there_is_nobody_to_follow_them() {
        let desk = desk();
        let order = |from| Order { from, request: Request::Quit {}, files: Vec::new() };
        assert_eq!(desk.order(order(1)), None);
        assert_eq!(desk.order(order(2)), None);
        assert_eq!(desk.for_driver.read().unwrap(), 2);
        assert_eq!(desk.next_order().unwrap().from, 1);
        desk.close();
        let is_ended = |answer: &Answer| matches!(answer, Answer::Error(f) if f.kind == FailureKind::Ended);
        let answers = desk.answers();
        assert!(matches!(&answers[..], [(2, answer)] if is_ended(answer)), "{answers:?}");
        assert!(desk.order(order(3)).is_some_and(|answer| is_ended(&answer)));
        assert!(desk.next_order().is_none() && desk.answers().is_empty());
    }

    #[test]
    fn input_is_bounded_and_its_room_is_told() {
        let desk = desk();
        desk.type_in(&[7; INPUT_MAX + 5]);
        assert_eq!(desk.input_room(), 0);
        assert!(desk.for_server.read().is_err());
        let taken = std::cell::Cell::new(0);
        desk.give_input(|bytes| {
            let count = if taken.get() < 10 { bytes.len().min(10) } else { 0 };
            taken.set(taken.get() + count);
            count
        });
        assert_eq!((desk.input_room(), desk.has_input()), (10, true));
        assert!(desk.for_server.read().is_ok());
        desk.clear_input();
        assert_eq!((desk.input_room(), desk.has_input()), (INPUT_MAX, false));
    }

    #[test]
    fn output_wakes_only_where_somebody_is_attached() {
        let desk = desk();
        desk.show(b"one", None);
        assert!(desk.for_server.read().is_err());
        desk.note(|status| status.console.attached = 1);
        desk.show(b"two", Some((3, "full".into())));
        assert!(desk.for_server.read().is_ok());
        let status = desk.status();
        assert_eq!((status.console.written, status.console.not_kept), (6, Some((3, "full".into()))));
    }
}
