//! Doorbells (section 3.1.24): the last index that the driver wrote for each queue.

use std::sync::atomic::{AtomicU32, Ordering};

/// Which half of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its doorbell is the tail: one past the last command that the driver wrote.
    Submission,
    /// Its doorbell is the head: one past the last entry that the driver took.
    Completion,
}

/// Why a doorbell write has no effect; also the bit that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadDoorbell {
    /// There is no such queue.
    Register,
    /// The queue has no such entry.
    Value,
}

/// Entries of the queue in the upper half, zero where there is none; its doorbell, always less, in the lower half. In
/// one word, so that a write meets either the queue that it was checked against or none.
#[derive(Default)]
struct Doorbell(AtomicU32);

impl Doorbell {
    fn get(&self) -> (u16, u16) {
        split(self.0.load(Ordering::SeqCst))
    }

    fn ring(&self, value: u32) -> Result<(), BadDoorbell> {
        let write = |word: u32| {
            let (entries, _) = split(word);
            (value < u32::from(entries)).then_some(u32::from(entries) << 16 | value)
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, write).map(|_| ()).map_err(|word| match split(word) {
            (0, _) => BadDoorbell::Register,
            _ => BadDoorbell::Value,
        })
    }
}

fn split(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// All doorbells of a controller.
pub struct Doorbells {
    submission: Vec<Doorbell>,
    completion: Vec<Doorbell>,
}

impl Doorbells {
    /// Doorbells for the queues `0..=last`, none of which exists yet.
    pub fn new(last: u16) -> Self {
        let all = || (0..=last).map(|_| Doorbell::default()).collect();
        Self { submission: all(), completion: all() }
    }

    fn of(&self, kind: Kind, id: u16) -> Option<&Doorbell> {
        match kind {
            Kind::Submission => self.submission.get(usize::from(id)),
            Kind::Completion => self.completion.get(usize::from(id)),
        }
    }

    /// A queue of `entries` begins to exist, or with 0 ceases to.
    pub fn open(&self, kind: Kind, id: u16, entries: u16) {
        if let Some(doorbell) = self.of(kind, id) {
            doorbell.0.store(u32::from(entries) << 16, Ordering::SeqCst);
        }
    }

    /// No queue exists any more.
    pub fn close_all(&self) {
        for doorbell in self.submission.iter().chain(&self.completion) {
            doorbell.0.store(0, Ordering::SeqCst);
        }
    }

    /// The driver's write.
    ///
    /// # Errors
    /// [`BadDoorbell`] where it has no effect.
    pub fn ring(&self, kind: Kind, id: u16, value: u32) -> Result<(), BadDoorbell> {
        self.of(kind, id).ok_or(BadDoorbell::Register)?.ring(value)
    }

    /// What was last written; less than the entries of the queue.
    pub fn value(&self, kind: Kind, id: u16) -> u16 {
        self.of(kind, id).map_or(0, |doorbell| doorbell.get().1)
    }

    /// Every queue that exists: kind, number, entries, doorbell.
    pub fn existing(&self) -> impl Iterator<Item = (Kind, u16, u16, u16)> {
        let list = |kind, doorbells: &[Doorbell]| {
            let numbered = (0..).zip(doorbells.iter().map(Doorbell::get));
            numbered
                .filter(|(_, (entries, _))| *entries > 0)
                .map(|(id, (entries, value))| (kind, id, entries, value))
                .collect::<Vec<_>>()
        };
        list(Kind::Submission, &self.submission).into_iter().chain(list(Kind::Completion, &self.completion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_takes_what_its_queue_has() {
        let doorbells = Doorbells::new(1);
        let ring = |value| doorbells.ring(Kind::Submission, 1, value);
        assert_eq!(ring(0), Err(BadDoorbell::Register));
        doorbells.open(Kind::Submission, 1, 4);
        assert_eq!(ring(3), Ok(()));
        assert_eq!(ring(4), Err(BadDoorbell::Value));
        assert_eq!(ring(u32::MAX), Err(BadDoorbell::Value));
        assert_eq!(ring(0x1_0001), Err(BadDoorbell::Value));
        assert_eq!(doorbells.value(Kind::Submission, 1), 3);
        assert_eq!(doorbells.existing().collect::<Vec<_>>(), [(Kind::Submission, 1, 4, 3)]);
        assert_eq!(doorbells.ring(Kind::Completion, 1, 0), Err(BadDoorbell::Register));
        assert_eq!(doorbells.ring(Kind::Submission, 2, 0), Err(BadDoorbell::Register));
        doorbells.close_all();
        assert_eq!(ring(0), Err(BadDoorbell::Register));
        assert_eq!(doorbells.existing().count(), 0);
    }
}
