#!/usr/bin/env bash
# The quickstart: a pair under load, and its configuration edited five times. See README.md, or --help.
set -euo pipefail

usage() {
    cat <<'END'
examples/quickstart/run.sh [--keep] [--help]

Needs root, the .NET 10 SDK and Debian's packages (it installs those that are missing). Everything happens in two network
namespaces and one temporary directory, which are gone afterwards.
  --keep   keep the directory: configurations, logs, the results of the load generator
FLIP_PUBLISHED=DIR takes flipcontrollerd, flipctl and flipload from DIR instead of building them.
Exit codes: 0 no request failed, 1 some did, or it could not be tried.
END
}

keep=''
case ${1:-} in
    '') ;;
    --keep) keep=yes ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/packages.sh
. "$root/tests/packages.sh"
[ "$(id -u)" = 0 ] || { echo 'network namespaces need root: run it with sudo' >&2; exit 1; }

# ---- what was started, and its end

client=flipq-$$-client server=flipq-$$-server pids=() dir=''

clean_up() {
    # What goes wrong here is no reason to leave the rest, or to end with another code.
    local code=$? pid namespace
    set +e
    trap '' INT TERM
    exec 3>&2 2>/dev/null # the shell tells of each of its jobs that was killed
    for pid in "${pids[@]}"; do kill "$pid"; done
    for namespace in "$client" "$server"; do
        # HAProxy is nobody's child: what lives in a namespace that only this script made is its own.
        for pid in $(ip netns pids "$namespace"); do kill -9 "$pid"; done
    done
    wait
    exec 2>&3
    for namespace in "$client" "$server"; do
        [ ! -e "/run/netns/$namespace" ] || ip netns delete "$namespace"
    done
    if [ -n "$dir" ]; then
        if [ -n "$keep" ]; then echo "kept: $dir (daemon.log, haproxy.cfg, events, *.json)"; else rm -rf "$dir"; fi
    fi
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

say() { printf '%8s  %s\n' '' "$1"; }

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
dir=$(mktemp -d "/tmp/flipq-$$.XXXXXX")
chmod 755 "$dir" # HAProxy's user passes through it
export FLIPCONTROLLER_SOCKET=$dir/control.sock

# ---- two hosts and a wire

cat <<'END'
FlipController quickstart

  client  10.78.0.1, fd00:78::1  ------  server  10.78.0.2, fd00:78::2
  1,000 new connections/s                flipcontrollerd, HAProxy on *:80 and [::]:80, three backends

END
ip netns add "$client"
ip netns add "$server"
ip -n "$client" link add veth0 type veth peer name veth0 netns "$server"
for end in "$client 1" "$server 2"; do
    read -r namespace host <<<"$end"
    ip -n "$namespace" link set lo up
    ip -n "$namespace" address add "10.78.0.$host/24" dev veth0
    ip -n "$namespace" address add "fd00:78::$host/64" dev veth0 nodad
    ip -n "$namespace" link set veth0 up
done
# Prefixes, not functions: a function in the background is a shell, and its pid not the program's.
in_client=(ip netns exec "$client") in_server=(ip netns exec "$server")
# One client at this rate: without it, it would use up its ports in a minute (closed ones rest that long).
"${in_client[@]}" sh -c 'echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'

for n in 1 2 3; do
    "${in_server[@]}" flipload serve --listen "127.0.0.1:808$n" --name "app$n" --pid-file "$dir/app$n.pid" >"$dir/app$n.log" 2>&1 &
    pids+=($!)
done
for n in 1 2 3; do until_true 20 "backend app$n did not start" test -s "$dir/app$n.pid"; done

# ---- the pair

cp "$here/haproxy.cfg" "$dir/haproxy.cfg"
sed "s|DIR|$dir|" "$here/flipcontroller.yaml" >"$dir/flipcontroller.yaml"
flipctl check-config "$dir/flipcontroller.yaml" | sed "s|$dir/||; s/^/          /"
"${in_server[@]}" flipcontrollerd "$dir/flipcontroller.yaml" >"$dir/daemon.log" 2>&1 &
pids+=($!)
until_true 20 'flipcontrollerd did not start' test -S "$FLIPCONTROLLER_SOCKET"
# What happens, from `flipctl watch`, one line each: to a file in full, to the terminal what moves.
show='select((.kind == "state" and (.state == "preparing" or .state == "gating" or .state == "steady"))
        or .kind == "fault" or .kind == "drained" or (.kind == "flip" and .flip.outcome != "failed"))
    | (.at | sub("\\..*"; "") | sub(".*T"; "")) + "  " + .state + ": " + .text'
