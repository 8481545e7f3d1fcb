#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use proptest::prelude::*;

use super::*;
use crate::image::boot::testing::{FakeFiles, brief, briefs};
use crate::image::testing::Random;

const DEBIAN: &str = include_str!("debian12.cfg");
const UBUNTU: &str = include_str!("ubuntu.cfg");
const FEDORA: &str = include_str!("fedora.cfg");
const CFG: &str = "/boot/grub/grub.cfg";

fn run(files: FakeFiles, partition: u32, text: &str) -> Menu {
    menu(&mut files.add(partition, CFG, text), partition, CFG).unwrap()
}

fn default_of(menu: &Menu) -> String {
    brief(&menu.drafts[menu.default.unwrap()])
}

fn titles(menu: &Menu) -> Vec<&str> {
    menu.drafts.iter().map(|d| d.title.as_str()).collect()
}

#[test]
fn debian() {
    let files = || FakeFiles::new(&[1, 14, 15]).uuid("ROOT-UUID", 1);
    let found = run(files(), 1, DEBIAN);
    assert_eq!(found.drafts.len(), 5);
    assert_eq!(
        default_of(&found),
        "Debian GNU/Linux | 1:/boot/vmlinuz-6.1.0-25-amd64 | 1:/boot/initrd.img-6.1.0-25-amd64 | \
         root=UUID=ROOT-UUID ro consoleblank=0 console=tty0 console=ttyS0,115200"
    );
    assert_eq!(found.drafts[3].id.as_deref(), Some("gnulinux-6.1.0-22-amd64-advanced-ROOT-UUID"));
    let line = DEBIAN.lines().position(|l| l.starts_with("menuentry")).unwrap() + 1;
    assert_eq!(found.drafts[0].source.line as usize, line);
    // The default in every form that the manual gives.
    for default in [
        "1>2",
        "gnulinux-advanced-ROOT-UUID>gnulinux-6.1.0-22-amd64-advanced-ROOT-UUID",
        "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-22-amd64",
        "1>gnulinux-6.1.0-22-amd64-advanced-ROOT-UUID",
    ] {
        let text = DEBIAN.replace("set default=\"0\"", &format!("set default=\"{default}\""));
        assert!(
            default_of(&run(files(), 1, &text)).starts_with("Debian GNU/Linux, with Linux 6.1.0-22-amd64 |"),
            "{default}"
        );
    }
    // The submenu itself means its first entry; what is not there means the first of all.
    let text = |default: &str| DEBIAN.replace("set default=\"0\"", &format!("set default=\"{default}\""));
    assert_eq!(run(files(), 1, &text("1")).default, Some(1));
    assert_eq!(run(files(), 1, &text("nonsense>2")).default, Some(0));
    assert_eq!(run(files(), 1, &text("7")).default, Some(0));
}

#[test]
fn grubenv_chooses() {
    let env = "# GRUB Environment Block\nsaved_entry=1>0\n#####";
    let files = || FakeFiles::new(&[1]).uuid("ROOT-UUID", 1);
    let saved = DEBIAN.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
    assert_eq!(run(files().add(1, "/boot/grub/grubenv", env), 1, &saved).default, Some(1));
    assert_eq!(run(files(), 1, &saved).default, Some(0));
    let next = files().add(1, "/boot/grub/grubenv", "next_entry=1>3\nsaved_entry=0\n");
    assert_eq!(run(next, 1, &saved).default, Some(4));
}

#[test]
fn ubuntu_tries_without_initrd_first() {
    let found = run(FakeFiles::new(&[1, 14, 15, 16]).uuid("BOOT", 16), 1, UBUNTU);
    let kernel = "16:/vmlinuz-6.8.0-1008-aws";
    let options = "root=PARTUUID=4986e35b-01 ro console=tty1 console=ttyS0 nvme_core.io_timeout=4294967295";
    assert_eq!(
        briefs(&found.drafts),
        [
            format!("Ubuntu | {kernel} |  | {options} panic=-1"),
            format!("Ubuntu (with initrd) | {kernel} | 16:/microcode.cpio 16:/initrd.img-6.8.0-1008-aws | {options}"),
            format!("Ubuntu, with Linux 6.8.0-1008-aws |  {kernel} |  | {options} panic=-1").replace("|  16", "| 16"),
            format!(
                "Ubuntu, with Linux 6.8.0-1008-aws (with initrd) | {kernel} | \
                 16:/microcode.cpio 16:/initrd.img-6.8.0-1008-aws | {options}"
            ),
        ]
    );
    assert_eq!((found.default, found.drafts[0].retry, found.drafts[1].retry), (Some(0), Some(1), None));
}

