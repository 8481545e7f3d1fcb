//! Which partition is what: the root, `/boot`, the EFI system partition; and what system is on the root.

use super::fs::Tree;
use super::inspection::OsRelease;
use super::kernel::{self, Architecture};
use super::login;
use super::partition::{TYPE_ESP, TYPE_ROOT_X86, TYPE_ROOT_X86_64, TYPE_XBOOTLDR};
use super::volumes::{Volume, Volumes};

/// The largest text file of the system that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const INIT: [&str; 5] =
    ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/sbin/init", "/bin/init"];
/// Programs whose ELF header shows what the system was built for.
const PROGRAMS: [&str; 10] = [
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/sbin/init",
    "/usr/sbin/init",
    "/bin/sh",
    "/usr/bin/sh",
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/bash",
    "/usr/bin/ls",
];

/// The roles of a disk's partitions, by number.
#[derive(Debug, Default, Clone)]
pub(super) struct Layout {
    pub root: Option<u32>,
    pub boot: Option<u32>,
    pub esp: Option<u32>,
    pub os: Option<OsRelease>,
    pub login_user: Option<String>,
    pub architecture: Option<Architecture>,
    pub mounts: Vec<(u32, &'static str)>,
}

/// Finds the roles.
pub(super) fn find(volumes: &mut Volumes) -> Layout {
    let esp = find_esp(volumes);
    let root = find_root(volumes, esp);
    let mut layout = Layout { root, esp, ..Layout::default() };
    if let Some(root) = root {
        layout.mounts.push((root, "/"));
        if let Ok(tree) = volumes.tree(root) {
            layout.os = os_release(tree);
            layout.login_user = login::find(tree);
            layout.architecture = architecture(tree);
        }
    }
    layout.boot = find_boot(volumes, root);
    if let Some(boot) = layout.boot.filter(|&b| Some(b) != root) {
        layout.mounts.push((boot, "/boot"));
    }
    if let Some(esp) = esp.filter(|&e| Some(e) != layout.boot && Some(e) != root) {
        layout.mounts.push((esp, "/boot/efi"));
    }
    layout
}

fn has_type(volume: &Volume, types: &[&str]) -> bool {
    volume.slot.type_id.as_deref().is_some_and(|t| types.contains(&t))
}

/// The EFI system partition by its type; without one, a FAT volume with an EFI directory (the firmware looks for it on
/// removable media in any FAT volume).
pub(super) fn find_esp(volumes: &mut Volumes) -> Option<u32> {
    let by_type = volumes.all.iter().find(|v| has_type(v, &[TYPE_ESP, "0xef"])).map(|v| v.slot.number);
    let fat = |v: &&Volume| v.identity.as_ref().is_some_and(|i| i.kind == "vfat");
    let candidates: Vec<u32> = volumes.all.iter().filter(fat).map(|v| v.slot.number).collect();
    by_type.or_else(|| candidates.into_iter().find(|&n| volumes.tree(n).is_ok_and(|tree| tree.is_dir("/EFI"))))
}

/// The partition that looks most like a system's root: by its content and, among equals, by its type. The first wins.
fn find_root(volumes: &mut Volumes, esp: Option<u32>) -> Option<u32> {
    let mut best: Option<(u32, u32)> = None;
    let typed: Vec<(u32, bool)> = (volumes.all.iter())
        .filter(|v| v.identity.is_some() && Some(v.slot.number) != esp)
        .map(|v| (v.slot.number, has_type(v, &[TYPE_ROOT_X86_64, TYPE_ROOT_X86])))
        .collect();
    for (number, root_type) in typed {
        let Ok(tree) = volumes.tree(number) else { continue };
        let release = OS_RELEASE.iter().any(|p| tree.exists(p));
        let init = INIT.iter().any(|p| tree.exists(p));
        // A root from before os-release has at least this.
        let skeleton = tree.is_dir("/etc") && (tree.exists("/bin") || tree.exists("/usr"));
        let content = u32::from(release) * 4 + u32::from(init) * 4 + u32::from(skeleton) * 2;
        let score = if content > 0 { content * 2 + u32::from(root_type) } else { 0 };
        if score > best.map_or(0, |(score, _)| score) {
            best = Some((score, number));
        }
    }
    best.map(|(_, number)| number)
}

/// `/boot`: what the root's fstab says, else a partition of that type, else one that holds a boot loader's files.
fn find_boot(volumes: &mut Volumes, root: Option<u32>) -> Option<u32> {
    if let Some(root) = root {
        let fstab = volumes.tree(root).ok().and_then(|t| t.read("/etc/fstab", MAX_TEXT).ok()).unwrap_or_default();
        let fstab = String::from_utf8_lossy(&fstab);
        let named = fstab_device(&fstab, "/boot").and_then(|device| by_device(volumes, device));
        if named.is_some() {
            return named;
        }
    }
    let has_kernels = |tree: &mut Tree, dir: &str| {
        let names = tree.list(dir).unwrap_or_default();
        names.iter().any(|n| n.starts_with("vmlinuz") || n.starts_with("vmlinux") || n.starts_with("bzImage"))
    };
    if let Some(root) = root
        && let Ok(tree) = volumes.tree(root)
        && has_kernels(tree, "/boot")
    {
        return Some(root);
    }
    let others = volumes.all.iter().filter(|v| Some(v.slot.number) != root && v.identity.is_some());
    let mut others: Vec<(bool, u32)> = others.map(|v| (!has_type(v, &[TYPE_XBOOTLDR]), v.slot.number)).collect();
    others.sort_unstable();
    let found = others.into_iter().find(|&(_, number)| {
        volumes.tree(number).is_ok_and(|tree| {
            let loader = ["/grub", "/grub2", "/loader"].iter().any(|dir| tree.is_dir(dir));
            loader && has_kernels(tree, "/")
        })
    });
    found.map(|(_, number)| number).or(root)
}

/// The device that fstab(5) mounts at `mount_point`.
fn fstab_device<'a>(fstab: &'a str, mount_point: &str) -> Option<&'a str> {
    fstab.lines().find_map(|line| {
        let mut fields = line.split('#').next()?.split_ascii_whitespace();
        let device = fields.next()?;
        (fields.next()? == mount_point).then_some(device)
    })
}

