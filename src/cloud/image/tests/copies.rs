use super::*;
use crate::cloud::image::{CopyRequest, ProductCode, ProductCodeType};
use crate::cloud::tag::Tags;

fn copy_of(image: &Image, name: &str) -> CopyRequest {
    CopyRequest {
        source_image_id: image.image_id.to_string(),
        source_region: Some("us-east-1".into()),
        name: name.into(),
        ..CopyRequest::default()
    }
}

fn layer_of(cloud: &mut Cloud, snapshot: &str) -> String {
    let query = "SELECT layer FROM snapshots WHERE id = ?1";
    cloud.catalogue.read(|tx| Ok(tx.query_row(query, [snapshot], |row| row.get(0))?)).unwrap()
}

fn count(cloud: &mut Cloud, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    cloud.catalogue.read(|tx| Ok(tx.query_row(&query, [], |row| row.get(0))?)).unwrap()
}

#[test]
fn a_copy_in_another_region_outlives_the_original() {
    let world = World::new();
    let (mut here, mut there) = (world.cloud(ME), world.cloud_in("eu-west-1", ME));
    let (snapshot, layer) = new_snapshot(&mut here);
    let mut request = request("original", &snapshot);
    request.block_device_mappings.push(ebs("/dev/sdf", Some(&snapshot), Some(20)));
    request.block_device_mappings.push(ebs("/dev/sdg", None, Some(1)));
    request.boot_mode = Some(BootMode::Uefi);
    request.ena_support = true;
    request.imds_support = Some("v2.0".into());
    request.description = Some("the first".into());
    request.tags = Tags::from([("Name".into(), "x".into())]);
    let original = here.register_image(&request).unwrap();
    here.share_image(original.image_id.as_str(), &who("all"), &[]).unwrap();
    let original = here.image(original.image_id.as_str()).unwrap();

    let copy = there.copy_image(&copy_of(&original, "copy")).unwrap();
    let [mine] = copy.snapshots()[..] else { panic!("{copy:?}") };
    assert_ne!(mine, snapshot.as_str());
    assert_eq!(layer_of(&mut there, mine), layer);
    let mut mapping = original.block_device_mappings.clone();
    for entry in &mut mapping {
        if let Target::Ebs(Ebs { snapshot_id: Some(id), .. }) = &mut entry.target {
            mine.clone_into(id);
        }
    }
    let expected = Image {
        image_id: copy.image_id.clone(),
        name: "copy".into(),
        description: String::new(),
        image_location: "123456789012/copy".into(),
        block_device_mappings: mapping,
        creation_date: copy.creation_date.clone(),
        source_image_id: Some(original.image_id.to_string()),
        source_image_region: Some("us-east-1".into()),
        is_public: false,
        tags: Tags::new(),
        ..original.clone()
    };
    assert_eq!(copy, expected);
    assert_eq!(code(here.image(copy.image_id.as_str())), "InvalidAMIID.NotFound");

    here.deregister_image(original.image_id.as_str(), true).unwrap();
    assert_eq!(world.files(&layer), 2);
    there.launchable_image(copy.image_id.as_str()).unwrap();
    let gone = there.deregister_image(copy.image_id.as_str(), true).unwrap();
    assert_eq!(gone.delete_snapshot_results[0].snapshot_id, mine);
    assert_eq!(world.files(&layer), 0);
    assert_eq!(count(&mut here, "layers"), 0);
}

#[test]
fn a_copy_in_the_same_region_with_tags() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let (snapshot, _) = new_snapshot(&mut cloud);
    let tags = Tags::from([("Name".into(), "x".into()), ("team".into(), "a".into())]);
    let original = cloud.register_image(&RegisterRequest { tags, ..request("original", &snapshot) }).unwrap();
    let request = CopyRequest {
        source_region: None,
        copy_image_tags: true,
        tags: Tags::from([("team".into(), "b".into())]),
        description: Some("the second".into()),
        ..copy_of(&original, "copy")
    };
    let copy = cloud.copy_image(&request).unwrap();
    assert_eq!(copy.tags, Tags::from([("Name".into(), "x".into()), ("team".into(), "b".into())]));
    assert_eq!(copy.description, "the second");
    assert_eq!(code(cloud.copy_image(&request)), "InvalidAMIName.Duplicate");
}

#[test]
fn others_copies_are_their_own() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let (snapshot, _) = new_snapshot(&mut mine);
    let tags = Tags::from([("Name".into(), "x".into())]);
    let original = mine.register_image(&RegisterRequest { tags, ..request("original", &snapshot) }).unwrap();
    let request = CopyRequest { copy_image_tags: true, ..copy_of(&original, "mine now") };
    assert_eq!(code(yours.copy_image(&request)), "AuthFailure");
    mine.share_image(original.image_id.as_str(), &who(YOU), &[]).unwrap();
    let copy = yours.copy_image(&request).unwrap();
    assert_eq!(copy.owner_id, YOU);
    assert_eq!(copy.tags, Tags::new());
    // The snapshots are the copier's: it deletes them with its image, and the original's stay.
    let done = yours.deregister_image(copy.image_id.as_str(), true).unwrap();
    assert_eq!(done.delete_snapshot_results[0].return_code.as_str(), "success");
    assert_eq!(count(&mut mine, "snapshots"), 1);
}

