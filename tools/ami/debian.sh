# shellcheck shell=bash
# The Debian images of tools/make-ami.

DEBIAN_ROOT_UUID=0a51b007-0000-4000-8000-000000000001
DEBIAN_I386_UUID=0a51b007-0000-4000-8000-000000000386
DEBIAN_PV_UUID=0a51b007-0000-4000-8000-0000000000a1
DEBIAN_PACKAGES=linux-image-cloud-amd64,initramfs-tools,zstd,systemd-sysv,systemd-resolved,udev,dbus,openssh-server
DEBIAN_PACKAGES+=,cloud-init,cloud-guest-utils,iproute2,iputils-ping,sudo,less,nano,procps,kmod,e2fsprogs,fdisk
DEBIAN_I386_PACKAGES=linux-image-686,initramfs-tools,zstd,systemd-sysv,udev,dbus,iproute2,procps,kmod,e2fsprogs

# debian_sources ARCHITECTURE SUITES: apt lines for Debian 12, from the mirrors that this machine's own apt uses.
# SUITES: all, or main for the main suite alone.
debian_sources() {
    local main security options="arch=$1 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    main=$(apt_site Debian)
    [[ -n $main ]] || die "apt's configuration names no Debian mirror (run: apt-get update)"
    echo "deb [$options] $main bookworm main"
    [[ $2 == all ]] || return 0
    echo "deb [$options] $main bookworm-updates main"
    security=$(apt_site Debian-Security)
    [[ -z $security ]] || echo "deb [$options] $security bookworm-security main"
}

# apt_site LABEL: the address of the archive with that label in its Release file.
apt_site() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(SITE)' 'Created-By: Packages' |
        sed -n "s/^Debian|$1|main|//p" | head -n 1
}

# debian_tree DIRECTORY ARCHITECTURE PACKAGES: installs Debian 12 into a new directory.
debian_tree() {
    local directory=$1 architecture=$2 packages=$3 suites attempt
    ((EUID == 0)) || die "Debian's packages can be installed into an image by root only; run: sudo tools/make-ami ..."
    # arch-test is how mmdebstrap finds out that this machine runs i386 programs.
    need_packages mmdebstrap debian-archive-keyring arch-test
    [[ -n $(apt_site Debian) ]] || step "reading the package lists" apt_update
    # Mirrors can be out of step for a while, the security suite's rarer architectures above all.
    for attempt in all all main; do
        suites=$attempt
        rm -rf "$directory"
        step "installing Debian 12 ($architecture, suites: $suites)" \
            try_mmdebstrap "$directory" "$architecture" "$packages" "$suites"
        [[ ! -e $directory ]] || return 0
        say "that failed: $(tail -n 1 "$LOGS/mmdebstrap-$architecture.log")"
    done
    die "Debian's packages could not be installed; see $LOGS/mmdebstrap-$architecture.log"
}

# try_mmdebstrap DIRECTORY ARCHITECTURE PACKAGES SUITES: as debian_tree, once; leaves no DIRECTORY upon failure.
try_mmdebstrap() {
    local exclude arguments=()
    # What no test and no demonstration looks at: half of the packages' size.
    for exclude in /usr/share/{man,doc,info,locale}/\* /lib/modules/\*/kernel/{sound,drivers/{gpu,media,infiniband}}/\* \
        /lib/modules/\*/kernel/drivers/net/wireless/\*; do
        arguments+=(--dpkgopt="path-exclude=$exclude")
    done
    apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries)' >"$WORK/apt.conf" || true
    debian_sources "$2" "$4" >"$WORK/sources.list"
    mmdebstrap --variant=minbase --format=directory --architectures="$2" --include="$3" "${arguments[@]}" \
        --dpkgopt=force-unsafe-io --aptopt='Acquire::Retries "5"' --aptopt="$WORK/apt.conf" \
        --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
        bookworm "$1" "$WORK/sources.list" >"$LOGS/mmdebstrap-$2.log" 2>&1 || rm -rf "$1"
}

# amd64_tree: TREE is this build's own copy of an installed Debian; the installation is kept for the other layouts.
amd64_tree() {
    local key
    key=$(sha256sum "$ROOT/tools/ami/debian.sh" | cut -c1-12)
    cached "$AMIS/tree-debian-12-$key" debian_tree_prepared
    forget_older_trees "$key"
    TREE=$WORK/tree
    cp -a --reflink=auto "$AMIS/tree-debian-12-$key" "$TREE"
}

