# shellcheck shell=bash
# The tiny images of tools/make-ami: Debian's cloud kernel and busybox, for tests of whole guests within seconds.

TINY_ROOT_UUID=0a51b007-0000-4000-8000-0000000071a1
TINY_BOOT_UUID=0a51b007-0000-4000-8000-0000000071b0
TINY_PV_UUID=0a51b007-0000-4000-8000-0000000071c0

# tiny_tree: TREE is the root file system, BOOT the files of /boot.
tiny_tree() {
    local applet initramfs=$WORK/initramfs
    need_kernel
    VERSION=$(cat "$KERNEL/version")
    TREE=$WORK/tree BOOT=$WORK/boot
    mkdir -p "$TREE"/{bin,boot,dev,do,etc,mnt,proc,run,sys,tmp,usr/lib} "$BOOT" "$initramfs"/{bin,dev,proc,sys,root}
    cp /bin/busybox "$TREE/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$TREE/bin/$applet"
    done
    ln -s bin "$TREE/sbin"
    install -m 755 "$ROOT/resources/guest/tiny-init" "$TREE/bin/init.tiny"
    ln -sf init.tiny "$TREE/bin/init"
    install -m 755 "$ROOT"/resources/guest/tiny-do/* "$TREE/do/"
    echo tiny >"$TREE/etc/hostname"
    printf 'NAME="amiboot tiny"\nID=amiboot-tiny\nID_LIKE=debian\nVERSION_ID="1"\nPRETTY_NAME="amiboot tiny 1"\n' >"$TREE/etc/os-release"
    echo 'root::0:0:root:/:/bin/sh' >"$TREE/etc/passwd"

    cp /bin/busybox "$initramfs/bin/busybox"
    ln -s busybox "$initramfs/bin/sh"
    install -m 755 "$ROOT/resources/guest/tiny-initramfs" "$initramfs/init"
    copy_modules "$KERNEL" "$initramfs/modules" virtio_mmio virtio_pci virtio_blk virtio_rng button evdev
    pack_initramfs "$initramfs" | lz4 -l -9 -q >"$BOOT/initrd.img-$VERSION"
    cp "$KERNEL/vmlinuz" "$BOOT/vmlinuz-$VERSION"
}

# tiny_fstab LINE...
tiny_fstab() { printf '%s\n' "$@" >"$TREE/etc/fstab"; }

build_tiny_gpt() {
    local file=$1 size=$2 loader=$3
    tiny_tree
    tiny_fstab "UUID=$TINY_ROOT_UUID / ext4 ro 0 0" "UUID=$TINY_BOOT_UUID /boot ext4 ro 0 0"
    mkdir -p "$BOOT/grub"
    "tiny_$loader"
    step "writing the disk" write_tiny_gpt "$file" "$size"
}

write_tiny_gpt() {
    local file=$1 size=$2
    new_disk "$file" "$size"
    partition_gpt "$file" 0a51b007-0000-4000-8000-000000007100 \
        "14:1:3:ef02:0a51b007-0000-4000-8000-000000007114:" \
        "15:4:8:ef00:0a51b007-0000-4000-8000-000000007115:" \
        "2:12:40:8300:0a51b007-0000-4000-8000-000000007102:boot" \
        "1:52:0:8304:0a51b007-0000-4000-8000-000000007101:root"
    put_ext4 "$file" 12 $((40 * 1024)) "$BOOT" boot "$TINY_BOOT_UUID" ^has_journal
    put_ext4 "$file" 52 "$(partition_size "$file" 1)" "$TREE" tiny-root "$TINY_ROOT_UUID"
    write_grub_start "$WORK/start.cfg" "$TINY_BOOT_UUID" /grub
    install_grub_bios "$file" 2048 "$WORK/start.cfg" part_gpt
    install_grub_efi "$file" 4 8 "$WORK/start.cfg"
}

# tiny_grub: menu entries, relative to the boot partition.
tiny_grub() {
    cat >"$BOOT/grub/grub.cfg" <<END
set default="0"
set timeout=0
serial --speed=115200
terminal_input serial
terminal_output serial

menuentry 'amiboot tiny' --class gnu-linux --id 'tiny' {
	insmod part_gpt
	insmod ext2
	search --no-floppy --fs-uuid --set=root $TINY_BOOT_UUID
	linux	/vmlinuz-$VERSION root=UUID=$TINY_ROOT_UUID ro quiet console=ttyS0,115200
	initrd	/initrd.img-$VERSION
}
menuentry 'amiboot tiny, verbose' --class gnu-linux --id 'tiny-verbose' {
	search --no-floppy --fs-uuid --set=root $TINY_BOOT_UUID
	linux	/vmlinuz-$VERSION root=UUID=$TINY_ROOT_UUID ro console=ttyS0,115200
	initrd	/initrd.img-$VERSION
}
END
}

# tiny_bls: boot loader specification entries as Fedora's GRUB reads them, options by way of grubenv.
tiny_bls() {
    local entries=$BOOT/loader/entries machine=0a51b007000040008000000000007100
    mkdir -p "$entries"
    cat >"$BOOT/grub/grub.cfg" <<END
set timeout=0
load_env
search --no-floppy --fs-uuid --set=root $TINY_BOOT_UUID
insmod blscfg
blscfg
END
    grub-editenv "$BOOT/grub/grubenv" create
    grub-editenv "$BOOT/grub/grubenv" set "saved_entry=$machine-$VERSION" \
        "kernelopts=root=UUID=$TINY_ROOT_UUID ro quiet console=ttyS0,115200"
    cat >"$entries/$machine-$VERSION.conf" <<END
title amiboot tiny ($VERSION)
version $VERSION
linux /vmlinuz-$VERSION
initrd /initrd.img-$VERSION
options \$kernelopts
grub_users \$grub_users
grub_arg --unrestricted
grub_class kernel
END
    # An older one, which has its own options and must not be chosen.
    cat >"$entries/$machine-0-rescue.conf" <<END
title amiboot tiny (rescue)
version 0-rescue
linux /vmlinuz-$VERSION
initrd /initrd.img-$VERSION
options root=UUID=$TINY_ROOT_UUID ro console=ttyS0,115200 rescue
END
}

build_tiny_pv() {
    local file=$1 size=$2
    tiny_tree
    tiny_fstab "LABEL=tiny-pv / ext4 ro 0 0"
    cp -a "$BOOT/." "$TREE/boot/"
    mkdir -p "$TREE/boot/grub"
    cat >"$TREE/boot/grub/menu.lst" <<END
default 0
timeout 0

title amiboot tiny
root (hd0)
kernel /boot/vmlinuz-$VERSION root=LABEL=tiny-pv ro quiet console=hvc0 console=ttyS0
initrd /boot/initrd.img-$VERSION
END
    step "writing the disk" write_bare "$file" "$size" tiny-pv "$TINY_PV_UUID"
}