#[test]
fn what_cannot_be_copied() {
    let world = World::new();
    let mut cloud = world.cloud(ME);
    let original = register(&mut cloud, "original");
    let id = original.image_id.as_str();
    let elsewhere = CopyRequest { source_region: Some("eu-west-1".into()), ..copy_of(&original, "copy") };
    assert_eq!(code(cloud.copy_image(&elsewhere)), "InvalidAMIID.NotFound");
    let nowhere = CopyRequest { source_region: Some("mars-1".into()), ..copy_of(&original, "copy") };
    assert_eq!(code(cloud.copy_image(&nowhere)), "InvalidParameterValue");
    assert_eq!(code(cloud.copy_image(&copy_of(&original, "x"))), "InvalidAMIName.Malformed");
    cloud.disable_image(id).unwrap();
    assert_eq!(code(cloud.copy_image(&copy_of(&original, "copy"))), "InvalidAMIID.Unavailable");
    cloud.enable_image(id).unwrap();
    cloud.deregister_image(id, false).unwrap();
    assert_eq!(code(cloud.copy_image(&copy_of(&original, "copy"))), "InvalidAMIID.Unavailable");
    assert_eq!(count(&mut cloud, "snapshots"), 1);
}

#[test]
fn product_codes_go_with_copies() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(ME), world.cloud(YOU));
    let original = register(&mut mine, "paid");
    let product = ProductCode { product_code_id: "abc123".into(), product_code_type: ProductCodeType::Marketplace };
    mine.add_product_code(original.image_id.as_str(), &product).unwrap();
    mine.share_image(original.image_id.as_str(), &who("all"), &[]).unwrap();
    assert_eq!(code(yours.copy_image(&copy_of(&original, "free"))), "OptInRequired");
    yours.subscribe("abc123").unwrap();
    assert_eq!(code(yours.copy_image(&copy_of(&original, "free"))), "InvalidRequest");
    assert_eq!(mine.copy_image(&copy_of(&original, "also paid")).unwrap().product_codes, [product]);
}

#[test]
fn templates_and_kernels_are_shared() {
    let world = World::new();
    let (mut here, mut there) = (world.cloud(ME), world.cloud_in("eu-west-1", ME));
    let (kernel, kernel_layer) = register_part(&mut here, "kernel", ImageType::Kernel);
    let layer = new_layer(&mut here);
    let new = NewImage {
        root_device_name: Some("/dev/sda1".into()),
        template: Some(layer.clone()),
        location: Some("bucket/image.manifest.xml".into()),
        kernel: Some(kernel.image_id.clone()),
        ..NewImage::new("store", Architecture::X86_64, VirtualizationType::Paravirtual, RootDeviceType::InstanceStore)
    };
    let scope = here.scope.clone();
    let id = here.catalogue.write(|tx| new.insert(tx, &scope, None)).unwrap();
    let original = here.image(id.as_str()).unwrap();

    let copy = there.copy_image(&copy_of(&original, "store")).unwrap();
    assert_eq!(copy.image_location, "bucket/image.manifest.xml");
    let copied = there.image(copy.kernel_id.as_ref().unwrap().as_str()).unwrap();
    assert_eq!((copied.name.as_str(), copied.image_type), ("kernel", ImageType::Kernel));
    assert_ne!(copied.image_id, kernel.image_id);
    there.launchable_image(copy.image_id.as_str()).unwrap();
    // The next copy takes the kernel that is there; one in the same region keeps its own.
    let second = there.copy_image(&copy_of(&original, "store 2")).unwrap();
    assert_eq!(second.kernel_id, copy.kernel_id);
    let beside = here.copy_image(&copy_of(&original, "store 3")).unwrap();
    assert_eq!(beside.kernel_id, Some(kernel.image_id.clone()));

    for image in [&original.image_id, &beside.image_id, &kernel.image_id] {
        here.deregister_image(image.as_str(), true).unwrap();
    }
    assert_eq!((world.files(&layer), world.files(&kernel_layer)), (2, 2));
    for image in [&copy.image_id, &second.image_id, &copied.image_id] {
        there.deregister_image(image.as_str(), false).unwrap();
    }
    assert_eq!((world.files(&layer), world.files(&kernel_layer)), (0, 0));
}

#[test]
fn many_copy_one_image_at_once() {
    let world = World::new();
    let original = register(&mut world.cloud(ME), "original");
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (world, original) = (&world, &original);
                // Every name is wanted by two.
                scope.spawn(move || {
                    code(world.cloud(ME).copy_image(&copy_of(original, &format!("copy {}", number / 2))))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(done.iter().filter(|code| *code == "it was done").count(), 4, "{done:?}");
    assert_eq!(done.iter().filter(|code| *code == "InvalidAMIName.Duplicate").count(), 4, "{done:?}");
    let mut cloud = world.cloud(ME);
    assert_eq!((count(&mut cloud, "images"), count(&mut cloud, "snapshots")), (5, 5));
}

#[test]
fn a_token_makes_one_copy() {
    let world = World::new();
    let original = register(&mut world.cloud(ME), "one");
    let request = CopyRequest { client_token: Some("t".into()), ..copy_of(&original, "copy") };
    let copy = world.cloud(ME).copy_image(&request).unwrap();
    assert_eq!(world.cloud(ME).copy_image(&request).unwrap(), copy);
    let other = CopyRequest { name: "another".into(), ..request.clone() };
    assert_eq!(code(world.cloud(ME).copy_image(&other)), "IdempotentParameterMismatch");
    // Where it fails, nothing is kept.
    let taken = CopyRequest { client_token: Some("u".into()), ..copy_of(&original, "copy") };
    assert_eq!(code(world.cloud(ME).copy_image(&taken)), "InvalidAMIName.Duplicate");
    world.cloud(ME).deregister_image(copy.image_id.as_str(), false).unwrap();
    assert_ne!(world.cloud(ME).copy_image(&taken).unwrap().image_id, copy.image_id);
    assert_eq!(code(world.cloud(ME).copy_image(&request)), "InvalidAMIID.Unavailable");
}
