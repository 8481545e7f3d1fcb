//! Admin commands (section 5).

use super::command::{Command, Status};
use super::counters::NvmeCounters;
use super::doorbell::Kind;
use super::engine::{Engine, Event, Reply};
use super::identify::{MAX_EVENT_REQUESTS, identify};
use super::log_page::{self, Wanted};
use super::prp;
use super::queue::{CompletionQueue, SubmissionQueue};

/// Opcodes (figure 139).
pub mod opcode {
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
}

/// Entry sizes that CC must name before I/O queues are made, as powers of two (section 3.1.5).
const SUBMISSION_ENTRY_SHIFT: u32 = 6;
const COMPLETION_ENTRY_SHIFT: u32 = 4;
/// The queue is one piece of memory (CAP.CQR).
const CONTIGUOUS: u16 = 1;
/// The completion queue has an interrupt.
const INTERRUPTS_ENABLED: u16 = 1 << 1;

impl Engine {
    /// Does an admin command.
    ///
    /// # Errors
    /// The [`Status`] that refuses it.
    pub fn admin(&mut self, command: &Command) -> Result<Reply, Status> {
        NvmeCounters::count(&self.shared.counters.admin_commands);
        let run = match command.opcode {
            opcode::DELETE_SUBMISSION_QUEUE => Self::delete_submission_queue,
            opcode::CREATE_SUBMISSION_QUEUE => Self::create_submission_queue,
            opcode::GET_LOG_PAGE => Self::get_log_page,
            opcode::DELETE_COMPLETION_QUEUE => Self::delete_completion_queue,
            opcode::CREATE_COMPLETION_QUEUE => Self::create_completion_queue,
            opcode::IDENTIFY => Self::identify,
            opcode::ABORT => Self::abort,
            opcode::SET_FEATURES => Self::set_features,
            opcode::GET_FEATURES => {
                |engine: &mut Self, command: &Command| engine.features.get(&engine.shared, command).map(Reply::Done)
            }
            opcode::ASYNC_EVENT_REQUEST => Self::request_event,
            _ => return Err(Status::INVALID_OPCODE),
        };
        command.check_flags()?;
        run(self, command)
    }

    /// Section 5.3.
    fn create_completion_queue(&mut self, command: &Command) -> Result<Reply, Status> {
        let (id, last) = command.halves(10);
        let (flags, vector) = command.halves(11);
        if id == 0 || !matches!(self.completion.get(usize::from(id)), Some(None)) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        self.check_entry_shift(20, COMPLETION_ENTRY_SHIFT)?;
        if vector >= self.shared.vectors {
            return Err(Status::INVALID_VECTOR);
        }
        if flags & CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        let vector = (flags & INTERRUPTS_ENABLED != 0).then_some(vector);
        let queue = CompletionQueue::new(&self.shared.memory, command.prp1, u32::from(last) + 1, vector)?;
        self.open_completion(id, queue);
        Ok(Reply::Done(0))
    }

    /// Section 5.4.
    fn create_submission_queue(&mut self, command: &Command) -> Result<Reply, Status> {
        let (id, last) = command.halves(10);
        let (flags, completion) = command.halves(11);
        if completion == 0 || usize::from(completion) >= self.completion.len() {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if !matches!(self.completion.get(usize::from(completion)), Some(Some(_))) {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        if id == 0 || !matches!(self.submission.get(usize::from(id)), Some(None)) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        self.check_entry_shift(16, SUBMISSION_ENTRY_SHIFT)?;
        if flags & CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        let queue = SubmissionQueue::new(&self.shared.memory, command.prp1, u32::from(last) + 1, completion)?;
        self.open_submission(id, queue);
        Ok(Reply::Done(0))
    }

    /// The size of entries stands in four bits of CC from `bit` on.
    fn check_entry_shift(&self, bit: u32, shift: u32) -> Result<(), Status> {
        let configuration = self.shared.configuration.load(std::sync::atomic::Ordering::SeqCst);
        if configuration >> bit & 0xf == shift { Ok(()) } else { Err(Status::INVALID_QUEUE_SIZE) }
    }

    /// Section 5.6. Commands that were begun are finished first. Those that were not fetched are lost, as the driver must
    /// expect.
    fn delete_submission_queue(&mut self, command: &Command) -> Result<Reply, Status> {
        let (id, _) = command.halves(10);
        self.settle().map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let slot = self.submission.get_mut(usize::from(id)).filter(|slot| id != 0 && slot.is_some());
        *slot.ok_or(Status::INVALID_QUEUE_ID)? = None;
        self.shared.doorbells.open(Kind::Submission, id, 0);
        Ok(Reply::Done(0))
    }

    /// Section 5.5.
    fn delete_completion_queue(&mut self, command: &Command) -> Result<Reply, Status> {
        let (id, _) = command.halves(10);
        let slot = self.completion.get_mut(usize::from(id)).filter(|slot| id != 0 && slot.is_some());
        let slot = slot.ok_or(Status::INVALID_QUEUE_ID)?;
        if self.submission.iter().flatten().any(|queue| queue.completion == id) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        *slot = None;
        self.shared.doorbells.open(Kind::Completion, id, 0);
        Ok(Reply::Done(0))
    }

    fn identify(&mut self, command: &Command) -> Result<Reply, Status> {
        let page = identify(&self.shared, command)?;
        prp::give(&self.shared.memory, command, &*page)?;
        Ok(Reply::Done(0))
    }

    fn get_log_page(&mut self, command: &Command) -> Result<Reply, Status> {
        let wanted = Wanted::parse(command)?;
        // Those that came before this command belong into the log that it reads.
        self.note_bad_doorbells();
        self.note_resize();
        let (changed, nsid) = (self.namespace_changed, command.nsid);
        let bytes = log_page::read(&self.shared, &self.features, &self.errors, changed, &wanted, nsid)?;
        prp::give(&self.shared.memory, command, &bytes)?;
        if !wanted.retain_event {
            self.events.unmask(wanted.page);
            // What was told is no news any more.
            self.namespace_changed &= wanted.page != log_page::CHANGED_NAMESPACES;
        }
        Ok(Reply::Done(0))
    }

    fn set_features(&mut self, command: &Command) -> Result<Reply, Status> {
        let queues_exist = self.submission.iter().skip(1).flatten().next().is_some()
            || self.completion.iter().skip(1).flatten().next().is_some();
        let before = self.features.wants_temperature_event();
        let result = self.features.set(&self.shared, command, queues_exist)?;
        // An event when the temperature comes to be outside the thresholds, not as long as it is.
        if self.features.wants_temperature_event() && !before {
            self.events.add(Event::Temperature);
        }
        Ok(Reply::Done(result))
    }

    /// Section 5.1: what can still be ended early is only an Asynchronous Event Request. Bit 0 tells that it was not.
    fn abort(&mut self, command: &Command) -> Result<Reply, Status> {
        let (queue, id) = command.halves(10);
        let aborted = queue == 0 && self.abort_request(id).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(Reply::Done(u32::from(!aborted)))
    }

    /// Section 5.2: held until there is an event.
    fn request_event(&mut self, command: &Command) -> Result<Reply, Status> {
        if self.events.requests.len() >= MAX_EVENT_REQUESTS {
            return Err(Status::EVENT_LIMIT_EXCEEDED);
        }
        self.events.requests.push(command.id);
        Ok(Reply::Held)
    }
}
