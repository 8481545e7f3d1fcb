#!/bin/sh
# The README's tour of EC2's API, as it is printed there: amiboot, aws and ssh are on the PATH.
#
# Usage: tour.sh README DISK

set -eu
sed -n '/^<!-- tour:/,/^```$/p' "$1" | sed '1,2d;$d' >tour
[ -s tour ]
ln -s "$2" debian-12.raw
mkdir -p "$AMIBOOT_HOME"
# Nothing may ask a person.
exec </dev/null
set -x
# shellcheck disable=SC1091
. ./tour
kill $!
wait
set +x
echo 'tour: done'
