#!/usr/bin/env bash
# Two nodes behind VIPs: one is emptied, its VIPs move, it is brought back, under load. See README.md, or --help.
set -euo pipefail

usage() {
    cat <<'END'
examples/keepalived-pair/run.sh [--keep] [--help]

Needs root, the .NET 10 SDK and Debian's packages (it installs those that are missing). Everything happens in four network
namespaces and one temporary directory, which are gone afterwards.
  --keep   keep the directory: configurations, logs, the results of the load generator
FLIP_PUBLISHED=DIR takes flipcontrollerd, flipctl and flipload from DIR instead of building them.
Exit codes: 0 no connection failed or was cut, 1 some were, or it could not be tried.
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

prefix=flipk-$$ pids=() dir=''

clean_up() {
    # What goes wrong here is no reason to leave the rest, or to end with another code.
    local code=$? pid name
    set +e
    trap '' INT TERM
    exec 3>&2 2>/dev/null # the shell tells of each of its jobs that was killed
    for pid in "${pids[@]}"; do kill "$pid"; done
    for name in client a b switch; do
        # HAProxy is nobody's child: what lives in a namespace that only this script made is its own.
        for pid in $(ip netns pids "$prefix-$name"); do kill -9 "$pid"; done
    done
    wait
    exec 2>&3
    for name in client a b switch; do
        [ ! -e "/run/netns/$prefix-$name" ] || ip netns delete "$prefix-$name"
    done
    if [ -n "$dir" ]; then
        if [ -n "$keep" ]; then echo "kept: $dir (a, b, *.json)"; else rm -rf "$dir"; fi
    fi
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    local name
    echo "$1" >&2
    for name in a b; do
        [ ! -s "$dir/$name/daemon.log" ] || tail -15 "$dir/$name/daemon.log" >&2
    done
    exit 1
}

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$1"; }

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
dir=$(mktemp -d "/tmp/$prefix.XXXXXX")
chmod 755 "$dir" # HAProxy's user passes through it

# ---- two nodes, clients and a switch

cat <<'END'
FlipController and keepalived

  clients  10.79.0.1   fd00:79::1  ----  switch  ----  a  10.79.0.11  fd00:79::11  priority 150
                                            |
  VIPs     10.79.0.100 fd00:79::100         +--------  b  10.79.0.12  fd00:79::12  priority 100

END
for name in switch client a b; do
    ip netns add "$prefix-$name"
    ip -n "$prefix-$name" link set lo up
done
ip -n "$prefix-switch" link add switch type bridge
ip -n "$prefix-switch" link set switch up
for end in 'client 1' 'a 11' 'b 12'; do
    read -r name host <<<"$end"
    ip -n "$prefix-$name" link add eth0 type veth peer name "to-$name" netns "$prefix-switch"
    ip -n "$prefix-switch" link set "to-$name" master switch
    ip -n "$prefix-switch" link set "to-$name" up
    ip -n "$prefix-$name" address add "10.79.0.$host/24" dev eth0
    ip -n "$prefix-$name" address add "fd00:79::$host/64" dev eth0 nodad
    ip -n "$prefix-$name" link set eth0 up
done

(umask 077 && openssl rand -out "$dir/peer.key" 32)
# node NAME OWN OTHER PRIORITY
node() {
    local in=(ip netns exec "$prefix-$1") place=$dir/$1 file
    mkdir "$place"
    cp -p "$dir/peer.key" "$place/"
    for file in keepalived.conf flipcontroller.yaml haproxy.cfg; do
        sed "s|DIR|$place|g; s|NAME|$1|; s|OWN|$2|; s|OTHER|$3|; s|PRIORITY|$4|" "$here/$file" >"$place/$file"
    done
    echo 0 >"$place/keepalived.track"
    "${in[@]}" flipload serve --listen 127.0.0.1:8080 --name "$1" --pid-file "$place/app.pid" >"$place/app.log" 2>&1 &
    pids+=($!)
    "${in[@]}" flipcontrollerd "$place/flipcontroller.yaml" >"$place/daemon.log" 2>&1 &
    pids+=($!)
    # Two on one host, and the host's own may run: each has its pid files to itself.
    "${in[@]}" keepalived --dont-fork --log-console --vrrp --use-file "$place/keepalived.conf" \
        --pid "$place/keepalived.pid" --vrrp_pid "$place/vrrp.pid" >"$place/keepalived.log" 2>&1 &
    pids+=($!)
}
node a 10.79.0.11 10.79.0.12 150
node b 10.79.0.12 10.79.0.11 100

serves() { ip netns exec "$prefix-$1" curl -fs -o /dev/null "http://$2/"; }
has_vips() { [ "$(ip -n "$prefix-$1" -oneline address show dev eth0 | grep -cE ' (10.79.0.100|fd00:79::100)/')" = 2 ]; }
only_has_vips() { has_vips "$1" && ! ip -n "$prefix-$2" -oneline address show dev eth0 | grep -qE ' (10.79.0.100|fd00:79::100)/'; }
until_true 30 'a does not serve' serves a 10.79.0.11
until_true 30 'b does not serve' serves b 10.79.0.12
until_true 10 'a did not take the VIPs' only_has_vips a b
until_true 10 'nothing answers at the VIPs' serves client 10.79.0.100
until_true 10 'nothing answers at the VIPs' serves client '[fd00:79::100]'
say 'a has the VIPs; the load begins.'

# ---- load

targets=(--target 10.79.0.100:80 --target '[fd00:79::100]:80')
declare -A loads
# load NAME ARGUMENTS...
load() {
    local name=$1
    shift
    ip netns exec "$prefix-client" flipload run --json "${targets[@]}" "$@" >"$dir/$name.json" 2>"$dir/$name.log" &
    pids+=($!)
    loads[$name]=$!
}
load new --rate 300 --duration 5m
# They echo, each about ten times a second. Some end by themselves while a is emptied, the others when this script has seen enough.
load ending --mode long --long echo --connections 30 --rate 300 --duration 7s
load lasting --mode long --long echo --connections 20 --rate 200 --duration 5m
sleep 3

# ---- the handover, and back

on_a=(flipctl --socket "$dir/a/control.sock")
status='"\(.phase): \(.left) open on a, \(.at_peer // 0) on b"'
# follow NAME-WITH-VIPS NAME-WITHOUT
follow() {
    local last='' now deadline=$((SECONDS + 25))
    until only_has_vips "$1" "$2"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "the VIPs did not move to $1: $("${on_a[@]}" handover status)"
        now=$("${on_a[@]}" --json handover status | jq -r "$status")
        [ "$now" = "$last" ] || say "  $now"
        last=$now
        sleep 0.9
    done
    say "$1 has the VIPs."
}
say 'flipctl handover start, on a'
"${on_a[@]}" handover start --no-wait >/dev/null || fail 'the handover did not begin'
follow b a
load late --mode long --long echo --connections 10 --rate 100 --duration 5m
sleep 4
say "  $("${on_a[@]}" --json handover status | jq -r "$status")"

say 'flipctl handover cancel, on a'
"${on_a[@]}" handover cancel --no-wait >/dev/null || fail 'the handover was not cancelled'
follow a b
sleep 3

for name in new lasting late; do kill -TERM "${loads[$name]}"; done
for name in new ending lasting late; do wait "${loads[$name]}" || true; done
for name in new ending lasting late; do
    [ -s "$dir/$name.json" ] || { cat "$dir/$name.log" >&2; fail "the load \"$name\" ended without a result"; }
done
at_rest() { "${on_a[@]}" --json handover status | jq -e '.phase == "none"'; }
until_true 20 'the handover did not end' at_rest

# ---- the account

jq -s -r '
    def row($name; $value): "  " + ($name + " " * 30)[:30] + "\($value)";
    . as [$new, $ending, $lasting, $late]
    | "",
    row("new connections"; $new.requests),
    row("  served by a, by b"; "\($new.servedBy.a.count // 0), \($new.servedBy.b.count // 0)"),
    row("  slowest"; "\($new.latency.max | round) ms"),
    row("long-lived connections"; "60 (30 ended while a was emptied, 20 outlived both moves, 10 began on b)"),
    row("  what they said"; [$ending, $lasting, $late | .requests] | add),
    row("  cut"; [$ending, $lasting, $late | .connections] | add - 60),
    row("failed"; [.[].failed] | add)
' "$dir"/{new,ending,lasting,late}.json
echo
failed=$(jq -s '([.[].failed] | add) + ([.[1:][].connections] | add - 60)' "$dir"/{new,ending,lasting,late}.json)
if [ "$failed" != 0 ]; then
    jq -r '.samples[] | "failed at \(.atMs) ms, \(.target): \(.failure) \(.message)"' "$dir"/{new,ending,lasting,late}.json | head -20
    exit 1
fi