/// The partition that a device specification of fstab(5) or `root=` means, as far as one disk can tell: by UUID, label,
/// PARTUUID, PARTLABEL, or by the number at the end of a device name.
fn by_device(volumes: &Volumes, device: &str) -> Option<u32> {
    let unquoted = |s: &str| s.trim_matches('"').to_owned();
    let matches = |v: &&Volume| {
        let id = v.identity.as_ref();
        let same = |a: Option<&String>, b: &str| a.is_some_and(|a| a.eq_ignore_ascii_case(&unquoted(b)));
        match device.split_once('=') {
            Some(("UUID", uuid)) => same(id.and_then(|i| i.uuid.as_ref()), uuid),
            Some(("LABEL", label)) => id.and_then(|i| i.label.as_deref()) == Some(unquoted(label).as_str()),
            Some(("PARTUUID", uuid)) => same(v.slot.partuuid.as_ref(), uuid),
            Some(("PARTLABEL", label)) => v.slot.label.as_deref() == Some(unquoted(label).as_str()),
            _ => {
                // The number at the end; a name that ends otherwise, as /dev/sda does, gives none.
                let name = device.strip_prefix("/dev/").unwrap_or_default();
                let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                digits.parse() == Ok(v.slot.number)
            }
        }
    };
    volumes.all.iter().find(matches).map(|v| v.slot.number)
}

fn os_release(tree: &mut Tree) -> Option<OsRelease> {
    let text = OS_RELEASE.iter().find_map(|path| tree.read(path, MAX_TEXT).ok())?;
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| {
        let value = text.lines().rev().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='))?;
        let value: String = value.trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(200).collect();
        (!value.is_empty()).then_some(value)
    };
    Some(OsRelease {
        id: field("ID"),
        id_like: field("ID_LIKE"),
        version_id: field("VERSION_ID"),
        pretty_name: field("PRETTY_NAME"),
    })
}

fn architecture(tree: &mut Tree) -> Option<Architecture> {
    PROGRAMS.iter().find_map(|path| {
        let (head, _) = tree.head(path, 64).ok()?;
        kernel::program_architecture(&head).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab() {
        let text = "# /etc/fstab\nUUID=1 / ext4 defaults 0 1\n\n LABEL=BOOT\t/boot ext4 defaults 0 2 # x\n/dev/x none swap sw\n";
        assert_eq!(fstab_device(text, "/boot"), Some("LABEL=BOOT"));
        assert_eq!(fstab_device(text, "/"), Some("UUID=1"));
        assert_eq!(fstab_device(text, "/home"), None);
    }
}
