//! Debian's guest agent: images of a running instance whose file systems are frozen meanwhile.

use std::path::Path;

use crate::hotplug::{FIRMWARE, FUNCTIONS};
use crate::support::testbed::{Done, ami, run_with};

/// Runs a script with Debian running as `guest`, logged in, its agent at work, and a process that writes all the time.
fn with_agent(import: &str, options: &str, script: &str) -> Done {
    let image = ami("debian-12");
    let mut files = vec![("debian.raw", image.as_path())];
    files.extend(FIRMWARE.map(|(name, path)| (name, Path::new(path))));
    let script = format!(
        r#"set -e
        {FUNCTIONS}
        GUEST=guest
        amiboot image import $FILES/debian.raw --name debian {import} >/dev/null
        i run debian --name guest --cpus 1 --memory 1G --net none {options}
        seen 'login:'
        type root
        type "stty -echo; PS1=; until systemctl is-active --quiet qemu-guest-agent; do sleep 1; done; echo ag''ent-runs"
        seen agent-runs
        type "head -c 8388608 /dev/urandom >/root/fresh; sha256sum /root/fresh | cut -c1-40 | sed s/^/fre''sh=/"
        seen 'fresh=[0-9a-f]*'
        fresh=$(i console guest --log | tr -d '\r' | sed -n 's/^.*fresh=//p')
        type "while :; do date; sleep 0.1; done >/root/going & echo wr''iting"
        seen writing
        goes_on() {{
            type "n=\$(stat -c %s /root/going); until [ \$(stat -c %s /root/going) -gt \$n ]; do sleep 0.1; done; sync; echo go''es-on-$1"
            seen goes-on-$1
        }}
        {script}
        i terminate guest --force
        echo lived"#
    );
    run_with(&[], &files, 900, &script)
}

const FROZEN: &str = "the guest's file systems were frozen for the snapshot";

/// What is in the image is a file system that needs no recovery, with all that was written and synced by nobody.
#[test]
fn an_image_of_a_running_instance_has_what_nobody_had_synced() {
    let done = with_agent(
        "",
        "--type t3.micro --disk virtio --firmware bios",
        r#"
        snapshot=$(amiboot image create guest --name frozen --no-reboot --json | id snapshot)
        goes_on 1
        root=$(i show guest --json | id volume)
        amiboot snapshot create $root 2>&1 | sed 's/^/by itself: /'
        goes_on 2
        amiboot volume attach $(amiboot volume create --snapshot $snapshot --json | id volume) guest /dev/sdf
        type "until [ -b /dev/vdb1 ]; do sleep 0.1; done; dumpe2fs -h /dev/vdb1 2>&1 | sed -n 's/^Filesystem features/fea''tures/p'"
        seen 'features.*extent'
        type "e2fsck -fn /dev/vdb1 >/dev/null 2>&1; echo fs''ck=\$?"
        seen 'fsck=0'
        type "mount -o ro,noload /dev/vdb1 /mnt && sha256sum /mnt/root/fresh | cut -c1-40 | sed s/^/co''py=/; umount /mnt"
        seen "copy=$fresh"
        i console guest --log | tr -d '\r' | grep features
        # Without the agent nothing is said, and nothing is frozen.
        type "systemctl stop qemu-guest-agent; echo st''opped"
        seen stopped
        amiboot snapshot create $root 2>&1 | sed 's/^/without: /'
        goes_on 3"#,
    );
    done.shows("lived");
    done.succeeded();
    let lines = |with: &str| done.text.lines().filter(|line| line.contains(with)).collect::<Vec<_>>();
    assert_eq!(lines(FROZEN).len(), 2, "{}", done.text);
    assert!(lines("by itself: ").iter().any(|line| line.contains(FROZEN)));
    assert!(!lines("without: ").is_empty() && !lines("without: ").iter().any(|line| line.contains("file systems")));
    let features = lines("features");
    assert!(!features.is_empty() && !features.iter().any(|line| line.contains("needs_recovery")), "{features:?}");
}

#[test]
fn a_paravirtual_guest_has_its_agent_s_port_too() {
    let done = with_agent(
        "--virtualization-type paravirtual",
        "--type t1.micro",
        "amiboot image create guest --name frozen --no-reboot; goes_on 1",
    );
    done.shows(FROZEN);
    done.shows("lived");
    done.succeeded();
}
