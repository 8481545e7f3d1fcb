//! What lets a user open the device that he may not open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::host::report::{Mend, shell_word};
use crate::host::root::Root;

/// Files of users and groups are read up to here; a directory service's are not in them anyway.
const ACCOUNTS_MAX: u64 = 1 << 20;
/// Joins a group; said by the shell of the person, who need not know his own name.
const ME: &str = "\"$(id -un)\"";

/// On whose behalf this process runs.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gids: Vec<u32>,
}

impl Caller {
    /// This process, with its effective ids.
    pub(super) fn this() -> Self {
        let mut gids: Vec<u32> = rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        gids.push(rustix::process::getegid().as_raw());
        Self { uid: rustix::process::geteuid().as_raw(), gids }
    }
}

/// What lets `caller` open `device`, which was refused with `cause`.
pub(super) fn mend(root: &Root, device: &Path, cause: &io::Error, caller: &Caller) -> Mend {
    // Owner and mode are refused with EACCES, and never to root; a container's device rules with EPERM.
    if cause.raw_os_error() == Some(libc::EPERM) || caller.uid == 0 {
        return Mend::tell(format!(
            "What keeps it away is not its owner but a container, a service or a `nodev` mount: start a container with \
             `--device {0}`, give a systemd service `DeviceAllow={0} rw`.",
            device.display()
        ));
    }
    let Ok(meta) = fs::metadata(device) else {
        return Mend::tell(format!(
            "Look at its directory: `ls -ld {}`.",
            shell_word(device.parent().unwrap_or(device))
        ));
    };
    let accounts = Accounts::read(root);
    let group = accounts.group_name(meta.gid()).filter(|name| *name != "root");
    let Some(group) = group else { return give_to_group(root, device, &accounts) };
    let join = format!("sudo usermod -aG {group} {ME}");
    let member = caller.gids.contains(&meta.gid());
    if meta.mode() & 0o060 != 0o060 {
        let open = format!("sudo chmod 660 {}", shell_word(device));
        return if member {
            Mend::run(&format!("Its group {group}, which this user is in, may not open it either"), open)
        } else {
            Mend::run_then(
                &format!("Open it to its group {group} and join that"),
                format!("{open} && {join}"),
                ", then log in again",
            )
        };
    }
    if accounts.lists(group, caller.uid) {
        let why = format!("This user has joined its group {group} since this session began: log in again, or");
        return Mend::run(&why, format!("newgrp {group}"));
    }
    Mend::run_then(&format!("Join its group {group}"), join, ", then log in again")
}

/// For a device that belongs to nobody but root.
fn give_to_group(root: &Root, device: &Path, accounts: &Accounts) -> Mend {
    let mut steps = Vec::new();
    if !accounts.has_group("kvm") {
        steps.push("sudo groupadd --system kvm".to_owned());
    }
    // The device is made anew at each start of the host.
    if root.has("/etc/udev/rules.d") {
        let rule = r#"KERNEL=="kvm", GROUP="kvm", MODE="0660""#;
        steps.push(format!("echo '{rule}' | sudo tee /etc/udev/rules.d/65-kvm.rules"));
    }
    let device = shell_word(device);
    steps.push(format!("sudo chgrp kvm {device} && sudo chmod 660 {device}"));
    steps.push(format!("sudo usermod -aG kvm {ME}"));
    Mend::run_then("Only root may: give it to the group kvm and join that", steps.join(" && "), ", then log in again")
}

