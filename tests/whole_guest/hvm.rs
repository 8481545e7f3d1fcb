//! HVM guests: disks that boot by their own loaders, under Debian's SeaBIOS and OVMF.

use std::path::Path;

use crate::support::testbed::{Done, ami, run_with};

const FIRMWARE: [(&str, &str); 2] = [("bios", "/usr/share/seabios/bios-256k.bin"), ("uefi", "/usr/share/ovmf/OVMF.fd")];

/// Runs a script with the image as `$FILES/disk.raw`, the firmware as `$FILES/bios` and `$FILES/uefi`, and
/// `hvm TASK OPTION...`, which boots the tiny image: its task comes with a volume, as its boot loader gives it none.
fn hvm(image: &str, options: &[&str], script: &str) -> Done {
    let disk = ami(image);
    let mut files = vec![("disk.raw", disk.as_path())];
    files.extend(FIRMWARE.map(|(name, path)| (name, Path::new(path))));
    let functions = r#"
        task() { echo "do=$1" >task; truncate -s 1M task; echo "--bdm /dev/sdf=task,read-only"; }
        hvm() { t=$1; shift; amiboot run $FILES/disk.raw --mode hvm $(task $t) --timeout 300s "$@"; echo "$t: exit=$?"; }
        seen() { until grep -aq "$1" $2; do kill -0 $pid || break; sleep 0.2; done; }"#;
    run_with(options, &files, 550, &format!("{functions}\n{script}"))
}

/// The value behind a name at the beginning of a line.
#[track_caller]
fn number(done: &Done, name: &str) -> u64 {
    let value = done.text.lines().find_map(|line| line.trim().strip_prefix(name));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}:\n{}", done.text))
}

fn boots_by_its_own_loader(firmware: &str, interface: &str, shown: &[&str]) {
    let script =
        format!("hvm poweroff --firmware $FILES/{firmware} --disk {interface} --cpus 2 --boot-report $OUT/report.json");
    let done = hvm("tiny", &[], &script);
    done.shows("poweroff: exit=0");
    done.shows("Booting `amiboot tiny'");
    done.shows("tiny: cpus=2");
    done.shows("tiny: dmi=ec2|Amazon EC2|t3.micro|Amazon EC2|Amazon EC2");
    shown.iter().for_each(|text| done.shows(text));
    let report = done.json("report.json");
    assert_eq!((&report["mode"], &report["outcome"]), (&"hvm".into(), &"powered-off".into()));
}

#[test]
fn a_disk_boots_under_bios_from_virtio() {
    boots_by_its_own_loader("bios", "virtio", &["SeaBIOS", "tiny: root=/dev/vda1"]);
}

#[test]
fn a_disk_boots_under_bios_from_nvme() {
    boots_by_its_own_loader("bios", "nvme", &["SeaBIOS", "tiny: root=/dev/nvme0n1p1", "serial=vol0"]);
}

#[test]
fn a_disk_boots_under_uefi_from_virtio() {
    boots_by_its_own_loader("uefi", "virtio", &["tiny: root=/dev/vda1"]);
}

#[test]
fn a_disk_boots_under_uefi_from_nvme() {
    boots_by_its_own_loader("uefi", "nvme", &["tiny: root=/dev/nvme0n1p1", "serial=vol0"]);
}

#[test]
fn debian_reaches_login_under_bios() {
    let script = "amiboot run $FILES/disk.raw --mode hvm --firmware $FILES/bios --until login: --timeout 500s";
    let done = hvm("debian-12", &[], script);
    done.succeeded();
    done.shows("Booting from Hard Disk");
    done.shows("Booting `Debian GNU/Linux'");
    done.shows("login:");
}

/// Stock udev rules, those of Debian's package amazon-ec2-utils, see the volumes of EC2 and name them so.
#[test]
fn debian_names_its_nvme_volumes_as_the_mapping_does() {
    let done = hvm(
        "debian-12",
        &[],
        r#"mkfifo keys; amiboot run $FILES/disk.raw --mode hvm --firmware $FILES/uefi --disk nvme --memory 1G \
               --bdm /dev/sdf=64M --bdm /dev/sdb=ephemeral0 --timeout 500s <keys >out & pid=$!
           exec 3>keys
           seen 'login:' out; printf 'root\n' >&3
           seen 'root@' out; printf 'ls -l /dev/sd* /dev/disk/by-id/; poweroff\n' >&3
           wait $pid; echo "debian: exit=$?"; exec 3>&-; cat out"#,
    );
    done.shows("debian: exit=0");
    done.shows("Booting `Debian GNU/Linux'");
    done.shows("/dev/sda1 -> nvme0n1");
    done.shows("/dev/sdf -> nvme1n1");
    done.shows("nvme-Amazon_Elastic_Block_Store_vol0");
    done.shows("nvme-Amazon_EC2_NVMe_Instance_Storage_AWS0");
}

#[test]
fn a_32_bit_system_on_an_mbr_disk_boots_under_bios() {
    let script =
        "amiboot run $FILES/disk.raw --mode hvm --firmware $FILES/bios --until 'Welcome to.*Debian' --timeout 500s";
    let done = hvm("debian-12-i386", &[], script);
    done.succeeded();
    done.shows("GRUB");
}

