//! Volumes that come, grow and go while a stock kernel runs: `examples/hotplug.rs` does to the machine what its script says.

use std::path::{Path, PathBuf};

use crate::support::testbed::{Done, ami, run_with};

const FIRMWARE: [(&str, &str); 2] = [("bios", "/usr/share/seabios/bios-256k.bin"), ("uefi", "/usr/share/ovmf/OVMF.fd")];

/// The example, which tools/build-static puts beside the binary.
fn example() -> PathBuf {
    let binary = std::env::var("AMIBOOT_STATIC").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/x86_64-unknown-linux-gnu/release/amiboot").into()
    });
    Path::new(&binary).with_file_name("examples").join("hotplug")
}

/// Runs a script of the example on the tiny image, whose kernel leads to a shell. There are files `one`, of 1 MiB, and `two`;
/// `$one` is the digest of the first.
fn hotplug(firmware: &str, interface: &str, script: &str) -> Done {
    let (disk, example) = (ami("tiny"), example());
    let mut files = vec![("disk.raw", disk.as_path()), ("hotplug", example.as_path())];
    files.extend(FIRMWARE.map(|(name, path)| (name, Path::new(path))));
    // What is typed is shown too: what is waited for must not be a part of it.
    let script = format!(
        "set -e; head -c 1048576 /dev/urandom >one; head -c 2097152 /dev/urandom >two; one=$(sha256sum one | cut -c1-64)
         cat >script <<END\n{}\nEND
         TMPDIR=$PWD $FILES/hotplug $FILES/disk.raw $FILES/{firmware} {interface} <script && echo exit=0",
        script.replace('$', "\\$").replace("\\$one", "$one")
    );
    run_with(&[], &files, 550, &script)
}

/// What volumes do in their lives, where the guest sees the second and third disk as `disks`, and the serial number of the
/// second in `serial`.
fn life(disks: [&str; 2], serial: &str, numbers: [&str; 2]) -> String {
    let ([disk, other], [first, second]) = (disks, numbers);
    format!(
        "seen exit powers off
         type D={disk} S={serial}; until_there() {{ until [ -b /dev/$D ]; do sleep 0.1; done; }}
         plug vol-1 /dev/sdf one
         type until_there; echo serial=$(cat $S); sha256sum /dev/$D
         seen serial={first}
         seen $one
         type head -c 512 /dev/zero | tr '\\\\000' x | dd of=/dev/$D bs=512 seek=8 conv=fsync && echo wri''tten
         seen written
         grow vol-1 3145728
         type until [ $(cat /sys/block/$D/size) = 6144 ]; do sleep 0.1; done; echo gr''own
         seen grown
         unplug vol-1
         type [ -b /dev/$D ] || echo go''ne
         seen gone
         plug vol-1 /dev/sdf one
         type until_there; head -c 4608 /dev/$D | tail -c 4
         seen xxxx
         unplug vol-1
         plug vol-2 /dev/sdg two
         type until_there; echo serial=$(cat $S)
         seen serial={second}
         volumes
         plug vol-3 /dev/sdh one
         type D={other}; until_there; echo wri''ting; while echo x | dd of=/dev/$D conv=fsync; do :; done; echo fai''led
         seen writing
         remove vol-3
         seen failed
         type until ! [ -b /dev/$D ]; do sleep 0.1; done; echo for''gotten
         seen forgotten
         plug vol-3 /dev/sdh one
         type until_there; echo ba''ck
         seen back
         unplug vol-3
         type reboot -f
         seen serial={second}
         seen exit powers off
         type D={disk}; ls /dev/$D && echo st''ill
         seen still
         unplug vol-2
         volumes
         type poweroff -f"
    )
}

const NVME: [&str; 2] = ["nvme1n1", "nvme2n1"];

#[track_caller]
fn lived(done: &Done) {
    done.shows("exit=0");
    done.shows("grown: 3145728");
    done.shows("ejected: [\"vol-1 asked=true flushed=true\"]");
    done.shows("free: one");
    done.shows("volumes: vol-root vol-2");
    done.shows("hotplug: restarted");
    done.shows("free: two");
}

#[test]
fn virtio_volumes_come_grow_and_go_under_bios() {
    lived(&hotplug("bios", "virtio", &life(["vdb", "vdc"], "/sys/block/vdb/serial", ["vol-1", "vol-2"])));
}

#[test]
fn nvme_volumes_come_grow_and_go_under_bios() {
    lived(&hotplug("bios", "nvme", &life(NVME, "/sys/block/nvme1n1/device/serial", ["vol1", "vol2"])));
}

#[test]
fn volumes_come_grow_and_go_under_uefi() {
    lived(&hotplug("uefi", "nvme", &life(NVME, "/sys/block/nvme1n1/device/serial", ["vol1", "vol2"])));
}
