use super::default::default_subnet;
use super::*;
use crate::cloud::catalogue::Catalogue;
use crate::cloud::filter::Filter;
use crate::cloud::network::group::{GroupRef, SecurityGroupRequest};
use crate::cloud::testing::{self, code, new_instance};

fn instance(tx: &Transaction<'_>, scope: &Scope) -> Id {
    let id = Id::new(Kind::Instance).unwrap();
    tx.execute(
        "INSERT INTO instances (id, region, owner, zone, reservation, launch_index, image, instance_type, state, launched,
             changed, architecture, virtualization_type, root_device_type, root_device_name, shutdown_behavior, options)
         VALUES (?1, ?2, ?3, 'z', 'r-1', 0, 'ami-1', 't3.micro', 'running', 0, 0, 'x86_64', 'hvm', 'ebs', '/dev/sda1',
             'stop', '{}')",
        params![id, scope.region, scope.account.as_str()],
    )
    .unwrap();
    id
}

struct World {
    _dir: tempfile::TempDir,
    home: Home,
    catalogue: Catalogue,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    let catalogue = Catalogue::open(&home.catalogue()).unwrap();
    World { _dir: dir, home, catalogue }
}

#[test]
fn each_instance_has_an_address_of_its_zones_subnet() {
    let World { home, mut catalogue, .. } = world();
    let scope = Scope::default();
    let done = catalogue.write(|tx| {
        let mut seen = std::collections::HashSet::new();
        for zone in ["us-east-1a", "us-east-1b", "us-east-1a"] {
            let id = instance(tx, &scope);
            attach(tx, &home, &scope, &id, zone)?;
            let interface = of_instance(tx, &id)?.unwrap();
            assert!(seen.insert(interface.private_ip_address), "{interface:?}");
            assert!(interface.subnet_cidr.contains(interface.private_ip_address));
            assert_eq!(interface.mac_address, mac_of(interface.private_ip_address));
            assert_eq!(interface.vpc_cidr, DEFAULT_VPC);
            assert_eq!(interface.groups.len(), 1);
            assert_eq!(interface.groups[0].group_name, "default");
            // Once more changes nothing.
            attach(tx, &home, &scope, &id, zone)?;
            assert_eq!(of_instance(tx, &id)?.unwrap(), interface);
            detach(tx, &id)?;
            assert_eq!(of_instance(tx, &id)?, None);
        }
        let subnets: i64 = tx.query_row("SELECT count(*) FROM subnets", [], |row| row.get(0))?;
        let vpcs: i64 = tx.query_row("SELECT count(*) FROM vpcs", [], |row| row.get(0))?;
        assert_eq!((subnets, vpcs), (6, 1));
        Ok(())
    });
    done.unwrap();
}

#[test]
fn accounts_and_regions_have_networks_of_their_own() {
    let World { home, mut catalogue, .. } = world();
    let here = Scope::default();
    let there = Scope { region: "eu-west-1".into(), ..here.clone() };
    let other = Scope { account: "999988887777".parse().unwrap(), ..here.clone() };
    let done = catalogue.write(|tx| {
        let mut vpcs = std::collections::HashSet::new();
        for scope in [&here, &there, &other] {
            let id = instance(tx, scope);
            attach(tx, &home, scope, &id, &format!("{}a", scope.region))?;
            let interface = of_instance(tx, &id)?.unwrap();
            let domain = if scope.region == "eu-west-1" { ".eu-west-1.compute.internal" } else { ".ec2.internal" };
            assert!(interface.private_dns_name.ends_with(domain), "{interface:?}");
            vpcs.insert(interface.vpc_id);
        }
        assert_eq!(vpcs.len(), 3);
        Ok(())
    });
    done.unwrap();
}

#[test]
fn a_full_subnet_and_too_many_zones_say_so() {
    let World { home, mut catalogue, .. } = world();
    let scope = Scope::default();
    let done = catalogue.write(|tx| {
        for number in 0..16 {
            default_subnet(tx, &home, &scope, &format!("zone-{number}"))?;
        }
        let error = default_subnet(tx, &home, &scope, "zone-16").unwrap_err();
        assert_eq!(error.code(), "SubnetLimitExceeded");
        // Four addresses and the last are the network's own: of eight, three are left.
        let (subnet, _) = default_subnet(tx, &home, &scope, "zone-0")?;
        let small = Cidr::new(Ipv4Addr::new(172, 31, 0, 0), 29);
        let mut taken = Vec::new();
        for _ in 0..3 {
            let address = free_address(tx, &home, &subnet, small)?;
            let id = instance(tx, &scope);
            let interface = new_id(&home, Kind::NetworkInterface)?;
            tx.execute(
                "INSERT INTO interfaces VALUES (?1, ?2, ?3, ?4, '', 0)",
                params![interface, id, subnet, address.to_string()],
            )?;
            taken.push(address.octets()[3]);
        }
        taken.sort_unstable();
        assert_eq!(taken, [4, 5, 6]);
        let error = free_address(tx, &home, &subnet, small).unwrap_err();
        assert_eq!(error.code(), "InsufficientFreeAddressesInSubnet");
        Ok(())
    });
    done.unwrap();
}

