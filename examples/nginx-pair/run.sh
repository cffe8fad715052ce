#!/usr/bin/env bash
# A pair of nginx under load, edited, broken, mended and rolled back. See README.md, or --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
examples/nginx-pair/run.sh [--help]

Needs root, the .NET 10 SDK and Debian's packages (it installs those that are missing). Everything happens in one network namespace
and one temporary directory, which are gone afterwards.
FLIP_PUBLISHED=DIR takes flipcontrollerd, flipctl and flipload from DIR instead of building them.
Exit codes: 0 no request failed, 1 some did, or it could not be tried.
TEXT
}

case ${1:-} in
    '') ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/packages.sh
. "$root/tests/packages.sh"
needed_packages+='nginx nginx-light
'
[ "$(id -u)" = 0 ] || { echo 'network namespaces need root: run it with sudo' >&2; exit 1; }

# ---- what was started, and its end

host=flipn-$$ pids=() dir=''

clean_up() {
    local code=$? pid
    set +e
    trap '' INT TERM
    exec 3>&2 2>/dev/null # the shell tells of each of its jobs that was killed
    for pid in "${pids[@]}"; do kill "$pid"; done
    # nginx is nobody's child: what lives in a namespace that only this script made is its own.
    for pid in $(ip netns pids "$host"); do kill -9 "$pid"; done
    wait
    exec 2>&3
    [ ! -e "/run/netns/$host" ] || ip netns delete "$host"
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "$1" >&2
    [ ! -s "$dir/daemon.log" ] || tail -20 "$dir/daemon.log" >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what"
        sleep 0.1
    done
}

# ---- programs

install_packages
bin=${FLIP_PUBLISHED:-}
if [ -z "$bin" ]; then
    find_dotnet
    bin=$root/publish
    echo "Building (into $bin; about a minute the first time) ..."
    for project in src/FlipController.Daemon src/FlipController.Cli tests/FlipController.Load; do
        dotnet publish "$root/$project" -c Release -o "$bin" -v quiet --disable-build-servers
    done
fi
PATH=$bin:$PATH
dir=$(mktemp -d "/tmp/flipn-$$.XXXXXX")
export FLIPCONTROLLER_SOCKET=$dir/control.sock

# ---- the pair

ip netns add "$host"
ip -n "$host" link set lo up
inside=(ip netns exec "$host")
"${inside[@]}" sh -c 'echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range; echo 21000-22999 >/proc/sys/net/ipv4/ip_local_reserved_ports; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
cp "$here/nginx.conf" "$dir/nginx.conf"
sed "s|DIR|$dir|" "$here/flipcontroller.yaml" >"$dir/flipcontroller.yaml"
flipctl check-config "$dir/flipcontroller.yaml" | sed "s|$dir/||"
"${inside[@]}" flipcontrollerd "$dir/flipcontroller.yaml" >"$dir/daemon.log" 2>&1 &
pids+=($!)
says() { "${inside[@]}" curl -fs "http://$1/" | grep -q "$2"; }
until_true 30 'nginx did not start' says 127.0.0.1 'first edition'
echo 'flipcontrollerd has started nginx from nginx.conf; the load begins.'
"${inside[@]}" flipload run --json --target 127.0.0.1:80 --target '[::1]:80' --rate 500 --duration 2m --expect edition >"$dir/load.json" 2>"$dir/load.log" &
load=$!
pids+=("$load")

# ---- an edit, a slip, and the way back

printf '\nEDIT    another text\n'
sed -i 's/first edition/second edition/' "$dir/nginx.conf"
until_true 30 'no flip within 30 s' says '[::1]' 'second edition'
flipctl history web --limit 1

printf '\nSLIP    "retrun". nginx is asked before anything moves\n'
sed -i 's/return 200/retrun 200/' "$dir/nginx.conf"
refused() { flipctl status --json | jq -e '.pairs[0].lastFlip.outcome == "failed"'; }
until_true 30 'the slip was not refused within 30 s' refused
flipctl status --json | jq -r '.pairs[0].fault' | sed "s|$dir/||g"
says 127.0.0.1 'second edition' || fail 'the slip moved something'

printf '\nEDIT    put right, and another text\n'
sed -i 's/retrun 200 "second/return 200 "third/' "$dir/nginx.conf"
until_true 30 'no flip within 30 s' says '[::1]' 'third edition'
flipctl history web --limit 1

printf '\nUNDO    flipctl rollback web\n'
flipctl rollback web --reason 'not today'
says '[::1]' 'second edition' || fail 'the rollback did not bring back the second edition'

kill -TERM "$load"
wait "$load" || true
left() { flipctl status --json | jq -e '.pairs[0] | .retired == [] and .previous == null'; }
until_true 60 'a side did not drain within 60 s' left

# ---- the account

[ -s "$dir/load.json" ] || { cat "$dir/load.log" >&2; fail 'the load ended without a result'; }
jq -r '"\n  requests   \(.requests) (500 new connections/s over IPv4 and IPv6)\n  failed     \(.failed)"' "$dir/load.json"
[ "$(jq .failed "$dir/load.json")" = 0 ]
