//! The queues of an enabled controller, and the order in which they are served: round robin, a few commands each.

use std::io as host;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestMemoryError;

use super::command::{Command, Outcome, Status};
use super::counters::NvmeCounters;
use super::doorbell::Kind;
use super::features::Features;
use super::io::InFlight;
use super::log_page::{CHANGED_NAMESPACES, ERRORS, ErrorEntry, ErrorLog, HEALTH};
use super::queue::{Completion, CompletionQueue, SubmissionQueue};
use super::{Shared, io, status_bits};
use crate::disk::{DiskQueue, Ended};

/// Commands taken from one queue before the next has its turn, and before the driver is called.
const BURST: usize = 8;
/// "Not of a command" in the error log.
const NO_COMMAND: u16 = 0xffff;

/// Something that the driver did not ask for in particular (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A doorbell of a queue that does not exist was written.
    BadDoorbellRegister,
    /// A doorbell was given a value beyond its queue.
    BadDoorbellValue,
    /// The temperature is outside the driver's thresholds.
    Temperature,
    /// The namespace has another size.
    NamespaceChanged,
}

impl Event {
    /// Bits of `Shared::bad_doorbells`.
    pub const BAD_REGISTER_BIT: u32 = 1;
    pub const BAD_VALUE_BIT: u32 = 2;

    /// Type, information, and the log page that tells more.
    fn parts(self) -> (u8, u8, u8) {
        match self {
            Self::BadDoorbellRegister => (0, 0x00, ERRORS),
            Self::BadDoorbellValue => (0, 0x01, ERRORS),
            Self::Temperature => (1, 0x01, HEALTH),
            Self::NamespaceChanged => (2, 0x00, CHANGED_NAMESPACES),
        }
    }
}

/// What waits for an event, and what waits for a request.
#[derive(Debug, Default)]
pub struct Events {
    /// Identifiers of held Asynchronous Event Requests, the oldest first.
    pub requests: Vec<u16>,
    /// Each at most once.
    pending: Vec<Event>,
    /// Log pages whose events are masked until the page is read.
    masked: Vec<u8>,
}

impl Events {
    pub fn add(&mut self, event: Event) {
        if !self.pending.contains(&event) {
            self.pending.push(event);
        }
    }

    /// The driver has read a log page.
    pub fn unmask(&mut self, page: u8) {
        self.masked.retain(|&masked| masked != page);
    }

    /// Where in `pending` the next event is that the driver may be told.
    fn next(&self) -> Option<usize> {
        if self.requests.is_empty() {
            return None;
        }
        self.pending.iter().position(|event| !self.masked.contains(&event.parts().2))
    }

    /// The request that is answered, and its double word 0.
    fn take(&mut self) -> Option<(u16, u32)> {
        let event = self.pending.remove(self.next()?);
        let (kind, information, page) = event.parts();
        self.masked.push(page);
        Some((self.requests.remove(0), u32::from_le_bytes([kind, information, page, 0])))
    }
}

/// Why the controller cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing can be told to the driver.
    #[error("a queue is not memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// What was begun does not end.
    #[error("the host does not finish its requests: {0}")]
    Host(#[from] host::Error),
}

/// What becomes of a command.
pub enum Reply {
    /// It has ended well, with this double word 0.
    Done(u32),
    /// It ends later.
    Held,
}

/// All that an enabled controller has. Lives in the worker, and is gone after a reset.
pub struct Engine {
    pub shared: Arc<Shared>,
    /// What of the disk is under way.
    disk: DiskQueue<InFlight>,
    /// Kept for its room.
    ended: Vec<Ended<InFlight>>,
    /// Commands of each completion queue, by its number, that the disk has begun: their completions need room.
    begun: Vec<u16>,
    /// By number; 0 are the admin queues.
    pub submission: Vec<Option<SubmissionQueue>>,
    pub completion: Vec<Option<CompletionQueue>>,
    pub features: Features,
    pub errors: ErrorLog,
    pub events: Events,
    /// The namespace has changed since the driver read which did.
    pub namespace_changed: bool,
}

