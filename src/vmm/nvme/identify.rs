//! Identify (section 5.15): what the controller and its namespace are.

use super::command::{Command, Status};
use super::features::{CRITICAL_TEMPERATURE, NAMESPACE_EVENT, WARNING_TEMPERATURE};
use super::log_page::ERROR_LOG_ENTRIES;
use super::{BROADCAST, MDTS, NAMESPACE, Shared, VERSION};
use crate::disk::SECTOR_SIZE;

/// Bytes of every answer.
const LEN: usize = 4096;
/// Logical blocks are 2^9 bytes.
const BLOCK_SHIFT: u8 = 9;
/// Writes and deallocations of less than 4096 bytes cost the host more; zero-based blocks.
const GRANULARITY: u16 = 7;
/// Asynchronous Event Requests that are held (section 5.15.2.2, AERL + 1).
pub const MAX_EVENT_REQUESTS: usize = 4;
/// Commands that Abort can name at once, zero-based.
const ABORT_LIMIT: u8 = 3;

/// Optional commands: Compare, Dataset Management, Write Zeroes, and Save and Select of features.
const OPTIONAL_COMMANDS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 4;

/// An answer that is filled in by offset, as the figures of the specification are written.
struct Page(Box<[u8; LEN]>);

impl Page {
    fn new() -> Self {
        Self(Box::new([0; LEN]))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Text, padded with spaces to `len`.
    fn put_text(&mut self, at: usize, text: &str, len: usize) {
        let padded: Vec<u8> = text.bytes().chain(std::iter::repeat(b' ')).take(len).collect();
        self.put(at, &padded);
    }
}

/// Answers the command.
///
/// # Errors
/// [`Status`] for a structure that there is not, or a namespace that there is not.
pub fn identify(shared: &Shared, command: &Command) -> Result<Box<[u8; LEN]>, Status> {
    let page = match command.cdw(10) & 0xff {
        0x00 if command.nsid == NAMESPACE => namespace(shared),
        0x01 => controller(shared),
        0x02 if command.nsid < BROADCAST - 1 => active_namespaces(command.nsid),
        0x03 if command.nsid == NAMESPACE => descriptors(shared),
        0x00 | 0x02 | 0x03 => return Err(Status::INVALID_NAMESPACE),
        _ => return Err(Status::INVALID_FIELD),
    };
    Ok(page.0)
}

/// Identify Namespace (figure 245).
fn namespace(shared: &Shared) -> Page {
    let mut page = Page::new();
    let blocks = shared.disk.size() / SECTOR_SIZE;
    // NSZE, NCAP, NUSE: what is allocated on the host is not told.
    for at in [0, 8, 16] {
        page.put(at, &blocks.to_le_bytes());
    }
    // NSFEAT: the granularities below are meant.
    page.put(24, &[1 << 4]);
    // DLFEAT: deallocated blocks read as zero, and Write Zeroes may deallocate.
    page.put(33, &[1 | 1 << 3]);
    // NPWG, NPWA, NPDG, NPDA.
    for at in [64, 66, 68, 70] {
        page.put(at, &GRANULARITY.to_le_bytes());
    }
    // NSATTR: write protected.
    page.put(99, &[u8::from(shared.disk.is_read_only())]);
    // LBAF0: no metadata.
    page.put(128, &[0, 0, BLOCK_SHIFT, 0]);
    page
}

/// Identify Controller (figure 247).
fn controller(shared: &Shared) -> Page {
    let mut page = Page::new();
    let identity = &shared.identity;
    let (vendor, _) = identity.pci_ids();
    page.put(0, &vendor.to_le_bytes());
    page.put(2, &vendor.to_le_bytes());
    page.put_text(4, identity.serial(), 20);
    page.put_text(24, identity.model(), 40);
    page.put_text(64, identity.firmware(), 8);
    // RAB, IEEE (none), CMIC, MDTS.
    page.put(72, &[0, 0, 0, 0, 0, MDTS]);
    page.put(80, &VERSION.to_le_bytes());
    // OAES
    page.put(92, &NAMESPACE_EVENT.to_le_bytes());
    // CNTRLTYPE: I/O controller.
    page.put(111, &[1]);
    // ACL, AERL, FRMW: one slot, read-only.
    page.put(258, &[ABORT_LIMIT, u8::try_from(MAX_EVENT_REQUESTS - 1).unwrap_or(0), 1 << 1 | 1]);
    // LPA: extended data for Get Log Page. ELPE.
    page.put(261, &[1 << 2, u8::try_from(ERROR_LOG_ENTRIES - 1).unwrap_or(u8::MAX)]);
    page.put(266, &WARNING_TEMPERATURE.to_le_bytes());
    page.put(268, &CRITICAL_TEMPERATURE.to_le_bytes());
    // SQES, CQES: 64 and 16 bytes, at least and at most.
    page.put(512, &[0x66, 0x44]);
    page.put(516, &NAMESPACE.to_le_bytes());
    page.put(520, &OPTIONAL_COMMANDS.to_le_bytes());
    // VWC: a volatile write cache; Flush may name all namespaces.
    page.put(525, &[3 << 1 | 1]);
    let name = format!("nqn.2014-08.org.nvmexpress:uuid:{}", identity.uuid());
    page.put(768, name.as_bytes());
    // PSD0: 25 W, the customary fiction.
    page.put(2048, &2500_u16.to_le_bytes());
    page.put_text(3072, identity.device_name(), 32);
    page
}

/// Active Namespace ID list: those above `after`.
fn active_namespaces(after: u32) -> Page {
    let mut page = Page::new();
    if after < NAMESPACE {
        page.put(0, &NAMESPACE.to_le_bytes());
    }
    page
}

/// Namespace Identification Descriptor list (figure 249): a UUID.
fn descriptors(shared: &Shared) -> Page {
    let mut page = Page::new();
    page.put(0, &[3, 16]);
    page.put(4, shared.identity.uuid().as_bytes());
    page
}
