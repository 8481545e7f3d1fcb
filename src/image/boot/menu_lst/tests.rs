use proptest::prelude::*;

use super::*;
use crate::image::boot::testing::{FakeFiles, briefs};

const AMAZON_LINUX: &str = "# created by imagebuilder
default=0
timeout=0
hiddenmenu

title Amazon Linux 2018.03 (4.14.77-70.59.amzn1.x86_64)
root (hd0,0)
kernel /boot/vmlinuz-4.14.77-70.59.amzn1.x86_64 root=LABEL=/ console=tty1 console=ttyS0 selinux=0
initrd /boot/initramfs-4.14.77-70.59.amzn1.x86_64.img
";

const PV_GRUB: &str = "default         saved
fallback 1
timeout 3
color cyan/blue white/blue
### BEGIN AUTOMAGIC KERNELS LIST
## lines between the AUTOMAGIC KERNELS LIST markers will be modified
# kopt=root=/dev/xvda1 ro

title\t\tUbuntu 12.04.5 LTS, kernel 3.2.0-67-virtual
root\t\t(hd0)
kernel\t\t/boot/vmlinuz-3.2.0-67-virtual root=LABEL=cloudimg-rootfs ro  console=hvc0
initrd\t\t/boot/initrd.img-3.2.0-67-virtual
savedefault

title Memory test
chainloader +1

title\t\tUbuntu 12.04.5 LTS, kernel 3.2.0-67-virtual (recovery mode)
uuid\t\tabc
kernel\t\t--no-mem-option /boot/vmlinuz-3.2.0-67-virtual root=LABEL=cloudimg-rootfs ro  single
initrd\t\t/boot/initrd.img-3.2.0-67-virtual

title Xen
root (hd0,0)
kernel /boot/xen.gz dom0_mem=1G
module /boot/vmlinuz root=/dev/sda1
";

#[test]
fn amazon_linux() {
    let mut files = FakeFiles::new(&[1]).add(1, "/boot/grub/menu.lst", AMAZON_LINUX);
    let (drafts, default) = menu(&mut files, 1, "/boot/grub/menu.lst").unwrap();
    assert_eq!(
        briefs(&drafts),
        ["Amazon Linux 2018.03 (4.14.77-70.59.amzn1.x86_64) | 1:/boot/vmlinuz-4.14.77-70.59.amzn1.x86_64 | \
          1:/boot/initramfs-4.14.77-70.59.amzn1.x86_64.img | root=LABEL=/ console=tty1 console=ttyS0 selinux=0"]
    );
    assert_eq!((default, drafts[0].source.line, drafts[0].kind), (Some(0), 6, EntryKind::MenuLst));
}

#[test]
fn an_unpartitioned_disk_for_pv_grub() {
    let mut files = FakeFiles::new(&[0]).add(0, "/boot/grub/menu.lst", PV_GRUB).uuid("abc", 0);
    let (drafts, default) = menu(&mut files, 0, "/boot/grub/menu.lst").unwrap();
    let kernel = "0:/boot/vmlinuz-3.2.0-67-virtual | 0:/boot/initrd.img-3.2.0-67-virtual";
    assert_eq!(
        briefs(&drafts),
        [
            format!(
                "Ubuntu 12.04.5 LTS, kernel 3.2.0-67-virtual | {kernel} | root=LABEL=cloudimg-rootfs ro  console=hvc0"
            ),
            format!(
                "Ubuntu 12.04.5 LTS, kernel 3.2.0-67-virtual (recovery mode) | {kernel} | \
                 root=LABEL=cloudimg-rootfs ro  single"
            ),
            "Xen | 0:/boot/xen.gz |  | dom0_mem=1G".to_owned(),
        ]
    );
    assert_eq!(default, Some(0));
    assert!(drafts[2].problem.as_ref().unwrap().contains("Xen"));
    // The line that boots something else counts for the numbers.
    let mut files = files.add(0, "/boot/grub/default", "2\n#\n#\n");
    assert_eq!(menu(&mut files, 0, "/boot/grub/menu.lst").unwrap().1, Some(1));
}

#[test]
fn defaults_and_devices() {
    let text =
        "default 9\nfallback=1\nroot (hd0,1)\ntitle a\nkernel /a\ntitle b\nroot (hd0,0)\nkernel (hd0,2)/b x=y z\n";
    let mut files = FakeFiles::new(&[1, 2, 3]).add(1, "/grub/grub.conf", text);
    let (drafts, default) = menu(&mut files, 1, "/grub/grub.conf").unwrap();
    assert_eq!(briefs(&drafts), ["a | 2:/a |  | ", "b | 3:/b |  | x=y z"]);
    assert_eq!(default, Some(1), "what is not there gives way to the fallback");
    assert!(menu(&mut files, 1, "/none").is_none());
}

proptest! {
    #[test]
    fn any_text(text in "((title|kernel|root|default|initrd|uuid|--|\\(hd0,|[0-9]|\\)|/|=|\n| |\\PC){0,4}\n?){0,30}") {
        let mut files = FakeFiles::new(&[0]).add(0, "/m", &text);
        let (drafts, default) = menu(&mut files, 0, "/m").unwrap();
        prop_assert!(default.is_none_or(|i| i < drafts.len()));
        prop_assert_eq!(default.is_some(), !drafts.is_empty());
    }
}

#[test]
fn very_many_initrds_are_a_problem() {
    let text = format!("title a\nkernel /k\n{}", "initrd /i /j\n".repeat(50_000));
    let (drafts, _) =
        menu(&mut FakeFiles::new(&[1]).add(1, "/boot/grub/menu.lst", &text), 1, "/boot/grub/menu.lst").unwrap();
    assert_eq!(drafts[0].initrds.len(), 64);
    assert_eq!(drafts[0].problem.as_deref(), Some("it names more than 64 initrds"));
}
