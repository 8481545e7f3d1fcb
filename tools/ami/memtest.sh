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
    step "writing the disk" write_memtest "$file" "$size"
}

unpack_memtest() {
    mkdir "$WORK/memtest"
    (cd "$WORK/memtest" && { apt-get download memtest86+ || { apt_update && apt-get download memtest86+; }; })
    dpkg-deb -x "$WORK"/memtest/*.deb "$WORK/memtest"
}

write_memtest() {
    local file=$1 size=$2
    new_disk "$file" "$size"
    partition_mbr "$file" 1
    put_ext4 "$file" 1 "$(partition_size "$file" 1)" "$TREE" '' "$MEMTEST_UUID"
    write_grub_start "$WORK/start.cfg" "$MEMTEST_UUID" /boot/grub
    install_grub_bios "$file" 1 "$WORK/start.cfg" part_msdos
}
