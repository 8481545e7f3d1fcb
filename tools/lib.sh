# shellcheck shell=bash
# What the scripts of tools/ share: progress lines, Debian packages, the cache below target/, the host kernel.
# Sourced, never run: `source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"`.

set -euo pipefail
shopt -s inherit_errexit

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that these scripts make stands below here, and can be thrown away with it.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
LOGS=$TARGET/tools-logs
PROGRAM=$(basename "$0")
export LC_ALL=C.UTF-8

# say TEXT...: one line of progress, with the seconds since the script's start. Standard output is left to results.
say() { printf '[%4ds] %s: %s\n' "$SECONDS" "$PROGRAM" "$*" >&2; }

# die TEXT...: ends the script with an error (exit code 1).
die() {
    printf '%s: error: %s\n' "$PROGRAM" "$*" >&2
    exit 1
}

# usage_error TEXT...: the words of the call are off (exit code 2).
usage_error() {
    printf '%s: %s\nTry: tools/%s --help\n' "$PROGRAM" "$*" "$PROGRAM" >&2
    exit 2
}

# show_help: prints the comment at the head of the running script, which is its usage text.
show_help() { sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"; }

# step TITLE COMMAND...: runs a long command (or function) quietly; its log is kept, and its tail shown if it fails.
step() {
    local title=$1 log began=$SECONDS code
    shift
    mkdir -p "$LOGS"
    log=$(mktemp "$LOGS/$PROGRAM.XXXXXX.log")
    say "$title ..."
    # Not `if ! "$@"`: that would switch off `set -e` inside a function given as the command.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    code=$?
    set -e
    if ((code != 0)); then
        tail -n 40 "$log" >&2
        die "$title: failed with exit code $code after $((SECONDS - began)) s; the whole log is $log"
    fi
    rm -f "$log"
    say "$title: done in $((SECONDS - began)) s"
}

# apt_get ARGS...: apt-get without questions, patient with flaky mirrors.
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@"
}

# apt_update: refreshes the package lists, at most once per run of the script.
apt_update() {
    [[ -z ${APT_UPDATED:-} ]] || return 0
    apt_get update
    APT_UPDATED=1
}

# need_packages PACKAGE...: makes sure that Debian packages are installed. Only root can install what is missing.
need_packages() {
    local package missing=()
    for package in "$@"; do
        # shellcheck disable=SC2016  # dpkg-query's own variable
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) ||
        die "Debian packages are missing; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    step "installing ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
    apt_get install --no-install-recommends "$@" && return 0
    # The lists are absent (a fresh container) or older than the mirror.
    apt_update
    apt_get install --no-install-recommends "$@"
}

# cached ENTRY FUNCTION ARGS...: makes the file or directory ENTRY by calling FUNCTION with a path to create, then ARGS.
# Parallel calls wait for one another; an interrupted build leaves nothing that looks made.
cached() {
    local entry=$1 build=$2 lock
    shift 2
    [[ ! -e $entry ]] || return 0
    mkdir -p "$(dirname "$entry")"
    exec {lock}>"$entry.lock"
    flock "$lock"
    if [[ ! -e $entry ]]; then
        rm -rf "$entry.part"
        "$build" "$entry.part" "$@"
        mv "$entry.part" "$entry"
    fi
    exec {lock}>&-
}

# kvm_is_real: whether /dev/kvm can be opened and is VT-x or SVM, not a back end that interprets guest kernels.
kvm_is_real() {
    grep -qwE 'vmx|svm' /proc/cpuinfo && [[ -r /dev/kvm && -w /dev/kvm ]] && (: <>/dev/kvm) 2>/dev/null
}

# need_kernel: fetches Debian's cloud kernel, which is unpacked and never installed, and sets KERNEL to a directory
# with `vmlinuz`, `version` and `modules/` (the tree of /lib/modules/VERSION).
need_kernel() {
    KERNEL=$TARGET/debian-kernel
    # shellcheck disable=SC2034  # read by the scripts
    cached "$KERNEL" build_kernel_directory
}

build_kernel_directory() {
    need_packages kmod
    step "fetching Debian's cloud kernel" unpack_kernel "$1"
}

unpack_kernel() {
    local out=$1 package image
    package=$(cloud_kernel_package)
    if [[ -z $package ]]; then
        apt_update
        package=$(cloud_kernel_package)
    fi
    [[ -n $package ]] || die "apt knows no linux-image-cloud-amd64: is this Debian, on amd64?"
    mkdir -p "$out/deb"
    (cd "$out/deb" && { apt_get download "$package" || { apt_update && apt_get download "$package"; }; })
    dpkg-deb -x "$out"/deb/*.deb "$out/tree"
    image=$(echo "$out"/tree/boot/vmlinuz-*)
    mv "$image" "$out/vmlinuz"
    mv "$out/tree/boot/config-${image##*/vmlinuz-}" "$out/config"
    mv "$out/tree/lib/modules/${image##*/vmlinuz-}" "$out/modules"
    echo "${image##*/vmlinuz-}" >"$out/version"
    rm -rf "$out/deb" "$out/tree"
    # The package leaves the index of dependencies to its postinst.
    mkdir -p "$out/lib/modules"
    ln -s ../../modules "$out/lib/modules/$(cat "$out/version")"
    PATH=$PATH:/sbin:/usr/sbin depmod -b "$out" "$(cat "$out/version")"
    rm -r "${out:?}/lib"
}

# cloud_kernel_package: the versioned package behind linux-image-cloud-amd64; nothing where apt has no lists.
cloud_kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

# copy_modules KERNEL_DIRECTORY DESTINATION MODULE...: copies modules and what they depend on, and writes their load
# order to DESTINATION/order. A module that the kernel has built in is passed over; an unknown one is an error.
copy_modules() {
    local kernel=$1 destination=$2
    shift 2
    mkdir -p "$destination"
    python3 - "$kernel/modules" "$destination" "$@" <<'PYTHON'
import os, shutil, sys
source, destination, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
name = lambda path: os.path.basename(path).removesuffix(".ko").replace("-", "_")
paths, needs, order = {}, {}, []
for line in open(source + "/modules.dep"):
    path, dependencies = line.split(":")
    paths[name(path)] = path
    needs[name(path)] = [name(d) for d in dependencies.split()]
builtin = {name(line.strip()) for line in open(source + "/modules.builtin")}
def add(module):
    if module in order or module in builtin:
        return
    if module not in paths:
        sys.exit(f"this kernel has no module {module}")
    for dependency in needs[module]:
        add(dependency)
    order.append(module)
    shutil.copyfile(f"{source}/{paths[module]}", f"{destination}/{module}.ko")
for module in wanted:
    add(module.replace("-", "_"))
with open(destination + "/order", "w") as file:
    file.writelines(f"{module}\n" for module in order)
PYTHON
}

# pack_initramfs DIRECTORY: writes a cpio archive of a tree, owned by root, with fixed times, to standard output.
pack_initramfs() {
    find "$1" -exec touch -h -d @"${SOURCE_DATE_EPOCH:-0}" {} +
    (cd "$1" && find . -mindepth 1 -print0 | sort -z |
        cpio --null -o -H newc --reproducible -R 0:0 --quiet)
}
