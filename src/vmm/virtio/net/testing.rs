//! A link in memory, and a driver of a card.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::super::testing::attachment::Attachment;
use super::super::testing::*;
use super::*;
use crate::net::{Offloads, Port, Receiver, Sender};
use crate::vmm::memory::GuestMemory;

pub const MAC: Mac = Mac([0x0a, 1, 2, 3, 4, 5]);
pub const ALL: Offloads = Offloads { checksum: true, tso4: true, tso6: true, ecn: true };
pub const MERGES: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
pub const CONTROL: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
pub const MULTIQUEUE: u64 = CONTROL | 1 << VIRTIO_NET_F_MQ;
/// Longer than anything takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Frames of one pair, headers first.
#[derive(Default)]
pub struct Lane {
    pub to_guest: VecDeque<Vec<u8>>,
    pub from_guest: Vec<Vec<u8>>,
    event: Option<Arc<EventFd>>,
}

/// A link in memory.
pub struct Wire {
    pub pairs: u16,
    pub takes: Offloads,
    pub gives: Offloads,
    pub lanes: Mutex<Vec<Lane>>,
    /// How many ports were opened, each time.
    pub opened: Mutex<Vec<u16>>,
    pub agreed: Mutex<Vec<Offloads>>,
    /// Ports that are open now.
    pub open: Mutex<u16>,
    pub fails: AtomicBool,
    pub fails_to_open: AtomicBool,
    /// Senders and receivers wait here.
    pub gate: Mutex<()>,
    /// How many of them do.
    pub waiting: AtomicU64,
    /// How often somebody looked for a frame.
    pub looks: AtomicU64,
}

impl Wire {
    pub fn new(pairs: u16, offloads: Offloads) -> Arc<Self> {
        Arc::new(Self {
            pairs,
            takes: offloads,
            gives: offloads,
            lanes: Mutex::new((0..pairs).map(|_| Lane::default()).collect()),
            opened: Mutex::default(),
            agreed: Mutex::default(),
            open: Mutex::default(),
            fails: AtomicBool::new(false),
            fails_to_open: AtomicBool::new(false),
            gate: Mutex::default(),
            waiting: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }

    pub fn link(self: &Arc<Self>) -> Cable {
        Cable(self.clone())
    }

    /// A frame towards the guest, with a header of its own.
    pub fn give(&self, lane: u16, frame: &[u8]) {
        let mut lanes = self.lanes.lock().unwrap();
        let lane = &mut lanes[usize::from(lane)];
        lane.to_guest.push_back([&[0; 12], frame].concat());
        if let Some(event) = &lane.event {
            event.write(1).unwrap();
        }
    }

    /// Waits for frames of the guest, headers first.
    pub fn taken(&self, lane: u16, count: usize) -> Vec<Vec<u8>> {
        self.wait(|lanes| lanes[usize::from(lane)].from_guest.len() >= count);
        std::mem::take(&mut self.lanes.lock().unwrap()[usize::from(lane)].from_guest)
    }

    fn wait(&self, is: impl Fn(&MutexGuard<'_, Vec<Lane>>) -> bool) {
        let began = Instant::now();
        while !is(&self.lanes.lock().unwrap()) {
            assert!(began.elapsed() < PATIENCE, "a frame was lost");
            thread::yield_now();
        }
    }

    /// Wakes who waits for frames, to see that there is a failure.
    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
        self.lanes.lock().unwrap().iter().filter_map(|lane| lane.event.as_ref()).for_each(|e| e.write(1).unwrap());
    }

    fn check(&self) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) { Err(rustix::io::Errno::NODEV.into()) } else { Ok(()) }
    }
}

/// A handle, as cards hold one.
pub struct Cable(pub Arc<Wire>);

