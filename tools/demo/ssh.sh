#!/bin/sh
# Instances that a person can log in to, as that person would type it: amiboot, ssh and passt are on the PATH, and the
# argument is an unmodified disk of Debian with cloud-init and OpenSSH. Both run side by side: one PV, one HVM.
#
# Usage: ssh.sh DISK

# What is in single quotes is the guest's.
# shellcheck disable=SC2016
set -eu
disk=$1
mkdir -p "$AMIBOOT_HOME"

say() { printf '\n# %s\n' "$*"; }

# am WORD...: shows the command and runs it.
am() {
    printf '$ amiboot %s\n' "$*"
    amiboot "$@"
}

# in_guest NAME COMMAND: shows a command and runs it in an instance.
in_guest() {
    printf '$ amiboot instance ssh %s %s\n' "$1" "$2"
    amiboot instance ssh --timeout 15m "$1" "$2"
}

# fail NAME: shows what an instance had to say, and ends.
fail() {
    echo "$1: $2" >&2
    amiboot instance console "$1" --log | tail -n 40 >&2
    exit 1
}

say 'An image for either kind of machine, whose instances answer no request for metadata without a token'
am image import "$disk" --name demo-hvm --virtualization-type hvm
am image import "$disk" --name demo-pv --virtualization-type paravirtual

say 'A key pair, and a script that the instances run at their first boot'
am key create demo
cat >"$AMIBOOT_HOME/setup.sh" <<'END'
#!/bin/sh
echo "user data ran as $(id -un) on $(hostname)" >/var/tmp/user-data.txt
END

for kind in pv hvm; do
    say "The $kind instance, with 2 GiB more than its image has"
    am instance run "demo-$kind" --name "$kind" --memory 1G --cpus 1 --type "$([ $kind = pv ] && echo m3.medium || echo t3.small)" \
        --key demo --user-data "$AMIBOOT_HOME/setup.sh" --http-tokens required --instance-metadata-tags enabled \
        --tag Role=demo --bdm "/dev/xvda=5G"
    in_guest "$kind" 'cloud-init status --wait --long' || fail "$kind" 'cloud-init is not done'
    in_guest "$kind" 'cat /var/tmp/user-data.txt; cloud-id; systemd-detect-virt; echo root file system: $(df -h --output=size / | tail -n 1)'
    in_guest "$kind" 'cat /run/cloud-init/result.json; echo warnings: $(grep -c WARNING /var/log/cloud-init.log)'
    in_guest "$kind" 'T=$(curl -sX PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://169.254.169.254/latest/api/token); \
echo "Role: $(curl -sH "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/meta-data/tags/instance/Role)"; \
curl -so /dev/null -w "without a token: %{http_code}\n" http://169.254.169.254/latest/meta-data/'
done

am instance ls
say 'They reach each other by their private addresses'
address=$(amiboot instance show hvm --json | sed -n 's/.*"private_ip_address": "\([0-9.]*\)".*/\1/p')
in_guest pv "ping -c 3 $address" || fail hvm 'no answer to ping'

say 'A tag that is given now is seen within'
am tag set pv Role=changed
in_guest pv 'T=$(curl -sX PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://169.254.169.254/latest/api/token); \
echo "Role: $(curl -sH "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/meta-data/tags/instance/Role)"'

am instance terminate pv hvm
echo 'ssh: done'