/// The host's users and groups.
struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    fn read(root: &Root) -> Self {
        let read = |path| root.read(path, ACCOUNTS_MAX).unwrap_or_default();
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Lines of `name:password:id:members`, group(5); the name and the id stand at the same places in passwd(5).
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    /// A name that a shell takes as it is.
    fn group_name(&self, gid: u32) -> Option<&str> {
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        self.groups().find(|(name, id, _)| *id == gid && plain(name)).map(|(name, ..)| name)
    }

    fn has_group(&self, name: &str) -> bool {
        self.groups().any(|(n, ..)| n == name)
    }

    fn lists(&self, group: &str, uid: u32) -> bool {
        let user = self.passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse::<u32>().ok()? == uid).then_some(name)
        });
        user.is_some_and(|user| {
            self.groups().any(|(name, _, members)| name == group && members.split(',').any(|m| m == user))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A host whose device has this mode and this process's group, named as asked.
    fn host(mode: u32, group: &str) -> (TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["dev", "etc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let device = dir.path().join("dev/kvm");
        fs::write(&device, "").unwrap();
        fs::set_permissions(&device, fs::Permissions::from_mode(mode)).unwrap();
        let gid = fs::metadata(&device).unwrap().gid();
        fs::write(dir.path().join("etc/group"), format!("other:x:{}:\n{group}:x:{gid}:ann,bob\n", u32::MAX)).unwrap();
        fs::write(dir.path().join("etc/passwd"), "ann:x:4321:1::/:/bin/sh\n").unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn mended(root: &Root, errno: i32, uid: u32, member: bool) -> Mend {
        let device = root.path("/dev/kvm");
        let gids = if member { vec![fs::metadata(&device).unwrap().gid()] } else { vec![] };
        mend(root, &device, &io::Error::from_raw_os_error(errno), &Caller { uid, gids })
    }

    #[test]
    fn the_group_that_owns_it_is_joined() {
        let (_dir, root) = host(0o660, "kvm");
        let mend = mended(&root, libc::EACCES, 1234, false);
        assert_eq!(mend.command.unwrap(), "sudo usermod -aG kvm \"$(id -un)\"");
        assert!(mend.text.ends_with("then log in again."));
    }

    #[test]
    fn a_session_older_than_the_membership_is_told_so() {
        let (_dir, root) = host(0o660, "kvm");
        assert_eq!(mended(&root, libc::EACCES, 4321, false).command.unwrap(), "newgrp kvm");
    }

    #[test]
    fn a_group_that_may_not_is_let_in() {
        let (_dir, root) = host(0o600, "virt");
        let device = root.path("/dev/kvm").display().to_string();
        assert_eq!(mended(&root, libc::EACCES, 1234, true).command.unwrap(), format!("sudo chmod 660 {device}"));
        let command = mended(&root, libc::EACCES, 1234, false).command.unwrap();
        assert_eq!(command, format!("sudo chmod 660 {device} && sudo usermod -aG virt \"$(id -un)\""));
    }

    #[test]
    fn what_belongs_to_root_alone_is_given_to_a_group() {
        let (dir, root) = host(0o600, "root");
        let device = root.path("/dev/kvm").display().to_string();
        let command = mended(&root, libc::EACCES, 1234, false).command.unwrap();
        let shared =
            format!("sudo chgrp kvm {device} && sudo chmod 660 {device} && sudo usermod -aG kvm \"$(id -un)\"");
        assert_eq!(command, format!("sudo groupadd --system kvm && {shared}"));

        fs::create_dir_all(dir.path().join("etc/udev/rules.d")).unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\nkvm:x:103:\n").unwrap();
        let command = mended(&root, libc::EACCES, 1234, false).command.unwrap();
        let rule = r#"echo 'KERNEL=="kvm", GROUP="kvm", MODE="0660"' | sudo tee /etc/udev/rules.d/65-kvm.rules"#;
        assert_eq!(command, format!("{rule} && {shared}"));
    }

    #[test]
    fn root_and_containers_are_not_sent_to_a_group() {
        let (_dir, root) = host(0o660, "kvm");
        for mend in [mended(&root, libc::EPERM, 1234, false), mended(&root, libc::EACCES, 0, false)] {
            assert!(mend.text.contains("--device") && mend.command.is_none(), "{mend}");
        }
    }

    #[test]
    fn a_group_with_a_name_that_a_shell_would_act_on_is_not_named() {
        let (_dir, root) = host(0o660, "a;reboot");
        assert!(!mended(&root, libc::EACCES, 1234, false).text.contains("reboot"));
    }
}
