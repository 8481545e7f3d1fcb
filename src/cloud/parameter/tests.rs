use super::*;
use crate::cloud::image::{Architecture, RegisterRequest, VirtualizationType};
use crate::cloud::mapping::{BlockDevice, Ebs, Target};
use crate::cloud::testing::{World, code, new_snapshot};

fn request(name: &str, value: &str) -> ParameterRequest {
    let (name, value) = (name.to_owned(), value.to_owned());
    ParameterRequest { name, value, data_type: DataType::Text, description: None, overwrite: false }
}

fn new_image(cloud: &mut Cloud, name: &str) -> Id {
    let snapshot = new_snapshot(cloud, "", &[]);
    let ebs = Ebs { snapshot_id: Some(snapshot.to_string()), ..Ebs::default() };
    let request = RegisterRequest {
        name: name.into(),
        architecture: Some(Architecture::X86_64),
        virtualization_type: Some(VirtualizationType::Hvm),
        root_device_name: Some("/dev/sda1".into()),
        block_device_mappings: vec![BlockDevice { device_name: "/dev/sda1".into(), target: Target::Ebs(ebs) }],
        ..RegisterRequest::default()
    };
    cloud.register_image(&request).unwrap().image_id
}

#[test]
fn a_value_is_given_again_only_where_that_is_meant() {
    let world = World::new();
    let mut cloud = world.cloud();
    let described = ParameterRequest { description: Some("mine".into()), ..request("/my/name", "one") };
    let first = cloud.put_parameter(&described).unwrap();
    assert_eq!((first.version, first.value.as_str(), first.kind), (1, "one", "String"));
    assert_eq!(first.arn, "arn:aws:ssm:us-east-1:123456789012:parameter/my/name");
    assert_eq!(code(cloud.put_parameter(&request("/my/name", "two"))), "ParameterAlreadyExists");
    let again = ParameterRequest { overwrite: true, ..request("/my/name", "two") };
    let second = cloud.put_parameter(&again).unwrap();
    assert_eq!((second.version, second.value.as_str(), second.description.as_str()), (2, "two", "mine"));
    assert_eq!(cloud.parameter("/my/name").unwrap(), second);
    assert_eq!(cloud.parameter("/my/name:2").unwrap(), second);
    assert_eq!(cloud.parameter(&second.arn).unwrap(), second);
    assert_eq!(code(cloud.parameter("/my/name:1")), "ParameterVersionNotFound");
    assert_eq!(code(cloud.parameter("/my/other")), "ParameterNotFound");
    for (name, value) in [("/my/x", ""), ("/my/x", "x".repeat(4097).as_str()), ("my/x", "x"), ("", "x")] {
        assert_eq!(code(cloud.put_parameter(&request(name, value))), "ValidationException", "{name:?}");
    }
    cloud.delete_parameter("/my/name").unwrap();
    assert_eq!(code(cloud.delete_parameter("/my/name")), "ParameterNotFound");
    assert_eq!(cloud.put_parameter(&again).unwrap().version, 1);
}

#[test]
fn public_names_are_seen_by_all_and_changed_by_one() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(), world.cloud_of("222222222222"));
    let public = mine.put_parameter(&request("/aws/service/images/linux", "ami-00000001")).unwrap();
    mine.put_parameter(&request("/own", "mine")).unwrap();
    assert_eq!(public.arn, "arn:aws:ssm:us-east-1::parameter/aws/service/images/linux");
    assert_eq!(yours.parameter(&public.name).unwrap(), public);
    assert_eq!(code(yours.parameter("/own")), "ParameterNotFound");
    yours.put_parameter(&request("/own", "yours")).unwrap();
    assert_eq!(
        (mine.parameter("/own").unwrap().value, yours.parameter("/own").unwrap().value),
        ("mine".into(), "yours".into())
    );
    let change = ParameterRequest { overwrite: true, ..request(&public.name, "ami-00000002") };
    assert_eq!(code(yours.put_parameter(&change)), "AccessDeniedException");
    assert_eq!(code(yours.delete_parameter(&public.name)), "ParameterNotFound");
    assert_eq!(code(world.cloud_in("eu-west-1").parameter(&public.name)), "ParameterNotFound");
    let names = [public.name.clone(), "/none".into(), "/own:7".into(), "/own".into()];
    let found = yours.parameters(&names).unwrap();
    assert_eq!(found.parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), [public.name.as_str(), "/own"]);
    assert_eq!(found.invalid, ["/none", "/own:7"]);
    assert_eq!(yours.all_parameters().unwrap().len(), 2);
}

#[test]
fn a_path_has_what_is_below_it() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(), world.cloud_of("222222222222"));
    for name in ["/a/one", "/a/b/two", "/a-b/three", "/a", "plain", "/aws/service/four"] {
        mine.put_parameter(&request(name, "x")).unwrap();
    }
    let names = |cloud: &mut Cloud, path: &str, recursive: bool| -> Vec<String> {
        cloud.parameters_by_path(path, recursive).unwrap().into_iter().map(|parameter| parameter.name).collect()
    };
    assert_eq!(names(&mut mine, "/a", false), ["/a/one"]);
    assert_eq!(names(&mut mine, "/a/", true), ["/a/b/two", "/a/one"]);
    assert_eq!(names(&mut mine, "/", false), ["/a"]);
    assert_eq!(names(&mut mine, "/", true).len(), 5);
    assert_eq!(code(mine.parameters_by_path("/a/%", true)), "ValidationException");
    assert_eq!(names(&mut yours, "/aws", true), ["/aws/service/four"]);
    assert_eq!(names(&mut yours, "/", true), [""; 0]);
}

#[test]
fn an_images_name_means_one_that_is_there() {
    let world = World::new();
    let (mut mine, mut yours) = (world.cloud(), world.cloud_of("222222222222"));
    let image = new_image(&mut mine, "one");
    let of = |value: &str| ParameterRequest { data_type: DataType::Image, ..request("/aws/service/one", value) };
    for (value, expected) in [
        ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
        ("one", "InvalidAMIID.Malformed"),
        ("aki-00000001", "InvalidAMIID.Malformed"),
    ] {
        assert_eq!(code(mine.put_parameter(&of(value))), expected);
    }
    assert_eq!(code(yours.put_parameter(&of(image.as_str()))), "InvalidAMIID.NotFound");
    mine.put_parameter(&of(image.as_str())).unwrap();
    // A launch, too, takes the name for the image.
    for text in ["resolve:ssm:/aws/service/one", "resolve:ssm:/aws/service/one:1"] {
        assert_eq!(mine.resolve_image(text).unwrap(), image);
    }
    assert_eq!(code(mine.resolve_image("resolve:ssm:/aws/service/two")), "ParameterNotFound");
    mine.put_parameter(&request("text", "words")).unwrap();
    assert_eq!(code(mine.resolve_image("resolve:ssm:text")), "InvalidAMIID.Malformed");
}
