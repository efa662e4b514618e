# A client of xybridd for any POSIX shell: source it. docs/clients.md has the rules.
#
#     . ./xybridd.sh
#     xybridd_open kiosk 2.1
#     trap xybridd_end EXIT
#     xybridd_inference whisper-tiny 1.0 212
#     xybridd_error "CUDA out of memory" whisper-tiny 1.0
#
# Needs od, awk, mkfifo and an nc that speaks to Unix sockets (OpenBSD's: Debian's netcat-openbsd; macOS has it).
#
# Records gather in a variable. After 50, or when a record comes 5 s after the last were sent, they become a batch: a
# file with its number, in a folder of this script's own, there until its answer has come. To send is one run of nc:
# hello, session.start, every batch that is there, in order; so whatever broke before, everything comes again under the
# number it had. That takes milliseconds; without a daemon nothing; with one that hangs 5 s, and then it is left alone for
# ten times as long. A second nc stays connected and says nothing: while it is there, the daemon knows that this script is.
#
# At most 100 batches wait (XYBRIDD_MOST_BATCHES); past that new records are dropped, and counted. File descriptor 9 is used. A child that goes
# on when this script has ended inherits it, and keeps the session from ending: start such a one with 9>&-.

xybridd_open() { # APP [APP_VERSION]
    xybridd_quote "$1" 128
    xybridd_app=$xybridd_quoted
    xybridd_quote "${2:-}" 128
    xybridd_app_version=$xybridd_quoted
    xybridd_folder=$(mktemp -d) || return 1
    xybridd_client_id=$(xybridd_uuid)
    xybridd_session_id=$(xybridd_uuid)
    xybridd_started_s=$(date +%s)
    xybridd_sent_s=$xybridd_started_s xybridd_next_try_s=0
    xybridd_first=1 xybridd_last=0 # the numbers of the oldest and of the newest batch there is
    xybridd_records='' xybridd_gathered=0
    xybridd_recorded=0 xybridd_acknowledged=0 xybridd_dropped=0 xybridd_refused=0 xybridd_dropped_untold=0
    xybridd_ended=no
}

xybridd_inference() { # MODEL VERSION LATENCY_MS [cpu|gpu|npu]
    case $3 in
    '' | *[!0-9.]* | *.*.* | .* | *. | 0[0-9]* | ????????????????*) return 1 ;;
    esac
    case ${4:-} in
    cpu | gpu | npu) xybridd_more=",\"stats\":{\"hardware_used\":\"$4\"}" ;;
    *) xybridd_more='' ;;
    esac
    xybridd_quote "${1:-unknown}" 256
    xybridd_model=$xybridd_quoted
    xybridd_quote "$2" 128
    xybridd_keep "\"inference\",\"model_id\":$xybridd_model,\"version\":$xybridd_quoted,\"latency_ms\":$3$xybridd_more"
}

xybridd_error() { # MESSAGE [MODEL [VERSION]]
    xybridd_more=''
    if [ -n "${2:-}" ]; then
        xybridd_quote "$2" 256
        xybridd_more=",\"model_id\":$xybridd_quoted"
        if [ -n "${3:-}" ]; then
            xybridd_quote "$3" 128
            xybridd_more="$xybridd_more,\"version\":$xybridd_quoted"
        fi
    fi
    xybridd_quote "$1" 2048
    xybridd_keep "\"error\",\"error\":$xybridd_quoted$xybridd_more"
}

xybridd_flush() { # 0: everything recorded so far is on disk
    xybridd_declined && return 0
    xybridd_seal || :
    xybridd_sent_s=$(date +%s) xybridd_next_try_s=0
    [ "$xybridd_first" -le "$xybridd_last" ] || return 0
    xybridd_exchange batches
    # Its session was over: once more, in another.
    [ "$xybridd_first" -gt "$xybridd_last" ] || [ "$xybridd_moved" = no ] || xybridd_exchange batches
    if [ "$xybridd_first" -gt "$xybridd_last" ]; then
        xybridd_hold
        [ "$xybridd_gathered" -eq 0 ]
        return
    fi
    # What is recorded tries again, so rarely that a tenth of the time is lost at most.
    xybridd_now_s=$(date +%s)
    xybridd_next_try_s=$((xybridd_now_s + 1 + 10 * (xybridd_now_s - xybridd_sent_s)))
    return 1
}

