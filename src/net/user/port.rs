//! Both directions of the link: the guest's frames sorted, and those for it from all sides.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll;
use vm_memory::VolatileSlice;

use super::Shared;
use super::neighbours::{FRAME_MAX, Place};
use super::passt::{Next, Reader, Stream, mend_reset};
use super::rule::{Way, Why};
use crate::net::counters::NetCounters;
use crate::net::pieces::{gather, scatter};
use crate::net::queue::Sign;
use crate::net::services::attend::Desk;
use crate::net::wire::{Ethernet, IPV4};
use crate::net::{HEADER_SIZE, Receiver, Sender};

/// How many frames in a row come from one side while others may wait.
const IN_A_ROW: usize = 32;
/// How many frames are dropped in a row.
const DROPPED_MAX: usize = 256;
/// How many sides there are.
const SIDES: usize = 3;

/// Takes the guest's frames.
pub(super) struct UserSender {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl UserSender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: Vec::new() }
    }
}

impl Sender for UserSender {
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let Shared { rule, desk, outside, place, counters, .. } = &*self.shared;
        let most = HEADER_SIZE + FRAME_MAX;
        let total = gather(frame, most, &mut self.buffer);
        let Some((header, frame)) = self.buffer.split_at_mut_checked(HEADER_SIZE).filter(|_| total <= most) else {
            NetCounters::count(&counters.dropped_malformed);
            return Ok(());
        };
        counters.count_sent(frame.len());
        // Flags or a kind of segmentation: work left over that was not agreed on.
        if header.first_chunk() != Some(&[0, 0]) {
            NetCounters::count(&counters.dropped_malformed);
            return Ok(());
        }
        let way = match rule.way(frame) {
            Way::Outside if !outside.as_ref().is_some_and(|outside| outside.is_open()) => Way::Services,
            way => way,
        };
        let (counter, has_room) = match way {
            Way::Outside => (&counters.to_outside, outside.as_ref().is_some_and(|outside| outside.send(frame))),
            Way::Neighbour(address) if place.as_ref().is_some_and(|place| place.send(address, frame)) => {
                (&counters.to_neighbours, true)
            }
            // The services say of an instance that is not there that it is not.
            Way::Services | Way::Neighbour(_) => (&counters.to_services, desk.to_services.push(frame.to_vec())),
            Way::Nowhere(why) => {
                let counter = match why {
                    Why::Malformed => &counters.dropped_malformed,
                    Why::Source => &counters.dropped_source,
                    Why::Destination => &counters.dropped_destination,
                    Why::Protocol => &counters.dropped_protocol,
                };
                (counter, true)
            }
        };
        NetCounters::count(if has_room { counter } else { &counters.dropped_full });
        Ok(())
    }
}

/// The sides that frames for the guest come from, and the descriptor that tells of them. It belongs to the link, because what
/// was read ahead outlives the ports.
pub(super) struct Incoming {
    epoll: OwnedFd,
    /// Up while frames wait that were read ahead.
    ahead: Sign,
    sides: Mutex<Sides>,
}

struct Sides {
    outside: Option<(Arc<Stream>, Reader)>,
    /// Whether `ahead` is up.
    is_ahead: bool,
    /// Where the next frame is looked for first.
    turn: usize,
    in_a_row: usize,
    buffer: Vec<u8>,
}

/// What a side had.
enum Found {
    /// A frame, whose bytes with its header were given to the guest.
    Given(usize),
    /// A frame that the guest does not get.
    Dropped,
    Nothing,
}

impl Incoming {
    pub(super) fn new(
        desk: &Desk,
        outside: Option<(Arc<Stream>, Reader)>,
        place: Option<&Arc<Place>>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ahead = Sign::new()?;
        let mut fds = vec![desk.to_guest.as_fd(), ahead.as_fd()];
        fds.extend(outside.as_ref().map(|(stream, _)| stream.as_fd()));
        fds.extend(place.map(|place| place.as_fd()));
        for (number, fd) in fds.into_iter().enumerate() {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        }
        let is_ahead = outside.as_ref().is_some_and(|(_, reader)| reader.has_frame());
        if is_ahead {
            ahead.give();
        }
        let sides = Sides { outside, is_ahead, turn: 0, in_a_row: 0, buffer: vec![0; FRAME_MAX] };
        Ok(Self { epoll, ahead, sides: Mutex::new(sides) })
    }

    /// Gives the guest what `side` has.
    fn look(&self, sides: &mut Sides, side: usize, shared: &Shared, to: &[VolatileSlice<'_>]) -> Found {
        let give = |frame: &[u8]| scatter(frame, to).map_or(Found::Dropped, Found::Given);
        match side {
            0 => shared.desk.to_guest.pop().map_or(Found::Nothing, |frame| give(&frame)),
            1 => {
                let Some((stream, reader)) = &mut sides.outside else { return Found::Nothing };
                let found = match reader.next(stream.as_fd()) {
                    Next::Frame(range) => {
                        let frame = reader.frame(range);
                        mend_reset(frame);
                        // The rest, ARP above all, is the services' to say.
                        let may = Ethernet::parse(frame).is_some_and(|ethernet| ethernet.kind == IPV4);
                        if may { give(frame) } else { Found::Dropped }
                    }
                    Next::Nothing => Found::Nothing,
                    Next::Ended => {
                        stream.close();
                        // Else it would be readable for ever.
                        let _ = epoll::delete(&self.epoll, stream.as_fd());
                        sides.outside = None;
                        self.set_ahead(sides, false);
                        return Found::Nothing;
                    }
                };
                let has_frame = reader.has_frame();
                self.set_ahead(sides, has_frame);
                found
            }
            _ => {
                let Some(place) = &shared.place else { return Found::Nothing };
                let Ok(len) = place.receive(&mut sides.buffer) else { return Found::Nothing };
                let frame = sides.buffer.get(..len).unwrap_or_default();
                if place.may_come_in(frame) { give(frame) } else { Found::Dropped }
            }
        }
    }

    fn set_ahead(&self, sides: &mut Sides, is: bool) {
        if sides.is_ahead != is {
            if is {
                self.ahead.give();
            } else {
                self.ahead.take();
            }
            sides.is_ahead = is;
        }
    }

    fn next(&self, shared: &Shared, to: &[VolatileSlice<'_>]) -> Option<usize> {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut empty, mut dropped) = (0, 0);
        // Who sends nothing but what is dropped must not keep this thread; the descriptor tells that more waits.
        while empty < SIDES && dropped < DROPPED_MAX {
            let side = sides.turn % SIDES;
            let found = self.look(&mut sides, side, shared, to);
            sides.in_a_row += 1;
            if matches!(found, Found::Nothing) || sides.in_a_row >= IN_A_ROW {
                (sides.turn, sides.in_a_row) = ((side + 1) % SIDES, 0);
            }
            match found {
                Found::Given(len) => {
                    shared.counters.count_received(len.saturating_sub(HEADER_SIZE));
                    return Some(len);
                }
                Found::Dropped => {
                    NetCounters::count(&shared.counters.dropped_incoming);
                    (empty, dropped) = (0, dropped + 1);
                }
                Found::Nothing => empty += 1,
            }
        }
        None
    }
}

/// Gives frames to the guest.
pub(super) struct UserReceiver {
    shared: Arc<Shared>,
}

impl UserReceiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Receiver for UserReceiver {
    fn receive(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        Ok(self.shared.incoming.next(&self.shared, frame))
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.shared.incoming.epoll.as_fd()
    }
}
