#!/bin/sh
# An app that times something: each line of standard input is a latency in ms, or, if it is no number, an error.
#
#     printf '212\n187.5\nCUDA out of memory\n' | sh demo.sh kiosk whisper-tiny 1.0
#
# Prints one line at the end: the session, and what became of the records. Exit code 1: not all of them came home.
set -eu
. "$(dirname "$0")/xybridd.sh"

if [ $# -ne 3 ] && [ $# -ne 4 ]; then
    echo "usage: $0 APP MODEL VERSION [SECONDS_TO_WAIT_AT_THE_END] <LATENCIES" >&2
    exit 2
fi
xybridd_open "$1" 1.0
while IFS= read -r line; do
    xybridd_inference "$2" "$3" "$line" cpu || xybridd_error "$line" "$2" "$3"
done
home=0
if ! xybridd_end "${4:-10}"; then
    echo "$0: no daemon took all of it within ${4:-10} s; the rest is lost" >&2
    home=1
fi
echo "session=$xybridd_session_id recorded=$xybridd_recorded acknowledged=$xybridd_acknowledged" \
    "dropped=$xybridd_dropped refused=$xybridd_refused"
exit $home