forget_older_trees() {
    local old
    for old in "$AMIS"/tree-debian-12-*; do
        [[ $old == "$AMIS/tree-debian-12-$1"* ]] || rm -rf "$old"
    done
}

debian_tree_prepared() {
    debian_tree "$1" amd64 "$DEBIAN_PACKAGES"
    finish_tree "$1" debian
    # The names of Debian's own cloud images: every wired interface gets its address by DHCP, and none is waited for.
    cat >"$1/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=en* eth*

[Network]
DHCP=yes
END
    ln -s /lib/systemd/system/systemd-networkd.service "$1/etc/systemd/system/multi-user.target.wants/"
    # Host keys belong to an instance, not to an image.
    rm -f "$1"/etc/ssh/ssh_host_*
    mkdir -p "$1/etc/systemd/system/ssh.service.d"
    cat >"$1/etc/systemd/system/ssh.service.d/host-keys.conf" <<'END'
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
END
}

# finish_tree TREE HOSTNAME: what every Debian image here has in common.
finish_tree() {
    local tree=$1
    echo "$2" >"$tree/etc/hostname"
    printf '127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost\n' "$2" >"$tree/etc/hosts"
    : >"$tree/etc/machine-id"
    rm -f "$tree/var/lib/dbus/machine-id" "$tree/etc/resolv.conf" "$tree"/var/log/*.log "$tree"/var/cache/apt/*.bin
    rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/archives/*.deb
    : >"$tree/etc/resolv.conf"
    [[ ! -e $tree/lib/systemd/systemd-resolved ]] || ln -sf /run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
    # No password for root: on the serial console that suffices, and sshd refuses empty ones.
    sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
}

# kernel_version TREE: the version of the one kernel in a tree.
kernel_version() {
    local image
    image=$(echo "$1"/boot/vmlinuz-*)
    echo "${image##*/vmlinuz-}"
}

build_debian_gpt() {
    local file=$1 size=$2 root_start=128
    amd64_tree
    cat >"$TREE/etc/fstab" <<END
UUID=$DEBIAN_ROOT_UUID / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
UUID=A51B-0071 /boot/efi vfat defaults,nofail 0 0
END
    mkdir -p "$TREE/boot/grub" "$TREE/boot/efi"
    copy_grub_modules "$TREE/boot/grub"
    debian_grub_cfg "$(kernel_version "$TREE")" "$DEBIAN_ROOT_UUID" part_gpt >"$TREE/boot/grub/grub.cfg"
    step "writing the disk" write_debian_gpt "$file" "$size" "$root_start"
}

write_debian_gpt() {
    local file=$1 size=$2 root_start=$3
    new_disk "$file" "$size"
    # Numbers, places and sizes as on Debian's own cloud images.
    partition_gpt "$file" 0a51b007-0000-4000-8000-000000000012 \
        "14:1:3:ef02:0a51b007-0000-4000-8000-000000000014:" \
        "15:4:124:ef00:0a51b007-0000-4000-8000-000000000015:" \
        "1:$root_start:0:8304:0a51b007-0000-4000-8000-000000000011:"
    put_ext4 "$file" "$root_start" "$(partition_size "$file" 1)" "$TREE" '' "$DEBIAN_ROOT_UUID"
    write_grub_start "$WORK/start.cfg" "$DEBIAN_ROOT_UUID" /boot/grub
    install_grub_bios "$file" 2048 "$WORK/start.cfg" part_gpt
    install_grub_efi "$file" 4 124 "$WORK/start.cfg"
}

build_debian_pv() {
    local file=$1 size=$2 version
    amd64_tree
    version=$(kernel_version "$TREE")
    echo "LABEL=cloudimg-rootfs / ext4 defaults,discard 0 1" >"$TREE/etc/fstab"
    mkdir -p "$TREE/boot/grub"
    # As the PV AMIs of old had it: hd0 is the whole disk, which is one file system.
    cat >"$TREE/boot/grub/menu.lst" <<END
## default num
default         0
timeout         0
hiddenmenu

title           Debian GNU/Linux, kernel $version
root            (hd0)
kernel          /boot/vmlinuz-$version root=LABEL=cloudimg-rootfs ro console=hvc0 console=ttyS0
initrd          /boot/initrd.img-$version

title           Debian GNU/Linux, kernel $version (recovery mode)
root            (hd0)
kernel          /boot/vmlinuz-$version root=LABEL=cloudimg-rootfs ro single console=ttyS0
initrd          /boot/initrd.img-$version
END
    step "writing the disk" write_bare "$file" "$size" cloudimg-rootfs "$DEBIAN_PV_UUID"
}

