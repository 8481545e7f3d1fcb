//! Snapshots read and written by block, through [`Cloud`] alone.

mod crash;
mod reading;
mod writing;

use sha2::{Digest, Sha256};

use crate::cloud::{BLOCK, Cloud, CloudError};

/// A block of a number's bytes.
fn block(number: u64) -> Vec<u8> {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(usize::try_from(BLOCK / 8).unwrap())
}

fn put(cloud: &mut Cloud, id: &str, index: u32, bytes: &[u8]) -> Result<(), CloudError> {
    cloud.put_snapshot_block(id, index, bytes, Sha256::digest(bytes).into())
}

/// The checksum of blocks that are given in their order.
fn linear<'a>(blocks: impl IntoIterator<Item = &'a Vec<u8>>) -> [u8; 32] {
    let all = blocks.into_iter().fold(Sha256::new(), |all, bytes| all.chain_update(Sha256::digest(bytes)));
    all.finalize().into()
}
