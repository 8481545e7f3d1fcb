# shellcheck shell=bash
# Debian 12 installed into a directory, for tools/make-ami and tools/testbed.

DEBIAN_PACKAGES=linux-image-cloud-amd64,initramfs-tools,zstd,systemd-sysv,systemd-resolved,udev,dbus,openssh-server
DEBIAN_PACKAGES+=,cloud-init,cloud-guest-utils,curl,iproute2,iputils-ping,sudo,less,nano,procps,kmod,e2fsprogs,fdisk
# The rules that name NVMe volumes as the block device mapping does.
DEBIAN_PACKAGES+=,amazon-ec2-utils
# What freezes the file systems for a snapshot of a running instance.
DEBIAN_PACKAGES+=,qemu-guest-agent
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
    # shellcheck disable=SC2016  # mmdebstrap sets $1 for its hook
    mmdebstrap --variant=minbase --format=directory --architectures="$2" --include="$3" "${arguments[@]}" \
        --dpkgopt=force-unsafe-io --aptopt='Acquire::Retries "5"' --aptopt="$WORK/apt.conf" \
        --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
        bookworm "$1" "$WORK/sources.list" >"$LOGS/mmdebstrap-$2.log" 2>&1 || rm -rf "$1"
}

# own_tree ARCHITECTURE: TREE is this build's own copy of an installed Debian; the installation is kept for the other
# layouts and for the next time.
own_tree() {
    local key old
    key=$(sha256sum "$ROOT/tools/ami/debian-install.sh" | cut -c1-12)
    cached "$AMIS/tree-debian-12-$1-$key" "prepare_$1_tree"
    for old in "$AMIS/tree-debian-12-$1"-*; do
        [[ $old == "$AMIS/tree-debian-12-$1-$key"* ]] || rm -rf "$old"
    done
    TREE=$WORK/tree
    cp -a --reflink=auto "$AMIS/tree-debian-12-$1-$key" "$TREE"
}

prepare_i386_tree() {
    debian_tree "$1" i386 "$DEBIAN_I386_PACKAGES"
    finish_tree "$1" debian-i386
}

prepare_amd64_tree() {
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
    # An HVM instance looks like EC2's, and cloud-init would wait two minutes for a metadata service that is not there.
    # And only the locale that every system has is there.
    cat >"$1/etc/cloud/cloud.cfg.d/90-demonstration.cfg" <<'END'
locale: C.UTF-8
datasource:
  Ec2:
    max_wait: 5
    timeout: 5
END
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