impl Engine {
    /// The admin queues, as the driver wrote them into AQA, ASQ and ACQ (entries are not zero-based here).
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        shared: Arc<Shared>,
        (asq, entries): (u64, u32),
        (acq, acq_entries): (u64, u32),
    ) -> Result<Self, Status> {
        let none = usize::from(shared.queues) + 1;
        let mut engine = Self {
            disk: DiskQueue::new(shared.disk.clone(), &shared.memory, shared.engine),
            ended: Vec::new(),
            begun: vec![0; none],
            submission: (0..none).map(|_| None).collect(),
            completion: (0..none).map(|_| None).collect(),
            features: Features::new(shared.vectors),
            errors: ErrorLog::default(),
            events: Events::default(),
            namespace_changed: false,
            shared,
        };
        let memory = engine.shared.memory.clone();
        engine.open_completion(0, CompletionQueue::new(&memory, acq, acq_entries, Some(0))?);
        engine.open_submission(0, SubmissionQueue::new(&memory, asq, entries, 0)?);
        Ok(engine)
    }

    pub fn open_submission(&mut self, id: u16, queue: SubmissionQueue) {
        if let Some(slot) = self.submission.get_mut(usize::from(id)) {
            self.shared.doorbells.open(Kind::Submission, id, queue.entries());
            *slot = Some(queue);
        }
    }

    pub fn open_completion(&mut self, id: u16, queue: CompletionQueue) {
        if let Some(slot) = self.completion.get_mut(usize::from(id)) {
            self.shared.doorbells.open(Kind::Completion, id, queue.entries());
            *slot = Some(queue);
        }
    }

    /// Gives every queue a turn; tells whether there was anything to do.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn poll(&mut self) -> Result<bool, EngineError> {
        self.shared.starved.store(false, Ordering::SeqCst);
        self.note_bad_doorbells();
        self.note_resize();
        let mut worked = self.shut_down();
        worked |= self.deliver_events()?;
        let queues = u16::try_from(self.submission.len()).unwrap_or(u16::MAX);
        for id in 0..queues {
            worked |= self.serve(id)?;
        }
        Ok(worked | self.finish()?)
    }

    /// Readable when a command that the disk has begun has ended; nothing where none is begun.
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.disk.event()
    }

    /// Answers the commands that the disk has ended; tells whether there were any.
    fn finish(&mut self) -> Result<bool, EngineError> {
        let mut ended = std::mem::take(&mut self.ended);
        let result = self.disk.reap(&mut ended);
        self.answer(ended, result)
    }

    /// Waits for all commands that the disk has begun, and answers them.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn settle(&mut self) -> Result<(), EngineError> {
        let mut ended = std::mem::take(&mut self.ended);
        let result = self.disk.settle(&mut ended);
        self.answer(ended, result).map(|_| ())
    }

    fn answer(&mut self, mut ended: Vec<Ended<InFlight>>, result: host::Result<()>) -> Result<bool, EngineError> {
        let some = !ended.is_empty();
        for (begun, result) in ended.drain(..) {
            let InFlight { queue, completion, command } = begun;
            let outcome = io::conclude(&self.shared, &command, result);
            self.complete(queue, completion, &command, outcome)?;
            if let Some(begun) = self.begun.get_mut(usize::from(completion)) {
                *begun = begun.saturating_sub(1);
            }
        }
        self.ended = ended;
        if some {
            for id in 0..u16::try_from(self.completion.len()).unwrap_or(u16::MAX) {
                self.announce(id);
            }
        }
        result?;
        Ok(some)
    }

    /// Whether [`Engine::poll`] would find something to do. Where only room in a completion queue is missing, its
    /// doorbell is made to wake the worker.
    pub fn has_work(&self) -> bool {
        let shared = &self.shared;
        if shared.shutdown.load(Ordering::SeqCst)
            || shared.resized.load(Ordering::SeqCst)
            || shared.bad_doorbells.load(Ordering::SeqCst) != 0
        {
            return true;
        }
        (self.events.next().is_some() && self.has_room(0))
            || (0..).zip(&self.submission).any(|(id, queue)| {
                let can_serve = |queue: &SubmissionQueue| {
                    self.has_commands(id, queue) && self.may_begin(id) && self.has_room(queue.completion)
                };
                queue.as_ref().is_some_and(can_serve)
            })
    }

    fn has_commands(&self, id: u16, queue: &SubmissionQueue) -> bool {
        self.shared.doorbells.value(Kind::Submission, id) != queue.head()
    }

    /// Whether the disk takes another command. If not, what ends wakes the worker.
    fn may_begin(&self, id: u16) -> bool {
        id == 0 || !self.disk.is_full()
    }

    /// Whether a completion can be posted, beside those of what the disk has begun. If not, that is remembered before the
    /// doorbell is looked at for the last time, so that the driver's next write to it is either seen here or wakes the
    /// worker.
    fn has_room(&self, id: u16) -> bool {
        let Some(Some(queue)) = self.completion.get(usize::from(id)) else { return false };
        let begun = self.begun.get(usize::from(id)).copied().unwrap_or(0);
        let is_full = || queue.room(self.shared.doorbells.value(Kind::Completion, id)) <= begun;
        if !is_full() {
            return true;
        }
        self.shared.starved.store(true, Ordering::SeqCst);
        !is_full()
    }

    /// Serves a few commands of a queue. A command is fetched only when there is room for its completion.
    fn serve(&mut self, id: u16) -> Result<bool, EngineError> {
        let mut served = None;
        for _ in 0..BURST {
            if self.shared.stopping() {
                break;
            }
            let Some(Some(queue)) = self.submission.get(usize::from(id)) else { break };
            let completion = queue.completion;
            if !self.has_commands(id, queue) || !self.may_begin(id) || !self.has_room(completion) {
                break;
            }
            let Some(Some(queue)) = self.submission.get_mut(usize::from(id)) else { break };
            let command = queue.fetch(&self.shared.memory)?;
            served = Some(completion);
            self.execute(id, completion, &command)?;
        }
        if let Some(completion) = served {
            self.announce(completion);
        }
        Ok(served.is_some())
    }

    fn execute(&mut self, queue: u16, completion: u16, command: &Command) -> Result<(), GuestMemoryError> {
        let outcome = if queue == 0 {
            match self.admin(command) {
                Ok(Reply::Held) => return Ok(()),
                Ok(Reply::Done(result)) => Ok(result),
                Err(status) => Err(status),
            }
        } else {
            let begun = InFlight { queue, completion, command: *command };
            match io::execute(&self.shared, &mut self.disk, self.features.write_cache(), begun).transpose() {
                Some(outcome) => outcome,
                None => {
                    if let Some(begun) = self.begun.get_mut(usize::from(completion)) {
                        *begun = begun.saturating_add(1);
                    }
                    return Ok(());
                }
            }
        };
        self.complete(queue, completion, command, outcome)
    }

    /// Posts how a command ended.
    fn complete(
        &mut self,
        queue: u16,
        completion: u16,
        command: &Command,
        outcome: Outcome,
    ) -> Result<(), GuestMemoryError> {
        let (result, status) = match outcome {
            Ok(result) => (result, Status::SUCCESS),
            Err(status) => {
                self.note_failure(queue, command, status);
                (0, status)
            }
        };
        let head = self.submission.get(usize::from(queue)).and_then(Option::as_ref).map_or(0, SubmissionQueue::head);
        self.post(completion, &Completion { result, head, queue, id: command.id, status })
    }

    fn note_failure(&mut self, queue: u16, command: &Command, status: Status) {
        if status.is_logged() {
            let (lba, nsid) = (command.long(10), command.nsid);
            self.errors.add(ErrorEntry { queue, id: command.id, status, lba, nsid });
        } else {
            NvmeCounters::count(&self.shared.counters.refused);
        }
    }

    fn post(&mut self, id: u16, completion: &Completion) -> Result<(), GuestMemoryError> {
        match self.completion.get_mut(usize::from(id)) {
            Some(Some(queue)) => queue.post(&self.shared.memory, completion),
            // A completion queue cannot be deleted before those that use it.
            _ => Ok(()),
        }
    }

    /// Calls the driver if anything was posted.
    fn announce(&mut self, id: u16) {
        let Some(Some(queue)) = self.completion.get_mut(usize::from(id)) else { return };
        if std::mem::take(&mut queue.unannounced)
            && let Some(vector) = queue.vector
        {
            self.shared.interrupts.raise(vector);
        }
    }

    /// Ends an Asynchronous Event Request that the driver wants back (section 5.1), and tells whether it did: not where
    /// the completion queue has no room for its end and that of the Abort command.
    ///
    /// # Errors
    /// As [`Engine::poll`].
    pub fn abort_request(&mut self, id: u16) -> Result<bool, GuestMemoryError> {
        let Some(at) = self.events.requests.iter().position(|&request| request == id) else { return Ok(false) };
        if !self.has_room_for_two() {
            return Ok(false);
        }
        self.events.requests.remove(at);
        self.post_admin(id, 0, Status::ABORT_REQUESTED)?;
        Ok(true)
    }

    fn has_room_for_two(&self) -> bool {
        let head = self.shared.doorbells.value(Kind::Completion, 0);
        matches!(self.completion.first(), Some(Some(queue)) if queue.room(head) >= 2)
    }

    fn post_admin(&mut self, id: u16, result: u32, status: Status) -> Result<(), GuestMemoryError> {
        let head = self.submission.first().and_then(Option::as_ref).map_or(0, SubmissionQueue::head);
        self.post(0, &Completion { result, head, queue: 0, id, status })
    }

    /// Takes over what the doorbells have met: an event and an entry of the error log for each kind.
    pub fn note_bad_doorbells(&mut self) {
        let bits = self.shared.bad_doorbells.swap(0, Ordering::SeqCst);
        for (bit, event) in
            [(Event::BAD_REGISTER_BIT, Event::BadDoorbellRegister), (Event::BAD_VALUE_BIT, Event::BadDoorbellValue)]
        {
            if bits & bit != 0 {
                self.events.add(event);
                let status = Status::INVALID_FIELD;
                self.errors.add(ErrorEntry { queue: NO_COMMAND, id: NO_COMMAND, status, lba: 0, nsid: 0 });
            }
        }
    }

    /// Takes over that the disk has another size; an event where the driver wants to know.
    pub fn note_resize(&mut self) {
        if self.shared.resized.swap(false, Ordering::SeqCst) {
            self.namespace_changed = true;
            if self.features.wants_namespace_event() {
                self.events.add(Event::NamespaceChanged);
            }
        }
    }

    fn deliver_events(&mut self) -> Result<bool, GuestMemoryError> {
        let mut worked = false;
        while self.events.next().is_some() && self.has_room(0) {
            let Some((id, result)) = self.events.take() else { break };
            self.post_admin(id, result, Status::SUCCESS)?;
            worked = true;
        }
        if worked {
            self.announce(0);
        }
        Ok(worked)
    }

    /// Shutdown processing (section 7.6.2): what was written is made durable, then the driver may take power away. It
    /// may not wait for ever either, so that a host that cannot flush is told to the log only.
    fn shut_down(&mut self) -> bool {
        if !self.shared.shutdown.swap(false, Ordering::SeqCst) {
            return false;
        }
        // The failure was told; there is no command to answer.
        let _ = io::flush(&self.shared);
        self.shared.status.fetch_and(!status_bits::SHUTDOWN, Ordering::SeqCst);
        self.shared.status.fetch_or(status_bits::SHUTDOWN_COMPLETE, Ordering::SeqCst);
        true
    }
}
