use serde_json::json;

use super::*;
use crate::cloud::operation::Operation;
use crate::cloud::tag::Tags;

#[test]
fn what_is_registered_is_as_ec2_has_it() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    let request = RegisterRequest {
        name: "web (1)".into(),
        root_device_name: Some("/dev/sda1".into()),
        description: Some("a web server".into()),
        block_device_mappings: vec![
            ebs("/dev/sda1", Some(&snapshot), None),
            ebs("/dev/sdf", None, Some(3)),
            BlockDevice { device_name: "/dev/sdb".into(), target: Target::Ephemeral(0) },
            BlockDevice { device_name: "/dev/sdc".into(), target: Target::NoDevice },
        ],
        tags: Tags::from([("Name".into(), "web".into())]),
        ..RegisterRequest::default()
    };
    let image = cloud.register_image(&request).unwrap();
    assert_eq!(image.root_size(), Some(8));
    assert_eq!(image.snapshots(), [snapshot.as_str()]);
    let mut told = serde_json::to_value(&image).unwrap();
    let times = told.as_object_mut().unwrap();
    times.remove("creation_date").unwrap();
    assert_eq!(times.remove("image_id").unwrap(), image.image_id.as_str());
    assert_eq!(
        told,
        json!({
            "image_type": "machine",
            "image_location": "123456789012/web (1)",
            "name": "web (1)",
            "description": "a web server",
            "state": "available",
            "state_reason": null,
            "owner_id": "123456789012",
            "image_owner_alias": null,
            "is_public": false,
            "architecture": "i386",
            "virtualization_type": "paravirtual",
            "hypervisor": "xen",
            "boot_mode": null,
            "platform": null,
            "platform_details": "Linux/UNIX",
            "usage_operation": "RunInstances",
            "root_device_type": "ebs",
            "root_device_name": "/dev/sda1",
            "block_device_mappings": [
                {"device_name": "/dev/sda1", "ebs": {
                    "snapshot_id": snapshot.as_str(), "volume_size": 8, "volume_type": "gp2",
                    "delete_on_termination": true}},
                {"device_name": "/dev/sdf", "ebs": {
                    "volume_size": 3, "volume_type": "gp2", "delete_on_termination": true}},
                {"device_name": "/dev/sdb", "virtual_name": "ephemeral0"},
            ],
            "kernel_id": null,
            "ramdisk_id": null,
            "ena_support": false,
            "imds_support": null,
            "deprecation_time": null,
            "deregistration_protection": "disabled",
            "source_instance_id": null,
            "source_image_id": null,
            "source_image_region": null,
            "login_user": null,
            "product_codes": [],
            "tags": {"Name": "web"},
        })
    );
}

#[test]
fn names() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    let long = "x".repeat(129);
    for wrong in ["", "ab", long.as_str(), "über alles", "a\tb c", "a:b", "name!"] {
        assert_eq!(code(cloud.register_image(&request(wrong, &snapshot))), "InvalidAMIName.Malformed", "{wrong:?}");
    }
    for right in ["abc", &long[..128], "a (b) [c] ./-'@_ 9"] {
        cloud.register_image(&request(right, &snapshot)).unwrap();
    }
    let again = cloud.register_image(&request("abc", &snapshot)).unwrap_err();
    assert_eq!(again.code(), "InvalidAMIName.Duplicate");
    assert!(again.to_string().contains("AMI name abc is already in use by AMI ami-"), "{again}");
    // A name is an account's own, in one region.
    let mut other = world.cloud(YOU);
    register(&mut other, "abc");
    register(&mut world.cloud_in("eu-west-1", ME), "abc");
    // It is free again after deregistration.
    let old = cloud.resolve_image("abc").unwrap();
    cloud.deregister_image(old.as_str(), false).unwrap();
    let new = cloud.register_image(&request("abc", &snapshot)).unwrap();
    cloud.disable_image(new.image_id.as_str()).unwrap();
    assert_eq!(code(cloud.register_image(&request("abc", &snapshot))), "InvalidAMIName.Duplicate");
}

