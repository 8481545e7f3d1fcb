# shellcheck shell=bash
# Disks in place: partition tables, file systems at an offset, GRUB in its sectors. For tools/make-ami.

MIB=$((1024 * 1024))

# new_disk FILE SIZE: an empty sparse disk of SIZE MiB.
new_disk() { truncate -s "$2M" "$1"; }

# partition_gpt FILE DISK_UUID NUMBER:START:SIZE:TYPE:UUID:NAME...: a GPT; START and SIZE in MiB, SIZE 0 for the rest.
partition_gpt() {
    local file=$1 disk_uuid=$2 number start size type uuid name arguments=()
    shift 2
    local partition
    for partition in "$@"; do
        IFS=: read -r number start size type uuid name <<<"$partition"
        ((size)) && size=+${size}M
        arguments+=(-n "$number:${start}M:$size" -t "$number:$type" -u "$number:$uuid" -c "$number:$name")
    done
    sgdisk --clear -U "$disk_uuid" "${arguments[@]}" "$file"
    sgdisk -v "$file" | tee /dev/stderr | grep -q 'No problems found'
}

# partition_mbr FILE START: an MBR with one bootable Linux partition from START (MiB) to the end.
partition_mbr() {
    printf 'label: dos\nlabel-id: 0x414d4942\nstart=%dMiB, type=83, bootable\n' "$2" | sfdisk --quiet "$1"
    sfdisk --verify "$1"
}

# partition_size FILE NUMBER: a partition's size in KiB.
partition_size() {
    sfdisk --json "$1" | python3 -c '
import json, sys
table = json.load(sys.stdin)["partitiontable"]
print(next(p["size"] for p in table["partitions"] if p["node"].endswith(sys.argv[1])) // 2)' "$2"
}

# put_ext4 FILE OFFSET SIZE TREE LABEL UUID [FEATURES]: an ext4 file system with the files of TREE, OFFSET in MiB, SIZE in KiB.
put_ext4() {
    local file=$1 offset=$2 size=$3 tree=$4 label=$5 uuid=$6
    mke2fs -q -F -t ext4 -m 1 -L "$label" -U "$uuid" ${7:+-O "$7"} -d "$tree" \
        -E "offset=$((offset * MIB)),hash_seed=$uuid,nodiscard,lazy_itable_init=1" "$file" "${size}k"
    e2fsck -fn "$file?offset=$((offset * MIB))"
}

# install_grub_bios FILE LBA CONFIGURATION PARTMAP_MODULE: GRUB for BIOS, its boot sector in sector 0 and its core from
# LBA on (in the BIOS boot partition, or in the gap behind an MBR). CONFIGURATION is what the core runs first.
install_grub_bios() {
    local file=$1 lba=$2 configuration=$3 partmap=$4
    grub-mkimage -O i386-pc -o "$WORK/core.img" -c "$configuration" -p /boot/grub \
        biosdisk "$partmap" ext2 search search_fs_uuid normal configfile serial terminal linux echo test gzio
    python3 - "$file" "$lba" /usr/lib/grub/i386-pc/boot.img "$WORK/core.img" <<'PYTHON'
import struct, sys
disk, lba, boot, core = sys.argv[1], int(sys.argv[2]), *(open(name, "rb").read() for name in sys.argv[3:])
boot, core = bytearray(boot), bytearray(core + bytes(-len(core) % 512))
# The boot sector (GRUB manual, "Images"): where the core is; any drive; the two jumps for broken BIOSes made NOPs.
struct.pack_into("<Q", boot, 0x5c, lba)
boot[0x64] = 0xff
boot[0x66:0x68] = b"\x90\x90"
# The core's first sector: one block list entry (start, number of sectors, segment) for the rest of it.
struct.pack_into("<QHH", core, 0x1f4, lba + 1, len(core) // 512 - 1, 0x820)
with open(disk, "r+b") as file:
    file.write(boot[:440])
    file.seek(lba * 512)
    file.write(core)
PYTHON
}

# write_mbr_disk FILE SIZE UUID: a disk of SIZE MiB with an MBR, TREE in its one partition, and GRUB for BIOS.
write_mbr_disk() {
    local file=$1 size=$2 uuid=$3
    new_disk "$file" "$size"
    partition_mbr "$file" 1
    put_ext4 "$file" 1 "$(partition_size "$file" 1)" "$TREE" '' "$uuid"
    write_grub_start "$WORK/start.cfg" "$uuid" /boot/grub
    # The gap between the MBR and the first partition.
    install_grub_bios "$file" 1 "$WORK/start.cfg" part_msdos
}

# install_grub_efi FILE OFFSET SIZE CONFIGURATION: an EFI system partition of SIZE MiB at OFFSET MiB with GRUB as the
# removable-media loader (UEFI 2.10, 3.5.1.1).
install_grub_efi() {
    local file=$1 offset=$2 size=$3 configuration=$4 esp=$WORK/esp.img
    grub-mkimage -O x86_64-efi -o "$WORK/bootx64.efi" -c "$configuration" -p /boot/grub \
        part_gpt fat ext2 search search_fs_uuid normal configfile serial terminal linux echo test gzio \
        all_video efi_gop ls cat reboot halt
    truncate -s "${size}M" "$esp"
    # FAT32 needs more clusters than a small partition has.
    mformat -i "$esp" $( ((size < 40)) || echo -F) -T $((size * 2048)) -h 64 -s 32 -N A51B0071 -v UEFI ::
    mmd -i "$esp" ::EFI ::EFI/BOOT
    mcopy -i "$esp" "$WORK/bootx64.efi" ::EFI/BOOT/BOOTX64.EFI
    dd if="$esp" of="$file" bs=1M seek="$offset" conv=notrunc,sparse status=none
    rm "$esp"
}

# write_grub_start FILE UUID DIRECTORY: what a GRUB core runs, as grub-install writes it: where the file system is. Normal
# mode, which begins then, reads the lists of modules there, and grub.cfg.
write_grub_start() {
    cat >"$1" <<END
search.fs_uuid $2 root
set prefix=(\$root)$3
END
}

# copy_grub_modules TREE_DIRECTORY: the modules that a grub.cfg may load by insmod.
copy_grub_modules() {
    local platform
    for platform in i386-pc x86_64-efi; do
        mkdir -p "$1/$platform"
        cp /usr/lib/grub/$platform/*.mod /usr/lib/grub/$platform/*.lst "$1/$platform/"
    done
}
