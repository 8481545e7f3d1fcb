use super::*;
use crate::cloud::InstanceChange;
use crate::cloud::testing::{self, World, code, new_instance};

fn tcp(port: i32, cidr: &str) -> IpPermission {
    IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        ip_ranges: vec![Range { cidr: cidr.into(), description: Some(format!("port {port}")) }],
        ..IpPermission::default()
    }
}

fn from_group(id: &Id) -> IpPermission {
    let pair = GroupPair { group_id: Some(id.to_string()), ..GroupPair::default() };
    IpPermission { ip_protocol: "-1".into(), user_id_group_pairs: vec![pair], ..IpPermission::default() }
}

fn request(name: &str) -> SecurityGroupRequest {
    SecurityGroupRequest { name: name.into(), description: "for tests".into(), ..SecurityGroupRequest::default() }
}

fn new_group(cloud: &mut Cloud, name: &str) -> (Id, GroupRef) {
    let id = cloud.create_security_group(&request(name)).unwrap().group_id;
    (id.clone(), GroupRef::Id(id.to_string()))
}

fn group(cloud: &mut Cloud, id: &Id) -> SecurityGroup {
    cloud.describe_security_groups(&[id.to_string()], &[], &[]).unwrap().remove(0)
}

#[test]
fn the_default_group_is_there_from_the_beginning() {
    let world = World::new();
    let mut cloud = world.cloud();
    let [default] = &cloud.describe_security_groups(&[], &[], &[]).unwrap()[..] else { panic!() };
    assert_eq!((default.group_name.as_str(), default.description.as_str()), ("default", "default VPC security group"));
    let [ingress] = &default.ip_permissions[..] else { panic!("{default:?}") };
    assert_eq!((ingress.ip_protocol.as_str(), ingress.from_port), ("-1", None));
    assert_eq!(ingress.user_id_group_pairs[0].group_id.as_deref(), Some(default.group_id.as_str()));
    let [egress] = &default.ip_permissions_egress[..] else { panic!("{default:?}") };
    assert_eq!(egress.ip_ranges[0].cidr, "0.0.0.0/0");
    assert_eq!(cloud.describe_security_group_rules(&[], &[]).unwrap().len(), 2);
    assert!(default.arn().ends_with(&format!(":security-group/{}", default.group_id)));
    for group in [GroupRef::Name("default".into()), GroupRef::Id(default.group_id.to_string())] {
        assert_eq!(code(cloud.delete_security_group(&group)), "CannotDelete");
    }
}

#[test]
fn groups_of_before_there_were_rules_get_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.sqlite");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(include_str!("../../catalogue/v1.sql")).unwrap();
    db.execute_batch(include_str!("../../catalogue/v2.sql")).unwrap();
    db.execute_batch(
        "INSERT INTO vpcs VALUES ('vpc-00000001', 'us-east-1', '123456789012', '172.31.0.0/16', 1);
         INSERT INTO security_groups VALUES ('sg-00000001', 'vpc-00000001', 'default', 'x');
         PRAGMA application_id = 1634560354; PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(db);
    let mut catalogue = crate::cloud::catalogue::Catalogue::open(&path).unwrap();
    let rules = catalogue.read(|tx| rule::of_group(tx, &Id::parse(Kind::SecurityGroup, "sg-00000001")?)).unwrap();
    let told: Vec<_> = rules.iter().map(|rule| (rule.is_egress, rule.peer.to_string())).collect();
    assert_eq!(told, [(true, "0.0.0.0/0".to_owned()), (false, "sg-00000001".to_owned())]);
    assert!(rules.iter().all(|rule| Id::parse(Kind::SecurityGroupRule, rule.security_group_rule_id.as_str()).is_ok()));
}

