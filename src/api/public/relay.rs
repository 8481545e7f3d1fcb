//! Connections to a public address, carried to the guest.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::api::clouds::Clouds;
use crate::cloud::Scope;

/// Most connections of one port at once.
const MAX: usize = 256;
/// How long to wait where the host has no descriptor for one more.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for a port of an instance, until it is aborted; those that it has taken go on.
pub async fn serve(listener: TcpListener, clouds: Arc<Clouds>, scope: Scope, instance: String, port: u16) {
    let room = Arc::new(tokio::sync::Semaphore::new(MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (clouds, scope, instance) = (clouds.clone(), scope.clone(), instance.clone());
        tokio::spawn(async move {
            let _permit = permit;
            carry(stream, clouds, scope, instance, port).await;
        });
    }
}

/// A connection whose other end the guest does not take is closed.
async fn carry(mut stream: TcpStream, clouds: Arc<Clouds>, scope: Scope, instance: String, port: u16) {
    let _ = stream.set_nodelay(true);
    let dial = move || clouds.with(&scope, |cloud| Ok(cloud.dial(&instance, port)?.1));
    let Ok(Ok(guest)) = tokio::task::spawn_blocking(dial).await else { return };
    if guest.set_nonblocking(true).is_err() {
        return;
    }
    let Ok(mut guest) = UnixStream::from_std(guest) else { return };
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut guest).await;
}
