//! What a look at the host finds, in words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

/// What mends something: a sentence, and the command in it where one command does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// The whole sentence, the command in backticks.
    pub text: String,
    /// The command alone, to be given to a shell as it is.
    pub command: Option<String>,
}

impl Mend {
    /// A sentence of the form "`why`: `command`."
    #[must_use]
    pub fn run(why: &str, command: impl Into<String>) -> Self {
        Self::run_then(why, command, "")
    }

    /// The same, with what there is to do after it.
    #[must_use]
    pub fn run_then(why: &str, command: impl Into<String>, then: &str) -> Self {
        let command = command.into();
        Self { text: format!("{why}: `{command}`{then}."), command: Some(command) }
    }

    /// What no command on this host does.
    #[must_use]
    pub fn tell(text: impl Into<String>) -> Self {
        Self { text: text.into(), command: None }
    }

    /// Installs a Debian package.
    #[must_use]
    pub fn install(packages: &str) -> Self {
        Self::run("Install it", format!("sudo apt-get install -y {packages}"))
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not there, and not needed to run guests.
    Note,
    /// Guests run, but something about them will not go well.
    Warning,
    /// No guest can run.
    Problem,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The machine and its kernel.
    Host,
    /// The hypervisor.
    Kvm,
    /// Where files are kept.
    Storage,
    /// Firmware for guests.
    Firmware,
    /// Programs that help.
    Tools,
}

impl Group {
    /// A name that stays the same from version to version.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kvm => "kvm",
            Self::Storage => "storage",
            Self::Firmware => "firmware",
            Self::Tools => "tools",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A name that stays the same from version to version, without the group's.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
    /// How bad it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What mends it; a problem always has one.
    pub mend: Option<Mend>,
    /// The numbers in it. Names ending in `_bytes` are sizes.
    pub figures: BTreeMap<&'static str, u64>,
}

impl Finding {
    fn new(group: Group, name: &'static str, state: State, seen: impl Into<String>, mend: Option<Mend>) -> Self {
        Self { name, group, state, seen: seen.into(), mend, figures: BTreeMap::new() }
    }

    /// As it should be.
    #[must_use]
    pub fn ok(group: Group, name: &'static str, seen: impl Into<String>) -> Self {
        Self::new(group, name, State::Ok, seen, None)
    }

    /// By the way.
    #[must_use]
    pub fn note(group: Group, name: &'static str, seen: impl Into<String>, mend: Option<Mend>) -> Self {
        Self::new(group, name, State::Note, seen, mend)
    }

    /// Something to look at.
    #[must_use]
    pub fn warning(group: Group, name: &'static str, seen: impl Into<String>, mend: Mend) -> Self {
        Self::new(group, name, State::Warning, seen, Some(mend))
    }

    /// What keeps guests from running.
    #[must_use]
    pub fn problem(group: Group, name: &'static str, seen: impl Into<String>, mend: Mend) -> Self {
        Self::new(group, name, State::Problem, seen, Some(mend))
    }

    /// Adds a number.
    #[must_use]
    pub fn with(mut self, name: &'static str, figure: u64) -> Self {
        self.figures.insert(name, figure);
        self
    }
}

/// Bytes for people, in a binary unit.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    let number = format!("{value:.1}");
    format!("{} {unit}", number.strip_suffix(".0").unwrap_or(&number))
}

/// A path as a word of a shell's command.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_holds_its_command() {
        let mend = Mend::run_then("Join its group", "sudo true", ", then log in again");
        assert_eq!(mend.to_string(), "Join its group: `sudo true`, then log in again.");
        assert_eq!(mend.command.as_deref(), Some("sudo true"));
    }

    #[test]
    fn odd_paths_are_quoted() {
        let word = |text| shell_word(Path::new(text));
        assert_eq!(word("/var/tmp"), "/var/tmp");
        assert_eq!(word("/a b/$(x)'s"), r"'/a b/$(x)'\''s'");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!((bytes(0), bytes(3 << 29)), ("0 B".into(), "1.5 GiB".into()));
        assert_eq!((bytes((100 << 30) + 1), bytes(u64::MAX)), ("100 GiB".into(), "16777216 TiB".into()));
    }
}
