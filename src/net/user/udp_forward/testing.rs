//! Between whom datagrams are carried in tests.

use super::*;
use crate::net::address::mac_of;

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 17);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 1);

pub(crate) fn ends() -> Ends {
    Ends { guest_mac: mac_of(GUEST), guest: GUEST, gateway_mac: mac_of(GATEWAY), gateway: GATEWAY, mtu: 1500 }
}