#[test]
fn an_account_has_a_network_in_every_region_as_soon_as_it_asks() {
    let world = testing::World::new();
    let mut cloud = world.cloud();
    let [vpc] = &cloud.describe_vpcs(&[], &[Filter::new("is-default", ["true"])]).unwrap()[..] else { panic!() };
    assert_eq!((vpc.cidr_block, vpc.is_default, vpc.owner_id.as_str()), (DEFAULT_VPC, true, "123456789012"));
    let subnets = cloud.describe_subnets(&[], &[]).unwrap();
    let told: Vec<_> = subnets.iter().map(|s| (s.availability_zone.as_str(), s.cidr_block.to_string())).collect();
    assert_eq!(told[0], ("us-east-1a", "172.31.0.0/20".to_owned()));
    assert_eq!(told[5], ("us-east-1f", "172.31.80.0/20".to_owned()));
    assert_eq!(told.len(), 6);
    assert!(subnets.iter().all(|s| s.vpc_id == vpc.vpc_id && s.default_for_az && s.available_ip_address_count == 4091));
    // It is the same for whoever asks again, and another's is another.
    assert_eq!(world.cloud().describe_subnets(&[], &[]).unwrap(), subnets);
    assert_eq!(world.cloud_in("us-west-1").describe_subnets(&[], &[]).unwrap().len(), 2);
    let mut yours = world.cloud_of("222222222222");
    assert_eq!(code(yours.describe_vpcs(&[vpc.vpc_id.to_string()], &[])), "InvalidVpcID.NotFound");
    assert_eq!(code(yours.describe_subnets(&[subnets[0].subnet_id.to_string()], &[])), "InvalidSubnetID.NotFound");
    assert_eq!(code(cloud.describe_vpcs(&["vpc".into()], &[])), "InvalidVpcID.Malformed");
    let zones = [Filter::new("availability-zone-id", ["use1-az2"]), Filter::new("defaultForAz", ["true"])];
    assert_eq!(cloud.describe_subnets(&[], &zones).unwrap(), subnets[1..2]);
    new_instance(&mut cloud, "us-east-1b", &[]);
    let taken = [Filter::new("available-ip-address-count", ["4090"])];
    assert_eq!(cloud.describe_subnets(&[], &taken).unwrap()[0].subnet_id, subnets[1].subnet_id);
}

#[test]
fn interfaces_are_listed_with_their_instances() {
    let world = testing::World::new();
    let mut cloud = world.cloud();
    let instance = new_instance(&mut cloud, "us-east-1a", &[]);
    new_instance(&mut cloud, "us-east-1b", &[]);
    let filters = [Filter::new("attachment.instance-id", [instance.as_str()]), Filter::new("status", ["in-use"])];
    let [found] = &cloud.describe_network_interfaces(&[], &filters).unwrap()[..] else { panic!() };
    assert_eq!(Some(found), cloud.instances(&[instance.to_string()]).unwrap()[0].network_interface.as_ref());
    assert!(found.attachment_id().starts_with("eni-attach-0"));
    let ids = [found.network_interface_id.to_string()];
    assert_eq!(cloud.describe_network_interfaces(&ids, &[]).unwrap().len(), 1);
    let mut yours = world.cloud_of("222222222222");
    assert_eq!(code(yours.describe_network_interfaces(&ids, &[])), "InvalidNetworkInterfaceID.NotFound");
    // It goes with its instance, and so do its tags.
    cloud
        .catalogue
        .write(|tx| crate::cloud::tag::add(tx, &found.network_interface_id, &testing::all(&[("a", "b")])))
        .unwrap();
    assert_eq!(cloud.describe_network_interfaces(&[], &[Filter::new("tag:a", ["b"])]).unwrap().len(), 1);
    cloud.catalogue.write(|tx| detach(tx, &instance)).unwrap();
    let left: i64 =
        cloud.catalogue.read(|tx| Ok(tx.query_row("SELECT count(*) FROM tags", [], |row| row.get(0))?)).unwrap();
    assert_eq!((left, cloud.describe_network_interfaces(&[], &[]).unwrap().len()), (0, 1));
}

