#!/usr/bin/env bash
# A person's day with the aws CLI and `amiboot serve`: every verb of EC2's that is served, and what it prints.
#
# Usage: cli.sh AMIBOOT
#
# `aws` and its Python are on the PATH (tools/aws-clients).

set -euo pipefail
shopt -s inherit_errexit
AMIBOOT=$1
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIR=$(mktemp -d "${TMPDIR:-/tmp}/amiboot-cli.XXXXXX")
server='' forks=''
tidy() {
    if [[ -n $server ]] && kill "$server" 2>/dev/null; then wait "$server" || true; fi
    if [[ -n $forks ]]; then exec 8>&-; fi
    rm -rf "$DIR"
}
trap tidy EXIT

die() {
    printf 'cli.sh, lines %s: %s\n' "${BASH_LINENO[*]}" "$*" >&2
    [[ ! -s $DIR/log ]] || tail -n 5 "$DIR/log" >&2
    exit 1
}

export AMIBOOT_HOME=$DIR/home HOME=$DIR
unset "${!AWS_@}"
"$AMIBOOT" serve --backend stub --auth any --listen 127.0.0.1:0 2>"$DIR/log" &
server=$!
until url=$(grep -o 'http://[0-9.:]*' "$DIR/log" | head -n 1) && [[ -n $url ]]; do
    kill -0 "$server" 2>/dev/null || die "the server ended"
    sleep 0.05
done
ACCOUNT=123456789012
export AWS_ENDPOINT_URL=$url AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=$ACCOUNT AWS_SECRET_ACCESS_KEY=any AWS_MAX_ATTEMPTS=1
# The whole program once; then processes that have loaded it.
[[ $(aws sts get-caller-identity --query Account --output text) == "$ACCOUNT" ]] || die "who am I?"
coproc FORKS { python3 "$HERE/aws_forks.py" "$DIR"; }
forks=$FORKS_PID
exec 8>&"${FORKS[1]}" 9<&"${FORKS[0]}"

aws() {
    local code
    printf '%s\0' "$@" >"$DIR/words"
    echo >&8
    read -r code <&9 || die "aws: there is no answer"
    cat "$DIR/out"
    cat "$DIR/said" >&2
    return "$code"
}

# ec2 VERB WORD...: its output as text.
ec2() { aws ec2 "$@" --output text; }

# as ACCOUNT VERB WORD...: another person, who has a program of their own.
as() {
    local account=$1
    shift
    AWS_ACCESS_KEY_ID=$account command aws ec2 "$@" --output text
}

# is HAVE EXPECTED
is() { [[ $1 == "$2" ]] || die "it is '$1', not '$2'"; }

# refused CODE VERB WORD...
refused() {
    local code=$1
    shift
    ! ec2 "$@" >"$DIR/refused" 2>&1 || die "$*: it was done"
    grep -q "($code)" "$DIR/refused" || die "$*: not $code, but $(cat "$DIR/refused")"
}

# until_it_is EXPECTED VERB WORD...: waits for what a command prints.
until_it_is() {
    local expected=$1 have
    shift
    for _ in $(seq 600); do
        have=$(ec2 "$@")
        [[ $have != "$expected" ]] || return 0
        sleep 0.1
    done
    die "$*: it stays '$have', and does not become '$expected'"
}
state_of() { until_it_is "$2" describe-instances --instance-ids "$1" --query 'Reservations[].Instances[].State.Name'; }
image_is() { until_it_is "$2" describe-images --image-ids "$1" --query 'Images[].State' "${@:3}"; }
snapshot_is() { until_it_is completed describe-snapshots --snapshot-ids "$1" --query 'Snapshots[].State' "${@:2}"; }
volume_is() { until_it_is "$2" describe-volumes --volume-ids "$1" --query 'Volumes[].State'; }

source "$HERE/cli_session.sh"

kill "$server"
wait "$server" || die "the server ended with $?"
server=''
! grep -q panicked "$DIR/log" || die "the server panicked"