# write_bare FILE SIZE LABEL UUID: TREE as a file system on the whole disk.
write_bare() {
    new_disk "$1" "$2"
    put_ext4 "$1" 0 $(($2 * 1024)) "$TREE" "$3" "$4"
}

build_debian_i386() {
    local file=$1 size=$2
    TREE=$WORK/tree
    debian_tree "$TREE" i386 "$DEBIAN_I386_PACKAGES"
    finish_tree "$TREE" debian-i386
    echo "UUID=$DEBIAN_I386_UUID / ext4 rw,errors=remount-ro 0 1" >"$TREE/etc/fstab"
    mkdir -p "$TREE/boot/grub"
    copy_grub_modules "$TREE/boot/grub"
    debian_grub_cfg "$(kernel_version "$TREE")" "$DEBIAN_I386_UUID" part_msdos >"$TREE/boot/grub/grub.cfg"
    step "writing the disk" write_debian_i386 "$file" "$size"
}

write_debian_i386() {
    local file=$1 size=$2
    new_disk "$file" "$size"
    partition_mbr "$file" 1
    put_ext4 "$file" 1 "$(partition_size "$file" 1)" "$TREE" '' "$DEBIAN_I386_UUID"
    write_grub_start "$WORK/start.cfg" "$DEBIAN_I386_UUID" /boot/grub
    # The gap between the MBR and the first partition.
    install_grub_bios "$file" 1 "$WORK/start.cfg" part_msdos
}

# debian_grub_cfg VERSION UUID PARTMAP_MODULE: a grub.cfg in the form in which Debian's grub-mkconfig writes it.
debian_grub_cfg() {
    local version=$1 uuid=$2 partmap=$3
    cat <<END
#
# DO NOT EDIT THIS FILE
#
# It is automatically generated by grub-mkconfig using templates
# from /etc/grub.d and settings from /etc/default/grub
#

### BEGIN /etc/grub.d/00_header ###
if [ -s \$prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi

if [ x"\${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi

export menuentry_id_option

function load_video {
  if [ x\$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
    insmod vbe
  fi
}

serial --speed=115200
terminal_input console serial
terminal_output console serial
if [ x\$feature_timeout_style = xy ] ; then
  set timeout_style=menu
  set timeout=1
else
  set timeout=1
fi
### END /etc/grub.d/00_header ###

### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class gnu --class os \$menuentry_id_option 'gnulinux-simple-$uuid' {
END
    debian_grub_entry "$version" "$uuid" "$partmap" '' $'\t'
    cat <<END
}
submenu 'Advanced options for Debian GNU/Linux' \$menuentry_id_option 'gnulinux-advanced-$uuid' {
	menuentry 'Debian GNU/Linux, with Linux $version' --class debian --class gnu-linux --class gnu --class os \$menuentry_id_option 'gnulinux-$version-advanced-$uuid' {
END
    debian_grub_entry "$version" "$uuid" "$partmap" '' $'\t\t'
    cat <<END
	}
	menuentry 'Debian GNU/Linux, with Linux $version (recovery mode)' --class debian --class gnu-linux --class gnu --class os \$menuentry_id_option 'gnulinux-$version-recovery-$uuid' {
END
    debian_grub_entry "$version" "$uuid" "$partmap" single $'\t\t'
    cat <<END
	}
}

### END /etc/grub.d/10_linux ###
END
}

# debian_grub_entry VERSION UUID PARTMAP_MODULE WORD INDENT: the inside of one menu entry.
debian_grub_entry() {
    local arguments="ro ${4:-}"
    sed "s/^/$5/" <<END
load_video
insmod gzio
if [ x\$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
insmod $3
insmod ext2
search --no-floppy --fs-uuid --set=root $2
echo	'Loading Linux $1 ...'
linux	/boot/vmlinuz-$1 root=UUID=$2 ${arguments% } console=tty0 console=ttyS0,115200
echo	'Loading initial ramdisk ...'
initrd	/boot/initrd.img-$1
END
}
