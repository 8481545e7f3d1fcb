use super::*;
use crate::cloud::filter::{Filter, Filtered};
use crate::cloud::image::{ImageQuery, Platform, ProductCode, ProductCodeType};
use crate::cloud::tag::Tags;

fn names(cloud: &mut Cloud, query: &ImageQuery) -> Vec<String> {
    let mut names: Vec<_> = cloud.images(query).unwrap().images.into_iter().map(|image| image.name).collect();
    names.sort();
    names
}

fn all() -> ImageQuery {
    ImageQuery::default()
}

fn by(name: &str, values: &[&str]) -> ImageQuery {
    ImageQuery { filters: vec![Filter::new(name, values.iter().copied())], ..all() }
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

#[test]
fn everybody_lists_what_is_for_him() {
    let world = World::new();
    let (mut mine, mut yours, mut theirs) = (world.cloud(ME), world.cloud(YOU), world.cloud(THEY));
    let mut shared = |name: &str, with: &[&str]| {
        let image = register(&mut mine, name);
        for account in with {
            mine.share_image(image.image_id.as_str(), &who(account), &[]).unwrap();
        }
    };
    shared("private", &[]);
    shared("public", &["all"]);
    shared("yours", &[YOU]);
    shared("both", &[YOU, THEY, "all"]);
    register(&mut yours, "own");
    register(&mut world.cloud_in("eu-west-1", ME), "elsewhere");
    mine.set_owner_alias("amazon", Some(&ME.parse().unwrap())).unwrap();

    assert_eq!(names(&mut mine, &all()), ["both", "private", "public", "yours"]);
    assert_eq!(names(&mut yours, &all()), ["both", "own", "public", "yours"]);
    assert_eq!(names(&mut theirs, &all()), ["both", "public"]);

    let owners = |names: &[&str]| ImageQuery { owners: texts(names), ..all() };
    assert_eq!(names(&mut yours, &owners(&["self"])), ["own"]);
    assert_eq!(names(&mut yours, &owners(&[ME])), ["both", "public", "yours"]);
    assert_eq!(names(&mut yours, &owners(&["amazon"])), ["both", "public", "yours"]);
    assert_eq!(names(&mut yours, &owners(&["amazon", "self"])), ["both", "own", "public", "yours"]);
    assert_eq!(names(&mut yours, &owners(&["aws-marketplace"])), [""; 0]);
    assert_eq!(names(&mut yours, &by("owner-alias", &["amaz*"])), ["both", "public", "yours"]);
    assert_eq!(code(yours.images(&owners(&["12345"]))), "InvalidUserID.Malformed");
    mine.set_owner_alias("amazon", None).unwrap();
    assert_eq!(names(&mut yours, &owners(&["amazon"])), [""; 0]);
    assert_eq!(code(mine.set_owner_alias("self", None)), "InvalidParameterValue");

    let executable = |names: &[&str]| ImageQuery { executable_by: texts(names), ..all() };
    assert_eq!(names(&mut yours, &executable(&["self"])), ["both", "yours"]);
    assert_eq!(names(&mut yours, &executable(&[YOU])), ["both", "yours"]);
    assert_eq!(names(&mut yours, &executable(&["all"])), ["both", "public"]);
    assert_eq!(names(&mut yours, &executable(&["all", "self"])), ["both", "public", "yours"]);
    // The owner sees with whom it shares; others do not.
    assert_eq!(names(&mut mine, &executable(&[THEY])), ["both"]);
    assert_eq!(names(&mut yours, &executable(&[THEY])), [""; 0]);
    assert_eq!(names(&mut mine, &executable(&["self"])), [""; 0]);
    assert_eq!(code(mine.images(&executable(&["everybody"]))), "InvalidAMIAttributeItemValue");
    assert_eq!(names(&mut yours, &by("is-public", &["true"])), ["both", "public"]);
}

#[test]
fn by_id() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (one, two) = (register(&mut mine, "one"), register(&mut mine, "two"));
    let ids = |images: &[&Image]| ImageQuery {
        ids: images.iter().map(|image| image.image_id.to_string()).collect(),
        ..all()
    };
    assert_eq!(names(&mut mine, &ids(&[&one, &two])), ["one", "two"]);
    assert_eq!(code(yours.images(&ids(&[&one]))), "InvalidAMIID.NotFound");
    let filtered = ImageQuery { filters: vec![Filter::new("name", ["two"])], ..ids(&[&one, &two]) };
    assert_eq!(names(&mut mine, &filtered), ["two"]);
    mine.disable_image(one.image_id.as_str()).unwrap();
    assert_eq!(names(&mut mine, &ids(&[&one])), ["one"]);
    assert_eq!(names(&mut mine, &all()), ["two"]);
    assert_eq!(names(&mut mine, &ImageQuery { include_disabled: true, ..all() }), ["one", "two"]);
    mine.deregister_image(one.image_id.as_str(), false).unwrap();
    assert_eq!(code(mine.images(&ids(&[&one, &two]))), "InvalidAMIID.Unavailable");
    let wrong = ImageQuery { ids: texts(&["ami-1"]), ..all() };
    assert_eq!(code(mine.images(&wrong)), "InvalidAMIID.Malformed");
    let paged = ImageQuery { max_results: Some(5), ..ids(&[&two]) };
    assert_eq!(code(mine.images(&paged)), "InvalidParameterCombination");
}

