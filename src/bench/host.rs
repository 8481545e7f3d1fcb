//! What is noted of the host and of files, so that a measurement can be made again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::record::{FileFacts, HostFacts};
use crate::host::kvm;
use crate::host::memory::HostMemory;
use crate::host::processor::Processor;
use crate::host::root::Root;

/// What is read at once, in bytes.
const PIECE: usize = 1 << 20;

impl HostFacts {
    /// Those of this host.
    #[must_use]
    pub fn read() -> Self {
        let processor = Processor::read(&Root::default());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            is_virtual: processor.is_virtual(),
            processor: processor.model,
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            memory_bytes: HostMemory::read().map(|memory| memory.total),
            kvm: kvm::open().map_or_else(|problem| problem.fault.to_string(), |host| host.kind.to_string()),
        }
    }
}

impl FileFacts {
    /// Path and size of a file or block device, without its digest.
    ///
    /// # Errors
    /// What the host says.
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::io::Seek;
        let bytes = File::open(path)?.seek(io::SeekFrom::End(0))?;
        Ok(Self { path: path.into(), bytes, sha256: None })
    }

    /// Takes the digest too. `on_piece` is told how many bytes are done, and gives false to stop; the digest is left out
    /// then.
    ///
    /// # Errors
    /// What the host says.
    pub fn digest(&mut self, mut on_piece: impl FnMut(u64) -> bool) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut done = 0;
        loop {
            let len = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            hash.update(piece.get(..len).unwrap_or_default());
            done += len as u64;
            if !on_piece(done) {
                return Ok(());
            }
        }
        self.sha256 = Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let mut facts = FileFacts::of(&path).unwrap();
        facts.digest(|_| true).unwrap();
        assert_eq!(facts.bytes, 3);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(facts.sha256.as_deref(), Some(abc));
        let mut stopped = FileFacts::of(&path).unwrap();
        stopped.digest(|_| false).unwrap();
        assert_eq!(stopped.sha256, None);
        assert!(FileFacts::of(&dir.path().join("none")).is_err());
    }

    #[test]
    fn this_host_is_described() {
        let facts = HostFacts::read();
        assert!(facts.processors > 0 && !facts.kernel.is_empty() && !facts.kvm.is_empty());
    }
}
