//! Which blocks there are, and what is in them.

use std::collections::BTreeMap;

use vm_memory::VolatileSlice;

use super::block;
use crate::cloud::mapping::GIB;
use crate::cloud::tag::Tags;
use crate::cloud::testing::{World, code};
use crate::cloud::{BLOCK, ChangedBlock, Cloud, Scope, VolumeRequest, layer};
use crate::disk::Disk;
use crate::disk::HostCache;
use crate::disk::layered::{LayerAccess, LayerFiles, Layered, open_sealed};

/// Writes blocks to a volume that nobody uses.
fn write(cloud: &mut Cloud, volume: &str, blocks: &[u64]) {
    let top = "SELECT layer FROM volumes WHERE id = ?1";
    let top: String = cloud.catalogue.connection().query_row(top, [volume], |row| row.get(0)).unwrap();
    let chain = layer::chain(cloud.catalogue.connection(), &top).unwrap();
    let (top, below) = chain.split_last().unwrap();
    let mut files: Vec<LayerFiles> =
        below.iter().map(|layer| open_sealed(&cloud.store().stem(&layer.id)).unwrap()).collect();
    files.push(LayerFiles::open(&cloud.store().stem(&top.id), LayerAccess::Writable).unwrap());
    let disk = Layered::open(files, top.size, false, HostCache::Used).unwrap();
    for number in blocks {
        let mut bytes = block(number + 1000);
        disk.write_at(number * BLOCK, &[VolatileSlice::from(&mut bytes[..])]).unwrap();
    }
    disk.flush().unwrap();
}

fn all_blocks(cloud: &mut Cloud, id: &str) -> Vec<u32> {
    let page = cloud.snapshot_blocks(id, 0, usize::MAX).unwrap();
    assert_eq!(page.next, None);
    page.blocks
}

#[test]
fn blocks_that_hold_something_are_listed_page_by_page_and_read() {
    let world = World::new();
    let mut cloud = world.cloud();
    // The middle of a block, where two meet, and the last byte.
    let pieces: [(u64, &[u8]); 3] = [(3 * BLOCK + 7, b"here"), (8 * BLOCK - 2, b"both"), (GIB - 1, b"z")];
    let snapshot = cloud.test_snapshot(&world, &pieces);
    let id = snapshot.snapshot_id.as_str();
    let wanted = [3, 7, 8, 2047];
    assert_eq!(all_blocks(&mut cloud, id), wanted);
    let mut seen = Vec::new();
    let mut next = Some(0);
    while let Some(start) = next {
        let page = cloud.snapshot_blocks(id, start, 1).unwrap();
        assert_eq!((page.volume_size, page.blocks.len()), (1, 1));
        seen.extend(page.blocks);
        next = page.next;
    }
    assert_eq!(seen, wanted);
    assert_eq!(cloud.snapshot_blocks(id, 2048, 5).unwrap().blocks, [0u32; 0]);
    let read = cloud.snapshot_block(id, 3).unwrap();
    assert_eq!((read.len() as u64, &read[7..11]), (BLOCK, &b"here"[..]));
    assert_eq!(cloud.snapshot_block(id, 2047).unwrap().last(), Some(&b'z'));
    assert!(cloud.snapshot_block(id, 0).unwrap().iter().all(|byte| *byte == 0));
    for beyond in [2048, u32::MAX] {
        assert_eq!(code(cloud.snapshot_block(id, beyond)), "InvalidParameterValue");
    }
    // What others may not see is not there.
    let mut other = world.of(Scope { account: "222222222222".parse().unwrap(), ..Scope::default() });
    assert_eq!(code(other.snapshot_blocks(id, 0, 1)), "InvalidSnapshot.NotFound");
    assert_eq!(code(other.snapshot_block(id, 0)), "InvalidSnapshot.NotFound");
    assert_eq!(code(cloud.changed_blocks("vol-0", id, 0, 1)), "InvalidSnapshotID.Malformed");
}

#[test]
fn blocks_of_one_lineage_that_differ() {
    let world = World::new();
    let mut cloud = world.cloud();
    let first = cloud.test_snapshot(&world, &[(0, b"a"), (5 * BLOCK, b"b")]).snapshot_id.to_string();
    let request = VolumeRequest { size: Some(2), snapshot_id: Some(first.clone()), ..VolumeRequest::default() };
    let volume = cloud.create_volume(&request).unwrap().volume_id.to_string();
    write(&mut cloud, &volume, &[5, 9, 3000]);
    let snap = |cloud: &mut Cloud| {
        let taken = cloud.create_snapshots(std::slice::from_ref(&volume), "", &Tags::new()).unwrap().made;
        taken[0].snapshot_id.to_string()
    };
    let second = snap(&mut cloud);
    let at = |index, in_first, in_second| ChangedBlock { index, in_first, in_second };
    let page = cloud.changed_blocks(&first, &second, 0, 10).unwrap();
    assert_eq!((page.volume_size, page.next), (2, None));
    assert_eq!(page.blocks, [at(5, true, true), at(9, false, true), at(3000, false, true)]);
    let page = cloud.changed_blocks(&second, &first, 0, 10).unwrap();
    assert_eq!((page.volume_size, page.blocks[1]), (1, at(9, true, false)));
    let page = cloud.changed_blocks(&first, &second, 6, 1).unwrap();
    assert_eq!((page.blocks, page.next), (vec![at(9, false, true)], Some(3000)));
    assert_eq!(cloud.changed_blocks(&first, &first, 0, 10).unwrap().blocks, []);
    // Where they share nothing it is what one of them has.
    let other = cloud.test_snapshot(&world, &[(5 * BLOCK, b"b"), (6 * BLOCK, b"c")]).snapshot_id.to_string();
    let page = cloud.changed_blocks(&other, &first, 0, 10).unwrap();
    assert_eq!(page.blocks, [at(0, false, true), at(5, true, true), at(6, true, false)]);
    // The same when what lies between is gone, and its layers were put together.
    write(&mut cloud, &volume, &[11]);
    let third = snap(&mut cloud);
    cloud.delete_snapshot(&second).unwrap();
    let page = cloud.changed_blocks(&first, &third, 0, 10).unwrap();
    let changed: BTreeMap<u32, bool> = page.blocks.iter().map(|block| (block.index, block.in_second)).collect();
    assert_eq!(changed, BTreeMap::from([(5, true), (9, true), (11, true), (3000, true)]));
    assert_eq!(all_blocks(&mut cloud, &third), [0, 5, 9, 11, 3000]);
    assert_eq!(cloud.snapshot_block(&third, 9).unwrap(), block(1009));
}