#[test]
fn pages() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    for number in 0..7 {
        cloud.register_image(&request(&format!("image {number}"), &snapshot)).unwrap();
    }
    let all_at_once = cloud.images(&all()).unwrap();
    assert_eq!(all_at_once.next_token, None);
    for size in [1, 3, 6, 7, 100] {
        let mut query = ImageQuery { max_results: Some(size), ..by("name", &["image*"]) };
        let mut found = Vec::new();
        loop {
            let page = cloud.images(&query).unwrap();
            assert!((1..=size).contains(&page.images.len()));
            found.extend(page.images);
            query.next_token = page.next_token;
            if query.next_token.is_none() {
                break;
            }
        }
        assert_eq!(found, all_at_once.images, "{size}");
    }
    for wrong in ["", "x", "1.", "zz.ami-00000000", "1.ami-1"] {
        let query = ImageQuery { next_token: Some(wrong.into()), ..all() };
        assert_eq!(code(cloud.images(&query)), "InvalidNextToken", "{wrong}");
    }
    for wrong in [0, 1001] {
        assert_eq!(code(cloud.images(&ImageQuery { max_results: Some(wrong), ..all() })), "InvalidParameterValue");
    }
}

/// An image that has something for every filter, and one that has little.
fn two_images(cloud: &mut Cloud) -> (Image, Image) {
    let (snapshot, _) = new_snapshot(cloud);
    let (kernel, _) = register_part(cloud, "kernel", ImageType::Kernel);
    let (ramdisk, _) = register_part(cloud, "ramdisk", ImageType::Ramdisk);
    let pv = cloud
        .register_image(&RegisterRequest {
            virtualization_type: None,
            kernel_id: Some(kernel.image_id.to_string()),
            ramdisk_id: Some(ramdisk.image_id.to_string()),
            description: Some("with kernel".into()),
            tags: Tags::from([("Name".into(), "pv".into()), ("empty".into(), String::new())]),
            ..request("pv image", &snapshot)
        })
        .unwrap();
    let mut full = request("full image", &snapshot);
    full.block_device_mappings[0] = BlockDevice {
        device_name: "/dev/sda1".into(),
        target: Target::Ebs(Ebs {
            snapshot_id: Some(snapshot.to_string()),
            volume_size: Some(12),
            volume_type: Some("io2".into()),
            delete_on_termination: Some(false),
            ..Ebs::default()
        }),
    };
    full.platform = Some(Platform::Windows);
    full.boot_mode = Some(BootMode::UefiPreferred);
    full.imds_support = Some("v2.0".into());
    full.ena_support = true;
    let full = cloud.register_image(&full).unwrap();
    let id = full.image_id.as_str();
    let product = ProductCode { product_code_id: "prod1".into(), product_code_type: ProductCodeType::DevPay };
    cloud.add_product_code(id, &product).unwrap();
    cloud.share_image(id, &who("all"), &[]).unwrap();
    cloud.set_owner_alias("amazon", Some(&ME.parse().unwrap())).unwrap();
    let update = "UPDATE images SET source_image = 'ami-12345678', source_region = 'eu-west-1',
         source_instance = 'i-12345678', state_reason = 'Client.Test: it was' WHERE id = ?1";
    sql(cloud, update, &full.image_id);
    (cloud.image(id).unwrap(), pv)
}

