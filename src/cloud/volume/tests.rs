//! Volumes made and changed, through [`Cloud`] alone.

use super::*;
use crate::cloud::testing::{World, code};

fn of_type(volume_type: &str, size: u64) -> VolumeRequest {
    VolumeRequest { size: Some(size), volume_type: Some(volume_type.into()), ..VolumeRequest::default() }
}

fn to(size: Option<u64>, volume_type: Option<&str>, iops: Option<u64>, throughput: Option<u64>) -> VolumeChange {
    VolumeChange { size, volume_type: volume_type.map(Into::into), iops, throughput }
}

#[test]
fn a_token_makes_one_volume() {
    let world = World::new();
    let request = VolumeRequest { client_token: Some("terraform-1".into()), ..of_type("gp3", 1) };
    let volume = world.cloud().create_volume(&request).unwrap();
    assert_eq!(world.cloud().create_volume(&request).unwrap(), volume);
    let other = VolumeRequest { size: Some(2), ..request.clone() };
    assert_eq!(code(world.cloud().create_volume(&other)), "IdempotentParameterMismatch");
    // What is gone is not made again; without a token each is another.
    world.cloud().delete_volume(volume.volume_id.as_str()).unwrap();
    assert_eq!(code(world.cloud().create_volume(&request)), "InvalidVolume.NotFound");
    let without = VolumeRequest { client_token: Some(String::new()), ..request };
    assert_ne!(world.cloud().create_volume(&without).unwrap(), world.cloud().create_volume(&without).unwrap());
}

#[test]
fn a_token_of_what_was_undone_is_free() {
    let world = World::new();
    let mut cloud = world.cloud();
    let request = VolumeRequest { client_token: Some("one".into()), ..of_type("gp3", 1) };
    let volume = cloud.create_volume(&request).unwrap();
    // As if the process had been killed before the volume was there.
    let cut = |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO operations SELECT operation, 'create-volume', 0 FROM tokens", [])?;
        let back = "UPDATE volumes SET state = 'creating', operation = (SELECT operation FROM tokens) WHERE id = ?1";
        Ok(tx.execute(back, [&volume.volume_id])?)
    };
    assert_eq!(cloud.catalogue.write(cut).unwrap(), 1);
    assert_ne!(world.cloud().create_volume(&request).unwrap().volume_id, volume.volume_id);
}

#[test]
fn a_change_is_so_at_once_and_recorded() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let instance = cloud.test_instance(&image).instance_id;
    let volume = cloud.create_volume(&of_type("gp2", 4)).unwrap().volume_id.to_string();
    let one = std::slice::from_ref(&volume);
    assert_eq!(code(cloud.volume_modifications(one)), "InvalidVolumeModification.NotFound");
    assert_eq!(code(cloud.volume_modifications(&["vol-00000000000000000".into()])), "InvalidVolume.NotFound");
    cloud.attach_volume(&volume, instance.as_str(), "/dev/sdf").unwrap();
    let done = cloud.modify_volume(&volume, &to(Some(10), Some("gp3"), Some(4000), Some(500))).unwrap();
    assert_eq!((done.modification_state.as_str(), done.progress, done.end_time.is_some()), ("completed", 100, true));
    assert_eq!((done.original_size, done.original_volume_type.as_str(), done.original_iops), (4, "gp2", None));
    assert_eq!((done.target_size, done.target_volume_type.as_str()), (10, "gp3"));
    assert_eq!((done.target_iops, done.target_throughput), (Some(4000), Some(500)));
    let now = cloud.volumes(one).unwrap().remove(0);
    assert_eq!((now.size, now.volume_type.as_str(), now.iops, now.throughput), (10, "gp3", Some(4000), Some(500)));
    assert_eq!((now.state.as_str(), now.operation), ("in-use", None));
    assert_eq!(world.cloud().volume_modifications(&[]).unwrap(), [done]);
    // The last is what is told; what gp2 does not have is not kept.
    let done = cloud.modify_volume(&volume, &to(None, Some("gp2"), None, None)).unwrap();
    assert_eq!((done.original_iops, done.target_iops, done.target_throughput), (Some(4000), None, None));
    cloud.grow_volume(&volume, 11).unwrap();
    let all = cloud.volume_modifications(one).unwrap();
    assert_eq!((all[0].original_size, all[0].target_size), (10, 11));
    cloud.detach_volume(&volume, None, false).unwrap();
    cloud.delete_volume(&volume).unwrap();
    assert_eq!(cloud.volume_modifications(&[]).unwrap(), []);
}

