# shellcheck shell=bash
# The image `memtest` of tools/make-ami: something that is not Linux, on a disk with an MBR.

MEMTEST_UUID=0a51b007-0000-4000-8000-0000000000e7

build_memtest() {
    local file=$1 size=$2
    step "fetching memtest86+" unpack_memtest
    TREE=$WORK/tree
    mkdir -p "$TREE/boot/grub"
    cp "$WORK/memtest/boot/memtest86+x64.bin" "$TREE/boot/"
    cat >"$TREE/boot/grub/grub.cfg" <<END
set timeout=0
serial --speed=115200
terminal_output serial
menuentry 'Memory test (memtest86+x64.bin, serial console)' {
	linux	/boot/memtest86+x64.bin console=ttyS0,115200
}
END
    step "writing the disk" write_mbr_disk "$file" "$size" "$MEMTEST_UUID"
}

unpack_memtest() {
    mkdir "$WORK/memtest"
    (cd "$WORK/memtest" && { apt-get download memtest86+ || { apt_update && apt-get download memtest86+; }; })
    dpkg-deb -x "$WORK"/memtest/*.deb "$WORK/memtest"
}