xybridd_end() { # [SECONDS]: bring everything home and end the session; 1: not within that time (5), and what waits is lost
    [ -n "${xybridd_folder:-}" ] || return 0
    xybridd_until_s=$(($(date +%s) + ${1:-5}))
    while :; do
        if [ "$xybridd_recorded" -eq 0 ] || xybridd_declined; then
            xybridd_ended=yes
        elif xybridd_flush; then
            xybridd_exchange session.end
        fi
        if [ "$xybridd_ended" = yes ] || [ "$(date +%s)" -ge "$xybridd_until_s" ]; then break; fi
        sleep 1
    done
    exec 9>&-
    rm -rf "$xybridd_folder"
    xybridd_folder=''
    [ "$xybridd_ended" = yes ]
}

# From here on: how it is done.

# The owner of this environment said no to telemetry.
xybridd_declined() {
    case ${DO_NOT_TRACK:-}/${XYBRID_TELEMETRY_OPTOUT:-} in
    1/* | */1 | */[Tt][Rr][Uu][Ee] | */[Yy][Ee][Ss]) return 0 ;;
    esac
    return 1
}

xybridd_uuid() {
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' |
        sed 's/^\(........\)\(....\).\(...\).\(...\)\(............\)$/\1-\2-4\3-a\4-\5/'
}

# $xybridd_quoted: a text of at most so many characters as a JSON string. What is no UTF-8 becomes U+FFFD.
xybridd_quote() { # TEXT MOST
    case $1 in
    *[!A-Za-z0-9\ ._:/@+=,-]*) ;;
    *)
        if [ "${#1}" -le "$2" ]; then
            xybridd_quoted="\"$1\""
            return
        fi
        ;;
    esac
    # Every awk reads numbers and writes ASCII alike; how it takes bytes above 127 depends on the awk and the locale.
    xybridd_quoted=$(printf %s "$1" | od -An -v -tu1 | awk -v most="$2" '
        function unit(code) { printf "\\u%04x", code }
        { for (i = 1; i <= NF; i++) bytes[n++] = $i }
        END {
            printf "\""
            for (at = 0; at < n && most-- > 0; ) {
                code = byte = bytes[at++]
                if (byte < 128) {
                    if (byte < 32 || byte == 34 || byte == 92) unit(byte); else printf "%c", byte
                    continue
                }
                more = byte < 224 ? 1 : byte < 240 ? 2 : 3
                least = byte < 224 ? 128 : byte < 240 ? 2048 : 65536
                code -= byte < 224 ? 192 : byte < 240 ? 224 : 240
                for (i = 0; i < more && at + i < n && bytes[at + i] >= 128 && bytes[at + i] < 192; i++)
                    code = code * 64 + bytes[at + i] - 128
                if (byte < 192 || i < more || code < least || code > 1114111 || (code >= 55296 && code < 57344)) {
                    unit(65533)
                    continue
                }
                at += more
                if (code < 65536) unit(code)
                else { unit(55296 + int((code - 65536) / 1024)); unit(56320 + (code - 65536) % 1024) }
            }
            printf "\""
        }')
}

xybridd_keep() { # the record's members, from the value of its type on
    xybridd_declined && return 0
    xybridd_recorded=$((xybridd_recorded + 1))
    xybridd_now_s=$(date +%s)
    if [ "$xybridd_gathered" -lt 50 ] || xybridd_seal; then
        xybridd_records="$xybridd_records,{\"type\":$1,\"timestamp_ms\":${xybridd_now_s}000}"
        xybridd_gathered=$((xybridd_gathered + 1))
    else
        xybridd_dropped=$((xybridd_dropped + 1))
        xybridd_dropped_untold=$((xybridd_dropped_untold + 1))
    fi
    if [ "$xybridd_now_s" -ge "$xybridd_next_try_s" ] &&
        { [ "$xybridd_gathered" -ge 50 ] || [ "$((xybridd_now_s - xybridd_sent_s))" -ge 5 ]; }; then
        xybridd_flush || :
    fi
}

# What gathered becomes the next batch. 1: there is no room for one.
xybridd_seal() {
    [ "$xybridd_gathered" -gt 0 ] || return 0
    [ "$((xybridd_last - xybridd_first + 1))" -lt "${XYBRIDD_MOST_BATCHES:-100}" ] || return 1
    printf '%s\n"dropped":%s,"records":[%s]\n' "$xybridd_gathered" "$xybridd_dropped_untold" "${xybridd_records#,}" \
        >"$xybridd_folder/$((xybridd_last + 1))" || return 1
    xybridd_last=$((xybridd_last + 1))
    xybridd_records='' xybridd_gathered=0 xybridd_dropped_untold=0
}

# $xybridd_socket: the variable's; or the user's, or the system's.
xybridd_find() {
    case $(uname) in
    Darwin) set -- "$HOME/Library/Caches/TemporaryItems" /var/run/xybridd.sock ;;
    *) set -- "/run/user/$(id -u)" /run/xybridd/xybridd.sock ;;
    esac
    for xybridd_socket in "${XYBRIDD_SOCKET:-}" "${XDG_RUNTIME_DIR:-$1}/xybridd/xybridd.sock" "$2"; do
        if [ -S "$xybridd_socket" ] || [ -n "${XYBRIDD_SOCKET:-}" ]; then return; fi
    done
}

