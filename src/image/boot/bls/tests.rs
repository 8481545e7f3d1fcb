use proptest::prelude::*;

use super::*;
use crate::image::boot::grubenv;
use crate::image::boot::testing::{FakeFiles, briefs};

const ID: &str = "d8d5b5d1e8f04c3c8a4a9f1b2c3d4e5f";

fn rhel8(version: &str) -> String {
    format!(
        "title Red Hat Enterprise Linux ({version}) 8.9 (Ootpa)\nversion {version}\nlinux /vmlinuz-{version}\n\
         initrd /initramfs-{version}.img $tuned_initrd\noptions $kernelopts $tuned_params\n\
         id rhel-{version}\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class kernel\n"
    )
}

fn variables(text: &str) -> BTreeMap<String, String> {
    grubenv::parse(text).into_iter().collect()
}

#[test]
fn rhel_with_kernelopts_newest_first() {
    let mut files = FakeFiles::new(&[2]);
    for version in ["0-rescue-aa", "4.18.0-9.el8.x86_64", "4.18.0-513.el8.x86_64"] {
        files = files.add(2, &format!("/loader/entries/{ID}-{version}.conf"), &rhel8(version));
    }
    let env = variables("saved_entry=x\nkernelopts=root=UUID=1 ro console=ttyS0,115200n8\n");
    let found = entries(&mut files, 2, "/loader/entries", &env);
    let line = |v: &str| {
        format!(
            "Red Hat Enterprise Linux ({v}) 8.9 (Ootpa) | 2:/vmlinuz-{v} | 2:/initramfs-{v}.img | \
             root=UUID=1 ro console=ttyS0,115200n8"
        )
    };
    assert_eq!(briefs(&found), ["4.18.0-513.el8.x86_64", "4.18.0-9.el8.x86_64", "0-rescue-aa"].map(line));
    assert_eq!(found[0].id.as_deref(), Some(&*format!("{ID}-4.18.0-513.el8.x86_64")));
    assert_eq!((found[0].source.line, found[0].kind), (3, EntryKind::Bls));
    let saved = format!("{ID}-4.18.0-9.el8.x86_64");
    assert_eq!(default(&mut files, 2, "/loader/entries", &found, Some(&saved)), Some(1));
    assert_eq!(default(&mut files, 2, "/loader/entries", &found, Some("gone")), Some(0));
}

#[test]
fn systemd_boot() {
    let entry = |key: &str, version: &str| {
        format!(
            "title T{version}\nsort-key {key}\nversion {version}\nlinux /m/{version}/linux\noptions a\noptions b \n"
        )
    };
    let mut files = FakeFiles::new(&[1])
        .add(1, "/loader/entries/z-1+3-0.conf", &entry("debian", "6.1"))
        .add(1, "/loader/entries/a-2.conf", &entry("debian", "6.10"))
        .add(1, "/loader/entries/other.conf", "linux /k\narchitecture aa64\n# comment\n")
        .add(1, "/loader/entries/uki.conf", "title U\nefi /EFI/u.efi\n")
        .add(1, "/loader/entries/readme", "linux /x")
        .add(1, "/loader/loader.conf", "timeout 3\ndefault z-*\n");
    let found = entries(&mut files, 1, "/loader/entries", &BTreeMap::new());
    assert_eq!(
        briefs(&found),
        ["T6.10 | 1:/m/6.10/linux |  | a b", "T6.1 | 1:/m/6.1/linux |  | a b", "other | 1:/k |  | "]
    );
    assert!(found[2].problem.as_ref().unwrap().contains("aa64"));
    assert_eq!(found[1].id.as_deref(), Some("z-1"));
    assert_eq!(default(&mut files, 1, "/loader/entries", &found, None), Some(1));
}

#[test]
fn paths_without_boot() {
    let mut files = FakeFiles::new(&[1])
        .add(1, "/boot/loader/entries/a.conf", "linux vmlinuz-1\ninitrd /initrd-1 /initrd-2\n")
        .add(1, "/boot/vmlinuz-1", "k")
        .add(1, "/initrd-1", "i");
    let found = entries(&mut files, 1, "/boot/loader/entries", &BTreeMap::new());
    assert_eq!(briefs(&found), ["a | 1:/boot/vmlinuz-1 | 1:/initrd-1 1:/initrd-2 | "]);
}

#[test]
fn expansion() {
    let env = variables("a=1\nb_2=x y\n");
    assert_eq!(expand("$a${a}-$b_2/$none$ ${none}$", &env), "11-x y/$ $");
}

proptest! {
    #[test]
    fn any_text(text in "((linux|initrd|options|title|version|sort-key|\\$|\\{|\\}|[a-z0-9]|\n| |\\PC){0,5}\n?){0,20}") {
        let mut files = FakeFiles::new(&[0]).add(0, "/e/a.conf", &text).add(0, "/e/b.conf", &text);
        let found = entries(&mut files, 0, "/e", &variables("a=$a$a\n"));
        prop_assert!(found.len() <= 2);
    }
}

#[test]
fn options_and_initrds_without_measure_are_a_problem() {
    let env = variables(&format!("x={}\ninitrds={}\n", "y".repeat(200_000), "/i ".repeat(1000)));
    let text = |line: &str| format!("linux /k\n{}", line.repeat(10_000));
    let mut files = FakeFiles::new(&[1]).add(1, "/loader/entries/a.conf", &text("options $x\n")).add(
        1,
        "/loader/entries/b.conf",
        &text("initrd $initrds\n"),
    );
    let found = entries(&mut files, 1, "/loader/entries", &env);
    let problems: Vec<_> = found.iter().rev().map(|d| d.problem.clone().unwrap_or_default()).collect();
    assert_eq!(problems, ["its options have more than 65536 bytes", "it names more than 64 initrds"]);
    assert!(found.iter().all(|d| d.cmdline.len() < 1 << 20 && d.initrds.len() <= 64));
}