#[test]
fn every_filter_finds_what_it_should() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (full, pv) = two_images(&mut cloud);
    let snapshot = full.snapshots()[0].to_owned();
    let (kernel, ramdisk) = (pv.kernel_id.clone().unwrap(), pv.ramdisk_id.clone().unwrap());
    let (both, only_full, only_pv) =
        (["full image", "pv image"].as_slice(), ["full image"].as_slice(), ["pv image"].as_slice());
    let everything = ["full image", "kernel", "pv image", "ramdisk"].as_slice();
    let cases: Vec<(&str, &str, &[&str])> = vec![
        ("architecture", "x86_64", everything),
        ("block-device-mapping.delete-on-termination", "false", only_full),
        ("block-device-mapping.device-name", "/dev/sd*", both),
        ("block-device-mapping.encrypted", "false", both),
        ("block-device-mapping.snapshot-id", &snapshot, both),
        ("block-device-mapping.volume-size", "12", only_full),
        ("block-device-mapping.volume-type", "gp?", only_pv),
        ("boot-mode", "uefi-*", only_full),
        ("creation-date", "20*Z", everything),
        ("description", "*kernel", only_pv),
        ("ena-support", "true", only_full),
        ("hypervisor", "xen", everything),
        ("image-id", full.image_id.as_str(), only_full),
        ("image-type", "machine", both),
        ("imds-support", "v2.0", only_full),
        ("is-public", "true", only_full),
        ("kernel-id", kernel.as_str(), only_pv),
        ("manifest-location", "123456789012/pv*", only_pv),
        ("name", "full image", only_full),
        ("owner-alias", "amazon", everything),
        ("owner-id", ME, everything),
        ("platform", "windows", only_full),
        ("platform-details", "Windows", only_full),
        ("product-code", "prod1", only_full),
        ("product-code.type", "devpay", only_full),
        ("ramdisk-id", ramdisk.as_str(), only_pv),
        ("root-device-name", "/dev/sda1", both),
        ("root-device-type", "ebs", both),
        ("source-image-id", "ami-12345678", only_full),
        ("source-image-region", "eu-west-1", only_full),
        ("source-instance-id", "i-12345678", only_full),
        ("state", "available", everything),
        ("state-reason-code", "Client.Test", only_full),
        ("state-reason-message", "*it was", only_full),
        ("usage-operation", "RunInstances:0002", only_full),
        ("virtualization-type", "hvm", only_full),
    ];
    assert_eq!(cases.iter().map(|case| case.0).collect::<Vec<_>>(), Image::FILTERS);
    for (name, value, expected) in &cases {
        assert_eq!(names(&mut cloud, &by(name, &[value])), *expected, "{name}={value}");
        assert_eq!(names(&mut cloud, &by(name, &["no such", value])), *expected, "{name}");
        assert_eq!(names(&mut cloud, &by(name, &["no such"])), [""; 0], "{name}");
        // With a wildcard the answer is the same, though it is looked up another way.
        assert_eq!(names(&mut cloud, &by(name, &[&format!("{value}?")])), *expected, "{name}={value}?");
    }
    for (name, value, expected) in [
        ("tag:Name", "p?", only_pv),
        ("tag:empty", "", only_pv),
        ("tag:name", "pv", &[]),
        ("tag-key", "Name", only_pv),
        ("name", "FULL IMAGE", &[]),
        ("name", r"full\ image", only_full),
        ("name", r"full\*", &[]),
    ] {
        assert_eq!(names(&mut cloud, &by(name, &[value])), expected, "{name}={value}");
    }
    let two = ImageQuery {
        filters: vec![Filter::new("root-device-type", ["ebs"]), Filter::new("virtualization-type", ["paravirtual"])],
        ..all()
    };
    assert_eq!(names(&mut cloud, &two), only_pv);
    let error = cloud.images(&by("colour", &["red"])).unwrap_err();
    assert_eq!(
        (error.code().as_str(), error.to_string().as_str()),
        ("InvalidParameterValue", "The filter 'colour' is invalid")
    );
}

