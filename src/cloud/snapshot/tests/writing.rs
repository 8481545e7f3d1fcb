//! Snapshots that are started, written and completed, or not.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{block, linear, put};
use crate::cloud::testing::{World, code};
use crate::cloud::{BLOCK, Cloud, Scope, StartRequest, VolumeRequest};

fn start(cloud: &mut Cloud, request: &StartRequest) -> String {
    let started = cloud.start_snapshot(request).unwrap();
    assert_eq!((started.state.as_str(), started.progress.as_str()), ("pending", "0%"));
    started.snapshot_id.to_string()
}

fn of_size(size: u64) -> StartRequest {
    StartRequest { size, ..StartRequest::default() }
}

#[test]
fn what_was_written_by_many_is_what_is_read() {
    let world = World::new();
    let id = start(&mut world.cloud(), &of_size(1));
    let indexes = [0u32, 1, 5, 700, 2046, 2047];
    std::thread::scope(|scope| {
        for index in indexes {
            let (world, id) = (&world, &id);
            scope.spawn(move || put(&mut world.cloud(), id, index, &block(index.into())).unwrap());
        }
    });
    let mut cloud = world.cloud();
    // Again, with something else, also by who says so twice.
    (0..2).for_each(|_| put(&mut cloud, &id, 5, &block(55)).unwrap());
    let expected: BTreeMap<u32, Vec<u8>> =
        indexes.map(|index| (index, block(if index == 5 { 55 } else { index.into() }))).into();
    // Not to be used before it is completed.
    assert_eq!(code(cloud.snapshot_block(&id, 0)), "IncorrectState");
    assert_eq!(code(cloud.snapshot_disk(&id)), "IncorrectState");
    let volume = VolumeRequest { snapshot_id: Some(id.clone()), ..VolumeRequest::default() };
    assert_eq!(code(cloud.create_volume(&volume)), "IncorrectState");
    assert_eq!(code(cloud.copy_snapshot("us-east-1", &id, None, &Default::default())), "IncorrectState");
    for wrong in [5, 7] {
        assert_eq!(code(cloud.complete_snapshot(&id, wrong, None)), "InvalidParameterValue");
    }
    assert_eq!(code(cloud.complete_snapshot(&id, 6, Some([0; 32]))), "InvalidParameterValue");
    let sum = linear(expected.values());
    let done = cloud.complete_snapshot(&id, 6, Some(sum)).unwrap();
    assert_eq!((done.state.as_str(), done.volume_size, done.volume_id), ("completed", 1, None));
    assert_eq!(code(put(&mut cloud, &id, 0, &block(0))), "IncorrectState");
    assert_eq!(code(cloud.complete_snapshot(&id, 6, Some(sum))), "IncorrectState");
    let mut cloud = world.cloud();
    assert_eq!(cloud.snapshot_blocks(&id, 0, 100).unwrap().blocks, indexes);
    expected.iter().for_each(|(index, bytes)| assert!(cloud.snapshot_block(&id, *index).unwrap() == *bytes, "{index}"));
    cloud.create_volume(&volume).unwrap();
    assert_eq!(cloud.check().unwrap(), [""; 0]);
}

#[test]
fn a_parent_shows_where_nothing_was_written() {
    let world = World::new();
    let mut cloud = world.cloud();
    let parent =
        cloud.test_snapshot(&world, &[(0, b"a"), (4 * BLOCK, b"b"), (9 * BLOCK, b"c")]).snapshot_id.to_string();
    let id = start(&mut cloud, &StartRequest { parent: Some(parent.clone()), ..of_size(3) });
    let zero = vec![0; usize::try_from(BLOCK).unwrap()];
    put(&mut cloud, &id, 4, &zero).unwrap();
    put(&mut cloud, &id, 6000, &block(1)).unwrap();
    // The parent may go: what it shares stays.
    cloud.delete_snapshot(&parent).unwrap();
    cloud.complete_snapshot(&id, 2, None).unwrap();
    assert_eq!(cloud.snapshot_block(&id, 0).unwrap()[0], b'a');
    assert_eq!(cloud.snapshot_block(&id, 9).unwrap()[0], b'c');
    assert!(cloud.snapshot_block(&id, 4).unwrap() == zero && cloud.snapshot_block(&id, 6000).unwrap() == block(1));
    let smaller = StartRequest { parent: Some(id), ..of_size(2) };
    assert_eq!(code(cloud.start_snapshot(&smaller)), "InvalidParameterValue");
}

