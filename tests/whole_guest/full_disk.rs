//! A stock kernel whose volume finds no room on the host: it sees an I/O error, loses nothing that was durable, and goes on once
//! there is room again.

use crate::support::testbed::{ami, run_with};

#[test]
fn a_guest_sees_an_io_error_where_the_host_is_full_and_goes_on_when_there_is_room() {
    let image = ami("tiny-pv");
    // What is typed is shown too: what is waited for must not be a part of it.
    let script = r#"set -e
        export AMIBOOT_HOME=$PWD/home
        # Only the layers' file system becomes full: what is said and seen of it meanwhile needs room, too.
        mkdir -p home/layers && mount -t tmpfs -o size=240m tmpfs home/layers
        i() { amiboot instance "$@"; }
        seen() {
            until i console tiny --log | tr -d '\r' | grep -q -- "$1"; do
                i show tiny | grep -q '^state *running' || { echo "ended before: $1"; i console tiny --log | tail -20; exit 1; }
                sleep 1
            done
            echo "seen $1"
        }
        type() { i console tiny --send "$1"; }
        amiboot image import $FILES/tiny.raw --name tiny --virtualization-type paravirtual
        i run tiny --name tiny --type t3.nano --net none --bdm /dev/sdf=1G
        seen 'tiny: do=shell'
        type 'D=/dev/vdb; head -c 4194304 /dev/urandom >/dev/shm/r 2>/dev/null || { mount -t tmpfs none /mnt; }'
        type 'R=/dev/shm/r; [ -s $R ] || { R=/mnt/r; head -c 4194304 /dev/urandom >$R; }; echo re''ady'
        seen ready
        type 'dd if=$R of=$D bs=64k conv=fsync && echo fi''rst'
        seen first
        # All but a little of the room is taken.
        dd if=/dev/zero of=home/layers/filler bs=64k 2>/dev/null || true
        type 'dd if=$R of=$D bs=64k seek=1024 conv=fsync || echo no''room'
        seen noroom
        seen 'I/O error'
        i show tiny
        type 'sync; echo 3 >/proc/sys/vm/drop_caches; dd if=$D bs=64k count=64 2>/dev/null | cmp - $R && echo ke''pt'
        seen kept
        rm home/layers/filler
        type 'dd if=$R of=$D bs=64k seek=1024 conv=fsync && echo sec''ond'
        seen second
        type 'echo 3 >/proc/sys/vm/drop_caches; dd if=$D bs=64k skip=1024 count=64 2>/dev/null | cmp - $R && echo wh''ole'
        seen whole
        i terminate tiny --force
        amiboot doctor --catalogue
        echo full-disk: done
    "#;
    let done = run_with(&["--memory", "3072"], &[("tiny.raw", image.as_path())], 400, script);
    done.shows("full-disk: done");
    done.succeeded();
}