#[test]
fn what_cannot_be_registered() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    let (of_other, _) = new_snapshot(&mut world.cloud(YOU));
    let (elsewhere, _) = new_snapshot(&mut world.cloud_in("eu-west-1", ME));
    let (pending, _) = new_snapshot(&mut cloud);
    sql(&mut cloud, "UPDATE snapshots SET state = 'pending' WHERE id = ?1", &pending);
    let base = || request("image", &snapshot);
    let with = |change: &dyn Fn(&mut RegisterRequest)| {
        let mut request = base();
        change(&mut request);
        request
    };
    let mapped = |mapping: Vec<BlockDevice>| with(&|r| r.block_device_mappings = mapping.clone());
    let root = ebs("/dev/sda1", Some(&snapshot), None);
    let kernel = Id::new(Kind::KernelImage).unwrap().to_string();
    let pv = |change: &dyn Fn(&mut RegisterRequest)| {
        with(&|r| {
            r.virtualization_type = Some(VirtualizationType::Paravirtual);
            change(r);
        })
    };
    for (request, expected, words) in [
        (with(&|r| r.root_device_name = None), "MissingParameter", "rootDeviceName"),
        (with(&|r| r.root_device_name = Some(String::new())), "MissingParameter", "rootDeviceName"),
        (mapped(vec![]), "MissingParameter", "blockDeviceMapping"),
        (with(&|r| r.root_device_name = Some("/dev/xvda".into())), "InvalidBlockDeviceMapping", "/dev/xvda"),
        (mapped(vec![ebs("/dev/sda1", None, Some(8))]), "InvalidBlockDeviceMapping", "snapshot"),
        (mapped(vec![ebs("/dev/sda1", Some(&snapshot), Some(7))]), "InvalidBlockDeviceMapping", "expect size >= 8GB"),
        (mapped(vec![root.clone(), root.clone()]), "InvalidBlockDeviceMapping", "twice"),
        (mapped(vec![root.clone(), ebs("/dev/sdf", None, None)]), "InvalidBlockDeviceMapping", "neither"),
        (mapped(vec![root.clone(), ebs("/dev/sdf", None, Some(0))]), "InvalidParameterValue", "1GiB"),
        (mapped(vec![root.clone(), ebs("/dev/sdf", None, Some(65537))]), "InvalidParameterValue", "65537"),
        (mapped(vec![root.clone(), ebs("sdf", None, Some(1))]), "InvalidBlockDeviceMapping", "/dev/sdf"),
        (mapped(vec![root.clone(), ebs("/dev/hda", None, Some(1))]), "InvalidBlockDeviceMapping", "/dev/hda"),
        (
            mapped(vec![root, BlockDevice { device_name: "/dev/sdb".into(), target: Target::Ephemeral(24) }]),
            "InvalidBlockDeviceMapping",
            "ephemeral23",
        ),
        (mapped(vec![ebs("/dev/sda1", Some(&of_other), None)]), "InvalidSnapshot.NotFound", of_other.as_str()),
        (mapped(vec![ebs("/dev/sda1", Some(&elsewhere), None)]), "InvalidSnapshot.NotFound", elsewhere.as_str()),
        (mapped(vec![ebs("/dev/sda1", Some(&pending), None)]), "IncorrectState", "pending"),
        (with(&|r| r.image_location = Some("b/m.xml".into())), "UnsupportedOperation", "image import"),
        (with(&|r| r.imds_support = Some("v1.0".into())), "InvalidParameterValue", "v2.0"),
        (with(&|r| r.description = Some("x".repeat(256))), "InvalidParameterValue", "255"),
        (with(&|r| r.tags = Tags::from([("aws:x".into(), String::new())])), "InvalidParameterValue", "aws:"),
        (with(&|r| r.kernel_id = Some(kernel.clone())), "InvalidParameterCombination", "hvm"),
        (pv(&|r| r.boot_mode = Some(BootMode::Uefi)), "InvalidParameterCombination", "firmware"),
        (pv(&|r| r.kernel_id = Some(kernel.clone())), "InvalidAMIID.NotFound", kernel.as_str()),
        (pv(&|r| r.kernel_id = Some("aki-1".into())), "InvalidAMIID.Malformed", "aki-"),
        (pv(&|r| r.ramdisk_id = Some("ari-00000000".into())), "InvalidParameterCombination", "kernel"),
        (
            with(&|r| {
                r.architecture = Some(Architecture::I386);
                r.boot_mode = Some(BootMode::UefiPreferred);
            }),
            "InvalidParameterCombination",
            "i386",
        ),
    ] {
        let error = cloud.register_image(&request).unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert_eq!(cloud.images(&Default::default()).unwrap().images, []);
}

#[test]
fn snapshots_that_others_share_can_be_used() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (snapshot, _) = new_snapshot(&mut yours);
    assert_eq!(code(mine.register_image(&request("shared", &snapshot))), "InvalidSnapshot.NotFound");
    sql(&mut yours, "INSERT INTO snapshot_permissions VALUES (?1, '123456789012')", &snapshot);
    mine.register_image(&request("shared", &snapshot)).unwrap();
    let mut others = world.cloud(THEY);
    assert_eq!(code(others.register_image(&request("shared", &snapshot))), "InvalidSnapshot.NotFound");
    sql(&mut yours, "INSERT INTO snapshot_permissions VALUES (?1, 'all')", &snapshot);
    others.register_image(&request("shared", &snapshot)).unwrap();
}

