//! Ports of the host that lead to ports of the guest.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forward {
    /// The host's address and port; port 0 stands for any that is free.
    pub host: SocketAddrV4,
    /// The guest's port, not 0.
    pub guest: u16,
    /// UDP; else TCP.
    pub udp: bool,
}

/// It is no forwarding of a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no forwarding of a port: HOST:GUEST or ADDRESS:HOST:GUEST, with /udp or /tcp behind it if wanted, as in 2222:22; \
     ports are numbers up to 65535, a host port 0 stands for a free one, and ADDRESS is an IPv4 address of the host (127.0.0.1 \
     where none is said)"
)]
pub struct NoForward(pub String);

impl FromStr for Forward {
    type Err = NoForward;

    fn from_str(text: &str) -> Result<Self, NoForward> {
        let no = || NoForward(text.into());
        let (ports, udp) = match text.split_once('/') {
            None => (text, false),
            Some((ports, "tcp")) => (ports, false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err(no()),
        };
        let port = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|_| is_number).ok_or_else(no)
        };
        let parts: Vec<_> = ports.split(':').collect();
        let (address, host, guest) = match parts[..] {
            [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
            [address, host, guest] => (address.parse().map_err(|_| no())?, host, guest),
            _ => return Err(no()),
        };
        let guest = Some(port(guest)?).filter(|port| *port != 0).ok_or_else(no)?;
        Ok(Self { host: SocketAddrV4::new(address, port(host)?), guest, udp })
    }
}

impl Display for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}{}", self.host, self.guest, if self.udp { "/udp" } else { "" })
    }
}

/// A port of the host that cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("port {} of the host ({}) cannot be forwarded: {cause}{}", .forward.host, kind(*.forward), mend(*.forward, .cause))]
pub struct ForwardError {
    /// Which.
    pub forward: Forward,
    /// What the host said.
    pub cause: std::io::Error,
}

fn kind(forward: Forward) -> &'static str {
    if forward.udp { "UDP" } else { "TCP" }
}

fn mend(forward: Forward, cause: &std::io::Error) -> String {
    let (guest, tail) = (forward.guest, if forward.udp { "/udp" } else { "" });
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => format!("; choose another, or let one be chosen: -p 0:{guest}{tail}"),
        std::io::ErrorKind::PermissionDenied => {
            format!("; choose one above 1023, or let one be chosen: -p 0:{guest}{tail}")
        }
        std::io::ErrorKind::AddrNotAvailable => "; that address is none of this host's".into(),
        _ => String::new(),
    }
}

/// Finds out whether a port can be taken for TCP, and which it is, where any will do.
///
/// # Errors
/// [`ForwardError`].
pub(super) fn try_tcp(forward: Forward) -> Result<Forward, ForwardError> {
    let told = |cause| ForwardError { forward, cause };
    let listener = std::net::TcpListener::bind(forward.host).map_err(told)?;
    match listener.local_addr().map_err(told)? {
        SocketAddr::V4(host) => Ok(Forward { host, ..forward }),
        SocketAddr::V6(_) => Ok(forward),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_understood() {
        for (text, wanted) in [
            ("2222:22", "127.0.0.1:2222:22"),
            ("0:80", "127.0.0.1:0:80"),
            ("5353:53/udp", "127.0.0.1:5353:53/udp"),
            ("2222:22/tcp", "127.0.0.1:2222:22"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("192.0.2.1:1:65535/udp", "192.0.2.1:1:65535/udp"),
        ] {
            let forward: Forward = text.parse().unwrap();
            assert_eq!(forward.to_string(), wanted);
            assert_eq!(wanted.parse(), Ok(forward));
        }
    }

    #[test]
    fn what_is_no_forwarding_is_refused() {
        for text in [
            "",
            ":",
            "22",
            "22:",
            ":22",
            "22:0",
            "65536:22",
            "+22:22",
            "22: 22",
            "1:2:3",
            "::1:22:22",
            "a:1:2",
            "1.2.3:1:2",
            "1.2.3.4:1:2:3",
            "1:2/sctp",
            "1:2/",
            "1:2/udp/udp",
            "-1:2",
        ] {
            let error = text.parse::<Forward>().unwrap_err();
            assert!(error.to_string().contains("2222:22"), "{error}");
        }
    }

    #[test]
    fn a_taken_port_is_told_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(host) = taken.local_addr().unwrap() else { unreachable!() };
        let error = try_tcp(Forward { host, guest: 22, udp: false }).unwrap_err().to_string();
        assert!(error.contains(&host.to_string()) && error.contains("-p 0:22"), "{error}");
        let free = try_tcp("0:22".parse().unwrap()).unwrap();
        assert_ne!(free.host.port(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_understood_is_written_so_that_it_is_again(text in "[0-9.:/udptc]{0,24}") {
            if let Ok(forward) = text.parse::<Forward>() {
                prop_assert_eq!(forward.to_string().parse(), Ok(forward));
            }
        }
    }
}