#[test]
fn tags_are_their_owners() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    mine.tag_image(id, &[("Name".to_owned(), "secret".to_owned())].into(), &[]).unwrap();
    mine.share_image(id, &who("all"), &[]).unwrap();
    assert_eq!(names(&mut mine, &by("tag:Name", &["secret"])), ["image"]);
    assert_eq!(names(&mut yours, &by("tag:Name", &["secret"])), [""; 0]);
    assert_eq!(yours.image(id).unwrap().tags, Tags::new());
}

#[test]
fn many_are_read_as_one_is() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    for number in 0..40 {
        let mut request = request(&format!("image {number}"), &snapshot);
        request.tags = Tags::from([("number".into(), number.to_string())]);
        let image = cloud.register_image(&request).unwrap();
        if number % 3 == 0 {
            cloud.share_image(image.image_id.as_str(), &who(YOU), &[]).unwrap();
        }
    }
    let images = cloud.images(&all()).unwrap().images;
    assert_eq!(images.len(), 40);
    for image in images {
        assert_eq!(cloud.image(image.image_id.as_str()).unwrap(), image);
    }
}

#[test]
fn what_a_person_means() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let image = register(&mut mine, "image");
    let id = image.image_id.as_str();
    let mean = |cloud: &mut Cloud, text: &str| cloud.resolve_image(text).map(|id| id.to_string()).map_err(|e| e.code());
    let not_found = || Err("InvalidAMIID.NotFound".to_owned());
    assert_eq!(mean(&mut mine, id), Ok(id.into()));
    assert_eq!(mean(&mut mine, &id[..12]), Ok(id.into()));
    assert_eq!(mean(&mut mine, "image"), Ok(id.into()));
    for nothing in ["imag", "Image", "", "*", "ami-fffff"] {
        assert_eq!(mean(&mut mine, nothing), not_found(), "{nothing:?}");
    }
    for none in ["ami-", "ami-xyz", "aki-000000000000000000"] {
        assert_eq!(mean(&mut mine, none), Err("InvalidAMIID.Malformed".to_owned()), "{none}");
    }
    // Nobody finds what he may not see; a whole id is for whoever asks to say.
    assert_eq!(mean(&mut yours, &id[..12]), not_found());
    assert_eq!(mean(&mut yours, "image"), not_found());
    assert_eq!(mean(&mut yours, id), Ok(id.into()));
    mine.share_image(id, &who("all"), &[]).unwrap();
    assert_eq!(mean(&mut yours, "image"), Ok(id.into()));
    assert_eq!(mean(&mut yours, &id[..12]), Ok(id.into()));
    // One's own comes first; of several of others', none does.
    let own = register(&mut yours, "image").image_id;
    assert_eq!(mean(&mut yours, "image"), Ok(own.to_string()));
    yours.share_image(own.as_str(), &who("all"), &[]).unwrap();
    assert_eq!(mean(&mut mine, "image"), Ok(id.into()));
    let error = world.cloud(THEY).resolve_image("image").unwrap_err();
    assert_eq!(error.code(), "InvalidParameterValue");
    assert!(error.to_string().contains(id) && error.to_string().contains(own.as_str()), "{error}");
    assert!(matches!(mine.resolve_image("ami-0"), Err(CloudError::Ambiguous { .. })));
    // An old, short id that is the beginning of a long one, and one that is whole.
    sql(&mut mine, "UPDATE images SET id = 'ami-01234567' WHERE id = ?1", &own);
    assert_eq!(mean(&mut yours, "ami-01234567"), Ok("ami-01234567".into()));
    assert_eq!(mean(&mut yours, &id[..12]), Ok(id.into()));
    // A name may look like the beginning of an id.
    let odd = register(&mut mine, "ami-feed").image_id;
    assert_eq!(mean(&mut mine, "ami-feed"), Ok(odd.to_string()));
    assert_eq!(mean(&mut world.cloud_in("eu-west-1", ME), &id[..12]), not_found());
}
