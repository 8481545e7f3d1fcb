//! What is told before long work is done, and instances of the stub back end.

use super::*;
use crate::cloud::image::ImageState;
use crate::cloud::testing::{World, code};
use crate::cloud::{CreateImageRequest, MetadataChange, RunRequest, StopRequest, VolumeRequest};

fn states(changes: &[StateChange]) -> Vec<(&str, &str)> {
    changes.iter().map(|change| (change.previous_state.as_str(), change.current_state.as_str())).collect()
}

fn state_of(world: &World, id: &str) -> String {
    world.cloud().instances(&[id.to_owned()]).unwrap().remove(0).state
}

#[test]
fn a_stub_passes_through_its_life_in_the_catalogue_alone() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let request = RunRequest { image: image.image_id.to_string(), count: 2, ..RunRequest::default() };
    let mut told = Vec::new();
    let launched = cloud.run_instances_with(&request, &mut |begun| told.push(begun.clone())).unwrap();
    let [begun] = told.as_slice() else { panic!("{told:?}") };
    assert!(begun.instances.iter().all(|one| one.state == state::PENDING), "{begun:?}");
    assert!(launched.instances.iter().all(|one| one.state == state::RUNNING && one.backend == Backend::Stub));
    let ids: Vec<String> = launched.instances.iter().map(|one| one.instance_id.to_string()).collect();
    // Another process, also one that launches machines, sees it so.
    let mut other = Cloud::open(world.home(), Scope::default()).unwrap();
    assert_eq!(other.instances(&ids[..1]).unwrap()[0], launched.instances[0]);
    let (_, console) = other.console_output(&ids[0], u64::MAX).unwrap();
    assert!(String::from_utf8(console).unwrap().contains("no guest"));
    assert_eq!(other.console_output(&ids[0], 2).unwrap().1, b"\r\n");
    assert_eq!(code(other.dial(&ids[0], 22)), "UnsupportedOperation");
    assert_eq!(code(other.attach_console(&ids[0], 0)), "UnsupportedOperation");
    assert!(other.machine_status(&ids[0]).unwrap().is_none());
    other
        .modify_metadata_options(&ids[0], &MetadataChange { tokens_required: Some(true), ..Default::default() })
        .unwrap();

    let mut told = Vec::new();
    other.reboot_instances_with(&ids, StopRequest::default(), &mut |all| told.push(all.len())).unwrap();
    let after = other.instances(&ids[..1]).unwrap().remove(0);
    assert_eq!(
        (told, after.state.as_str(), &after.launch_time),
        (vec![2], "running", &launched.instances[0].launch_time)
    );

    let mut told = Vec::new();
    let stopped = other.stop_instances_with(&ids, StopRequest::default(), &mut |all| told.push(all.clone())).unwrap();
    assert_eq!(states(&told[0]), [("running", "stopping"); 2]);
    assert_eq!(states(&stopped), [("running", "stopped"); 2]);
    let reason = other.wait_for_end(&launched.instances[0].instance_id).unwrap().state_reason.unwrap();
    assert_eq!(reason.code, "Client.UserInitiatedShutdown");
    assert_eq!(code(other.reboot_instances(&ids, StopRequest::default())), "IncorrectInstanceState");
    let mut told = Vec::new();
    let started = other.start_instances_with(&ids, &mut |all| told.push(all.clone())).unwrap();
    assert_eq!(states(&told[0]), [("stopped", "pending"); 2]);
    assert_eq!(states(&started), [("stopped", "running"); 2]);
    // It was a stub, and stays one.
    assert_eq!(state_of(&world, &ids[1]), "running");

    let mut told = Vec::new();
    let gone = cloud.terminate_instances_with(&ids, StopRequest::default(), &mut |all| told.push(all.clone())).unwrap();
    assert_eq!(states(&told[0]), [("running", "shutting-down"); 2]);
    assert_eq!(states(&gone), [("running", "terminated"); 2]);
    assert_eq!(cloud.volumes(&[]).unwrap(), []);
    assert_eq!(std::fs::read_dir(world.home().instances()).unwrap().count(), 0);
}

#[test]
fn all_are_checked_before_one_is_started_or_rebooted() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let [one, other] = [(); 2].map(|()| cloud.test_instance(&image).instance_id.to_string());
    cloud.stop_instances(std::slice::from_ref(&one), StopRequest::default()).unwrap();
    let mut told = 0;
    let both = [other.clone(), one.clone()];
    assert_eq!(
        code(cloud.reboot_instances_with(&both, StopRequest::default(), &mut |_| told += 1)),
        "IncorrectInstanceState"
    );
    cloud.terminate_instances(std::slice::from_ref(&other), StopRequest::default()).unwrap();
    assert_eq!(code(cloud.start_instances_with(&[one.clone(), other], &mut |_| told += 1)), "IncorrectInstanceState");
    assert_eq!((told, state_of(&world, &one)), (0, "stopped".into()));
    // Named twice, it is one.
    cloud.start_instances(&[one.clone(), one.clone()]).unwrap();
    assert_eq!(state_of(&world, &one), "running");
}

