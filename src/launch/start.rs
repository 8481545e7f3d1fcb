//! Which kind of guest a disk becomes, and what each start of it begins with.
//!
//! Without `--mode`, options that only one kind of guest has say which it is. Without any, the disk says: it is a PV guest
//! where a kernel that can be booted is found on it, else an HVM guest.
//!
//! Without `--firmware`, an HVM guest of a disk that can boot in one way only gets the firmware for that. A disk that can
//! boot both ways gets BIOS: so does EC2 with an image that has no boot mode registered, on the instance types that have
//! both. `--uefi-vars` alone means UEFI.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::firmware::{self, FirmwareChoice, FirmwareChoiceError, FirmwareOptions};
use super::plan::{BootOverrides, Booted, PlanError, Planner};
use super::volumes::Volumes;
use crate::host::firmware::FirmwareKind;
use crate::image::{self, FirmwareModes};
use crate::vmm::boot::BootSource;
use crate::vmm::builder::{Boot, Firmware};
use crate::vmm::smbios::Identity;
use crate::vmm::timeline::{Mark, Timeline};

/// Which kind of guest the person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeWish {
    /// Whichever fits.
    Auto,
    /// Paravirtual.
    Pv,
    /// With firmware.
    Hvm,
}

/// Which kind of guest it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtual.
    Pv,
    /// With firmware.
    Hvm,
    /// The disk decides.
    ByDisk,
}

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Options for both kinds.
    #[error("{pv} is for a PV guest and {hvm} is for an HVM guest: leave out one of them")]
    BothKinds {
        /// One that only a PV guest has.
        pv: &'static str,
        /// One that only an HVM guest has.
        hvm: &'static str,
    },
    /// An option that an HVM guest does not have.
    #[error("{0}: an HVM guest boots what its disk's own boot loader says; use --mode pv")]
    OnlyPv(&'static str),
    /// An option that a PV guest does not have.
    #[error("{0}: only an HVM guest has that; add --mode hvm")]
    OnlyHvm(&'static str),
    /// There is nothing to boot by firmware.
    #[error(
        "{path}: firmware would find nothing to boot on this disk. bios: {}; uefi: {}. --firmware bios|uefi|FILE starts \
         firmware all the same", modes.bios.reason, modes.uefi.reason
    )]
    NoLoader {
        /// The disk file.
        path: String,
        /// Why not.
        modes: Box<FirmwareModes>,
    },
    /// Neither a kernel nor anything to boot by firmware.
    #[error(
        "{path}: neither a PV nor an HVM guest can be made of this disk. pv: {pv}. hvm: bios: {}; uefi: {}; --firmware \
         bios|uefi|FILE starts firmware all the same", modes.bios.reason, modes.uefi.reason
    )]
    Neither {
        /// The disk file.
        path: String,
        /// Why no PV guest.
        pv: String,
        /// Why no HVM guest.
        modes: Box<FirmwareModes>,
    },
    /// No kernel.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareChoiceError),
}

/// Decides by the options alone: `pv` and `hvm` are the first ones given that only such a guest has.
///
/// # Errors
/// [`StartError`] where they do not fit together.
pub fn decide(mode: ModeWish, pv: Option<&'static str>, hvm: Option<&'static str>) -> Result<Kind, StartError> {
    match (mode, pv, hvm) {
        (ModeWish::Pv, _, Some(option)) => Err(StartError::OnlyHvm(option)),
        (ModeWish::Hvm, Some(option), _) => Err(StartError::OnlyPv(option)),
        (ModeWish::Auto, Some(pv), Some(hvm)) => Err(StartError::BothKinds { pv, hvm }),
        (ModeWish::Pv, ..) | (ModeWish::Auto, Some(_), None) => Ok(Kind::Pv),
        (ModeWish::Hvm, ..) | (ModeWish::Auto, None, Some(_)) => Ok(Kind::Hvm),
        (ModeWish::Auto, None, None) => Ok(Kind::ByDisk),
    }
}

/// All that a start is chosen from.
pub struct Request<'a> {
    /// Which kind of guest.
    pub kind: Kind,
    /// The volumes, open.
    pub volumes: &'a Volumes,
    /// Of a PV guest.
    pub overrides: BootOverrides,
    /// Of an HVM guest: which firmware, where the person says.
    pub firmware: Option<FirmwareChoice>,
    /// Of an HVM guest.
    pub options: FirmwareOptions,
    /// Where instants are recorded.
    pub timeline: &'a Arc<Timeline>,
    /// Tells the person what was chosen for them.
    pub say: fn(&str),
}

