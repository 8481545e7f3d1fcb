//! Why a tap or a bridge cannot be had.

use std::io;

/// Why a tap or a bridge cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface has such a name.
    #[error("{0:?} is no name of an interface: 1 to 15 letters, digits and signs, without / : and %")]
    Name(String),
    /// The host has no taps.
    #[error(
        "/dev/net/tun is not there: this kernel has no taps; load them (modprobe tun), or run where the device is to be seen"
    )]
    NoTaps,
    /// This user may not open the device.
    #[error("/dev/net/tun may not be opened by this user: chmod 0666 /dev/net/tun, as most distributions have it")]
    NotForUser,
    /// There is no such tap.
    #[error(
        "there is no tap {name}: make it (as root: ip tuntap add dev {name} mode tap user $USER vnet_hdr{several} && ip link set {name} up)"
    )]
    Missing {
        /// Its name.
        name: String,
        /// What the command needs besides, for several queues.
        several: &'static str,
    },
    /// Another has it.
    #[error("the tap {name} is used by another process; give each guest a tap of its own")]
    Busy {
        /// Its name.
        name: String,
    },
    /// It is another user's.
    #[error(
        "the tap {name} is not this user's: make it anew with `user $USER` (as root: ip tuntap del dev {name} mode tap; ip tuntap add dev {name} mode tap user $USER vnet_hdr{several} && ip link set {name} up)"
    )]
    Owner {
        /// Its name.
        name: String,
        /// What the command needs besides, for several queues.
        several: &'static str,
    },
    /// The interface is something else.
    #[error("{name} is an interface, but no tap")]
    NoTap {
        /// Its name.
        name: String,
    },
    /// The tap is down, and this user may not set it up.
    #[error("the tap {name} is down: set it up (as root: ip link set {name} up)")]
    Down {
        /// Its name.
        name: String,
    },
    /// There is no such bridge.
    #[error("there is no bridge {name}: make it (as root: ip link add {name} type bridge && ip link set {name} up)")]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// The interface is something else.
    #[error("{name} is an interface, but no bridge: connect the guest to one, or to a tap (--net tap=NAME)")]
    NotABridge {
        /// Its name.
        name: String,
    },
    /// Only who may configure networks can use a bridge.
    #[error(
        "a port of the bridge {name} can only be made with CAP_NET_ADMIN: run as root, or let a tap be made for this user once \
         (as root: ip tuntap add dev NAME mode tap user $USER vnet_hdr && ip link set NAME master {name} up) and use --net tap=NAME"
    )]
    BridgeRefused {
        /// Its name.
        name: String,
    },
    /// The host refuses.
    #[error("{name}: {what}: {cause}")]
    Host {
        /// The interface.
        name: String,
        /// What was asked.
        what: &'static str,
        /// What the host said.
        cause: io::Error,
    },
}
