//! Public addresses: every running instance has an address of this host's loopback, at which the TCP ports answer that its
//! security groups open. So people's tools reach instances without privileges and without routes.
//!
//! The address is 127.31.x.y of an instance at 172.31.x.y. Whoever connects to a port there is connected to the guest's, by
//! way of the instance's own process. A port of a wide range is open only where it is a [well-known](WELL_KNOWN) one. Where
//! the host does not let us have a port below 1024 (it needs privileges, or another server has it on all addresses), the
//! port that is [10000 higher](HIGHER) leads there.

mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clouds::Clouds;
use super::server::Log;
use crate::cloud::Scope;
use crate::cloud::network::{DEFAULT_VPC, OpenInstance};

/// What is added to a port that cannot be had.
const HIGHER: u16 = 10_000;
/// Ranges of more ports are wide.
const WIDE: u16 = 100;
/// Ports that wide ranges open.
const WELL_KNOWN: [u16; 6] = [22, 80, 443, 3389, 8080, 8443];
/// How often what is open is compared with what should be.
const PERIOD: Duration = Duration::from_millis(250);

/// The public address of an instance at an address of a default VPC.
#[must_use]
pub fn address_of(private: Ipv4Addr) -> Option<Ipv4Addr> {
    let [_, b, c, d] = private.octets();
    DEFAULT_VPC.contains(private).then(|| Ipv4Addr::new(127, b, c, d))
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Door {
    instance: String,
    address: Ipv4Addr,
    port: u16,
}

/// The doors that should be open, and to whose instances they lead.
fn wanted(instances: &[OpenInstance]) -> BTreeMap<Door, Scope> {
    let mut doors = BTreeMap::new();
    for instance in instances {
        let Some(address) = address_of(instance.private_address) else { continue };
        for &(first, last) in &instance.tcp {
            let ports: Vec<u16> = if last.saturating_sub(first) < WIDE {
                (first.max(1)..=last).collect()
            } else {
                WELL_KNOWN.into_iter().filter(|port| (first..=last).contains(port)).collect()
            };
            for port in ports {
                doors
                    .insert(Door { instance: instance.instance_id.to_string(), address, port }, instance.scope.clone());
            }
        }
    }
    doors
}

/// Keeps doors open until `end` becomes true.
pub async fn keep(clouds: Arc<Clouds>, default: Scope, log: Log, mut end: watch::Receiver<bool>) {
    let mut open: BTreeMap<Door, JoinHandle<()>> = BTreeMap::new();
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    loop {
        let (from, scope) = (clouds.clone(), default.clone());
        let looked = tokio::task::spawn_blocking(move || from.with(&scope, |cloud| Ok(cloud.open_instances()?))).await;
        // What the catalogue could not tell now, it tells next time; nothing is closed for it.
        if let Ok(Ok(instances)) = looked {
            let wanted = wanted(&instances);
            open.retain(|door, task| {
                let stays = wanted.contains_key(door);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (door, scope) in wanted {
                if !open.contains_key(&door)
                    && let Some(listener) = listen(&door, &log, &told).await
                {
                    let task =
                        tokio::spawn(relay::serve(listener, clouds.clone(), scope, door.instance.clone(), door.port));
                    open.insert(door, task);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = async { drop(end.wait_for(|end| *end).await) } => break,
        }
    }
    open.into_values().for_each(|task| task.abort());
}

/// A socket for a door: at its own port, or else the higher one. What cannot be is told once.
async fn listen(door: &Door, log: &Log, told: &Mutex<BTreeSet<Door>>) -> Option<TcpListener> {
    let at = |port| SocketAddrV4::new(door.address, port);
    let first = match TcpListener::bind(at(door.port)).await {
        Ok(listener) => return Some(listener),
        Err(error) => error,
    };
    let higher = door.port.checked_add(HIGHER).filter(|_| door.port < 1024);
    let listener = match higher {
        Some(port) => TcpListener::bind(at(port)).await.ok(),
        None => None,
    };
    if told.lock().unwrap_or_else(PoisonError::into_inner).insert(door.clone()) {
        let instead = match (&listener, higher) {
            (Some(_), Some(port)) => format!("; {}:{port} leads there", door.address),
            _ => String::new(),
        };
        log(&format!("{}: cannot listen at {}: {first}{instead}", door.instance, at(door.port)));
    }
    listener
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{Id, Kind};

    #[test]
    fn ports_are_open_as_the_groups_say_and_of_wide_ranges_the_well_known_ones() {
        let instance = OpenInstance {
            instance_id: Id::new(Kind::Instance).unwrap(),
            scope: Scope::default(),
            private_address: Ipv4Addr::new(172, 31, 6, 115),
            tcp: vec![(22, 22), (8000, 8002), (0, 65535), (5000, 5200)],
        };
        let ports: Vec<u16> = wanted(std::slice::from_ref(&instance)).into_keys().map(|door| door.port).collect();
        assert_eq!(ports, [22, 80, 443, 3389, 8000, 8001, 8002, 8080, 8443]);
        let elsewhere = OpenInstance { private_address: Ipv4Addr::new(10, 0, 0, 5), ..instance };
        assert!(wanted(&[elsewhere]).is_empty());
        assert_eq!(address_of(Ipv4Addr::new(172, 31, 6, 115)), Some(Ipv4Addr::new(127, 31, 6, 115)));
    }
}