impl Link for Cable {
    fn queue_pairs(&self) -> u16 {
        self.0.pairs
    }
    fn takes(&self) -> Offloads {
        self.0.takes
    }
    fn gives(&self) -> Offloads {
        self.0.gives
    }
    fn agree(&self, offloads: Offloads) -> io::Result<()> {
        self.0.agreed.lock().unwrap().push(offloads);
        Ok(())
    }
    fn open(&self, pairs: u16) -> io::Result<Vec<Port>> {
        let wire = &self.0;
        if wire.fails_to_open.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::BUSY.into());
        }
        assert_eq!(std::mem::replace(&mut *wire.open.lock().unwrap(), 2 * pairs), 0, "ports are still open");
        wire.opened.lock().unwrap().push(pairs);
        let mut lanes = wire.lanes.lock().unwrap();
        let port = |(index, lane): (usize, &mut Lane)| {
            let event = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).unwrap());
            if !lane.to_guest.is_empty() {
                event.write(1).unwrap();
            }
            lane.event = Some(event.clone());
            let end = |event| End { wire: wire.clone(), lane: index, event };
            Port { sender: Box::new(end(event.clone())), receiver: Box::new(end(event)) }
        };
        Ok(lanes.iter_mut().enumerate().take(pairs.into()).map(port).collect())
    }
}

struct End {
    wire: Arc<Wire>,
    lane: usize,
    event: Arc<EventFd>,
}

impl Drop for End {
    fn drop(&mut self) {
        *self.wire.open.lock().unwrap() -= 1;
    }
}

impl Sender for End {
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.wire.check()?;
        let mut bytes = Vec::new();
        for piece in frame {
            let at = bytes.len();
            bytes.resize(at + piece.len(), 0);
            piece.copy_to(&mut bytes[at..]);
        }
        self.wire.lanes.lock().unwrap()[self.lane].from_guest.push(bytes);
        Ok(())
    }
}

impl Receiver for End {
    fn receive(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        self.wire.looks.fetch_add(1, Ordering::SeqCst);
        self.wire.check()?;
        let mut lanes = self.wire.lanes.lock().unwrap();
        let Some(bytes) = lanes[self.lane].to_guest.pop_front() else {
            let _ = self.event.read();
            return Ok(None);
        };
        let mut rest = &bytes[..];
        for piece in frame {
            let (now, later) = rest.split_at(rest.len().min(piece.len()));
            piece.copy_from(now);
            rest = later;
        }
        Ok(Some(bytes.len() - rest.len()))
    }