#[test]
fn a_group_is_made_and_deleted() {
    let world = World::new();
    let mut cloud = world.cloud();
    let tags = testing::all(&[("Name", "web")]);
    let made = cloud.create_security_group(&SecurityGroupRequest { tags: tags.clone(), ..request("web") }).unwrap();
    assert_eq!(made, group(&mut cloud, &made.group_id));
    assert_eq!((made.tags, made.ip_permissions.len(), made.ip_permissions_egress.len()), (tags, 0, 1));
    assert_eq!(code(cloud.create_security_group(&request("web"))), "InvalidGroup.Duplicate");
    for (name, description, expected) in [
        ("default", "x", "InvalidParameterValue"),
        ("sg-web", "x", "InvalidParameterValue"),
        ("w\u{e9}b", "x", "InvalidParameterValue"),
        (" web", "x", "InvalidParameterValue"),
        (&"x".repeat(256), "x", "InvalidParameterValue"),
        ("", "x", "MissingParameter"),
        ("other", "", "MissingParameter"),
        ("other", "<x>", "InvalidParameterValue"),
        ("other", &"x".repeat(256), "InvalidParameterValue"),
    ] {
        let request = SecurityGroupRequest { description: description.into(), ..request(name) };
        assert_eq!(code(cloud.create_security_group(&request)), expected, "{name:?} {description:?}");
    }
    for (vpc, expected) in [("vpc-00000001", "InvalidVpcID.NotFound"), ("net", "InvalidVpcID.Malformed")] {
        let request = SecurityGroupRequest { vpc: Some(vpc.into()), ..request("other") };
        assert_eq!(code(cloud.create_security_group(&request)), expected);
    }
    // Another account has names of its own, and sees none of these.
    let mut yours = world.cloud_of("222222222222");
    new_group(&mut yours, "web");
    let id = GroupRef::Id(made.group_id.to_string());
    assert_eq!(code(yours.delete_security_group(&id)), "InvalidGroup.NotFound");
    assert_eq!(code(yours.describe_security_groups(&[made.group_id.to_string()], &[], &[])), "InvalidGroup.NotFound");
    assert_eq!(cloud.delete_security_group(&GroupRef::Name("web".into())).unwrap(), made.group_id);
    assert_eq!(code(cloud.delete_security_group(&id)), "InvalidGroup.NotFound");
    assert_eq!(code(cloud.delete_security_group(&GroupRef::Name("web".into()))), "InvalidGroup.NotFound");
    assert_eq!(code(cloud.delete_security_group(&GroupRef::Id("web".into()))), "InvalidGroupId.Malformed");
    let left: i64 =
        cloud.catalogue.read(|tx| Ok(tx.query_row("SELECT count(*) FROM tags", [], |row| row.get(0))?)).unwrap();
    assert_eq!(left, 0);
    new_group(&mut cloud, "web");
}

