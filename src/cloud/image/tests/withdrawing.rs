use super::*;
use crate::cloud::image::DeleteReturnCode;
use crate::cloud::time;

const HOUR: i64 = 3_600_000;

#[test]
fn a_deregistered_image_is_no_more() {
    let world = World::new();
    let (mut mine, mut yours, mut theirs) = (world.cloud(ME), world.cloud(YOU), world.cloud(THEY));
    let (snapshot, layer) = new_snapshot(&mut mine);
    let image = mine.register_image(&request("image", &snapshot)).unwrap();
    let id = image.image_id.as_str();
    mine.share_image(id, &who(YOU), &[]).unwrap();
    mine.tag_image(id, &[("a".to_owned(), "b".to_owned())].into(), &[]).unwrap();
    let done = mine.deregister_image(id, false).unwrap();
    assert_eq!((done.image_id, done.delete_snapshot_results), (image.image_id.clone(), vec![]));
    // Who could launch it is told what became of it; nobody else is told anything.
    for cloud in [&mut mine, &mut yours] {
        let error = cloud.launchable_image(id).unwrap_err();
        assert_eq!(error.code(), "InvalidAMIID.Unavailable");
        assert!(error.to_string().contains("deregistered"), "{error}");
        assert_eq!(code(cloud.image(id)), "InvalidAMIID.Unavailable");
    }
    assert_eq!(code(theirs.launchable_image(id)), "AuthFailure");
    assert_eq!(code(theirs.image(id)), "InvalidAMIID.NotFound");
    assert_eq!(code(mine.deregister_image(id, false)), "InvalidAMIID.Unavailable");
    assert_eq!(code(mine.share_image(id, &who("all"), &[])), "InvalidAMIID.Unavailable");
    assert_eq!(code(mine.resolve_image("image")), "InvalidAMIID.NotFound");
    assert_eq!(mine.images(&Default::default()).unwrap().images, []);
    // The snapshot is there, and another image can be made of it.
    assert_eq!(world.files(&layer), 2);
    mine.register_image(&request("image", &snapshot)).unwrap();
}

#[test]
fn snapshots_go_where_no_other_image_needs_them() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (alone, alone_layer) = new_snapshot(&mut mine);
    let (shared, shared_layer) = new_snapshot(&mut mine);
    let (foreign, foreign_layer) = new_snapshot(&mut yours);
    sql(&mut yours, "INSERT INTO snapshot_permissions VALUES (?1, 'all')", &foreign);
    let mut both = request("both", &alone);
    both.block_device_mappings.push(ebs("/dev/sdf", Some(&shared), None));
    both.block_device_mappings.push(ebs("/dev/sdg", Some(&alone), None));
    both.block_device_mappings.push(ebs("/dev/sdh", Some(&foreign), None));
    let both = mine.register_image(&both).unwrap();
    // Also an image that cannot be launched for now keeps its snapshots.
    let other = mine.register_image(&request("other", &shared)).unwrap();
    mine.disable_image(other.image_id.as_str()).unwrap();

    let done = mine.deregister_image(both.image_id.as_str(), true).unwrap();
    let results: Vec<_> =
        done.delete_snapshot_results.iter().map(|r| (r.snapshot_id.as_str(), r.return_code)).collect();
    assert_eq!(
        results,
        [
            (alone.as_str(), DeleteReturnCode::Success),
            (shared.as_str(), DeleteReturnCode::Skipped),
            (foreign.as_str(), DeleteReturnCode::MissingPermissions)
        ]
    );
    let files = |layer: &str| world.files(layer);
    assert_eq!([files(&alone_layer), files(&shared_layer), files(&foreign_layer)], [0, 2, 2]);
    mine.deregister_image(other.image_id.as_str(), true).unwrap();
    assert_eq!([files(&shared_layer), files(&foreign_layer)], [0, 2]);
}