#[test]
fn fedora_with_blscfg() {
    let entry = |v: &str| {
        format!(
            "title Fedora Linux ({v})\nversion {v}\nlinux /vmlinuz-{v}\ninitrd /initramfs-{v}.img\noptions $kernelopts\n"
        )
    };
    let files = |env: &str| {
        FakeFiles::new(&[1, 2, 3, 4])
            .uuid("BOOT", 3)
            .add(3, "/loader/entries/m-6.5.6-300.fc39.x86_64.conf", &entry("6.5.6-300.fc39.x86_64"))
            .add(3, "/loader/entries/m-6.11.4-100.fc39.x86_64.conf", &entry("6.11.4-100.fc39.x86_64"))
            .add(3, "/grub2/grubenv", env)
            .add(3, "/grub2/grub.cfg", FEDORA)
    };
    let found = menu(&mut files("saved_entry=m-6.5.6-300.fc39.x86_64\n"), 3, "/grub2/grub.cfg").unwrap();
    assert_eq!(titles(&found), ["Fedora Linux (6.11.4-100.fc39.x86_64)", "Fedora Linux (6.5.6-300.fc39.x86_64)"]);
    assert_eq!(
        default_of(&found),
        "Fedora Linux (6.5.6-300.fc39.x86_64) | 3:/vmlinuz-6.5.6-300.fc39.x86_64 | \
         3:/initramfs-6.5.6-300.fc39.x86_64.img | root=UUID=ROOT ro rootflags=subvol=root no_timer_check console=ttyS0"
    );
    let found = menu(&mut files("kernelopts=root=/dev/vda4 ro\n"), 3, "/grub2/grub.cfg").unwrap();
    assert!(default_of(&found).ends_with(
        "(6.11.4-100.fc39.x86_64) | 3:/vmlinuz-6.11.4-100.fc39.x86_64 | \
         3:/initramfs-6.11.4-100.fc39.x86_64.img | root=/dev/vda4 ro"
    ));
    // The file on the EFI system partition only leads there.
    let esp = "search --no-floppy --root-dev-only --fs-uuid --set=dev BOOT\nset prefix=($dev)/grub2\n\
               export $prefix\nconfigfile $prefix/grub.cfg\n";
    let mut files = files("").add(2, "/EFI/fedora/grub.cfg", esp);
    let found = menu(&mut files, 2, "/EFI/fedora/grub.cfg").unwrap();
    assert_eq!((found.drafts.len(), found.drafts[0].source.path.starts_with("/loader/entries/")), (2, true));
    let debian = "search.fs_uuid BOOT root hd0,gpt1 \nset prefix=($root)'/grub2'\nconfigfile $prefix/grub.cfg\n";
    let mut files = files.add(2, "/EFI/debian/grub.cfg", debian);
    assert_eq!(menu(&mut files, 2, "/EFI/debian/grub.cfg").unwrap().drafts.len(), 2);
}