#[test]
fn what_is_in_use_stays() {
    let world = World::new();
    let mut cloud = world.cloud();
    let ((web, web_ref), (db, db_ref)) = (new_group(&mut cloud, "web"), new_group(&mut cloud, "db"));
    let none = Tags::new();
    cloud.authorize_security_group(&db_ref, Direction::Ingress, &[from_group(&web)], &none).unwrap();
    // A group that names itself is in nobody's way.
    cloud.authorize_security_group(&web_ref, Direction::Ingress, &[from_group(&web)], &none).unwrap();
    assert_eq!(code(cloud.delete_security_group(&web_ref)), "DependencyViolation");
    let instance = new_instance(&mut cloud, "us-east-1a", &[]);
    let change = InstanceChange { security_groups: Some(vec![db.to_string()]), ..InstanceChange::default() };
    let changed = cloud.modify_instance(instance.as_str(), &change).unwrap();
    assert_eq!(changed.network_interface.unwrap().groups[0].group_name, "db");
    assert_eq!(code(cloud.delete_security_group(&db_ref)), "DependencyViolation");
    let change = InstanceChange { security_groups: Some(vec![web.to_string()]), ..InstanceChange::default() };
    cloud.modify_instance(instance.as_str(), &change).unwrap();
    cloud.delete_security_group(&db_ref).unwrap();
    assert_eq!(code(cloud.delete_security_group(&web_ref)), "DependencyViolation");
    let eni = cloud.describe_network_interfaces(&[], &[]).unwrap()[0].network_interface_id.to_string();
    let default = cloud.describe_security_groups(&[], &["default".into()], &[]).unwrap()[0].group_id.to_string();
    cloud.modify_network_interface_groups(&eni, std::slice::from_ref(&default)).unwrap();
    cloud.delete_security_group(&web_ref).unwrap();
    for (groups, expected) in [
        (vec![], "InvalidParameterValue"),
        (vec![web.to_string()], "InvalidGroup.NotFound"),
        (vec!["default".to_owned()], "InvalidGroupId.Malformed"),
    ] {
        assert_eq!(code(cloud.modify_network_interface_groups(&eni, &groups)), expected);
        let change = InstanceChange { security_groups: Some(groups), ..InstanceChange::default() };
        assert_eq!(code(cloud.modify_instance(instance.as_str(), &change)), expected);
    }
    let mut yours = world.cloud_of("222222222222");
    assert_eq!(code(yours.modify_network_interface_groups(&eni, &[default])), "InvalidNetworkInterfaceID.NotFound");
}

#[test]
fn rules_come_and_go_all_or_none() {
    let world = World::new();
    let mut cloud = world.cloud();
    let (id, web) = new_group(&mut cloud, "web");
    let (both, none) = ([tcp(22, "10.1.2.3/8"), tcp(80, "0.0.0.0/0")], Tags::new());
    let tags = testing::all(&[("Name", "rule")]);
    let made = cloud.authorize_security_group(&web, Direction::Ingress, &both, &tags).unwrap();
    assert_eq!(made.len(), 2);
    assert_eq!(made[0].peer, Peer::Ipv4("10.0.0.0/8".into()));
    assert_eq!((made[0].description.as_deref(), &made[0].tags), (Some("port 22"), &tags));
    // What is said of a rule is not what makes it another.
    let mut same = tcp(22, "10.0.0.0/8");
    same.ip_ranges[0].description = None;
    let some_new = [tcp(443, "0.0.0.0/0"), same.clone()];
    let again = cloud.authorize_security_group(&web, Direction::Ingress, &some_new, &none);
    assert_eq!(code(again), "InvalidPermission.Duplicate");
    assert_eq!(group(&mut cloud, &id).ip_permissions.len(), 2);
    // The other direction has rules of its own.
    cloud.authorize_security_group(&web, Direction::Egress, &both, &none).unwrap();
    assert_eq!(group(&mut cloud, &id).ip_permissions_egress.len(), 3);
    let missing = [same.clone(), tcp(443, "0.0.0.0/0")];
    let revoked = cloud.revoke_security_group(&web, Direction::Ingress, &missing, &[]);
    assert_eq!(code(revoked), "InvalidPermission.NotFound");
    assert_eq!(group(&mut cloud, &id).ip_permissions.len(), 2);
    let gone = cloud.revoke_security_group(&web, Direction::Ingress, &[same], &[]).unwrap();
    assert_eq!(gone, made[..1]);
    let rest = made[1].security_group_rule_id.to_string();
    let wrong = cloud.revoke_security_group(&web, Direction::Egress, &[], std::slice::from_ref(&rest));
    assert_eq!(code(wrong), "InvalidSecurityGroupRuleId.NotFound");
    assert_eq!(code(cloud.revoke_security_group(&web, Direction::Ingress, &[], &[])), "MissingParameter");
    let gone = cloud.revoke_security_group(&web, Direction::Ingress, &[], std::slice::from_ref(&rest)).unwrap();
    assert_eq!(gone, made[1..]);
    assert!(group(&mut cloud, &id).ip_permissions.is_empty());
    assert_eq!(code(cloud.describe_security_group_rules(&[rest], &[])), "InvalidSecurityGroupRuleId.NotFound");
    // The rule that everything may be sent can go, too.
    let everything = IpPermission {
        ip_protocol: "-1".into(),
        ip_ranges: vec![Range { cidr: "0.0.0.0/0".into(), description: None }],
        ..IpPermission::default()
    };
    cloud.revoke_security_group(&web, Direction::Egress, &[everything], &[]).unwrap();
    assert_eq!(group(&mut cloud, &id).ip_permissions_egress.len(), 2);
}

