//! What is done to an instance's volumes while its machine runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::config::VolumeConfig;
use super::protocol::{Answer, FailureKind};
use crate::disk::layered::{LayerAccess, LayerFiles, Layered};

/// The volumes that the machine has, in the order in which the guest sees them; the first is the root.
pub struct Changes {
    volumes: Vec<VolumeConfig>,
    /// Those that are made of layers, by their ids.
    layered: Vec<(String, Arc<Layered>)>,
}

/// What keeps a request from being followed.
type Refusal = (FailureKind, String);

impl Changes {
    /// Of a machine that was started with these volumes.
    pub fn new(volumes: Vec<VolumeConfig>, layered: Vec<(String, Arc<Layered>)>) -> Self {
        Self { volumes, layered }
    }

    /// Puts new layers, of which `files` are the data and the map in turn, on volumes. What was answered before is in what
    /// lies below them, durably.
    pub fn snapshot(&self, volumes: &[String], files: Vec<OwnedFd>) -> Answer {
        answer(self.check_snapshot(volumes).and_then(|()| {
            let mut files = files.into_iter();
            volumes.iter().try_for_each(|id| {
                let layers = self.layers(id)?;
                let (Some(data), Some(map)) = (files.next(), files.next()) else {
                    return Err((FailureKind::BadRequest, format!("{id}: the files of its new layer did not come")));
                };
                let host = |error: &dyn std::fmt::Display| (FailureKind::Host, format!("volume {id}: {error}"));
                let next = LayerFiles::from_fds(data, map, LayerAccess::Writable).map_err(|e| host(&e))?;
                layers.snapshot(next).map_err(|e| host(&e))
            })
        }))
    }

    fn layers(&self, id: &str) -> Result<&Layered, Refusal> {
        let layers = self.layered.iter().find(|(of, _)| of == id).map(|(_, layers)| layers.as_ref());
        layers.ok_or_else(|| {
            (FailureKind::Unsupported, format!("volume {id} is not made of layers: stop the instance first"))
        })
    }

    fn check_snapshot(&self, volumes: &[String]) -> Result<(), Refusal> {
        if volumes.is_empty() {
            return Err((FailureKind::BadRequest, "volumes: name one at least".into()));
        }
        for (at, id) in volumes.iter().enumerate() {
            self.find(id)?;
            if volumes.iter().take(at).any(|other| other == id) {
                return Err((FailureKind::BadRequest, format!("volumes: {id} is there twice")));
            }
        }
        Ok(())
    }

    /// Adds a volume.
    pub fn plug(&self, volume: &VolumeConfig) -> Answer {
        answer(self.check_plug(volume).and_then(|()| Err(stays("takes no volume"))))
    }

    fn check_plug(&self, volume: &VolumeConfig) -> Result<(), Refusal> {
        volume.check().map_err(|(field, why)| (FailureKind::BadRequest, format!("volume.{field}: {why}")))?;
        match self.volumes.iter().find(|other| other.id == volume.id || other.device == volume.device) {
            Some(other) => Err((FailureKind::State, format!("volume {} is at {} already", other.id, other.device))),
            None => Ok(()),
        }
    }

    /// Takes a volume away.
    pub fn unplug(&self, id: &str, _force: bool) -> Answer {
        answer(self.find(id).and_then(|at| match at {
            0 => Err((FailureKind::State, format!("volume {id} is the root: stop the instance first"))),
            _ => Err(stays("gives no volume back")),
        }))
    }

    /// Tells the guest that a volume is larger.
    pub fn resize(&self, id: &str, _size: u64) -> Answer {
        answer(self.find(id).and_then(|_| Err(stays("has volumes of fixed size"))))
    }

    fn find(&self, id: &str) -> Result<usize, Refusal> {
        let at = self.volumes.iter().position(|volume| volume.id == id);
        at.ok_or_else(|| (FailureKind::NotFound, format!("the instance has no volume {id:?}")))
    }
}

fn stays(what: &str) -> Refusal {
    (FailureKind::Unsupported, format!("this machine {what} while it runs: stop the instance first"))
}

fn answer(done: Result<(), Refusal>) -> Answer {
    match done {
        Ok(()) => Answer::done(),
        Err((kind, message)) => Answer::failed(kind, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::config::VolumeSource;

    fn volume(device: &str, digit: char) -> VolumeConfig {
        VolumeConfig {
            device: device.into(),
            id: format!("vol-{}", String::from(digit).repeat(17)),
            read_only: false,
            ephemeral: None,
            source: VolumeSource::Blank { directory: "/var/tmp".into(), size: 1 << 20 },
        }
    }

    #[test]
    fn what_is_refused_and_as_what() {
        let (root, data, new) = (volume("/dev/sda1", 'a'), volume("/dev/sdf", 'b'), volume("/dev/sdg", 'c'));
        let changes = Changes::new(vec![root.clone(), data.clone()], Vec::new());
        let kind = |answer: Answer| match answer {
            Answer::Error(failure) => failure.kind,
            Answer::Ok(_) => panic!("done"),
        };
        let ids = |of: &[&VolumeConfig]| of.iter().map(|v| v.id.clone()).collect::<Vec<_>>();
        for (volumes, expected) in [
            (ids(&[]), FailureKind::BadRequest),
            (ids(&[&root, &root]), FailureKind::BadRequest),
            (ids(&[&root, &new]), FailureKind::NotFound),
            (ids(&[&root, &data]), FailureKind::Unsupported),
        ] {
            assert_eq!(kind(changes.snapshot(&volumes, Vec::new())), expected, "{volumes:?}");
        }
        let elsewhere = VolumeConfig { device: data.device.clone(), ..new.clone() };
        let nameless = VolumeConfig { id: "data".into(), ..new.clone() };
        for (volume, expected) in [
            (&new, FailureKind::Unsupported),
            (&data, FailureKind::State),
            (&elsewhere, FailureKind::State),
            (&nameless, FailureKind::BadRequest),
        ] {
            assert_eq!(kind(changes.plug(volume)), expected, "{volume:?}");
        }
        assert_eq!(kind(changes.unplug(&root.id, true)), FailureKind::State);
        assert_eq!(kind(changes.unplug(&data.id, true)), FailureKind::Unsupported);
        assert_eq!(kind(changes.unplug(&new.id, true)), FailureKind::NotFound);
        assert_eq!(kind(changes.resize(&data.id, 1 << 30)), FailureKind::Unsupported);
        assert_eq!(kind(changes.resize("", 1 << 30)), FailureKind::NotFound);
    }
}