#[test]
fn what_a_volume_cannot_be_is_refused() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = cloud.create_volume(&of_type("gp3", 10)).unwrap().volume_id.to_string();
    for (change, wanted) in [
        (to(Some(9), None, None, None), "InvalidParameterValue"),
        (to(Some(65537), None, None, None), "InvalidParameterValue"),
        (to(None, Some("gp9"), None, None), "InvalidParameterValue"),
        (to(None, Some("st1"), None, None), "InvalidParameterValue"),
        (to(None, Some("standard"), None, None), "UnsupportedOperation"),
        (to(None, None, Some(2999), None), "InvalidParameterValue"),
        (to(None, None, Some(5001), None), "InvalidParameterValue"),
        (to(None, None, None, Some(124)), "InvalidParameterValue"),
        (to(None, None, None, Some(751)), "InvalidParameterValue"),
        (to(None, Some("gp2"), Some(3000), None), "InvalidParameterCombination"),
        (to(None, Some("io1"), Some(500), Some(125)), "InvalidParameterCombination"),
        (to(None, Some("io1"), None, None), "MissingParameter"),
        (to(None, Some("io1"), Some(501), None), "InvalidParameterValue"),
    ] {
        assert_eq!(code(cloud.modify_volume(&volume, &change)), wanted, "{change:?}");
    }
    assert_eq!(code(cloud.volume_modifications(std::slice::from_ref(&volume))), "InvalidVolumeModification.NotFound");
    cloud.modify_volume(&volume, &to(None, Some("io2"), Some(10_000), None)).unwrap();
    let magnetic = cloud.create_volume(&of_type("standard", 1)).unwrap().volume_id.to_string();
    assert_eq!(code(cloud.modify_volume(&magnetic, &to(Some(2), None, None, None))), "UnsupportedOperation");
    assert_eq!(cloud.grow_volume(&magnetic, 2).unwrap().size, 2);
}

#[test]
fn a_change_that_was_cut_off_is_done() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = cloud.create_volume(&of_type("gp3", 1)).unwrap().volume_id.to_string();
    cloud.modify_volume(&volume, &to(Some(2), None, None, None)).unwrap();
    let cut = |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO operations VALUES ('op-1', 'modify-volume', 0)", [])?;
        tx.execute("UPDATE volumes SET operation = 'op-1'", [])?;
        Ok(tx.execute("UPDATE volume_modifications SET state = 'modifying', ended = NULL, operation = 'op-1'", [])?)
    };
    cloud.catalogue.write(cut).unwrap();
    assert_eq!(code(cloud.modify_volume(&volume, &to(Some(3), None, None, None))), "IncorrectState");
    let mut cloud = world.cloud();
    assert_eq!(cloud.volume_modifications(&[]).unwrap()[0].modification_state, "completed");
    cloud.modify_volume(&volume, &to(Some(3), None, None, None)).unwrap();
}

#[test]
fn a_token_makes_one_volume_also_for_many_at_once() {
    let world = World::new();
    drop(world.cloud());
    let request = VolumeRequest { client_token: Some("many".into()), ..of_type("gp3", 1) };
    std::thread::scope(|scope| {
        let (world, request) = (&world, &request);
        let ask = || world.cloud().create_volume(request).unwrap().volume_id;
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let ids: Vec<Id> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    });
    assert_eq!(world.cloud().volumes(&[]).unwrap().len(), 1);
}
