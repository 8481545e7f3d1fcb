#!/bin/sh
# The whole life of an AMI, as a person would type it: amiboot is on the PATH, and the argument is a disk with a PV system
# whose console logs root in without a password (a shell without a login will do, too).
#
# Usage: lifecycle.sh DISK

set -eu
disk=$1
other=210987654321
west=us-west-2

say() { printf '\n# %s\n' "$*"; }

# am WORD...: shows the command and runs it.
am() {
    printf '$ amiboot %s\n' "$*"
    amiboot "$@"
}

# id_of KIND WORD...: the first id of that kind in what a command prints as JSON.
id_of() {
    kind=$1
    shift
    amiboot "$@" --json | sed -n "s/.*\"${kind}_id\": \"\([a-z]*-[0-9a-f]*\)\".*/\1/p" | head -n 1
}

# shows ID TEXT [OPTION...]: waits until the console has shown a text, as long as the instance runs.
shows() {
    id=$1 text=$2
    shift 2
    while ! amiboot instance console "$id" --log "$@" | tr -d '\r' | grep -q -- "$text"; do
        if ! amiboot instance show "$id" "$@" | grep -q '^state *running'; then
            echo "$id ended before it showed: $text" >&2
            amiboot instance console "$id" --log "$@" | tail -n 20 >&2
            exit 1
        fi
        sleep 1
    done
}

# types ID COMMAND TEXT [OPTION...]: types a command to a shell, and waits for what it shows.
types() {
    id=$1 command=$2 text=$3
    shift 3
    printf '%s> %s\n' "$id" "$command"
    amiboot instance console "$id" --send "$command" "$@"
    shows "$id" "$text" "$@"
}

# log_in ID MARK [OPTION...]: waits for a boot and comes to a shell, which shows the mark.
log_in() {
    id=$1 mark=$2
    shift 2
    shows "$id" 'login: *$\|tiny: do=shell' "$@"
    amiboot instance console "$id" --send root "$@"
    # The shell is there when it does sums.
    until amiboot instance console "$id" --log "$@" | grep -q "$mark-2"; do
        amiboot instance console "$id" --send "echo $mark-\$((1 + 1))" "$@"
        sleep 2
    done
}

say "a disk becomes an image"
am image import "$disk" --name demo --virtualization-type paravirtual
say "the image becomes an instance"
am instance run demo --name first --type t3.nano
first=$(id_of instance instance show first)
log_in "$first" boot
say "a file is changed in it"
types "$first" "mount -o remount,rw /; echo changed >/etc/changed; sync; echo wrote-\$((2 + 3))" wrote-5

say "an image of it, while it runs"
am image create "$first" --name demo-live --no-reboot
say "another change, and an image with the guest switched off in between"
types "$first" "echo again >/etc/again; echo wrote-\$((3 + 3))" wrote-6
am image create "$first" --name demo-clean
am instance ls

say "a copy in another region, shared with another account"
am image copy demo-clean --name demo-west --to-region $west
am image share demo-west --region $west --account $other
am image ls --region $west --owner $other --executable-by self
say "which launches it, and finds both changes"
shared=$(id_of image image show demo-west --region $west)
am instance run "$shared" --name theirs --type t3.nano --region $west --owner $other
theirs=$(id_of instance instance show theirs --region $west --owner $other)
log_in "$theirs" boot --region $west --owner $other
types "$theirs" "cat /etc/changed /etc/again; echo read-\$((3 + 4))" read-7 --region $west --owner $other
shows "$theirs" '^changed' --region $west --owner $other
shows "$theirs" '^again' --region $west --owner $other

say "the first image is deregistered: nothing new is launched from it, and what runs goes on"
am image deregister demo
if am instance run demo; then
    echo "it was launched from an image that there is not" >&2
    exit 1
fi
original=$(amiboot instance show "$first" --json | sed -n 's/.*"image_id": "\(ami-[0-9a-f]*\)".*/\1/p')
if am instance run "$original"; then
    echo "it was launched from an image that was deregistered" >&2
    exit 1
fi
log_in "$first" after
types "$first" "cat /etc/again; echo alive-\$((4 + 4))" alive-8

say "the end"
am instance terminate "$first" --force
am instance terminate "$theirs" --force --region $west --owner $other
am volume ls
am image ls
echo "lifecycle: done"