#[test]
fn what_an_instance_needs_stays() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (kernel, layer) = register_part(&mut cloud, "template", ImageType::Kernel);
    let over = new_layer(&mut cloud);
    let insert = "UPDATE layers SET parent = ?2, state = 'open' WHERE id = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(insert, [&over, &layer])?)).unwrap();
    let insert = "INSERT INTO volumes (id, region, owner, zone, layer, size_gib, volume_type, state, created)
         VALUES ('vol-00000000', 'us-east-1', '123456789012', 'us-east-1a', ?1, 8, 'gp2', 'in-use', 0)";
    cloud.catalogue.write(|tx| Ok(tx.execute(insert, [&over])?)).unwrap();
    cloud.deregister_image(kernel.image_id.as_str(), true).unwrap();
    assert_eq!((world.files(&layer), world.files(&over)), (2, 2));
}

#[test]
fn protection() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let image = register(&mut cloud, "image");
    let id = image.image_id.as_str();
    assert_eq!(cloud.protect_image(id, true).unwrap().deregistration_protection, "enabled-without-cooldown");
    let error = cloud.deregister_image(id, true).unwrap_err();
    assert_eq!(error.code(), "OperationNotPermitted");
    assert_eq!(error.mend().unwrap(), format!("amiboot image protect {id} --off"));
    cloud.launchable_image(id).unwrap();
    assert_eq!(cloud.protect_image(id, false).unwrap(), image);
    cloud.deregister_image(id, true).unwrap();
}

#[test]
fn protection_with_a_cooldown_lasts_a_day_longer() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let image = register(&mut cloud, "image");
    let id = image.image_id.as_str();
    let protected = cloud.protect_image_with_cooldown(id).unwrap();
    assert_eq!(protected.deregistration_protection, "enabled-with-cooldown");
    assert_eq!(code(cloud.deregister_image(id, true)), "OperationNotPermitted");
    let after = cloud.protect_image(id, false).unwrap();
    assert_eq!(after.deregistration_protection, "disabled");
    // Nor does it end earlier when it is protected and not, once more.
    cloud.protect_image(id, true).unwrap();
    assert_eq!(cloud.protect_image(id, false).unwrap().protected_until, after.protected_until);
    let error = cloud.deregister_image(id, true).unwrap_err();
    assert!(error.code() == "OperationNotPermitted" && error.to_string().contains("before 2"), "{error}");
    sql(&mut cloud, "UPDATE images SET protected_until = protected_until - 86400001 WHERE id = ?1", &image.image_id);
    cloud.deregister_image(id, true).unwrap();
}

#[test]
fn a_disabled_image_is_its_owners_alone() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    mine.share_image(id, &who(YOU), &[]).unwrap();
    mine.share_image(id, &who("all"), &[]).unwrap();
    let disabled = mine.disable_image(id).unwrap();
    assert_eq!((disabled.state.as_str(), disabled.is_public, disabled.shared_with), ("disabled", false, 0));
    assert_eq!(code(mine.launchable_image(id)), "InvalidAMIID.Unavailable");
    assert_eq!(code(yours.launchable_image(id)), "AuthFailure");
    assert_eq!(code(yours.image(id)), "InvalidAMIID.NotFound");
    assert_eq!(mine.image(id).unwrap(), disabled);
    assert_eq!(code(mine.share_image(id, &who("all"), &[])), "IncorrectState");
    mine.disable_image(id).unwrap();
    // Launches are possible again, for its owner.
    assert_eq!(mine.enable_image(id).unwrap(), image);
    mine.enable_image(id).unwrap();
    mine.launchable_image(id).unwrap();
    assert_eq!(code(yours.launchable_image(id)), "AuthFailure");
    mine.disable_image(id).unwrap();
    mine.deregister_image(id, true).unwrap();
}

