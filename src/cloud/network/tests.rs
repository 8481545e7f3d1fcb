use super::*;
use crate::cloud::catalogue::Catalogue;

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
        assert_eq!((subnets, vpcs), (2, 1));
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
            attach(tx, &home, scope, &id, "z")?;
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
