//! The newest output in memory, for those who are attached: each reads at its own pace, and who is too slow loses the
//! oldest, so that nobody holds the guest or another.

use std::collections::VecDeque;

/// How much is held, in bytes.
pub const CAPACITY: usize = 256 << 10;

/// The newest output; positions count all bytes from the first.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    end: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes before these it has lost.
    pub lost: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next: u64,
}

impl Backlog {
    /// Adds output.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        let newest = bytes.get(bytes.len().saturating_sub(CAPACITY)..).unwrap_or(bytes);
        let excess = (self.bytes.len() + newest.len()).saturating_sub(CAPACITY);
        self.bytes.drain(..excess.min(self.bytes.len()));
        self.bytes.extend(newest);
    }

    /// The position after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The position `count` bytes before the end, or that of the oldest byte held.
    #[must_use]
    pub fn before_end(&self, count: u64) -> u64 {
        self.end - count.min(self.bytes.len() as u64)
    }

    /// At most `max` bytes from position `at` on.
    #[must_use]
    pub fn read(&self, at: u64, max: usize) -> Piece {
        let oldest = self.end - self.bytes.len() as u64;
        let from = at.clamp(oldest, self.end);
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = self.bytes.iter().skip(skip).take(max).copied().collect();
        Piece { lost: from.saturating_sub(at), next: from + bytes.len() as u64, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_read_at_their_own_pace_and_slow_ones_lose_the_oldest() {
        let mut backlog = Backlog::default();
        let mut all = Vec::new();
        let (mut quick, mut slow) = (0, 0);
        let mut seen = Vec::new();
        for round in 0..400u32 {
            let part: Vec<u8> = (0..1500u32).map(|i| u8::try_from((i + round) % 251).unwrap()).collect();
            backlog.push(&part);
            all.extend(part);
            let piece = backlog.read(quick, usize::MAX);
            assert_eq!(piece.lost, 0);
            seen.extend(piece.bytes);
            quick = piece.next;
        }
        assert_eq!((seen == all, quick), (true, backlog.end()));
        let piece = backlog.read(slow, 10);
        let lost = usize::try_from(piece.lost).unwrap();
        assert_eq!(lost, all.len() - CAPACITY);
        assert_eq!(piece.bytes, all[lost..lost + 10]);
        slow = piece.next;
        assert_eq!(backlog.read(slow, 1).lost, 0);
        assert_eq!(backlog.before_end(u64::MAX), backlog.end() - CAPACITY as u64);
        assert_eq!(backlog.read(backlog.before_end(3), 100).bytes, all[all.len() - 3..]);
        assert_eq!(backlog.read(u64::MAX, 100), Piece { lost: 0, bytes: vec![], next: backlog.end() });
        backlog.push(&vec![9; CAPACITY * 2]);
        assert_eq!(backlog.read(backlog.before_end(1), 1).bytes, [9]);
        assert!(backlog.bytes.len() <= CAPACITY);
    }
}