#[test]
fn volumes_and_images_of_a_stub() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let instance = cloud.test_instance(&image);
    let id = instance.instance_id.as_str();
    let volume = cloud.create_volume(&VolumeRequest { size: Some(1), ..VolumeRequest::default() }).unwrap();
    let volume = volume.volume_id.to_string();
    assert_eq!(cloud.attach_volume(&volume, id, "/dev/sdf").unwrap().state, "attached");
    assert_eq!(cloud.grow_volume(&volume, 2).unwrap().size, 2);
    let mut told = Vec::new();
    let one = std::slice::from_ref(&volume);
    let taken = cloud.create_snapshots_with(one, "", &Tags::new(), &mut |all| told.push(all.clone())).unwrap();
    assert_eq!((told[0][0].state.as_str(), taken.made[0].state.as_str()), ("pending", "completed"));
    assert_eq!(told[0][0].snapshot_id, taken.made[0].snapshot_id);
    for no_reboot in [true, false] {
        let name = format!("no reboot: {no_reboot}").replace(':', "");
        let request = CreateImageRequest { instance: id.into(), name, no_reboot, ..CreateImageRequest::default() };
        let mut told = Vec::new();
        let made = cloud.create_image_with(&request, &mut |image| told.push(image.clone())).unwrap().made;
        assert_eq!((told[0].state, &told[0].image_id), (ImageState::Pending, &made.image_id));
        assert_eq!((made.state, made.block_device_mappings.len()), (ImageState::Available, 2));
        assert_eq!(cloud.instances(&[id.to_owned()]).unwrap()[0].launch_time, instance.launch_time);
    }
    assert_eq!(code(cloud.detach_volume(&cloud_root(&instance), None, false)), "OperationNotPermitted");
    assert_eq!(cloud.detach_volume(&volume, None, false).unwrap().state, "detached");
}

fn cloud_root(instance: &Instance) -> String {
    instance.block_device_mappings[0].volume_id.to_string()
}

#[test]
fn a_stub_whose_work_was_cut_off_is_brought_to_the_truth() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let [stopping, launching, rebooting] = [(); 3].map(|()| cloud.test_instance(&image).instance_id);
    let cut_off = |id: &Id, state: &str, what: Option<&str>| {
        let mut cloud = world.cloud();
        let write = |tx: &Transaction<'_>| {
            tx.execute("UPDATE instances SET state = ?2, operation = ?3 WHERE id = ?1", params![id, state, what])?;
            if let Some(what) = what {
                tx.execute("INSERT INTO operations VALUES (?1, ?1, 0)", [what])?;
            }
            Ok(())
        };
        cloud.catalogue.write(write).unwrap();
    };
    cut_off(&stopping, state::STOPPING, None);
    cut_off(&launching, state::PENDING, Some("run-instances"));
    cut_off(&rebooting, state::RUNNING, Some("reboot-instance"));
    let state = |id: &Id| state_of(&world, id.as_str());
    assert_eq!([state(&stopping), state(&launching), state(&rebooting)], ["stopped", "terminated", "running"]);
    assert_eq!(std::fs::read_dir(world.home().operations()).unwrap().count(), 0);
}

#[test]
fn a_snapshot_that_was_told_of_and_cannot_be_taken_says_so() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = cloud.create_volume(&VolumeRequest { size: Some(1), ..VolumeRequest::default() }).unwrap();
    let one = [volume.volume_id.to_string()];
    // Its layer is damaged.
    let map = std::fs::read_dir(world.home().layers()).unwrap().flatten().map(|entry| entry.path());
    let map = map.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "map")).unwrap();
    let whole = std::fs::read(&map).unwrap();
    std::fs::write(&map, vec![0; whole.len()]).unwrap();
    let mut told = Vec::new();
    let failed =
        cloud.create_snapshots_with(&one, "", &Tags::new(), &mut |all| told.push(all[0].snapshot_id.to_string()));
    assert_eq!(code(failed), "InternalError");
    let found = cloud.snapshots(&told, true).unwrap().remove(0);
    assert!(found.state == "error" && found.state_message.unwrap().contains("AMILAYER"));
    // Of one that was not told of nothing is left; and the volume is as it was.
    assert_eq!(code(cloud.create_snapshots(&one, "", &Tags::new())), "InternalError");
    assert_eq!(cloud.snapshots(&[], true).unwrap().len(), 1);
    std::fs::write(&map, whole).unwrap();
    cloud.create_snapshots(&one, "", &Tags::new()).unwrap();
    cloud.delete_snapshot(&told[0]).unwrap();
    cloud.refresh().unwrap();
    assert_eq!(cloud.check().unwrap(), [""; 0]);
}