#[test]
fn what_cannot_be_is_refused() {
    let world = World::new();
    let mut cloud = world.cloud();
    for wrong in [of_size(0), of_size(65537), StartRequest { timeout: Some(9), ..of_size(1) }] {
        assert_eq!(code(cloud.start_snapshot(&wrong)), "InvalidParameterValue");
    }
    let id = start(&mut cloud, &StartRequest { timeout: Some(4320), ..of_size(1) });
    assert_eq!(code(cloud.start_snapshot(&StartRequest { parent: Some(id.clone()), ..of_size(1) })), "IncorrectState");
    assert_eq!(code(put(&mut cloud, &id, 2048, &block(0))), "InvalidParameterValue");
    assert_eq!(code(put(&mut cloud, &id, 0, &block(0)[1..])), "InvalidParameterValue");
    let mut other = world.of(Scope { account: "222222222222".parse().unwrap(), ..Scope::default() });
    assert_eq!(code(put(&mut other, &id, 0, &block(0))), "InvalidSnapshot.NotFound");
    cloud.share_snapshot(&id, &["222222222222".into()], &[]).unwrap();
    assert_eq!(code(put(&mut other, &id, 0, &block(0))), "UnauthorizedOperation");
    assert_eq!(code(other.complete_snapshot(&id, 0, None)), "UnauthorizedOperation");
    let done = cloud.test_snapshot(&world, &[]).snapshot_id.to_string();
    assert_eq!(code(put(&mut cloud, &done, 0, &block(0))), "IncorrectState");
    // One without a block is as good as any.
    cloud.complete_snapshot(&id, 0, Some(linear([]))).unwrap();
}

#[test]
fn a_token_starts_one() {
    let world = World::new();
    let request = StartRequest { client_token: Some("one".into()), ..of_size(1) };
    let id = start(&mut world.cloud(), &request);
    assert_eq!(start(&mut world.cloud(), &request), id);
    assert_eq!(
        code(world.cloud().start_snapshot(&StartRequest { size: 2, ..request.clone() })),
        "IdempotentParameterMismatch"
    );
    let long = StartRequest { client_token: Some("x".repeat(256)), ..of_size(1) };
    assert_eq!(code(world.cloud().start_snapshot(&long)), "InvalidParameterValue");
    let mut elsewhere = world.of(Scope { region: "us-west-2".into(), ..Scope::default() });
    assert_ne!(start(&mut elsewhere, &request), id);
    // Forgotten after a day.
    let age = "UPDATE tokens SET created = created - 86400001";
    elsewhere.catalogue.write(|tx| Ok(tx.execute(age, [])?)).unwrap();
    assert_ne!(start(&mut world.cloud(), &StartRequest { size: 2, ..request }), id);
}

#[test]
fn what_is_not_completed_in_time_is_given_up() {
    let world = World::new();
    let mut cloud = world.cloud();
    let [late, other] = [(); 2].map(|()| start(&mut cloud, &of_size(1)));
    put(&mut cloud, &late, 0, &block(0)).unwrap();
    let age = "UPDATE started_snapshots SET touched = touched - 3600001 WHERE snapshot = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(age, [&late])?)).unwrap();
    assert_eq!(code(put(&mut cloud, &late, 1, &block(1))), "IncorrectState");
    assert_eq!(code(cloud.complete_snapshot(&late, 1, None)), "IncorrectState");
    // The next that looks clears it away; a block is a sign of life.
    cloud.catalogue.write(|tx| Ok(tx.execute(age, [&other])?)).unwrap();
    let back = "UPDATE started_snapshots SET touched = touched + 10000 WHERE snapshot = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(back, [&other])?)).unwrap();
    put(&mut cloud, &other, 1, &block(1)).unwrap();
    let mut cloud = world.cloud();
    let found = cloud.snapshots(&[late.clone(), other.clone()], true).unwrap();
    assert_eq!([found[0].state.as_str(), found[1].state.as_str()], ["error", "pending"]);
    assert!(found[0].state_message.is_some());
    assert_eq!(std::fs::read_dir(world.home().layers()).unwrap().count(), 2);
    assert_eq!(code(put(&mut cloud, &late, 1, &block(1))), "IncorrectState");
    cloud.delete_snapshot(&late).unwrap();
    cloud.complete_snapshot(&other, 1, None).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_blocks_in_any_order(writes in prop::collection::vec((0u32..2048, 1u64..1000), 0..20)) {
        let world = World::new();
        let mut cloud = world.cloud();
        let id = start(&mut cloud, &of_size(1));
        let mut model = BTreeMap::new();
        for (index, number) in writes {
            put(&mut cloud, &id, index, &block(number)).unwrap();
            model.insert(index, block(number));
        }
        let count = u32::try_from(model.len()).unwrap();
        cloud.complete_snapshot(&id, count, Some(linear(model.values()))).unwrap();
        let listed = cloud.snapshot_blocks(&id, 0, 5000).unwrap().blocks;
        prop_assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
        for (index, bytes) in model {
            prop_assert!(cloud.snapshot_block(&id, index).unwrap() == bytes);
        }
    }
}
