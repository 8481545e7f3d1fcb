//! Log pages (section 5.14.1): errors, health, firmware, changed namespaces.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::command::{Command, Status};
use super::counters::NvmeCounters;
use super::features::{Features, TEMPERATURE};
use super::{BROADCAST, NAMESPACE, Shared};

/// The most entries that the error log keeps.
pub const ERROR_LOG_ENTRIES: usize = 64;
/// Bytes of an entry of the error log.
const ERROR_LEN: usize = 64;
/// Data units of SMART are thousands of 512-byte blocks.
const DATA_UNIT: u64 = 512 * 1000;

/// Error Information.
pub const ERRORS: u8 = 0x01;
/// SMART / Health Information.
pub const HEALTH: u8 = 0x02;
/// Firmware Slot Information.
const FIRMWARE: u8 = 0x03;
/// Changed Namespace List.
pub const CHANGED_NAMESPACES: u8 = 0x04;
/// Bytes of the Changed Namespace List.
const CHANGED_LEN: usize = 4096;

/// What went wrong with a command, or with no command in particular (figure 196).
#[derive(Clone, Copy, Debug)]
pub struct ErrorEntry {
    /// Submission queue and command; `0xffff` where there is none.
    pub queue: u16,
    /// Command.
    pub id: u16,
    /// How the command ended.
    pub status: Status,
    /// First block.
    pub lba: u64,
    /// Namespace.
    pub nsid: u32,
}

/// The latest errors since the last reset.
#[derive(Debug, Default)]
pub struct ErrorLog {
    /// The latest first, with its number.
    entries: VecDeque<(u64, ErrorEntry)>,
    count: u64,
}

impl ErrorLog {
    /// Adds an error; the oldest goes where there are too many.
    pub fn add(&mut self, entry: ErrorEntry) {
        self.count = self.count.saturating_add(1);
        self.entries.truncate(ERROR_LOG_ENTRIES - 1);
        self.entries.push_front((self.count, entry));
    }

    fn page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(ERROR_LOG_ENTRIES * ERROR_LEN);
        for (number, entry) in &self.entries {
            page.extend(number.to_le_bytes());
            page.extend(entry.queue.to_le_bytes());
            page.extend(entry.id.to_le_bytes());
            page.extend(entry.status.field().to_le_bytes());
            // Parameter error location: none.
            page.extend([0xff, 0xff]);
            page.extend(entry.lba.to_le_bytes());
            page.extend(entry.nsid.to_le_bytes());
            page.resize(page.len().next_multiple_of(ERROR_LEN), 0);
        }
        page.resize(ERROR_LOG_ENTRIES * ERROR_LEN, 0);
        page
    }
}

/// What Get Log Page asks for (section 5.14).
pub struct Wanted {
    /// Log page.
    pub page: u8,
    /// The event that told the driver to look stays masked.
    pub retain_event: bool,
    /// Bytes asked for; no more than one transfer can have.
    len: usize,
    /// First byte.
    offset: u64,
}

impl Wanted {
    /// # Errors
    /// [`Status::INVALID_FIELD`] for more than one transfer, or an offset that is not a multiple of 4.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        let [page, flags, ..] = command.cdw(10).to_le_bytes();
        let words = u64::from(command.halves(10).1) | u64::from(command.halves(11).0) << 16;
        let len = (words + 1) * 4;
        let offset = command.long(12);
        if len > super::MAX_TRANSFER || !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD);
        }
        let len = usize::try_from(len).map_err(|_| Status::INVALID_FIELD)?;
        Ok(Self { page, retain_event: flags & 1 << 7 != 0, len, offset })
    }

    /// The part of a log page that was asked for; zeroes beyond its end.
    fn part_of(&self, page: &[u8]) -> Result<Vec<u8>, Status> {
        let from = usize::try_from(self.offset).ok().filter(|&from| from <= page.len()).ok_or(Status::INVALID_FIELD)?;
        let mut part: Vec<u8> = page.iter().skip(from).take(self.len).copied().collect();
        part.resize(self.len, 0);
        Ok(part)
    }
}

/// The bytes that answer the command.
///
/// # Errors
/// [`Status`] for a page that there is not, or an offset beyond it.
pub fn read(
    shared: &Shared,
    features: &Features,
    errors: &ErrorLog,
    namespace_changed: bool,
    wanted: &Wanted,
    nsid: u32,
) -> Result<Vec<u8>, Status> {
    match wanted.page {
        ERRORS => wanted.part_of(&errors.page()),
        HEALTH if [0, BROADCAST].contains(&nsid) => wanted.part_of(&health(&shared.counters, features, errors)),
        // There is no health of a single namespace (LPA).
        HEALTH => Err(Status::INVALID_FIELD),
        FIRMWARE => wanted.part_of(&firmware(shared)),
        CHANGED_NAMESPACES => wanted.part_of(&changed_namespaces(namespace_changed)),
        _ => Err(Status::INVALID_LOG_PAGE),
    }
}

/// SMART / Health Information (figure 197).
fn health(counters: &NvmeCounters, features: &Features, errors: &ErrorLog) -> [u8; 512] {
    let mut page = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| page.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    put(0, &[u8::from(features.temperature_warning()) << 1]);
    put(1, &TEMPERATURE.to_le_bytes());
    // Available spare and its threshold, in percent.
    put(3, &[100, 10]);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let numbers = [
        (32, count(&counters.read_bytes).div_ceil(DATA_UNIT)),
        (48, count(&counters.written_bytes).div_ceil(DATA_UNIT)),
        (64, count(&counters.reads) + count(&counters.compares)),
        (80, count(&counters.writes)),
        // Power cycles.
        (112, 1),
        (160, count(&counters.host_errors)),
        (176, errors.count),
    ];
    for (at, number) in numbers {
        put(at, &number.to_le_bytes());
    }
    page
}

/// Changed Namespace List (section 5.14.1.4): the only one, or none.
fn changed_namespaces(changed: bool) -> Vec<u8> {
    let mut page = if changed { NAMESPACE.to_le_bytes().to_vec() } else { Vec::new() };
    page.resize(CHANGED_LEN, 0);
    page
}

/// Firmware Slot Information (figure 198): slot 1 is active.
fn firmware(shared: &Shared) -> [u8; 512] {
    let mut page = [0; 512];
    page[0] = 1;
    let padded = shared.identity.firmware().bytes().chain(std::iter::repeat(b' ')).take(8);
    page.iter_mut().skip(8).zip(padded).for_each(|(to, from)| *to = from);
    page
}