/// What starts begin with.
pub enum Start {
    /// A kernel, looked for anew at each start.
    Pv {
        /// What looks for it.
        planner: Box<Planner>,
        /// What it has found already.
        first: Option<Box<BootSource>>,
        /// Who the guest is told that it is.
        identity: Identity,
    },
    /// Firmware.
    Hvm {
        /// What it is.
        firmware: Box<Firmware>,
        /// Its file.
        path: PathBuf,
    },
}

impl Start {
    /// Finds a kernel, or opens firmware.
    ///
    /// # Errors
    /// [`StartError`], which names the disk or the option, and the mend.
    pub fn choose(request: &Request<'_>) -> Result<Self, StartError> {
        let identity = || request.options.identity.clone();
        let path = request.volumes.root().path;
        let root = Path::new(&path);
        let pv = match request.kind {
            Kind::Hvm => None,
            Kind::Pv => {
                return Ok(Self::Pv { planner: Box::new(planner(request)?), first: None, identity: identity() });
            }
            Kind::ByDisk => {
                let mut planner = planner(request)?;
                match planner.next_start() {
                    Ok(source) => {
                        let first = Some(Box::new(source));
                        return Ok(Self::Pv { planner: Box::new(planner), first, identity: identity() });
                    }
                    Err(error) if error.is_of_image() => Some(error),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let modes = match (image::firmware_modes(&request.volumes.root().disk), pv.is_some()) {
            (Ok(modes), _) => Some(modes),
            // What could not be read for one kind of guest cannot be read for the other.
            (Err(source), true) => return Err(PlanError::Image { path, source }.into()),
            (Err(_), false) => None,
        };
        request.timeline.mark(Mark::ImageInspected);
        let chosen = choose_firmware(request.firmware.as_ref(), request.options.variables.is_some(), modes.as_ref());
        let Chosen { choice, reason, note } = match chosen {
            Ok(chosen) => chosen,
            Err(modes) => return Err(nothing(root, pv, modes)),
        };
        if let Some(pv) = pv {
            let name = choice.kind().map_or("firmware", FirmwareKind::name);
            let because = without_path(&pv, root);
            (request.say)(&format!(
                "an HVM guest ({name}: {reason}), since no PV guest can be made of this disk: {because}"
            ));
        }
        note.iter().for_each(|note| (request.say)(note));
        let opened = firmware::open(&choice, &request.options)?;
        opened.notes.iter().for_each(|note| (request.say)(note));
        Ok(Self::Hvm { firmware: Box::new(opened.firmware), path: opened.path })
    }

    /// What to begin the next start with.
    ///
    /// # Errors
    /// [`PlanError`] where the guest has left no kernel.
    pub fn next_boot(&mut self) -> Result<Boot, PlanError> {
        match self {
            Self::Pv { planner, first, identity } => {
                let source = first.take().map_or_else(|| planner.next_start(), |source| Ok(*source))?;
                Ok(Boot::Kernel { source, identity: identity.clone() })
            }
            Self::Hvm { firmware, .. } => Ok(Boot::Firmware(Firmware::clone(firmware))),
        }
    }

    /// The kernel that was started last, where it is a PV guest.
    #[must_use]
    pub fn booted(&self) -> Option<&Booted> {
        match self {
            Self::Pv { planner, .. } => planner.booted(),
            Self::Hvm { .. } => None,
        }
    }

    /// The firmware's file, where it is an HVM guest.
    #[must_use]
    pub fn firmware_file(&self) -> Option<&Path> {
        match self {
            Self::Pv { .. } => None,
            Self::Hvm { path, .. } => Some(path),
        }
    }
}

fn planner(request: &Request<'_>) -> Result<Planner, PlanError> {
    let say = Box::new(request.say);
    Planner::new(request.volumes.root(), request.overrides.clone(), request.timeline.clone(), say)
}

/// Firmware that was chosen.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    choice: FirmwareChoice,
    /// What speaks for it.
    reason: String,
    /// What speaks against it.
    note: Option<String>,
}

/// Chooses firmware for a disk, of which nothing is known where it could not be read; an error where it can boot by none.
fn choose_firmware(
    asked: Option<&FirmwareChoice>,
    keeps_variables: bool,
    modes: Option<&FirmwareModes>,
) -> Result<Chosen, FirmwareModes> {
    let uefi = FirmwareChoice::Kind(FirmwareKind::Uefi);
    let asked = asked.or(keeps_variables.then_some(&uefi));
    let mode_of = |modes: &FirmwareModes, kind| match kind {
        FirmwareKind::Bios => modes.bios.clone(),
        FirmwareKind::Uefi => modes.uefi.clone(),
    };
    if let Some(choice) = asked {
        let unfit =
            choice.kind().zip(modes).map(|(kind, modes)| (kind, mode_of(modes, kind))).filter(|(_, m)| !m.possible);
        let note = unfit
            .map(|(kind, mode)| format!("the disk does not look as if {} could boot it: {}", kind.name(), mode.reason));
        return Ok(Chosen { choice: choice.clone(), reason: "asked for".into(), note });
    }
    let chosen =
        |kind, reason: &str| Ok(Chosen { choice: FirmwareChoice::Kind(kind), reason: reason.into(), note: None });
    match modes {
        None => chosen(FirmwareKind::Bios, "the disk could not be looked at"),
        Some(modes) if modes.bios.possible => chosen(FirmwareKind::Bios, &modes.bios.reason),
        Some(modes) if modes.uefi.possible => chosen(FirmwareKind::Uefi, &modes.uefi.reason),
        Some(modes) => Err(modes.clone()),
    }
}

fn nothing(root: &Path, pv: Option<PlanError>, modes: FirmwareModes) -> StartError {
    let (path, modes) = (root.display().to_string(), Box::new(modes));
    match pv {
        Some(pv) => StartError::Neither { path, pv: without_path(&pv, root), modes },
        None => StartError::NoLoader { path, modes },
    }
}

/// An error's words, without the name of the disk that they begin with.
fn without_path(error: &PlanError, path: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::BootMode;

    fn modes(bios: bool, uefi: bool) -> FirmwareModes {
        let mode = |possible, name: &str| BootMode { possible, reason: format!("{name} {possible}") };
        FirmwareModes { bios: mode(bios, "bios"), uefi: mode(uefi, "uefi") }
    }

    #[test]
    fn options_steer_the_kind_of_guest() {
        use ModeWish::{Auto, Hvm, Pv};
        let (pv, hvm) = (Some("--kernel"), Some("--disk"));
        for (mode, given, expected) in [
            (Auto, (None, None), Some(Kind::ByDisk)),
            (Auto, (pv, None), Some(Kind::Pv)),
            (Auto, (None, hvm), Some(Kind::Hvm)),
            (Auto, (pv, hvm), None),
            (Pv, (pv, None), Some(Kind::Pv)),
            (Pv, (None, None), Some(Kind::Pv)),
            (Pv, (None, hvm), None),
            (Pv, (pv, hvm), None),
            (Hvm, (None, hvm), Some(Kind::Hvm)),
            (Hvm, (None, None), Some(Kind::Hvm)),
            (Hvm, (pv, None), None),
        ] {
            let decided = decide(mode, given.0, given.1);
            if let Err(e) = &decided {
                assert!(given.0.is_some_and(|o| e.to_string().contains(o)) || e.to_string().contains("--disk"), "{e}");
            }
            assert_eq!(decided.ok(), expected, "{mode:?} {given:?}");
        }
    }

    #[test]
    fn the_disk_chooses_the_firmware_unless_the_person_does() {
        use FirmwareKind::{Bios, Uefi};
        let choose = |asked: Option<&str>, keeps, modes: Option<&FirmwareModes>| {
            let asked = asked.map(|text| text.parse().unwrap());
            choose_firmware(asked.as_ref(), keeps, modes).map(|chosen| (chosen.choice, chosen.note))
        };
        let kind = |kind| (FirmwareChoice::Kind(kind), None);
        for (found, expected) in [((true, true), Bios), ((true, false), Bios), ((false, true), Uefi)] {
            assert_eq!(choose(None, false, Some(&modes(found.0, found.1))), Ok(kind(expected)));
        }
        assert_eq!(choose(None, false, Some(&modes(false, false))), Err(modes(false, false)));
        assert_eq!(choose(None, false, None), Ok(kind(Bios)));
        assert_eq!(choose(None, true, Some(&modes(true, true))), Ok(kind(Uefi)));
        assert_eq!(choose(Some("uefi"), false, Some(&modes(true, true))), Ok(kind(Uefi)));
        // Asked for, it is had, with a word where the disk does not look like it.
        let (choice, note) = choose(Some("bios"), false, Some(&modes(false, true))).unwrap();
        assert_eq!((choice, note.unwrap().contains("bios false")), (FirmwareChoice::Kind(Bios), true));
        let (choice, note) = choose(Some("rom.bin"), false, Some(&modes(false, false))).unwrap();
        assert_eq!((choice, note), (FirmwareChoice::File("rom.bin".into()), None));
    }
}
