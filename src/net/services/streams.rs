//! TCP to the services' addresses, of which one port is answered: the metadata service's.
//!
//! The protocol itself is smoltcp's. Here is who gets a connection: there are at most [`CONNECTIONS_MAX`], of which at most
//! [`HALF_OPEN_MAX`] wait for the end of their handshake; a new one takes the place of the oldest that is of the least use.
//! So neither a flood of beginnings nor clients that never end keep an honest one out, and memory is bounded: by the
//! buffers of that many, and one answer each. To all other ports a reset is answered.

mod connection;
mod device;
mod dialed;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFd;
use rustix::rand::{GetRandomFlags, getrandom};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use self::connection::Connection;
use self::device::PacketDevice;
use self::dialed::DialedSet;
use crate::net::StreamService;
use crate::net::address::{METADATA, METADATA_V6};
use crate::net::counters::NetCounters;
use crate::net::wire::u16_at;

/// The most connections at a time.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The most of them whose handshake is not at its end.
pub(super) const HALF_OPEN_MAX: usize = 24;
/// The port that is answered.
const PORT: u16 = 80;
/// Bytes that wait to be read, and that wait to be acknowledged, of each connection.
const BUFFERS: (usize, usize) = (8 << 10, 16 << 10);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may stand still.
const IDLE: Duration = Duration::from_secs(60);

/// The connections of one guest.
pub(super) struct Streams {
    interface: Interface,
    device: PacketDevice,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    dialed: DialedSet,
    service: Option<Arc<dyn StreamService>>,
    counters: Arc<NetCounters>,
    started: Instant,
}