#[test]
fn deprecation_dates() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    mine.share_image(id, &who(YOU), &[]).unwrap();
    let listed = |cloud: &mut Cloud, all: bool| {
        let query = super::super::ImageQuery { include_deprecated: all, ..Default::default() };
        cloud.images(&query).unwrap().images.len()
    };
    for wrong in [time::now() - HOUR, time::now() + 11 * 366 * 24 * HOUR, i64::MIN, i64::MAX] {
        assert_eq!(code(mine.deprecate_image(id, Some(wrong))), "InvalidParameterValue");
    }
    let at = (time::now() / HOUR + 2) * HOUR;
    let deprecated = mine.deprecate_image(id, Some(at + 30_000)).unwrap();
    assert_eq!(deprecated.deprecation_time, Some(time::format(at + 60_000)));
    assert_eq!([listed(&mut mine, false), listed(&mut yours, false)], [1, 1]);
    // It has passed: others find it by its id, and launch it.
    sql(&mut mine, "UPDATE images SET deprecated = 1000 WHERE id = ?1", &image.image_id);
    assert_eq!([listed(&mut mine, false), listed(&mut yours, false), listed(&mut yours, true)], [1, 0, 1]);
    let by_id = super::super::ImageQuery { ids: vec![id.into()], ..Default::default() };
    assert_eq!(yours.images(&by_id).unwrap().images.len(), 1);
    yours.launchable_image(id).unwrap();
    assert_eq!(mine.deprecate_image(id, None).unwrap().deprecation_time, None);
    assert_eq!(listed(&mut yours, false), 1);
}

#[test]
fn who_is_killed_after_the_word_leaves_files_for_the_next_to_remove() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, layer) = new_snapshot(&mut cloud);
    let image = cloud.register_image(&request("image", &snapshot)).unwrap();
    let scope = cloud.scope.clone();
    let deregister = super::super::deregister::deregister;
    cloud.catalogue.write(|tx| deregister(tx, &scope, image.image_id.as_str(), true)).unwrap();
    drop(cloud);
    assert_eq!(world.files(&layer), 2);
    assert_eq!(code(world.cloud(ME).image(image.image_id.as_str())), "InvalidAMIID.Unavailable");
    assert_eq!(world.files(&layer), 0);
}

#[test]
fn descriptions_and_tags() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let image = register(&mut cloud, "image");
    let id = image.image_id.as_str();
    assert_eq!(cloud.describe_image(id, "new words").unwrap().description, "new words");
    assert_eq!(code(cloud.describe_image(id, &"x".repeat(256))), "InvalidParameterValue");
    let tags = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
    assert_eq!(cloud.tag_image(id, &tags, &[]).unwrap().tags, tags);
    let changed = cloud.tag_image(id, &[("a".to_owned(), "3".to_owned())].into(), &["b".into(), "c".into()]).unwrap();
    assert_eq!(changed.tags, [("a".to_owned(), "3".to_owned())].into());
    let many = (0..50).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(code(cloud.tag_image(id, &many, &[])), "TagLimitExceeded");
    assert_eq!(cloud.image(id).unwrap().tags.len(), 1);
}

#[test]
fn two_deregister_one_image_at_once() {
    for _ in 0..5 {
        let world = World::new();
        let (snapshot, layer) = new_snapshot(&mut world.cloud(ME));
        let image = world.cloud(ME).register_image(&request("image", &snapshot)).unwrap();
        let id = image.image_id.as_str();
        let copy = || {
            let request =
                super::super::CopyRequest { source_image_id: id.into(), name: "copy".into(), ..Default::default() };
            code(world.cloud(ME).copy_image(&request))
        };
        let (mut gone, copied) = std::thread::scope(|scope| {
            let gone = [0, 1].map(|_| scope.spawn(|| code(world.cloud(ME).deregister_image(id, true))));
            let copied = scope.spawn(copy);
            (gone.map(|thread| thread.join().unwrap()), copied.join().unwrap())
        });
        gone.sort();
        assert_eq!(gone, ["InvalidAMIID.Unavailable", "it was done"]);
        let mut cloud = world.cloud(ME);
        let left = cloud.images(&Default::default()).unwrap().images;
        match copied.as_str() {
            // The copy was first, and is whole.
            "it was done" => assert_eq!((left.len(), world.files(&layer)), (1, 2)),
            "InvalidAMIID.Unavailable" => assert_eq!((left.len(), world.files(&layer)), (0, 0)),
            other => panic!("{other}"),
        }
    }
}