xybridd_request() { # ID METHOD PARAMS
    printf '{"jsonrpc":"2.0","id":%s,"method":"%s","params":{%s}}\n' "$1" "$2" "$3"
}

xybridd_hello() {
    xybridd_request '"hello"' hello \
        "\"app\":$xybridd_app,\"app_version\":$xybridd_app_version,\"client_id\":\"$xybridd_client_id\""
}

xybridd_say() { # batches | session.end
    xybridd_hello
    xybridd_request '"start"' session.start "\"session_id\":\"$xybridd_session_id\",\"started_at_ms\":${xybridd_started_s}000"
    if [ "$1" = session.end ]; then
        xybridd_request '"end"' session.end "\"session_id\":\"$xybridd_session_id\""
        return
    fi
    xybridd_at=$xybridd_first
    while [ "$xybridd_at" -le "$xybridd_last" ]; do
        if [ -e "$xybridd_folder/$xybridd_at" ]; then
            { read -r xybridd_count && IFS= read -r xybridd_batch; } <"$xybridd_folder/$xybridd_at"
            xybridd_request "$xybridd_at" record.batch \
                "\"seq\":$xybridd_at,\"session_id\":\"$xybridd_session_id\",\"flush\":true,$xybridd_batch"
        fi
        xybridd_at=$((xybridd_at + 1))
    done
}

# One connection: everything is said, and every answer heard. $xybridd_moved: the session was over, there is another.
xybridd_exchange() { # batches | session.end
    xybridd_find
    xybridd_moved=no
    xybridd_say "$1" | nc -N -w 5 -U "$xybridd_socket" >"$xybridd_folder/answers" 2>/dev/null || :
    while IFS= read -r xybridd_answer; do
        xybridd_hear "$1" "${xybridd_answer#'{"jsonrpc":"2.0","id":'}"
    done <"$xybridd_folder/answers"
    while [ "$xybridd_first" -le "$xybridd_last" ] && [ ! -e "$xybridd_folder/$xybridd_first" ]; do
        xybridd_first=$((xybridd_first + 1))
    done
    if [ "$xybridd_moved" = yes ]; then
        xybridd_session_id=$(xybridd_uuid)
        xybridd_started_s=$(date +%s)
    fi
}

xybridd_hear() { # WHAT_WAS_SAID ANSWER, from the value of its id on
    case $2 in
    '"start","result":{"session_id":"'*) # after a day a session has a successor, and this is its id
        xybridd_session_id=${2#'"start","result":{"session_id":"'}
        xybridd_session_id=${xybridd_session_id%%\"*}
        ;;
    '"end","result":'*) xybridd_ended=yes ;;
    '"'*'","error":'*'"data":{"code":"session_ended"'* | '"'*'","error":'*'"data":{"code":"unknown_session"'*)
        # While ending: it was ended by us, and the answer got lost.
        if [ "$1" = session.end ]; then xybridd_ended=yes; else xybridd_moved=yes; fi
        ;;
    [0-9]*) xybridd_settle "${2%%,*}" "${2#*,}" ;;
    esac
}

xybridd_settle() { # NUMBER "result":… | "error":…
    [ -e "$xybridd_folder/$1" ] || return 0
    read -r xybridd_count <"$xybridd_folder/$1"
    case $2 in
    '"result":'*) xybridd_acknowledged=$((xybridd_acknowledged + xybridd_count)) ;;
    *'"data":{"code":"session_ended"'* | *'"data":{"code":"unknown_session"'*)
        xybridd_moved=yes
        return
        ;;
    *'"data":{"code":"overloaded"'* | *'"data":{"code":"storage_unavailable"'* | *'"data":{"code":"internal"'*) return ;;
    *) xybridd_refused=$((xybridd_refused + xybridd_count)) ;;
    esac
    rm -f "$xybridd_folder/$1"
}

# A connection that lasts as long as this script: descriptor 9 is its other end.
xybridd_hold() {
    if (xybridd_hello >&9) 2>/dev/null; then return; fi # it is still there; and the daemon may be another one by now
    rm -f "$xybridd_folder/hold"
    mkfifo "$xybridd_folder/hold" || return 0
    (nc -N -U "$xybridd_socket" <"$xybridd_folder/hold" >/dev/null 2>&1 &)
    exec 9>"$xybridd_folder/hold"
    (xybridd_hello >&9) 2>/dev/null || :
}