impl Streams {
    /// Answers at these addresses: by `service` at port 80 of the metadata service's, by resets elsewhere.
    pub(super) fn new(
        v4: &[Ipv4Addr],
        v6: &[Ipv6Addr],
        service: Option<Arc<dyn StreamService>>,
        mtu: u16,
        counters: Arc<NetCounters>,
        now: Instant,
    ) -> Self {
        let mut device = PacketDevice::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        let mut seed = [0; 8];
        // Without randomness sequence numbers could be guessed, though only by the guest itself.
        let _ = getrandom(&mut seed, GetRandomFlags::empty());
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut device, TcpInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let v4 = v4.iter().map(|address| IpCidr::new((*address).into(), 32));
            let v6 = v6.iter().map(|address| IpCidr::new((*address).into(), 128));
            for address in v4.chain(v6) {
                // There is room for eight: at most five, and three.
                let _ = addresses.push(address);
            }
        });
        // To the guest everything goes the same way.
        let (v4, v6) = (v4.first().copied().unwrap_or(METADATA), v6.first().copied().unwrap_or(METADATA_V6));
        let _ = interface.routes_mut().add_default_ipv4_route(v4);
        let _ = interface.routes_mut().add_default_ipv6_route(v6);
        let (sockets, connections, dialed) = (SocketSet::new(Vec::new()), Vec::new(), DialedSet::new());
        Self { interface, device, sockets, connections, dialed, service, counters, started: now }
    }

    /// Takes a packet of the guest with a TCP segment in it; `source` and `destination` are those of its header, `segment`
    /// is what it carries.
    pub(super) fn take(&mut self, packet: &[u8], source: IpAddr, destination: IpAddr, segment: &[u8], now: Instant) {
        if let (Some(from), Some(to), Some(flags)) = (u16_at(segment, 0), u16_at(segment, 2), segment.get(13)) {
            // SYN without ACK.
            if flags & 0x12 == 0x02 {
                self.expect(SocketAddr::new(source, from), SocketAddr::new(destination, to), now);
            }
        }
        self.device.incoming = Some(packet.to_vec());
        self.attend(now);
    }

    /// Gets ready for a connection to begin, if it is to be had.
    fn expect(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) {
        let is_served = to.port() == PORT && [IpAddr::V4(METADATA), IpAddr::V6(METADATA_V6)].contains(&to.ip());
        let Some(service) = self.service.clone().filter(|_| is_served) else { return };
        let ends = Some((IpEndpoint::from(from), IpEndpoint::from(to)));
        let same = self.connections.iter().position(|one| {
            let socket = self.sockets.get::<Socket>(one.socket);
            socket.remote_endpoint().zip(socket.local_endpoint()) == ends
        });
        if let Some(at) = same {
            if self.state(at) != Some(State::TimeWait) {
                return;
            }
            // The guest takes a port again whose last connection is over.
            self.remove(at);
        }
        self.make_room(now);
        let (receive, transmit) = BUFFERS;
        let mut socket = Socket::new(SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; transmit]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        if socket.listen(IpEndpoint::from(to)).is_ok() {
            self.connections.push(Connection::new(self.sockets.add(socket), service, now));
        }
    }

    fn state(&self, at: usize) -> Option<State> {
        self.connections.get(at).map(|one| self.sockets.get::<Socket>(one.socket).state())
    }

    fn remove(&mut self, at: usize) {
        let one = self.connections.swap_remove(at);
        self.sockets.remove(one.socket);
    }

    /// Removes all connections.
    pub(super) fn forget(&mut self) {
        while !self.connections.is_empty() {
            self.remove(0);
        }
        self.dialed.forget(&mut self.sockets);
        self.device = PacketDevice::new(self.device.mtu());
    }

    /// The connection that stood still for the longest, of those in one of these states.
    fn oldest(&self, is: impl Fn(State) -> bool) -> Option<usize> {
        let of_these = self.connections.iter().enumerate();
        let of_these = of_these.filter(|(_, one)| is(self.sockets.get::<Socket>(one.socket).state()));
        of_these.min_by_key(|(_, one)| one.moved).map(|(at, _)| at)
    }

    fn half_open(&self) -> usize {
        let is = |one: &&Connection| is_half_open(self.sockets.get::<Socket>(one.socket).state());
        self.connections.iter().filter(is).count()
    }

    fn make_room(&mut self, now: Instant) {
        let victim = if self.half_open() >= HALF_OPEN_MAX {
            self.oldest(is_half_open)
        } else if self.connections.len() >= CONNECTIONS_MAX {
            let over = self.oldest(|state| state == State::TimeWait);
            over.or_else(|| self.oldest(is_half_open)).or_else(|| self.oldest(|_| true))
        } else {
            None
        };
        let Some(at) = victim else { return };
        NetCounters::count(&self.counters.connections_evicted);
        if self.state(at).is_some_and(|state| !is_half_open(state) && state != State::TimeWait) {
            self.abort(at);
            self.poll(now);
        }
        self.remove(at);
    }

    fn abort(&mut self, at: usize) {
        if let Some(one) = self.connections.get(at) {
            self.sockets.get_mut::<Socket>(one.socket).abort();
        }
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(self.time(now), &mut self.device, &mut self.sockets);
    }

    /// Moves everything on that can be moved on.
    pub(super) fn attend(&mut self, now: Instant) {
        self.poll(now);
        for one in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket>(one.socket);
            if one.serve(socket, now) {
                NetCounters::count(&self.counters.connections);
            }
            let limit = if is_half_open(socket.state()) { HANDSHAKE } else { IDLE };
            if now.saturating_duration_since(one.moved) >= limit && socket.state() != State::TimeWait {
                NetCounters::count(&self.counters.connections_idle);
                socket.abort();
            }
        }
        self.dialed.serve(&mut self.sockets);
        self.poll(now);
        let mut at = 0;
        while let Some(state) = self.state(at) {
            // One that still listens has not got the segment it was made for.
            if matches!(state, State::Closed | State::Listen) {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Begins a connection to a port of the guest, whose other end is `stream`.
    pub(super) fn dial(&mut self, guest: (Ipv4Addr, u16), stream: UnixStream) {
        self.dialed.dial(guest, stream, &mut self.interface, &mut self.sockets);
    }

    /// Adds what connections to the guest wait for.
    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.dialed.wait_for(fds);
    }

    /// When [`Self::attend`] is to be called at the latest, if no packet comes before.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let time = self.time(now);
        let protocol = self.interface.poll_delay(time, &self.sockets);
        let protocol = protocol.map(|delay| now + Duration::from_micros(delay.total_micros()));
        let idle = self.connections.iter().filter_map(|one| {
            let state = self.sockets.get::<Socket>(one.socket).state();
            let limit = if is_half_open(state) { HANDSHAKE } else { IDLE };
            (state != State::TimeWait).then(|| one.moved + limit)
        });
        idle.chain(protocol).min()
    }

    /// The packets to the guest that have come to be.
    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.device.outgoing)
    }

    fn time(&self, now: Instant) -> TcpInstant {
        let since = now.saturating_duration_since(self.started).as_micros();
        TcpInstant::from_micros(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// How many connections there are, and the bytes of their buffers and answers.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let buffers = self.connections.len() * (BUFFERS.0 + BUFFERS.1);
        (self.connections.len(), buffers + self.connections.iter().map(Connection::waiting).sum::<usize>())
    }
}

fn is_half_open(state: State) -> bool {
    matches!(state, State::SynReceived | State::Listen)
}