#[test]
fn groups_are_named_by_id_or_name() {
    let world = World::new();
    let mut cloud = world.cloud();
    let (id, web) = new_group(&mut cloud, "web");
    let by_name = |name: &str, owner: Option<&str>| {
        let (group_name, user_id) = (Some(name.to_owned()), owner.map(str::to_owned));
        let pair = GroupPair { group_name, user_id, ..GroupPair::default() };
        IpPermission { user_id_group_pairs: vec![pair], ..tcp(22, "") }
    };
    let mut add = |mut permissions: Vec<IpPermission>| {
        permissions.iter_mut().for_each(|permission| permission.ip_ranges.clear());
        cloud.authorize_security_group(&web, Direction::Ingress, &permissions, &Tags::new())
    };
    assert_eq!(code(add(vec![by_name("none", None)])), "InvalidGroup.NotFound");
    assert_eq!(code(add(vec![by_name("web", Some("222222222222"))])), "InvalidGroup.NotFound");
    let by_id = IpPermission { from_port: Some(22), to_port: Some(22), ip_protocol: "6".into(), ..from_group(&id) };
    assert_eq!(code(add(vec![by_id.clone(), by_name("web", None)])), "InvalidParameterValue");
    let made = add(vec![by_name("web", Some("123456789012"))]).unwrap();
    assert_eq!((&made[0].peer, made[0].peer_name.as_deref()), (&Peer::Group(id), Some("web")));
    assert_eq!(code(add(vec![by_id])), "InvalidPermission.Duplicate");
}

#[test]
fn a_group_has_sixty_rules_for_each_kind_of_address() {
    let world = World::new();
    let mut cloud = world.cloud();
    let (id, web) = new_group(&mut cloud, "web");
    let mut add = |permission: IpPermission| {
        cloud.authorize_security_group(&web, Direction::Ingress, &[permission], &Tags::new()).map(|_| ())
    };
    let ranges = |from: u8, to: u8| -> Vec<Range> {
        (from..to).map(|n| Range { cidr: format!("10.{n}.0.0/16"), description: None }).collect()
    };
    add(IpPermission { ip_ranges: ranges(0, 59), ..tcp(1, "") }).unwrap();
    let two = IpPermission { ip_ranges: ranges(59, 61), ..tcp(1, "") };
    assert_eq!(code(add(two)), "RulesPerSecurityGroupLimitExceeded");
    add(IpPermission { ip_ranges: ranges(59, 60), ..tcp(1, "") }).unwrap();
    let ipv6 = vec![Range { cidr: "2001:db8::/32".into(), description: None }];
    add(IpPermission { ip_ranges: vec![], ipv6_ranges: ipv6, ..tcp(1, "") }).unwrap();
    assert_eq!(code(add(from_group(&id))), "RulesPerSecurityGroupLimitExceeded");
}

