//! Commands as the driver writes them (section 4.2), and the status that answers them (section 4.6.1).

/// Bytes of a submission queue entry.
pub const COMMAND_LEN: usize = 64;

/// The fields of a submission queue entry that all commands share, and the rest as double words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Opcode.
    pub opcode: u8,
    /// Fused operation and data pointer kind.
    pub flags: u8,
    /// Command identifier: the driver's own.
    pub id: u16,
    /// Namespace.
    pub nsid: u32,
    /// Data pointer, PRP entry 1.
    pub prp1: u64,
    /// Data pointer, PRP entry 2.
    pub prp2: u64,
    /// Command double words 10 to 15.
    cdw: [u32; 6],
}

impl Command {
    /// Takes an entry apart.
    pub fn parse(raw: &[u8; COMMAND_LEN]) -> Self {
        let (words, _) = raw.as_chunks::<4>();
        let word = |at: usize| words.get(at).copied().map_or(0, u32::from_le_bytes);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 32;
        let [opcode, flags, id @ ..] = word(0).to_le_bytes();
        Self {
            opcode,
            flags,
            id: u16::from_le_bytes(id),
            nsid: word(1),
            prp1: long(6),
            prp2: long(8),
            cdw: [10, 11, 12, 13, 14, 15].map(word),
        }
    }

    /// Command double word `number`, 10 to 15.
    pub fn cdw(&self, number: usize) -> u32 {
        number.checked_sub(10).and_then(|at| self.cdw.get(at)).copied().unwrap_or(0)
    }

    /// The lower and the upper half of a double word.
    pub fn halves(&self, number: usize) -> (u16, u16) {
        let [a, b, c, d] = self.cdw(number).to_le_bytes();
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }

    /// Double words `number` and the next as one.
    pub fn long(&self, number: usize) -> u64 {
        u64::from(self.cdw(number)) | u64::from(self.cdw(number + 1)) << 32
    }

    /// Refuses what no command here has: fused operations, and SGLs instead of PRPs.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`].
    pub fn check_flags(&self) -> Result<(), Status> {
        if self.flags & 0xc3 == 0 { Ok(()) } else { Err(Status::INVALID_FIELD) }
    }
}

/// How a command ended: bits 15:1 of the last double word's upper half, so without the phase tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16);

const MORE: u16 = 1 << 13;
const DO_NOT_RETRY: u16 = 1 << 14;

impl Status {
    /// Successful Completion.
    pub const SUCCESS: Self = Self(0);

    // Generic (figure 127).
    /// No such command.
    pub const INVALID_OPCODE: Self = Self::generic(0x01);
    /// A field that is reserved or not supported.
    pub const INVALID_FIELD: Self = Self::generic(0x02);
    /// The data pointer leads out of memory.
    pub const DATA_TRANSFER_ERROR: Self = Self::generic(0x04);
    /// The driver asked for it with Abort.
    pub const ABORT_REQUESTED: Self = Self(0x07);
    /// No such namespace.
    pub const INVALID_NAMESPACE: Self = Self::generic(0x0b);
    /// The command came too late.
    pub const SEQUENCE_ERROR: Self = Self::generic(0x0c);
    /// A PRP entry that is not aligned as it should be.
    pub const PRP_OFFSET_INVALID: Self = Self::generic(0x13);
    /// A change of a read-only namespace.
    pub const WRITE_PROTECTED: Self = Self::generic(0x20);
    /// Blocks beyond the end.
    pub const LBA_OUT_OF_RANGE: Self = Self::generic(0x80);
    /// The host has no room.
    pub const CAPACITY_EXCEEDED: Self = Self(Self::generic(0x81).0 | MORE);

    // Command specific (figure 128).
    /// Create I/O Submission Queue names a completion queue that does not exist.
    pub const COMPLETION_QUEUE_INVALID: Self = Self::specific(0x00);
    /// A queue number that is taken, or that does not exist.
    pub const INVALID_QUEUE_ID: Self = Self::specific(0x01);
    /// Too few or too many entries, or entries of the wrong size.
    pub const INVALID_QUEUE_SIZE: Self = Self::specific(0x02);
    /// More Asynchronous Event Requests than are held.
    pub const EVENT_LIMIT_EXCEEDED: Self = Self::specific(0x05);
    /// A vector that does not exist.
    pub const INVALID_VECTOR: Self = Self::specific(0x08);
    /// No such log page.
    pub const INVALID_LOG_PAGE: Self = Self::specific(0x09);
    /// A completion queue that submission queues still use.
    pub const INVALID_QUEUE_DELETION: Self = Self::specific(0x0c);
    /// Nothing is saved here.
    pub const FEATURE_NOT_SAVEABLE: Self = Self::specific(0x0d);

    // Media and data integrity (figure 131).
    /// The host could not write.
    pub const WRITE_FAULT: Self = Self::media(0x80);
    /// The host could not read.
    pub const UNRECOVERED_READ: Self = Self::media(0x81);
    /// Compare found a difference.
    pub const COMPARE_FAILURE: Self = Self(2 << 8 | 0x85 | DO_NOT_RETRY);

    /// What the same command would meet again.
    const fn generic(code: u16) -> Self {
        Self(code | DO_NOT_RETRY)
    }

    const fn specific(code: u16) -> Self {
        Self(1 << 8 | code | DO_NOT_RETRY)
    }

    /// The host has already tried again; there is more about it in the error log.
    const fn media(code: u16) -> Self {
        Self(2 << 8 | code | MORE | DO_NOT_RETRY)
    }

    /// Whether the error log tells more.
    pub fn is_logged(self) -> bool {
        self.0 & MORE != 0
    }

    /// The status field, with bit 0 for the phase tag clear.
    pub fn field(self) -> u16 {
        self.0 << 1
    }
}

/// What a command gives: double word 0 of its completion, or the status that refuses it.
pub type Outcome = Result<u32, Status>;
