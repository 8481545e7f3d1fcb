//! AES-128-CBC with padding (PKCS #7), a piece at a time.

use std::io::{self, Read, Write};

use aes::Aes128;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};

use super::manifest::{SealedKey, hex, unhex};
use super::{KeyError, PrivateKey, PublicKey};
use crate::disk::random_bytes;

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes that are worked on at a time.
const PIECE: usize = 64 * 1024;

/// A key and the initialization vector that goes with it.
pub(super) struct Secret {
    key: [u8; 16],
    iv: [u8; 16],
}

impl Secret {
    /// One that nobody can guess.
    ///
    /// # Errors
    /// [`KeyError::Use`] where the host has no random numbers.
    pub fn random() -> Result<Self, KeyError> {
        let bytes = || random_bytes().map_err(|error| KeyError::Use(error.to_string()));
        Ok(Self { key: bytes()?, iv: bytes()? })
    }

    /// Encrypts it for one recipient: what is encrypted are its hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn seal(&self, recipient: &PublicKey) -> Result<SealedKey, KeyError> {
        let seal = |bytes: &[u8]| recipient.seal(hex(bytes).as_bytes());
        Ok(SealedKey { key: seal(&self.key)?, iv: seal(&self.iv)? })
    }

    /// Opens it; `None` if it is for another.
    pub fn open(sealed: &SealedKey, key: &PrivateKey) -> Option<Self> {
        let open = |sealed: &[u8]| unhex(&key.open(sealed)?)?.try_into().ok();
        Some(Self { key: open(&sealed.key)?, iv: open(&sealed.iv)? })
    }
}

/// Encrypts what is written to it.
pub(super) struct Encrypting<W> {
    to: W,
    cipher: cbc::Encryptor<Aes128>,
    /// Less than a piece that was not encrypted yet.
    open: Vec<u8>,
}

impl<W: Write> Encrypting<W> {
    pub fn new(to: W, secret: &Secret) -> Self {
        let cipher = cbc::Encryptor::new(&secret.key.into(), &secret.iv.into());
        Self { to, cipher, open: Vec::with_capacity(PIECE) }
    }

    /// Encrypts the whole blocks of what is open.
    fn pass_on(&mut self) -> io::Result<()> {
        let whole = self.open.len() / BLOCK * BLOCK;
        let blocks = self.open.get_mut(..whole).unwrap_or_default();
        for block in blocks.chunks_exact_mut(BLOCK) {
            self.cipher.encrypt_block_mut(block.into());
        }
        self.to.write_all(blocks)?;
        self.open.drain(..whole);
        Ok(())
    }

    /// Pads and encrypts the rest; gives back what it was written to.
    ///
    /// # Errors
    /// What that said.
    pub fn finish(mut self) -> io::Result<W> {
        let missing = BLOCK - self.open.len() % BLOCK;
        self.open.resize(self.open.len() + missing, u8::try_from(missing).unwrap_or_default());
        self.pass_on()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Encrypting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.get(..bytes.len().min(PIECE - self.open.len())).unwrap_or(bytes);
        self.open.extend_from_slice(taken);
        if self.open.len() == PIECE {
            self.pass_on()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts what is read from it.
pub(super) struct Decrypting<R> {
    from: R,
    cipher: cbc::Decryptor<Aes128>,
    /// Decrypted bytes, and how many of them were given out.
    clear: Vec<u8>,
    given: usize,
    /// The next piece, read one ahead since the last has padding.
    ahead: Vec<u8>,
    ended: bool,
}

impl<R: Read> Decrypting<R> {
    pub fn new(from: R, secret: &Secret) -> Self {
        let cipher = cbc::Decryptor::new(&secret.key.into(), &secret.iv.into());
        Self { from, cipher, clear: Vec::new(), given: 0, ahead: Vec::new(), ended: false }
    }

    fn read_piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut self.from).take(PIECE as u64).read_to_end(&mut piece)?;
        Ok(piece)
    }

    /// Decrypts another piece.
    fn refill(&mut self) -> io::Result<()> {
        let damaged = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if self.ahead.is_empty() {
            self.ahead = self.read_piece()?;
        }
        let next = self.read_piece()?;
        self.clear = std::mem::replace(&mut self.ahead, next);
        self.given = 0;
        if self.clear.is_empty() || !self.clear.len().is_multiple_of(BLOCK) {
            return damaged("its encrypted bytes are no whole number of blocks");
        }
        for block in self.clear.chunks_exact_mut(BLOCK) {
            self.cipher.decrypt_block_mut(block.into());
        }
        if self.ahead.is_empty() {
            self.ended = true;
            let padding = self.clear.last().map_or(0, |last| usize::from(*last));
            let rest = self.clear.len().saturating_sub(padding);
            let filled = self.clear.get(rest..).unwrap_or_default();
            if !(1..=BLOCK).contains(&padding) || filled.iter().any(|byte| usize::from(*byte) != padding) {
                return damaged("the padding of its encrypted bytes is wrong");
            }
            self.clear.truncate(rest);
        }
        Ok(())
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.clear.len() && !self.ended {
            self.refill()?;
        }
        let rest = self.clear.get(self.given..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_decrypted_whatever_its_length() {
        let secret = Secret { key: [1; 16], iv: [2; 16] };
        for len in [0, 1, 15, 16, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 200_000] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut encrypting = Encrypting::new(Vec::new(), &secret);
            bytes.chunks(1000).for_each(|piece| encrypting.write_all(piece).unwrap());
            let sealed = encrypting.finish().unwrap();
            assert_eq!(sealed.len(), len / 16 * 16 + 16);
            let mut back = Vec::new();
            Decrypting::new(&sealed[..], &secret).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{len}");
            // Cut inside a block, or before the padding.
            for cut in [1, 16] {
                let mut out = Vec::new();
                let result = Decrypting::new(&sealed[..sealed.len() - cut], &secret).read_to_end(&mut out);
                assert!(result.is_err() || out != bytes);
            }
        }
        assert!(Decrypting::new(&[][..], &secret).read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn it_is_the_standards_cipher() {
        // NIST SP 800-38A, F.2.1: the first block.
        let key = unhex(b"2b7e151628aed2a6abf7158809cf4f3c").unwrap().try_into().unwrap();
        let iv = unhex(b"000102030405060708090a0b0c0d0e0f").unwrap().try_into().unwrap();
        let mut encrypting = Encrypting::new(Vec::new(), &Secret { key, iv });
        encrypting.write_all(&unhex(b"6bc1bee22e409f96e93d7e117393172a").unwrap()).unwrap();
        assert_eq!(hex(&encrypting.finish().unwrap()[..16]), "7649abac8119b246cee98e9b12e9197d");
    }
}
