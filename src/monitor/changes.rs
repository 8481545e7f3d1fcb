//! What is done to an instance's volumes while its machine runs.

use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::config::VolumeConfig;
use super::desk::ConnectionId;
use super::protocol::{Answer, FailureKind, VolumeStatus};
use super::volumes;
use crate::disk::layered::{self, LayerAccess, LayerFiles, Layered};
use crate::vmm::running::Machine;
use crate::vmm::volumes::{Ejected, PlugError};

/// The volumes that the machine has, in the order in which the guest sees them; the first is the root.
pub struct Changes {
    volumes: Vec<VolumeConfig>,
    /// Those that are made of layers, by their ids.
    layered: Vec<(String, Arc<Layered>)>,
    /// Who waits for the guest to let go of which.
    leaving: Vec<(ConnectionId, String)>,
}

/// What keeps a request from being followed.
type Refusal = (FailureKind, String);

/// How a machine lets go of a volume that is to be detached.
pub enum Unplugged {
    /// It has.
    Done(Answer),
    /// The guest was asked.
    Asked,
}

impl Changes {
    /// Of a machine that is started with these volumes.
    pub fn new(volumes: Vec<VolumeConfig>, layered: Vec<(String, Arc<Layered>)>) -> Self {
        Self { volumes, layered, leaving: Vec::new() }
    }

    /// Puts new layers, of which `files` are the data and the map in turn, on volumes, all at one instant. What was answered
    /// before is in what lies below them, durably.
    pub fn snapshot(&self, volumes: &[String], files: Vec<OwnedFd>) -> Answer {
        answer(self.find_snapshot(volumes).and_then(|()| {
            let mut files = files.into_iter();
            let pair = |id: &String| {
                let layers = self.layers(id)?;
                let (Some(data), Some(map)) = (files.next(), files.next()) else {
                    return Err((FailureKind::BadRequest, format!("{id}: the files of its new layer did not come")));
                };
                let next = LayerFiles::from_fds(data, map, LayerAccess::Writable).map_err(|e| host(id, &e))?;
                Ok((layers, next))
            };
            let pairs = volumes.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            layered::snapshot_together(pairs).map_err(|e| host(&volumes.join(", "), &e))
        }))
    }

    /// Whether a snapshot of these could be taken.
    ///
    /// # Errors
    /// The answer where it could not.
    pub fn check_snapshot(&self, volumes: &[String]) -> Result<(), Answer> {
        self.find_snapshot(volumes).map_err(|refused| answer(Err(refused)))
    }

    fn find_snapshot(&self, volumes: &[String]) -> Result<(), Refusal> {
        if volumes.is_empty() {
            return Err((FailureKind::BadRequest, "volumes: name one at least".into()));
        }
        for (at, id) in volumes.iter().enumerate() {
            self.find(id)?;
            if volumes.iter().take(at).any(|other| other == id) {
                return Err((FailureKind::BadRequest, format!("volumes: {id} is there twice")));
            }
        }
        volumes.iter().try_for_each(|id| self.layers(id).map(|_| ()))
    }

    fn layers(&self, id: &str) -> Result<&Layered, Refusal> {
        let layers = self.layered.iter().find(|(of, _)| of == id).map(|(_, layers)| layers.as_ref());
        layers.ok_or_else(|| {
            (FailureKind::Unsupported, format!("volume {id} is not made of layers: stop the instance first"))
        })
    }

    /// Adds a volume.
    pub fn plug(&mut self, machine: &Machine, volume: VolumeConfig) -> Answer {
        answer(self.check_plug(&volume).and_then(|()| {
            // Before its files are opened and locked for nothing.
            if machine.has_fixed_volumes() {
                return Err(refusal(&PlugError::Paravirtual(volume.serial())));
            }
            let opened = volumes::open_one(&volume).map_err(|e| (FailureKind::Host, e.to_string()));
            let (disk, layers) = opened?;
            machine.plug(disk).map_err(|e| refusal(&e))?;
            self.layered.extend(layers.map(|layers| (volume.id.clone(), layers)));
            self.volumes.push(volume);
            Ok(())
        }))
    }

    fn check_plug(&self, volume: &VolumeConfig) -> Result<(), Refusal> {
        volume.check().map_err(|(field, why)| (FailureKind::BadRequest, format!("volume.{field}: {why}")))?;
        match self.volumes.iter().find(|other| other.id == volume.id || other.device == volume.device) {
            Some(other) => Err((FailureKind::State, format!("volume {} is at {} already", other.id, other.device))),
            None => Ok(()),
        }
    }

    /// Takes a volume away, or asks the guest to let go of it: then who asked is answered by [`Changes::ejected`].
    pub fn unplug(&mut self, machine: &Machine, from: ConnectionId, id: &str, force: bool) -> Unplugged {
        let serial = match self.check_unplug(id) {
            Ok(serial) => serial,
            Err(refused) => return Unplugged::Done(answer(Err(refused))),
        };
        if !force {
            return match machine.unplug(&serial) {
                Ok(()) => {
                    self.leaving.push((from, id.to_owned()));
                    Unplugged::Asked
                }
                Err(e) => Unplugged::Done(answer(Err(refusal(&e)))),
            };
        }
        let removed = machine.remove(&serial);
        if matches!(removed, Ok(()) | Err(PlugError::Flush { .. })) {
            self.forget(id);
        }
        Unplugged::Done(answer(removed.map_err(|e| refusal(&e))))
    }

    fn check_unplug(&self, id: &str) -> Result<String, Refusal> {
        match self.find(id)? {
            0 => Err((FailureKind::State, format!("volume {id} is the root: stop the instance first"))),
            at => Ok(self.volumes.get(at).map(VolumeConfig::serial).unwrap_or_default()),
        }
    }

