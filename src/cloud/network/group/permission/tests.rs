use proptest::prelude::*;

use super::*;

fn range(cidr: &str) -> Range {
    Range { cidr: cidr.into(), description: None }
}

fn permission(protocol: &str, from: Option<i32>, to: Option<i32>) -> IpPermission {
    IpPermission {
        ip_protocol: protocol.into(),
        from_port: from,
        to_port: to,
        ip_ranges: vec![range("0.0.0.0/0")],
        ..IpPermission::default()
    }
}

fn traffic_of(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<(String, i32, i32), String> {
    match traffic(&permission(protocol, from, to)) {
        Ok(traffic) => Ok((traffic.protocol.to_string(), traffic.from_port, traffic.to_port)),
        Err(error) => Err(error.code()),
    }
}

#[test]
fn protocols_have_names_and_numbers() {
    for (text, name) in [
        ("tcp", "tcp"),
        ("TCP", "tcp"),
        ("6", "tcp"),
        ("17", "udp"),
        ("1", "icmp"),
        ("58", "icmpv6"),
        ("50", "50"),
        ("0", "0"),
        ("-1", "-1"),
        ("all", "-1"),
    ] {
        assert_eq!(text.parse::<Protocol>().unwrap().to_string(), name);
    }
    for wrong in ["", "256", "-2", "+6", "tcp ", "sctp", "1e1"] {
        assert_eq!(wrong.parse::<Protocol>().unwrap_err().code(), "InvalidParameterValue", "{wrong}");
    }
}

#[test]
fn ports_are_said_where_a_protocol_has_them() {
    let some = Some;
    let ok = |name: &str, from, to| Ok((name.to_owned(), from, to));
    let wrong = || Err("InvalidParameterValue".to_owned());
    assert_eq!(traffic_of("tcp", some(22), some(22)), ok("tcp", 22, 22));
    assert_eq!(traffic_of("udp", some(0), some(65535)), ok("udp", 0, 65535));
    assert_eq!(traffic_of("tcp", None, some(22)), wrong());
    assert_eq!(traffic_of("tcp", None, None), wrong());
    assert_eq!(traffic_of("tcp", some(-1), some(-1)), wrong());
    assert_eq!(traffic_of("tcp", some(22), some(65536)), wrong());
    assert_eq!(traffic_of("tcp", some(443), some(80)), wrong());
    assert_eq!(traffic_of("icmp", some(8), some(-1)), ok("icmp", 8, -1));
    assert_eq!(traffic_of("icmp", some(-1), some(-1)), ok("icmp", -1, -1));
    assert_eq!(traffic_of("icmp", some(-1), some(0)), wrong());
    assert_eq!(traffic_of("icmp", some(256), some(0)), wrong());
    assert_eq!(traffic_of("icmp", None, None), wrong());
    assert_eq!(traffic_of("icmpv6", None, None), ok("icmpv6", -1, -1));
    assert_eq!(traffic_of("icmpv6", some(128), some(0)), ok("icmpv6", 128, 0));
    assert_eq!(traffic_of("-1", some(22), some(22)), ok("-1", -1, -1));
    assert_eq!(traffic_of("50", None, None), ok("50", -1, -1));
}

#[test]
fn each_peer_is_a_rule() {
    let permission = IpPermission {
        ip_ranges: vec![range("10.1.0.0/8"), Range { description: Some("office".into()), ..range("192.0.2.0/24") }],
        ipv6_ranges: vec![range("::/0")],
        user_id_group_pairs: vec![GroupPair { group_name: Some("web".into()), ..GroupPair::default() }],
        ..permission("tcp", Some(22), Some(22))
    };
    let rules = parse(&[permission]).unwrap();
    let descriptions: Vec<_> = rules.iter().map(|rule| rule.description.as_deref()).collect();
    assert_eq!(descriptions, [None, Some("office"), None, None]);
    assert_eq!(rules[0].peer, Named::Block(Peer::Ipv4("10.0.0.0/8".into())));
    assert_eq!(rules[3].peer, Named::Group { id: None, name: Some("web".into()), owner: None });
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let none = IpPermission { ip_ranges: Vec::new(), ..permission("tcp", Some(1), Some(1)) };
    let twice = IpPermission {
        ip_ranges: vec![range("10.0.0.0/8"), range("10.9.9.9/8")],
        ..permission("tcp", Some(1), Some(1))
    };
    let list = IpPermission { prefix_list_ids: vec!["pl-1".into()], ..permission("tcp", Some(1), Some(1)) };
    let nobody = IpPermission { user_id_group_pairs: vec![GroupPair::default()], ..none.clone() };
    let words = Range { description: Some("<b>".into()), ..range("10.0.0.0/8") };
    let words = IpPermission { ip_ranges: vec![words], ..none.clone() };
    let long = Range { description: Some("x".repeat(256)), ..range("10.0.0.0/8") };
    let long = IpPermission { ip_ranges: vec![long], ..none.clone() };
    for (permissions, code) in [
        (vec![], "MissingParameter"),
        (vec![none], "MissingParameter"),
        (vec![nobody], "MissingParameter"),
        (vec![twice], "InvalidParameterValue"),
        (vec![words], "InvalidParameterValue"),
        (vec![long], "InvalidParameterValue"),
        (vec![list], "UnsupportedOperation"),
        (vec![permission("-1", None, None), permission("all", Some(5), None)], "InvalidParameterValue"),
    ] {
        assert_eq!(parse(&permissions).unwrap_err().code(), code, "{permissions:?}");
    }
}

fn any_permission() -> impl Strategy<Value = IpPermission> {
    let port = prop::option::of(prop_oneof![-2i32..300, 65530i32..65540, any::<i32>()]);
    let cidr = prop_oneof![
        "[0-9]{1,3}\\.[0-9]{1,3}\\.0\\.0/[0-9]{1,2}",
        Just("::/0".to_owned()),
        "[0-9a-f:]{0,10}/[0-9]{0,3}",
        "\\PC{0,20}"
    ];
    let range = (cidr, prop::option::of("\\PC{0,10}")).prop_map(|(cidr, description)| Range { cidr, description });
    let ranges = prop::collection::vec(range, 0..4);
    let pair = (prop::option::of("(sg-)?[0-9a-f]{0,17}"), prop::option::of("[a-z]{0,3}"))
        .prop_map(|(id, name)| GroupPair { group_id: id, group_name: name, ..GroupPair::default() });
    let protocol = prop_oneof!["tcp|udp|icmp|icmpv6|-1|[0-9]{1,3}", "\\PC{0,5}"];
    (protocol, port.clone(), port, ranges.clone(), ranges, prop::collection::vec(pair, 0..3)).prop_map(
        |(ip_protocol, from_port, to_port, ip_ranges, ipv6_ranges, user_id_group_pairs)| IpPermission {
            ip_protocol,
            from_port,
            to_port,
            ip_ranges,
            ipv6_ranges,
            user_id_group_pairs,
            prefix_list_ids: Vec::new(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_taken_makes_sense(permissions in prop::collection::vec(any_permission(), 0..3)) {
        let Ok(rules) = parse(&permissions) else { return Ok(()) };
        let peers: usize = permissions
            .iter()
            .map(|p| p.ip_ranges.len() + p.ipv6_ranges.len() + p.user_id_group_pairs.len())
            .sum();
        prop_assert_eq!(rules.len(), peers);
        let mut seen = HashSet::new();
        for rule in rules {
            let Traffic { protocol, from_port, to_port } = rule.traffic;
            let most = if matches!(protocol, Protocol::TCP | Protocol::UDP) { 65535 } else { 255 };
            let is_icmp = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
            prop_assert!((-1..=most).contains(&from_port) && (-1..=most).contains(&to_port));
            prop_assert!(is_icmp || from_port <= to_port);
            prop_assert!(protocol.has_ports() || (from_port, to_port) == (-1, -1));
            if let Named::Block(peer) = &rule.peer {
                prop_assert_eq!(&peer.as_str().parse::<Peer>().unwrap(), peer);
            }
            prop_assert!(seen.insert((rule.traffic, rule.peer)));
        }
    }

    #[test]
    fn protocols_come_back(number: u8) {
        let protocol = Protocol::Number(number);
        prop_assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
        prop_assert_eq!(number.to_string().parse::<Protocol>().unwrap(), protocol);
    }
}
