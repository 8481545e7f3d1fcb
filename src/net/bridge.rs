//! A port of a bridge of the host: a tap of the link's own, which goes with it.

use std::path::Path;

use super::tap::sys;
use super::tap::{TapError, TapLink};

/// What the taps are named; the kernel puts a number there.
const NAME: &str = "amiboot%d";

/// Makes a tap with up to `pairs` pairs of queues and connects it to the bridge of that name. It needs `CAP_NET_ADMIN`.
///
/// # Errors
/// [`TapError`].
pub fn open(bridge: &str, pairs: u16) -> Result<TapLink, TapError> {
    if !sys::is_name(bridge) {
        return Err(TapError::Name(bridge.into()));
    }
    let host = |what, cause| TapError::Host { name: bridge.into(), what, cause };
    let control = sys::control().map_err(|cause| host("no socket", cause))?;
    if sys::index_of(&control, bridge).is_err() {
        return Err(TapError::NoBridge { name: bridge.into() });
    }
    if !Path::new("/sys/class/net").join(bridge).join("bridge").exists() {
        return Err(TapError::NotABridge { name: bridge.into() });
    }
    let refused = || TapError::BridgeRefused { name: bridge.into() };
    let tap = TapLink::attach(NAME, pairs).map_err(|error| match error {
        TapError::Owner { .. } => refused(),
        error => error,
    })?;
    let number = sys::index_of(&control, tap.name()).map_err(|cause| host("its port is gone", cause))?;
    sys::add_to_bridge(&control, bridge, number).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM) => refused(),
        Some(libc::EOPNOTSUPP) => TapError::NotABridge { name: bridge.into() },
        _ => host("it takes no port", cause),
    })?;
    if !sys::set_up(&control, tap.name()).map_err(|cause| host("its port is gone", cause))? {
        return Err(refused());
    }
    Ok(tap)
}