    /// The guest has let go of volumes; gives who waited for that, and the answers.
    pub fn ejected(&mut self, ejected: &[Ejected]) -> Vec<(ConnectionId, Answer)> {
        ejected.iter().flat_map(|ejected| self.one_ejected(ejected)).collect()
    }

    fn one_ejected(&mut self, ejected: &Ejected) -> Vec<(ConnectionId, Answer)> {
        let Some(id) = self.volumes.iter().find(|volume| volume.serial() == ejected.serial).map(|v| v.id.clone())
        else {
            return Vec::new();
        };
        self.forget(&id);
        let result = ejected.flushed.as_ref().copied().map_err(|e| host(&id, &e));
        let waiting = std::mem::take(&mut self.leaving);
        let (done, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, of)| *of == id);
        self.leaving = others;
        done.into_iter().map(|(from, _)| (from, answer(result.clone()))).collect()
    }

    /// Asks the guest of a machine that was just started once more for what the one before had not let go.
    pub fn ask_again(&mut self, machine: &Machine) {
        for (_, id) in &self.leaving {
            let serial = self.volumes.iter().find(|volume| volume.id == *id).map(VolumeConfig::serial);
            // One that it does not have is let go.
            let _ = serial.map(|serial| machine.unplug(&serial));
        }
    }

    /// Who waits in vain when the last machine has ended.
    pub fn end(self) -> impl Iterator<Item = ConnectionId> {
        self.leaving.into_iter().map(|(from, _)| from)
    }

    /// Makes a volume larger and tells the guest.
    pub fn resize(&self, machine: &Machine, id: &str, size: u64) -> Answer {
        answer(self.find(id).and_then(|at| {
            self.layers(id)?.grow(size).map_err(|e| host(id, &e))?;
            let serial = self.volumes.get(at).map(VolumeConfig::serial).unwrap_or_default();
            machine.resize(&serial).map(|_| ()).map_err(|e| refusal(&e))
        }))
    }

    /// What is said of the volumes.
    pub fn status(&self, machine: &Machine) -> Vec<VolumeStatus> {
        let disks = machine.disks();
        let status = |volume: &VolumeConfig| {
            let serial = volume.serial();
            let disk = disks.iter().find(|disk| disk.serial == serial)?;
            Some(VolumeStatus {
                id: volume.id.clone(),
                device: volume.device.clone(),
                size: disk.disk.size(),
                read_only: disk.disk.is_read_only(),
                ephemeral: volume.ephemeral,
            })
        };
        self.volumes.iter().filter_map(status).collect()
    }

    /// Whether the machine has this volume, or the next one is to have it.
    pub fn has(&self, id: &str) -> bool {
        self.find(id).is_ok()
    }

    fn forget(&mut self, id: &str) {
        self.volumes.retain(|volume| volume.id != id);
        self.layered.retain(|(of, _)| of != id);
    }

    fn find(&self, id: &str) -> Result<usize, Refusal> {
        let at = self.volumes.iter().position(|volume| volume.id == id);
        at.ok_or_else(|| (FailureKind::NotFound, format!("the instance has no volume {id:?}")))
    }
}

fn host(id: &str, error: &dyn Display) -> Refusal {
    (FailureKind::Host, format!("volume {id}: {error}"))
}

fn refusal(error: &PlugError) -> Refusal {
    let kind = match error {
        PlugError::Paravirtual(_) => FailureKind::Unsupported,
        PlugError::None(_) => FailureKind::NotFound,
        PlugError::Host { .. } | PlugError::Flush { .. } => FailureKind::Host,
        _ => FailureKind::State,
    };
    (kind, error.to_string())
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
        let refused = |done: Result<(), Refusal>| done.unwrap_err().0;
        assert!(changes.check_plug(&new).is_ok());
        for (volume, expected) in
            [(&data, FailureKind::State), (&elsewhere, FailureKind::State), (&nameless, FailureKind::BadRequest)]
        {
            assert_eq!(refused(changes.check_plug(volume)), expected, "{volume:?}");
        }
        assert_eq!(refused(changes.check_unplug(&root.id).map(|_| ())), FailureKind::State);
        assert_eq!(changes.check_unplug(&data.id).unwrap(), data.serial());
        assert_eq!(refused(changes.check_unplug(&new.id).map(|_| ())), FailureKind::NotFound);
    }

    #[test]
    fn all_who_wait_for_a_volume_are_answered_when_it_is_let_go() {
        let (root, one, two) = (volume("/dev/sda1", 'a'), volume("/dev/sdf", 'b'), volume("/dev/sdg", 'c'));
        let mut changes = Changes::new(vec![root.clone(), one.clone(), two.clone()], Vec::new());
        changes.leaving = vec![(1, one.id.clone()), (2, two.id.clone()), (3, one.id.clone())];
        let ejected = |of: &VolumeConfig, flushed| Ejected {
            serial: of.serial(),
            device: of.device.clone(),
            asked: true,
            flushed,
        };
        assert_eq!(changes.ejected(&[]), []);
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let answers = changes.ejected(&[ejected(&one, Ok(())), ejected(&two, Err(full))]);
        assert_eq!(&answers[..2], [(1, Answer::done()), (3, Answer::done())]);
        assert!(matches!(&answers[2..], [(2, Answer::Error(failure))] if failure.kind == FailureKind::Host));
        assert!(changes.has(&root.id) && !changes.has(&one.id) && !changes.has(&two.id));
        assert_eq!(changes.end().count(), 0);
    }
}