#[test]
fn rules_are_changed_in_place() {
    let world = World::new();
    let mut cloud = world.cloud();
    let (_, web) = new_group(&mut cloud, "web");
    let both = [tcp(22, "10.0.0.0/8"), tcp(80, "0.0.0.0/0")];
    let made = cloud.authorize_security_group(&web, Direction::Ingress, &both, &Tags::new()).unwrap();
    let rule = made[0].security_group_rule_id.to_string();
    let change = |permission: IpPermission| [RuleChange { rule: rule.clone(), permission }];
    let changed = cloud.modify_security_group_rules(&web, &change(tcp(2222, "192.0.2.0/24"))).unwrap();
    assert_eq!(changed[0].security_group_rule_id, made[0].security_group_rule_id);
    assert_eq!((changed[0].traffic.from_port, changed[0].peer.as_str()), (2222, "192.0.2.0/24"));
    assert_eq!(
        code(cloud.modify_security_group_rules(&web, &change(tcp(80, "0.0.0.0/0")))),
        "InvalidPermission.Duplicate"
    );
    // To what it is already.
    cloud.modify_security_group_rules(&web, &change(tcp(2222, "192.0.2.0/24"))).unwrap();
    let mut two = tcp(1, "10.0.0.0/8");
    two.ip_ranges.push(Range { cidr: "::/0".into(), description: None });
    two.ip_ranges[1].cidr = "11.0.0.0/8".into();
    assert_eq!(code(cloud.modify_security_group_rules(&web, &change(two))), "InvalidParameterCombination");
    let mut words = tcp(80, "0.0.0.0/0");
    words.ip_ranges[0].description = Some("the web".into());
    let by_id = [DescriptionChange { rule: rule.clone(), description: Some("ssh".into()) }];
    cloud.update_rule_descriptions(&web, Direction::Ingress, &[words], &by_id).unwrap();
    let rules = cloud.describe_security_group_rules(&[rule, made[1].security_group_rule_id.to_string()], &[]).unwrap();
    let told: Vec<_> = rules.iter().map(|rule| rule.description.clone().unwrap()).collect();
    assert_eq!(told, ["ssh", "the web"]);
    let wrong = cloud.update_rule_descriptions(&web, Direction::Egress, &[tcp(80, "0.0.0.0/0")], &[]);
    assert_eq!(code(wrong), "InvalidPermission.NotFound");
}

#[test]
fn groups_are_found_by_their_rules() {
    let world = World::new();
    let mut cloud = world.cloud();
    let (web, web_ref) = new_group(&mut cloud, "web");
    let (_, db_ref) = new_group(&mut cloud, "db");
    cloud.authorize_security_group(&web_ref, Direction::Ingress, &[tcp(80, "0.0.0.0/0")], &Tags::new()).unwrap();
    cloud.authorize_security_group(&db_ref, Direction::Ingress, &[from_group(&web)], &Tags::new()).unwrap();
    let mut found = |all: &[(&str, &str)]| -> Vec<String> {
        let filters: Vec<_> = all.iter().map(|(name, value)| Filter::new(*name, [*value])).collect();
        let found = cloud.describe_security_groups(&[], &[], &filters).unwrap();
        found.into_iter().map(|group| group.group_name).collect()
    };
    assert_eq!(found(&[("ip-permission.from-port", "80"), ("ip-permission.cidr", "0.0.0.0/0")]), ["web"]);
    assert_eq!(found(&[("ip-permission.group-id", web.as_str())]), ["db"]);
    assert_eq!(found(&[("ip-permission.group-name", "web"), ("ip-permission.protocol", "-1")]), ["db"]);
    assert_eq!(found(&[("egress.ip-permission.cidr", "0.0.0.0/0")]), ["db", "default", "web"]);
    assert_eq!(found(&[("description", "for *"), ("group-name", "w*")]), ["web"]);
    assert!(found(&[("egress.ip-permission.from-port", "80")]).is_empty());
    let rules = [Filter::new("group-id", [web.as_str()])];
    assert_eq!(cloud.describe_security_group_rules(&[], &rules).unwrap().len(), 2);
    let named = cloud.describe_security_groups(&[web.to_string()], &["db".into()], &[]).unwrap();
    assert_eq!(named.len(), 2);
    assert_eq!(code(cloud.describe_security_groups(&[], &["none".into()], &[])), "InvalidGroup.NotFound");
}