#[test]
fn something_that_is_not_linux_shows_its_screen() {
    let script =
        "amiboot run $FILES/disk.raw --mode hvm --firmware $FILES/bios --until 'Memtest86.*Pass' --timeout 300s";
    let done = hvm("memtest", &[], script);
    done.succeeded();
    done.shows("CLK/Temp");
}

#[test]
fn the_boot_loader_answers_on_the_serial_console() {
    let done = hvm(
        "debian-12",
        &[],
        r#"for f in bios uefi; do
            mkfifo $f.keys; amiboot run $FILES/disk.raw --mode hvm --firmware $FILES/$f --timeout 200s <$f.keys >$f & pid=$!
            exec 3>$f.keys
            seen 'automatically in' $f; printf c >&3; seen 'grub>' $f; printf 'halt\r' >&3
            wait $pid; echo "$f: exit=$?"; exec 3>&-; cat $f
           done"#,
    );
    // GRUB's own power-off, by way of ACPI or the firmware.
    done.shows("bios: exit=0");
    done.shows("uefi: exit=0");
}

#[test]
fn guests_power_off_restart_through_firmware_and_see_the_power_button() {
    let done = hvm(
        "tiny",
        &[],
        r#"B="--firmware $FILES/bios"
           amiboot run $FILES/disk.raw --mode hvm $B $(task reboot) --timeout 300s >again & pid=$!
           until [ $(grep -ac 'tiny: ready' again) -ge 2 ]; do kill -0 $pid || break; sleep 0.2; done
           echo "ready=$(grep -ac 'tiny: ready' again)"; echo "firmware=$(grep -ac 'SeaBIOS (version' again)"
           kill $pid; kill $pid; wait $pid
           hvm reboot $B --no-reboot
           amiboot run $FILES/disk.raw --mode hvm $B $(task wait-powerbutton,poweroff) --grace 200s >button & pid=$!
           seen 'waiting for the power button' button; kill -TERM $pid; wait $pid; echo "button: exit=$?"; cat button"#,
    );
    assert!(number(&done, "ready=") >= 2 && number(&done, "firmware=") >= 2, "{}", done.text);
    done.shows("reboot: exit=0");
    done.shows("tiny: power button pressed");
    done.shows("button: exit=0");
}

#[test]
fn the_time_of_day_is_the_hosts() {
    let script = r#"echo "before=$(date +%s)"; hvm poweroff --firmware $FILES/bios; echo "after=$(date +%s)""#;
    let done = hvm("tiny", &[], script);
    let times = before_and_after(&done);
    assert!(times.is_sorted(), "{times:?}");
}

fn before_and_after(done: &Done) -> [u64; 3] {
    [number(done, "before="), number(done, "tiny: time="), number(done, "after=")]
}

#[test]
fn eight_processors_come_up_and_little_memory_is_enough() {
    let done = hvm("tiny", &["--cpus", "2"], "hvm cpus,poweroff --firmware $FILES/bios --cpus 8 --memory 256M");
    done.shows("cpus,poweroff: exit=0");
    done.shows("tiny: online=0-7");
    assert!(number(&done, "tiny: memory_kib=") < 256 << 10, "{}", done.text);
}

#[test]
fn memory_goes_on_above_4_gib() {
    let done = hvm("tiny", &["--memory", "6144"], "hvm poweroff --firmware $FILES/bios --memory 5G");
    done.shows("poweroff: exit=0");
    assert!(number(&done, "tiny: memory_kib=") > 4_800_000, "{}", done.text);
}

#[test]
fn crashes_are_told() {
    let done = hvm("tiny", &[], "hvm panic --firmware $FILES/bios; hvm triple --firmware $FILES/uefi");
    done.shows("panic: exit=125");
    done.shows("its kernel panicked");
    done.shows("triple: exit=125");
    done.shows("triple fault");
}

#[test]
fn pv_and_hvm_are_measured_in_turn() {
    let done = hvm(
        "tiny",
        &["--cpus", "2"],
        "amiboot bench boot $FILES/disk.raw --modes pv,hvm --runs 1 --warm-up 0 --cache warm --until 'tiny: ready' \
         --timeout 200s --firmware-bios $FILES/bios --json $OUT/boot.json --svg $OUT/boot.svg; echo exit=$?",
    );
    done.shows("exit=0");
    done.shows("times pv's");
    let record = done.json("boot.json");
    assert_eq!(record["host"]["kvm"], "SVM (AMD)");
    let phases = |mode: &str| {
        let figures = record["figures"].as_array().unwrap().iter().find(|f| f["mode"] == mode).unwrap();
        figures["phases_ms"].as_array().unwrap().iter().map(|p| p["phases"].to_string()).collect::<Vec<_>>()
    };
    // Its kernel is quiet: that it runs is seen all the same, and where it ends is not.
    assert_eq!(phases("pv"), [r#"["monitor"]"#, r#"["kernel","init","login"]"#]);
    let merged = r#"["kernel","init","login"]"#;
    assert_eq!(phases("hvm"), [r#"["monitor"]"#, r#"["firmware"]"#, r#"["boot-loader"]"#, merged]);
    let svg = String::from_utf8(done.file("boot.svg")).unwrap();
    assert_eq!(svg.matches("class=\"phase\"").count(), 6, "{svg}");
}
