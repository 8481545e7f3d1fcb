//! Volumes that come, grow and go while a stock kernel runs, by the commands that a person would give.

use std::path::Path;

use crate::support::testbed::{Done, ami, run_with};

pub const FIRMWARE: [(&str, &str); 3] = [
    ("bios-256k.bin", "/usr/share/seabios/bios-256k.bin"),
    ("OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    ("OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
];

/// What both an instance's life (that of `tiny`, or `$GUEST`) and the test's script are written with: `seen` waits for the
/// console, `type` types. What is typed is shown too: what is waited for must not be a part of it.
pub const FUNCTIONS: &str = r#"
    export AMIBOOT_HOME=$PWD/home AMIBOOT_FIRMWARE_PATH=$FILES
    i() { amiboot instance "$@"; }
    seen() {
        until i console ${GUEST:-tiny} --log | tr -d '\r' | grep -q -- "$1"; do
            i show ${GUEST:-tiny} | grep -q '^state *running' || { echo "ended before: $1"; i console ${GUEST:-tiny} --log | tail -20; exit 1; }
            sleep 1
        done
        echo "seen $1"
    }
    type() { i console ${GUEST:-tiny} --send "$1"; }
    id() { sed -n "s/.*\"$1_id\": \"\([a-z]*-[0-9a-f]*\)\".*/\1/p" | head -n 1; }
"#;

/// What volumes do in their lives, where the guest sees the second disk as `disk`, and its serial number in `serial`.
fn life(firmware: &str, interface: &str, disk: &str, serial: &str) -> Done {
    let image = ami("tiny");
    let mut files = vec![("tiny.raw", image.as_path())];
    files.extend(FIRMWARE.map(|(name, path)| (name, Path::new(path))));
    let script = format!(
        r#"set -e
        {FUNCTIONS}
        head -c 1048576 /dev/urandom >one; one=$(sha256sum one | cut -c1-64)
        amiboot image import $FILES/tiny.raw --name tiny
        snapshot=$(amiboot snapshot import one --json | id snapshot)
        v1=$(amiboot volume create --snapshot $snapshot --json | id volume)
        v2=$(amiboot volume create --size 3 --json | id volume)
        i run tiny --name tiny --type t3.nano --cpus 1 --disk {interface} --firmware {firmware}
        seen 'tiny: do=shell'
        amiboot volume attach $v1 tiny /dev/sdf
        type 'D={disk} S={serial}; until_there() {{ until [ -b /dev/$D ]; do sleep 0.1; done; }}'
        type 'until_there; echo se''rial=$(cat $S); head -c 1048576 /dev/$D | sha256sum'
        seen serial=$(echo $v1 | tr -d -); seen $one
        type 'head -c 512 /dev/zero | tr "\\000" x | dd of=/dev/$D bs=512 seek=8 conv=fsync && echo wri''tten'
        seen written
        amiboot volume grow $v1 --size 2
        type 'until [ $(cat /sys/block/$D/size) = 4194304 ]; do sleep 0.1; done; echo gr''own'
        seen grown
        amiboot volume detach $v1
        type '[ -b /dev/$D ] || echo go''ne'
        seen gone
        amiboot volume attach $v1 tiny /dev/sdf
        type 'until_there; dd if=/dev/$D bs=512 skip=8 count=1 2>/dev/null | grep -c xxx | sed s/^/kept=/'
        seen kept=1
        amiboot volume detach $v1
        amiboot volume attach $v2 tiny /dev/sdg
        type 'until_there; echo se''cond=$(cat $S)'
        seen second=$(echo $v2 | tr -d -)
        amiboot volume ls
        type 'reboot -f'
        until [ $(i console tiny --log | grep -c 'tiny: do=shell') = 2 ]; do sleep 1; done
        type 'D={disk}; ls /dev/$D && echo st''ill'
        seen still
        amiboot volume detach $v2
        if amiboot volume detach $(i show tiny --json | id volume); then exit 1; fi
        amiboot volume attach $v1 tiny /dev/sdh
        amiboot volume detach $v1 --force
        i terminate tiny --force
        amiboot doctor --catalogue
        echo lived"#
    );
    run_with(&["--memory", "2048"], &files, 400, &script)
}

#[track_caller]
fn lived(done: &Done) {
    done.shows("seen still");
    done.shows("OperationNotPermitted");
    done.shows("lived");
    done.succeeded();
}

#[test]
fn virtio_volumes_come_grow_and_go_under_bios() {
    lived(&life("bios", "virtio", "vdb", "/sys/block/vdb/serial"));
}

#[test]
fn nvme_volumes_come_grow_and_go_under_bios() {
    lived(&life("bios", "nvme", "nvme1n1", "/sys/block/nvme1n1/device/serial"));
}

#[test]
fn volumes_come_grow_and_go_under_uefi() {
    lived(&life("uefi", "nvme", "nvme1n1", "/sys/block/nvme1n1/device/serial"));
}