    fn readable(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` holds the event.
        unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) }
    }
}

pub fn config(wire: &Arc<Wire>) -> NetworkConfig {
    NetworkConfig { mac: MAC, link: Arc::new(wire.link()), mtu: 1500 }
}

pub fn card(wire: &Arc<Wire>) -> Net {
    Net::new(&config(wire), QUEUE_PAIRS_MAX, no_log())
}

/// One queue of a card, as its driver has it.
pub struct DriverQueue {
    index: u16,
    size: u16,
    avail_idx: u16,
    used_idx: u16,
}

impl DriverQueue {
    pub fn desc(&self) -> u64 {
        DESC + 0x3000 * u64::from(self.index)
    }
    fn avail(&self) -> u64 {
        self.desc() + 0x1000
    }
    fn used(&self) -> u64 {
        self.desc() + 0x2000
    }
}

/// A driver of a card with its queues.
pub struct CardDriver<T> {
    pub on: DriverOn<T>,
    pub queues: Vec<DriverQueue>,
    event_idx: bool,
}

impl<T: Attachment> CardDriver<T> {
    /// A driver with the card working, `queues` queues of `size` entries set up, at most 5.
    pub fn started(card: Net, features: u64, queues: u16, size: u16) -> Self {
        let mut driver = Self { on: DriverOn::new(Box::new(card)), queues: Vec::new(), event_idx: false };
        driver.start(features, queues, size);
        driver
    }

    pub fn start(&mut self, features: u64, queues: u16, size: u16) {
        let features = features | VERSION_1;
        self.event_idx = features & EVENT_IDX != 0;
        self.on.negotiate(features);
        assert_eq!(self.on.status(), 0xb, "features refused");
        self.queues = (0..queues).map(|index| DriverQueue { index, size, avail_idx: 0, used_idx: 0 }).collect();
        for queue in &self.queues {
            self.on.put(queue.desc(), &[0; 0x3000]);
            self.on.transport.set_up_queue(queue.index, size, [queue.desc(), queue.avail(), queue.used()]);
        }
        self.on.set_status(0xf);
        assert_eq!(self.on.status(), 0xf);
    }

    fn memory(&self) -> &GuestMemory {
        &self.on.memory
    }

    /// Lays a chain out from entry `head` on and makes it available, without a kick.
    pub fn offer(&mut self, index: u16, head: u16, buffers: &[Buffer]) {
        self.on.describe_chain(self.queues[usize::from(index)].desc(), head, buffers);
        self.offer_head(index, head);
    }

    pub fn offer_head(&mut self, index: u16, head: u16) {
        let queue = &mut self.queues[usize::from(index)];
        let slot = queue.avail() + 4 + 2 * u64::from(queue.avail_idx % queue.size);
        queue.avail_idx = queue.avail_idx.wrapping_add(1);
        let (at, idx) = (queue.avail() + 2, queue.avail_idx);
        self.memory().write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.memory().store(idx.to_le(), GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    /// Says that this many chains are available in all.
    pub fn publish(&mut self, index: u16, avail_idx: u16) {
        let at = self.queues[usize::from(index)].avail() + 2;
        self.memory().store(avail_idx.to_le(), GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    pub fn kick(&self, index: u16) {
        self.on.transport.notify(index);
    }

    pub fn used_idx(&self, index: u16) -> u16 {
        let at = self.queues[usize::from(index)].used() + 2;
        u16::from_le(self.memory().load(GuestAddress(at), Ordering::SeqCst).unwrap())
    }

    /// Whether the card wants to be kicked for what is available next.
    pub fn wants_kick(&self, index: u16) -> bool {
        let queue = &self.queues[usize::from(index)];
        let load = |at| u16::from_le(self.memory().load(GuestAddress(at), Ordering::SeqCst).unwrap());
        if self.event_idx {
            load(queue.used() + 4 + 8 * u64::from(queue.size)) == queue.avail_idx
        } else {
            load(queue.used()) & 1 == 0
        }
    }

    /// Waits for the next used element: head and length.
    pub fn next_used(&mut self, index: u16) -> (u32, u32) {
        let queue = &self.queues[usize::from(index)];
        let (at, seen) = (queue.avail() + 4 + 2 * u64::from(queue.size), queue.used_idx);
        if self.event_idx {
            self.memory().store(seen.to_le(), GuestAddress(at), Ordering::SeqCst).unwrap();
            std::sync::atomic::fence(Ordering::SeqCst);
        }
        while self.used_idx(index) == seen {
            self.on.wait_interrupt();
        }
        let queue = &mut self.queues[usize::from(index)];
        let at = queue.used() + 4 + 8 * u64::from(queue.used_idx % queue.size);
        queue.used_idx = queue.used_idx.wrapping_add(1);
        let element = |at| u32::from_le(self.memory().read_obj(GuestAddress(at)).unwrap());
        (element(at), element(at + 4))
    }

    /// Sends a chain of the transmit queue of a pair to its end.
    pub fn send(&mut self, pair: u16, buffers: &[Buffer]) {
        let index = 2 * pair + 1;
        self.offer(index, 0, buffers);
        self.kick(index);
        assert_eq!(self.next_used(index), (0, 0));
    }

    /// Sends a frame with a header, from [`DATA`].
    pub fn send_frame(&mut self, pair: u16, header: [u8; 12], frame: &[u8]) {
        self.on.put(DATA, &[&header, frame].concat());
        self.send(pair, &[(DATA, u32::try_from(12 + frame.len()).unwrap(), false)]);
    }

    /// Sends a command through the control queue, and gives the answer: [`NOT_ANSWERED`] where there is none.
    pub fn command(&mut self, index: u16, command: &[u8]) -> u8 {
        self.on.put(DATA, command);
        self.on.put(DATA + 0x1000, &[NOT_ANSWERED]);
        let len = u32::try_from(command.len()).unwrap();
        self.offer(index, 0, &[(DATA, len, false), (DATA + 0x1000, 1, true)]);
        self.kick(index);
        self.next_used(index);
        self.on.take(DATA + 0x1000, 1)[0]
    }
}

pub const NOT_ANSWERED: u8 = 0xee;

/// The command that sets how many pairs are used.
pub fn pairs(count: u16) -> Vec<u8> {
    [&[4, 0], &count.to_le_bytes()[..]].concat()
}

pub const PLAIN: Offloads = Offloads { checksum: false, tso4: false, tso6: false, ecn: false };
/// TCP over IPv4 to the guest in large frames.
pub const LARGE: u64 = 1 << 1 | 1 << 7;

pub fn frame(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add(u8::try_from(at * 7 % 256).unwrap())).collect()
}

pub fn counter(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}