#[test]
fn devices_quoting_and_kinds_of_commands() {
    let text = r#"
set root='hd0,msdos2'
set a="x y"
menuentry "A \"quoted\" ${a}" { linux16 /k one "two  three" $a 'it'\''s'; initrd16 (hd0,gpt1)/i1 ($root)/i2 }
menuentry other --id=o --class x { chainloader +1 }
menuentry 'multi' { multiboot /xen ; module /k }
for n in 1 2; do
  menuentry "loop $n" { linuxefi /k$n ; }
done
if [ "$a" = "x y" -a ! -f /none ]; then menuentry yes { search --set root --label L; linux /yes; } fi
if keystatus --shift; then menuentry no { linux /no; } fi
while true; do menuentry never { linux /never; }; done
menuentry 'elsewhere' { linux (hd7,1)/k }
function f { menuentry "from function" { linux /f $1; } }
f
"#;
    let mut files = FakeFiles::new(&[1, 2, 3]).add(2, "/boot/grub/grub.cfg", text);
    files.labels.push(("L".to_owned(), 3));
    let found = menu(&mut files, 2, CFG).unwrap();
    assert_eq!(
        briefs(&found.drafts),
        [
            "A \"quoted\" x y | 2:/k | 1:/i1 2:/i2 | one \"two  three\" x y it\\'s",
            "loop 1 | 2:/k1 |  | ",
            "loop 2 | 2:/k2 |  | ",
            "yes | 3:/yes |  | ",
            "elsewhere | 0:(hd7,1)/k |  | ",
            "from function | 2:/f |  | ",
        ]
    );
    assert!(found.drafts[4].problem.as_ref().unwrap().contains("(hd7,1)/k is not on this disk"));
}

#[test]
fn endless_scripts_end() {
    let menuentry = "menuentry a { linux /k }\n";
    for text in [
        "source $prefix/grub.cfg\n",
        "function f {\n f\n f\n}\nf\n",
        "set a=xxxxxxxxxx\nfor i in 1 2 3 4 5 6 7 8 9 10; do for j in 1 2 3 4 5 6 7 8 9 10; do set a=$a$a$a$a; done; done\n",
        "function a { true; true; true; true; }\nfunction b { a; a; a; a; a; a; a; a; a; a; }\n\
         function c { b; b; b; b; b; b; b; b; b; b; }\nfunction d { c; c; c; c; c; c; c; c; c; c; }\n\
         function e { d; d; d; d; d; d; d; d; d; d; }\ne; e; e; e; e; e; e; e; e; e;\n",
    ] {
        let found = run(FakeFiles::new(&[1]), 1, &format!("{menuentry}{text}"));
        assert!(!found.drafts.is_empty());
    }
    let many = run(FakeFiles::new(&[1]), 1, &menuentry.repeat(5000));
    assert_eq!(many.drafts.len(), 512);
    let deep = "submenu s {\n".repeat(2000);
    assert!(run(FakeFiles::new(&[1]), 1, &deep).drafts.is_empty());
}

/// Each of these would take more memory, or more time, than any machine has, if only commands were counted.
#[test]
fn costly_scripts_end() {
    let words = "x ".repeat(30_000);
    let long = "y".repeat(60_000);
    let function = format!("function f {{\n{}}}\n", "true a b c d e f g h\n".repeat(20_000));
    let many = "1 ".repeat(20_000);
    for text in [
        format!("set a=\"{words}\"\necho {}\n", "$a ".repeat(100_000)),
        format!("set a={long}\necho {}\n", "\"$a\" ".repeat(50_000)),
        format!(
            "set a=\"{words}\"\nfor i in $a $a $a $a; do for j in $a $a $a $a; do for k in $a; do true; done; done; done\n"
        ),
        format!("for i in {many}; do for j in {many}; do {function} done; done\n"),
    ] {
        let found = run(FakeFiles::new(&[1]), 1, &format!("menuentry a {{ linux /k }}\n{text}"));
        assert_eq!(found.drafts.len(), 1);
    }
}

#[test]
fn entries_of_the_specification_are_counted_however_often_they_are_listed() {
    let mut files = FakeFiles::new(&[1]);
    for number in 0..200 {
        files = files.add(1, &format!("/loader/entries/{number}.conf"), "linux /k\noptions $a $a $a $a\n");
    }
    let script = format!("set a={}\nfor i in {}; do blscfg; done\n", "z".repeat(60_000), "1 ".repeat(10_000));
    let found = run(files, 1, &script);
    assert!(found.drafts.len() <= 512, "{}", found.drafts.len());
}

#[test]
fn an_entry_with_very_many_initrds_has_a_problem() {
    let initrds: String = (0..300_000).map(|n| format!("/{n} ")).collect();
    let found =
        run(FakeFiles::new(&[1]), 1, &format!("menuentry a {{\n linux /k\n initrd {}\n}}", &initrds[..900_000]));
    assert_eq!(found.drafts[0].initrds.len(), 64);
    assert_eq!(found.drafts[0].problem.as_deref(), Some("it names more than 64 initrds"));
}

#[test]
fn a_hint_may_be_a_word_of_its_own() {
    let script = "search --no-floppy --set=root --hint hd0,gpt9 --fs-uuid AB\nmenuentry a { linux /k }\n";
    let found = run(FakeFiles::new(&[1, 3]).uuid("AB", 3), 1, script);
    assert_eq!(briefs(&found.drafts), ["a | 3:/k |  | "]);
}

#[test]
fn mutated_scripts_never_panic() {
    let mut random = Random(11);
    for round in 0..200 {
        let mut text = [DEBIAN, UBUNTU, FEDORA][round % 3].as_bytes().to_vec();
        for _ in 0..=random.below(20) {
            let at = random.below(text.len());
            match random.below(3) {
                0 => text[at] = b"{}'\"$\\\n;#[]>= "[random.below(14)],
                1 => drop(text.drain(at..(at + random.below(200)).min(text.len()))),
                _ => {
                    let piece = text[at..(at + random.below(300)).min(text.len())].to_vec();
                    let to = random.below(text.len());
                    text.splice(to..to, piece);
                }
            }
        }
        let found = run(FakeFiles::new(&[1, 3]).uuid("BOOT", 3), 1, &String::from_utf8_lossy(&text));
        assert!(found.drafts.len() <= 1024 && found.default.is_none_or(|i| i < found.drafts.len()));
    }
}

proptest! {
    #[test]
    fn any_script(text in "((if|then|else|elif|fi|menuentry|submenu|function|for|in|do|done|set|linux|source|\\{|\\}|\\[|\\]|'|\"|\\$|\\\\|;|=|/|a|1|\n| ){0,40}\n?){0,10}") {
        run(FakeFiles::new(&[1]), 1, &text);
    }
}
