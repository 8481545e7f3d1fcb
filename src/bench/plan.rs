//! Which runs are made, in which order, and with which words.

use std::path::PathBuf;
use std::time::Duration;

use super::record::{Cache, Mode};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image.
    pub image: PathBuf,
    /// Modes, in the order in which they take turns.
    pub modes: Vec<Mode>,
    /// States of the caches.
    pub caches: Vec<Cache>,
    /// Runs of each mode and state.
    pub runs: u32,
    /// Runs of each mode before, which do not count.
    pub warm_up: u32,
    /// Words of every run.
    pub words: Vec<String>,
    /// Words of a paravirtual guest's runs.
    pub pv_words: Vec<String>,
    /// Words of an HVM guest's runs.
    pub hvm_words: Vec<String>,
    /// Firmware of modes that have it: what `--firmware` takes.
    pub bios: String,
    /// The same for UEFI.
    pub uefi: String,
    /// How long a boot may take.
    pub timeout: Duration,
}

/// One run to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// From 1.
    pub number: u32,
    /// How the guest is booted.
    pub mode: Mode,
    /// The state of the caches.
    pub cache: Cache,
    /// It does not count.
    pub warm_up: bool,
}

impl Plan {
    /// All runs, in order: the warm-up, then round by round, so that whatever changes on the host while it is measured
    /// meets every mode alike.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let warm_ups = (0..self.warm_up).flat_map(|_| self.modes.iter().map(|mode| (*mode, Cache::Warm, true)));
        let round = || self.caches.iter().flat_map(|cache| self.modes.iter().map(|mode| (*mode, *cache, false)));
        let rounds = (0..self.runs).flat_map(|_| round());
        (1..)
            .zip(warm_ups.chain(rounds))
            .map(|(number, (mode, cache, warm_up))| Step { number, mode, cache, warm_up })
            .collect()
    }

    /// The words after `amiboot` of a mode's runs, but for the report's path.
    #[must_use]
    pub fn command(&self, mode: Mode) -> Vec<String> {
        let mut words = vec!["run".to_owned(), self.image.display().to_string()];
        // What is measured is the machine; a way outside would be another program's time.
        words.extend(["--net".into(), "none".into()]);
        let firmware = match mode {
            Mode::Pv => None,
            Mode::Hvm => Some(&self.bios),
            Mode::HvmUefi => Some(&self.uefi),
        };
        match firmware {
            None => {
                words.extend(["--mode".into(), "pv".into()]);
                words.extend(self.pv_words.iter().cloned());
            }
            Some(firmware) => {
                words.extend(["--mode".into(), "hvm".into(), "--firmware".into(), firmware.clone()]);
                words.extend(self.hvm_words.iter().cloned());
            }
        }
        words.extend(self.words.iter().cloned());
        let timeout = humantime::format_duration(self.timeout).to_string().replace(' ', "");
        // A signal to all of a terminal's programs is to end the guest at once.
        words.extend(["--timeout", &timeout, "--no-reboot", "--grace", "0s"].map(Into::into));
        words
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn plan() -> Plan {
        Plan {
            image: "disk.raw".into(),
            modes: vec![Mode::Pv, Mode::Hvm],
            caches: Cache::ALL.to_vec(),
            runs: 2,
            warm_up: 1,
            words: vec!["--cpus".into(), "2".into()],
            pv_words: vec!["--append".into(), "quiet".into()],
            hvm_words: vec!["--disk".into(), "nvme".into()],
            bios: "bios".into(),
            uefi: "/fw/OVMF.fd".into(),
            timeout: Duration::from_secs(90),
        }
    }

    #[test]
    fn modes_take_turns_after_a_warm_up() {
        let steps = plan().steps();
        let shown: Vec<String> = steps
            .iter()
            .map(|s| format!("{}{} {}", if s.warm_up { "(warm-up) " } else { "" }, s.cache, s.mode))
            .collect();
        let round = ["cold pv", "cold hvm", "warm pv", "warm hvm"];
        let expected: Vec<&str> =
            ["(warm-up) warm pv", "(warm-up) warm hvm"].into_iter().chain(round).chain(round).collect();
        assert_eq!(shown, expected);
        assert!((1..).zip(&steps).all(|(number, step)| step.number == number));
    }

    #[test]
    fn each_mode_has_its_words() {
        let words = |mode| plan().command(mode).join(" ");
        let rest = "--cpus 2 --timeout 1m30s --no-reboot --grace 0s";
        assert_eq!(words(Mode::Pv), format!("run disk.raw --net none --mode pv --append quiet {rest}"));
        assert_eq!(words(Mode::Hvm), format!("run disk.raw --net none --mode hvm --firmware bios --disk nvme {rest}"));
        assert!(
            words(Mode::HvmUefi).starts_with("run disk.raw --net none --mode hvm --firmware /fw/OVMF.fd --disk nvme")
        );
    }
}