: >"$dir/events"
flipctl watch --json > >(tee -a "$dir/events" | jq -r --unbuffered "$show" | sed -u "s|$dir/||g") 2>"$dir/watch.log" &
pids+=($!)
serves() { "${in_client[@]}" curl -fs -o /dev/null http://10.78.0.2/; }
until_true 30 'HAProxy did not start' serves
say 'flipcontrollerd has started HAProxy from haproxy.cfg; the load begins.'

# ---- load

targets=(--target 10.78.0.2:80 --target '[fd00:78::2]:80' --served-by X-Backend)
# load NAME ARGUMENTS...
load() {
    local name=$1
    shift
    "${in_client[@]}" flipload run --json "${targets[@]}" "$@" >"$dir/$name.json" 2>"$dir/$name.log" &
    pids+=($!)
    loads[$name]=$!
}
# The longer ones outlive every flip: half of them are upgraded to websockets and echo, half download slowly.
declare -A loads
load long --mode long --connections 40 --rate 100 --duration 45s
load steady --rate 1000 --duration 10s
wait "${loads[steady]}" || true
load flips --rate 1000 --duration 5m

# ---- five edits and an undo

ended() { [ "$(grep -c '"kind":"flip"' "$dir/events")" -ge "$1" ]; }

# edit TEXT COMMAND...: one edit of the user's file, and a wait for the end of the flip that it makes
edit() {
    local flips
    flips=$(grep -c '"kind":"flip"' "$dir/events" || true)
    echo
    say "$1"
    shift
    "$@"
    until_true 25 'no flip within 25 s' ended $((flips + 1))
    sleep 2
}

edit 'EDIT 1  a header more, saved in place' \
    sed -i 's/^\tdefault_backend app/\thttp-response set-header X-Site quickstart\n&/' "$dir/haproxy.cfg"
append() { printf '\tserver app3 127.0.0.1:8083 check\n' >>"$dir/haproxy.cfg"; }
edit 'EDIT 2  a server more, appended' append
load late --mode long --connections 20 --rate 50 --duration 25s
by_rename() { sed 's/timeout client  50000/timeout client  40000/' "$dir/haproxy.cfg" >"$dir/haproxy.new" && mv "$dir/haproxy.new" "$dir/haproxy.cfg"; }
edit 'EDIT 3  another timeout, a new file renamed over the old' by_rename
edit 'EDIT 4  a slip: "defautl_backend". HAProxy is asked before anything moves' \
    sed -i 's/default_backend/defautl_backend/' "$dir/haproxy.cfg"
edit 'EDIT 5  put right, and one header more' \
    sed -i 's/defautl_backend/http-response set-header X-Frame-Options DENY\n\tdefault_backend/' "$dir/haproxy.cfg"
edit 'UNDO    flipctl rollback edge --reason "not today"' flipctl rollback edge --reason 'not today'

kill -TERM "${loads[flips]}"
wait "${loads[flips]}" || true
echo
say 'The configuration is edited no more; the long-lived connections of both groups finish where they began ...'
wait "${loads[long]}" || true
wait "${loads[late]}" || true
drained() { flipctl status --json | jq -e '.pairs[0] | .retired == [] and .previous == null'; }
until_true 30 'a side did not drain within 30 s' drained

# ---- the account

for name in steady flips long late; do
    [ -s "$dir/$name.json" ] || { cat "$dir/$name.log" >&2; fail "the load \"$name\" ended without a result"; }
done

jq -s -r --slurpfile events "$dir/events" '
    def ms: . * 100 | round / 100 | tostring + " ms";
    def row($name; $value): "  " + ($name + " " * 24)[:24] + $value;
    . as [$steady, $flips, $long, $late]
    | [$events[] | select(.kind == "flip") | .flip] as $all
    | [$all[] | select((.outcome == "done" and .from != null) or .outcome == "rolled-back")] as $moved
    | ([$moved[].hold.window_us] | sort) as $windows
    | def latency($p): "\($flips.latency[$p] - $steady.latency[$p] | if . > 0 then ms else "none" end)"
        + " (steady \($steady.latency[$p] | ms), while flipping \($flips.latency[$p] | ms))";
    "",
    row("requests"; "\([.[].requests] | add) (1,000 new connections/s over IPv4 and IPv6, 60 long-lived ones)"),
    row("failed"; "\([.[].failed] | add)"),
    row("flips"; "\($moved | length) (one of them the rollback)"),
    row("refused flips"; "\([$all[] | select(.outcome == "failed")] | length)"),
    row("switch window"; "median \($windows[($windows | length) / 2 | floor]) us, max \($windows[-1]) us"),
    row("added latency p50"; latency("p50")),
    row("added latency p99"; latency("p99")),
    row("stayed on the old side"; "\([$moved[].oldSideConnections // 0] | add) connections, and all finished there")
' "$dir"/{steady,flips,long,late}.json
echo
failed=$(jq -s '[.[].failed] | add' "$dir"/{steady,flips,long,late}.json)
if [ "$failed" != 0 ]; then
    jq -r '.samples[] | "failed at \(.atMs) ms, \(.target): \(.failure) \(.message)"' "$dir"/{steady,flips,long,late}.json | head -20
    exit 1
fi
