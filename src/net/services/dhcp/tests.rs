use proptest::prelude::*;

use super::*;
use crate::net::address::mac_of;
use crate::net::services::testing::dhcp_message;
use crate::net::wire::ipv4::Ipv4;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 17);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 1);
const OTHER: [u8; 4] = [172, 31, 16, 18];

fn lease() -> Lease {
    Lease {
        address: ADDRESS,
        network: Cidr::new(GATEWAY, 20),
        gateway: GATEWAY,
        resolvers: vec![Ipv4Addr::new(172, 31, 0, 2)],
        host_name: "ip-172-31-16-17".into(),
        domain: "ec2.internal".into(),
        mtu: 9001,
    }
}

fn tell(message: &[u8]) -> Option<Answer> {
    let (source, destination) =
        (SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67));
    answer(&lease(), mac_of(ADDRESS), &Udp { source, destination, payload: message })
}

/// To whom it is answered, and what.
fn ask(options: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Option<(Ipv4Addr, Vec<u8>)> {
    let mut message = dhcp_message(mac_of(ADDRESS), options);
    change(&mut message);
    let answer = tell(&message)?;
    let packet = Ipv4::parse(&answer.packet).unwrap();
    let datagram = Udp::parse(&packet).unwrap();
    assert_eq!(answer.to_all, packet.destination.is_broadcast());
    Some((packet.destination, datagram.payload.to_vec()))
}

/// The value of an option of an answer.
fn option(message: &[u8], code: u8) -> Option<&[u8]> {
    let mut options = &message[FIXED..];
    while options[0] != END {
        let len = usize::from(options[1]);
        if options[0] == code {
            return Some(&options[2..2 + len]);
        }
        options = &options[2 + len..];
    }
    None
}

#[test]
fn what_a_guest_is_offered() {
    let (to, offer) = ask(&[53, 1, DISCOVER, 255], |_| {}).unwrap();
    assert_eq!(to, ADDRESS);
    assert_eq!((&offer[4..8], &offer[16..20]), (&[0xca, 0xfe, 0xba, 0xbe][..], &ADDRESS.octets()[..]));
    assert!(offer.len() >= LEAST);
    for (code, value) in [
        (KIND, &[OFFER][..]),
        (SERVER, &GATEWAY.octets()),
        (MASK, &[255, 255, 240, 0]),
        (ROUTER, &GATEWAY.octets()),
        (RESOLVERS, &[172, 31, 0, 2]),
        (HOST_NAME, b"ip-172-31-16-17"),
        (DOMAIN_NAME, b"ec2.internal"),
        (MTU, &9001u16.to_be_bytes()),
        (LEASE_TIME, &3600u32.to_be_bytes()),
        (RENEWAL, &1800u32.to_be_bytes()),
        (REBINDING, &3150u32.to_be_bytes()),
    ] {
        assert_eq!(option(&offer, code), Some(value), "{code}");
    }
    let (to, _) = ask(&[53, 1, DISCOVER, 255], |message| message[10] = 0x80).unwrap();
    assert!(to.is_broadcast(), "it asked for that");
}

#[test]
fn a_request_is_granted_for_its_address_and_no_other() {
    let (own, gateway) = (ADDRESS.octets(), GATEWAY.octets());
    let requested = |address: [u8; 4]| [&[53, 1, REQUEST, 50, 4][..], &address].concat();
    let selecting = |address| [requested(address), [&[54, 4][..], &gateway, &[255]].concat()].concat();
    let kind =
        |answer: Option<(Ipv4Addr, Vec<u8>)>| answer.map(|(to, message)| (to, option(&message, KIND).unwrap()[0]));
    let granted = Some((ADDRESS, ACK));
    let refused = Some((Ipv4Addr::BROADCAST, NAK));
    assert_eq!(kind(ask(&selecting(own), |_| {})), granted);
    assert_eq!(kind(ask(&selecting(OTHER), |_| {})), refused);
    // After a boot, and renewing.
    let end = |mut options: Vec<u8>| {
        options.push(255);
        options
    };
    assert_eq!(kind(ask(&end(requested(own)), |_| {})), granted);
    assert_eq!(kind(ask(&end(requested(OTHER)), |_| {})), refused);
    assert_eq!(kind(ask(&[53, 1, REQUEST, 255], |message| message[12..16].copy_from_slice(&own))), granted);
    assert_eq!(kind(ask(&[53, 1, REQUEST, 255], |message| message[12..16].copy_from_slice(&OTHER))), refused);
    // Another server was chosen.
    let other = [requested(own), vec![54, 4, 10, 0, 0, 1, 255]].concat();
    assert_eq!(kind(ask(&other, |_| {})), None);
}

#[test]
fn a_refusal_gives_nothing() {
    let (_, nak) = ask(&[53, 1, REQUEST, 50, 4, 10, 0, 0, 1, 255], |_| {}).unwrap();
    assert_eq!(nak[16..20], [0; 4]);
    assert!([MASK, ROUTER, RESOLVERS, LEASE_TIME].iter().all(|code| option(&nak, *code).is_none()));
}

#[test]
fn who_only_asks_gets_no_lease_and_who_goes_no_answer() {
    let (to, told) = ask(&[53, 1, INFORM, 255], |message| message[12..16].copy_from_slice(&ADDRESS.octets())).unwrap();
    assert_eq!((to, option(&told, LEASE_TIME), &told[16..20]), (ADDRESS, None, &[0; 4][..]));
    assert_eq!(option(&told, ROUTER), Some(&GATEWAY.octets()[..]));
    for kind in [0, 2, 4, 5, 6, 7, 9, 255] {
        assert!(ask(&[53, 1, kind, 255], |_| {}).is_none(), "{kind}");
    }
}

#[test]
fn messages_that_lie_are_not_answered() {
    for options in [
        &[][..],
        &[53],
        &[53, 1],
        &[53, 1, 1],
        &[53, 2, 1, 255],
        &[53, 0, 255],
        &[53, 1, 1, 50, 200, 1, 255],
        &[53, 1, 1, 50, 3, 1, 2, 3, 255],
        &[53, 1, 1, 54, 5, 1, 2, 3, 4, 5, 255],
        &[0, 0, 0],
        &[255],
    ] {
        assert!(ask(options, |_| {}).is_none(), "{options:?}");
    }
    let right = &[53, 1, DISCOVER, 255];
    let changes: [fn(&mut Vec<u8>); 7] = [
        |message| message[0] = 2,
        |message| message[1] = 6,
        |message| message[2] = 16,
        |message| message[28] ^= 1,
        |message| message[24] = 10,
        |message| message[239] = 0,
        |message| message.truncate(239),
    ];
    for change in changes {
        assert!(ask(right, change).is_none());
    }
}

proptest! {
    #[test]
    fn whatever_a_guest_says_only_its_own_address_is_given(
        mut message in proptest::collection::vec(any::<u8>(), 0..400),
        options in proptest::collection::vec(any::<u8>(), 0..80),
        is_near: bool,
    ) {
        if is_near {
            message = dhcp_message(mac_of(ADDRESS), &[&[53, 1, 3][..], &options].concat());
        }
        if let Some(answer) = tell(&message) {
            let packet = Ipv4::parse(&answer.packet).unwrap();
            let said = Udp::parse(&packet).unwrap().payload;
            prop_assert!(said[16..20] == ADDRESS.octets() || said[16..20] == [0; 4]);
        }
    }
}