#[test]
fn kernels_and_ramdisks_of_paravirtual_images() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (snapshot, _) = new_snapshot(&mut mine);
    let (kernel, _) = register_part(&mut yours, "kernel", ImageType::Kernel);
    let (ramdisk, _) = register_part(&mut yours, "ramdisk", ImageType::Ramdisk);
    assert!(kernel.image_id.as_str().starts_with("aki-") && ramdisk.image_id.as_str().starts_with("ari-"));
    let request = |kernel: &Image, ramdisk: &Image| RegisterRequest {
        virtualization_type: None,
        kernel_id: Some(kernel.image_id.to_string()),
        ramdisk_id: Some(ramdisk.image_id.to_string()),
        ..request("pv image", &snapshot)
    };
    assert_eq!(code(mine.register_image(&request(&kernel, &ramdisk))), "AuthFailure");
    for part in [&kernel, &ramdisk] {
        yours.share_image(part.image_id.as_str(), &who("all"), &[]).unwrap();
    }
    let error = mine.register_image(&request(&ramdisk, &kernel)).unwrap_err();
    assert_eq!(error.code(), "InvalidParameterValue");
    assert!(error.to_string().contains("is not a kernel, but a ramdisk"), "{error}");
    let i386 = RegisterRequest { architecture: None, ..request(&kernel, &ramdisk) };
    assert_eq!(code(mine.register_image(&i386)), "InvalidParameterCombination");
    let image = mine.register_image(&request(&kernel, &ramdisk)).unwrap();
    assert_eq!(image.kernel_id.as_ref(), Some(&kernel.image_id));
    assert_eq!(image.ramdisk_id.as_ref(), Some(&ramdisk.image_id));
    // Without its kernel it cannot be launched, and a kernel alone cannot either.
    mine.launchable_image(image.image_id.as_str()).unwrap();
    assert_eq!(code(mine.launchable_image(kernel.image_id.as_str())), "InvalidParameterValue");
    yours.deregister_image(kernel.image_id.as_str(), false).unwrap();
    assert_eq!(code(mine.launchable_image(image.image_id.as_str())), "InvalidAMIID.Unavailable");
}

#[test]
fn an_image_that_is_being_made() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let scope = cloud.scope.clone();
    let (snapshot, _) = new_snapshot(&mut cloud);
    let new = |name: &str| NewImage::new(name, Architecture::X86_64, VirtualizationType::Hvm, RootDeviceType::Ebs);
    let operation = Operation::begin(&cloud.home).unwrap();
    let begin = |cloud: &mut Cloud, name: &str| {
        cloud.catalogue.write(|tx| {
            tx.execute("DELETE FROM operations WHERE id = ?1", [operation.id()])?;
            operation.record(tx, "import")?;
            new(name).insert(tx, &scope, Some(&operation))
        })
    };
    let id = begin(&mut cloud, "coming").unwrap();
    assert_eq!(cloud.image(id.as_str()).unwrap().state.as_str(), "pending");
    assert_eq!(code(cloud.launchable_image(id.as_str())), "InvalidAMIID.Unavailable");
    for refused in [
        code(cloud.deregister_image(id.as_str(), true)),
        code(cloud.disable_image(id.as_str())),
        code(cloud.share_image(id.as_str(), &who("all"), &[])),
    ] {
        assert_eq!(refused, "IncorrectState");
    }
    assert_eq!(code(cloud.register_image(&request("coming", &snapshot))), "InvalidAMIName.Duplicate");
    // Who else opens the catalogue leaves it alone while the operation is under way.
    assert_eq!(world.cloud(ME).image(id.as_str()).unwrap().state.as_str(), "pending");
    let mapping = [ebs("/dev/sda1", Some(&snapshot), Some(8))];
    cloud.catalogue.write(|tx| super::super::new::complete(tx, &id, &mapping, None)).unwrap();
    assert_eq!(cloud.launchable_image(id.as_str()).unwrap().snapshots(), [snapshot.as_str()]);

    let failing = begin(&mut cloud, "failing").unwrap();
    let reason = "Client.ImportError: it is no disk";
    cloud.catalogue.write(|tx| super::super::new::fail(tx, &failing, reason)).unwrap();
    let failed = cloud.image(failing.as_str()).unwrap();
    assert_eq!(failed.state.as_str(), "failed");
    assert_eq!(failed.state_reason.unwrap().code, "Client.ImportError");
    cloud.register_image(&request("failing", &snapshot)).unwrap();
    cloud.deregister_image(failing.as_str(), true).unwrap();

    // Its process dies: the image was never there.
    let id = begin(&mut cloud, "gone").unwrap();
    drop(operation);
    assert_eq!(code(world.cloud(ME).image(id.as_str())), "InvalidAMIID.NotFound");
}