#[test]
fn a_launch_says_where_it_goes() {
    let world = testing::World::new();
    let mut cloud = world.cloud();
    let subnets = cloud.describe_subnets(&[], &[]).unwrap();
    let request = |name: &str| SecurityGroupRequest {
        name: name.into(),
        description: "x".into(),
        ..SecurityGroupRequest::default()
    };
    let groups: Vec<String> =
        (0..6).map(|n| cloud.create_security_group(&request(&format!("g{n}"))).unwrap().group_id.to_string()).collect();
    let (scope, home) = (cloud.scope.clone(), cloud.home.clone());
    let instance = new_instance(&mut cloud, "us-east-1a", &[]);
    let taken = cloud.instances(&[instance.to_string()]).unwrap()[0].network_interface.clone().unwrap();
    let done = cloud.catalogue.write(|tx| {
        let choose = |wanted: Wanted<'_>| Place::choose(tx, &home, &scope, &wanted);
        let place = choose(Wanted { count: 3, ..Wanted::default() })?;
        assert_eq!((place.zone.as_str(), &place.subnet, place.groups.len()), ("us-east-1a", &subnets[0].subnet_id, 1));
        let second = Some(subnets[1].subnet_id.as_str());
        let address = Some(Ipv4Addr::new(172, 31, 16, 9));
        let place = choose(Wanted { subnet: second, address, groups: &groups[..2], count: 1, ..Wanted::default() })?;
        assert_eq!((place.zone.as_str(), place.groups.len()), ("us-east-1b", 2));
        let id = self::instance(tx, &scope);
        attach_at(tx, &home, &id, &place)?;
        let interface = of_instance(tx, &id)?.unwrap();
        assert_eq!(Some(interface.private_ip_address), address);
        assert_eq!(interface.groups.iter().map(|g| g.group_name.as_str()).collect::<Vec<_>>(), ["g0", "g1"]);
        let names = ["g1".to_owned(), "g1".to_owned(), "default".to_owned()];
        let place = choose(Wanted { group_names: &names, groups: &groups[1..2], count: 1, ..Wanted::default() })?;
        assert_eq!(place.groups.len(), 2);
        let (none, unknown) = (["none".to_owned()], ["sg-00000001".to_owned()]);
        let at = |a, b, c, d| Some(Ipv4Addr::new(a, b, c, d));
        for (wanted, expected) in [
            (Wanted { subnet: second, group_names: &names, ..Wanted::default() }, "InvalidParameterCombination"),
            (Wanted { subnet: second, zone: Some("us-east-1a"), ..Wanted::default() }, "InvalidParameterValue"),
            (Wanted { subnet: Some("subnet-00000001"), ..Wanted::default() }, "InvalidSubnetID.NotFound"),
            (Wanted { subnet: Some("here"), ..Wanted::default() }, "InvalidSubnetID.Malformed"),
            (Wanted { group_names: &none, ..Wanted::default() }, "InvalidGroup.NotFound"),
            (Wanted { groups: &unknown, ..Wanted::default() }, "InvalidGroup.NotFound"),
            (Wanted { groups: &groups, ..Wanted::default() }, "SecurityGroupsPerInterfaceLimitExceeded"),
            (Wanted { address, count: 2, subnet: second, ..Wanted::default() }, "InvalidParameterCombination"),
            (Wanted { address, subnet: second, ..Wanted::default() }, "InvalidIPAddress.InUse"),
            (Wanted { address: Some(taken.private_ip_address), ..Wanted::default() }, "InvalidIPAddress.InUse"),
            (Wanted { address, ..Wanted::default() }, "InvalidParameterValue"),
            (Wanted { address: at(172, 31, 0, 3), ..Wanted::default() }, "InvalidParameterValue"),
            (Wanted { address: at(172, 31, 15, 255), ..Wanted::default() }, "InvalidParameterValue"),
            (Wanted { zone: Some("eu-west-1a"), ..Wanted::default() }, "InvalidParameterValue"),
        ] {
            assert_eq!(code(choose(Wanted { count: wanted.count.max(1), ..wanted })), expected, "{wanted:?}");
        }
        // Of another account's nothing can be used.
        let yours = Scope { account: "222222222222".parse().unwrap(), ..scope.clone() };
        let theirs = Wanted { groups: &groups[..1], ..Wanted::default() };
        assert_eq!(code(Place::choose(tx, &home, &yours, &theirs)), "InvalidGroup.NotFound");
        Ok(())
    });
    done.unwrap();
    assert_eq!(code(cloud.delete_security_group(&GroupRef::Id(groups[0].clone()))), "DependencyViolation");
    cloud.delete_security_group(&GroupRef::Id(groups[5].clone())).unwrap();
}
