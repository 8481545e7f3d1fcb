//! Who logs in to a system: the user that its cloud-init makes.

use super::fs::Tree;

/// Where cloud-init's configuration is: a file, and a directory of files that change it, in the order of their names.
const FILE: &str = "/etc/cloud/cloud.cfg";
const DIRECTORY: &str = "/etc/cloud/cloud.cfg.d";
/// The largest file that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// The most files that are read.
const MAX_FILES: usize = 64;
/// The longest name of a user (useradd(8)).
const MAX_NAME: usize = 32;

/// The user, where the configuration says one.
pub(super) fn find(tree: &mut Tree) -> Option<String> {
    let mut names = tree.list(DIRECTORY).unwrap_or_default();
    names.retain(|name| name.ends_with(".cfg"));
    names.sort();
    let changes = names.iter().take(MAX_FILES).map(|name| format!("{DIRECTORY}/{name}"));
    let mut found = None;
    for path in std::iter::once(FILE.to_owned()).chain(changes) {
        let Ok(bytes) = tree.read(&path, MAX_TEXT) else { continue };
        // What comes later counts.
        found = of_text(&String::from_utf8_lossy(&bytes)).or(found);
    }
    found
}

/// The name below `default_user:` in YAML as people and packages write it.
fn of_text(text: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let section = lines.by_ref().find(|line| line.trim_end().trim_start() == "default_user:")?;
    let depth = indent(section);
    let mut within = lines.take_while(|line| indent(line) > depth);
    let value = within.find_map(|line| line.trim_start().strip_prefix("name:"))?;
    let name = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    let is_name = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && !name.starts_with('-');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found_as_packages_write_it() {
        let debian = "users:\n   - default\n\nsystem_info:\n   # This\n   distro: debian\n   default_user:\n     name: debian\n     \
                      lock_passwd: True\n   paths:\n      name: x\n";
        assert_eq!(of_text(debian).as_deref(), Some("debian"));
        assert_eq!(
            of_text("system_info:\n  default_user:\n    gecos: X\n    name: \"ec2-user\" # as ever\n").as_deref(),
            Some("ec2-user")
        );
        for none in [
            "",
            "default_user:",
            "system_info:\n  default_user:\n  name: x\n",
            "default_user:\n  name: -oProxyCommand=x\n",
            "default_user:\n  name: a b\n",
            "default_user:\n  gecos: x\n",
        ] {
            assert_eq!(of_text(none), None, "{none}");
        }
        assert_eq!(of_text(&format!("default_user:\n  name: {}\n", "x".repeat(33))), None);
    }
}
