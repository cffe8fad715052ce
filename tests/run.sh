#!/usr/bin/env bash
# The one test command: installs what is missing, builds, runs every tier, sums up. See --help.
set -uo pipefail

usage() {
    cat <<'END'
tests/run.sh [--tier pure|netns|vm|system|long]... [--help]

Builds the solution in Release (warnings are errors) and runs the tests:
  pure    FlipController.Core.Tests: no root, no I/O, first and alone
  netns   FlipController.Linux.Tests: network namespaces, real HAProxy, nft and conntrack
  vm      the tests with the trait needs=plug, here if this kernel has sch_plug, else in an emulated machine with Debian's
          kernel (tests/vm/run.sh); the other tiers leave them out
  system  FlipController.System.Tests: the whole daemon under load, flipctl, the examples, the README
  long    only when asked for, about an hour: 300 kills, 300 with damaged files, 2,000 flips (FLIP_KILLS=N, FLIP_FLIPS=N)
As root on Debian it installs what is missing first. Without root, what needs it is skipped by name.
FLIP_REQUIRE=netns,haproxy,nginx,vm makes a skip for want of those a failure.
At most four failed tests of a tier run once more, with nothing beside them; those that pass then are named before the last line.

The last line is `N passed, N failed, N skipped`; the exit code is 0 only when nothing failed and something passed.
END
}

tiers=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --tier)
            case ${2:-} in
                pure | netns | vm | system | long) tiers+=("$2") ;;
                *) echo "tests/run.sh: --tier is pure, netns, vm, system or long; see --help" >&2; exit 2 ;;
            esac
            shift ;;
        *) echo "tests/run.sh: \"$1\" is unknown; see --help" >&2; exit 2 ;;
    esac
    shift
done
[ ${#tiers[@]} -gt 0 ] || tiers=(pure netns vm system)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# shellcheck source=tests/packages.sh
. tests/packages.sh
# For the tests alone: the shells whose completion scripts are checked, what speaks to HAProxy's admin socket there, who else makes rules,
# and another service than HAProxy.
needed_packages+='
socat           socat
zsh             zsh
fish            fish
iptables-nft    iptables
nginx           nginx-light
'

passed=0 failed=0 skipped=0 running='' alone=()

finish() {
    local method
    for method in "${alone[@]}"; do echo "failed beside others, then ran alone: $method"; done
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}

nothing_ran() {
    echo "$1" >&2
    passed=0 failed=1 skipped=0
    finish
}

# Removes namespaces whose test process is gone, with whatever still runs in them.
sweep() {
    [ "$(id -u)" = 0 ] && [ -d /run/netns ] || return 0
    local path name creator pid
    for path in /run/netns/flipt-* /run/netns/flipq-*; do
        name=${path##*/}
        creator=${name#flip?-}
        creator=${creator%%-*}
        if [ -e "$path" ] && [ -n "$creator" ] && [ ! -d "/proc/$creator" ]; then
            for pid in $(ip netns pids "$name"); do kill -9 "$pid" 2>/dev/null; done
            ip netns delete "$name"
        fi
    done
}

program() { echo "tests/$1/bin/Release/net10.0/$1"; }

# run_tier NAME SECONDS COMMAND...: COMMAND is one test program, or runs several.
run_tier() {
    local name=$1 limit=$2 log status summary shown began=$SECONDS
    shift 2
    log=$(mktemp)
    echo
    echo "== $name"
    timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1 &
    running=$!
    tail -n +1 -s 0.2 -f --pid="$running" "$log" | grep --line-buffered -v '^  \(Discover\|Starting\|Finished\)\|\[STARTING\]$' &
    shown=$!
    wait "$running"
    status=$?
    wait "$shown"
    running=''
    [ "$status" != 124 ] && [ "$status" != 137 ] || echo "$name did not end within $limit s and was killed"
    summary=$(sed -n 's/.*Total: *\([0-9]*\), Errors: *\([0-9]*\), Failed: *\([0-9]*\), Skipped: *\([0-9]*\), Not Run: *\([0-9]*\).*/\1 \2 \3 \4 \5/p' "$log")
    rm -f "$log"
    local total errors bad skips left any=0
    while read -r total errors bad skips left; do
        [ -n "$left" ] || continue
        passed=$((passed + total - bad - skips - left))
        failed=$((failed + bad + errors))
        skipped=$((skipped + skips))
        any=$((any + bad + errors))
    done <<<"$summary"
    if [ -z "$summary" ]; then
        echo "$name ended without a result (exit code $status)"
        failed=$((failed + 1))
    elif [ "$status" != 0 ] && [ "$any" = 0 ]; then
        echo "$name: no test failed, but its exit code is $status"
        failed=$((failed + 1))
    fi
    echo "== $name took $((SECONDS - began)) s"
    sweep
}

# run_project PROJECT SECONDS: tests that may run side by side mostly wait, hence more threads than processors. Each one's time is
# in tests/results/PROJECT.xml afterwards. When a few failed they run once more, with nothing beside them, and those that pass then
# are named at the end; a test that saw a connection lost has no second chance.
run_project() {
    mkdir -p tests/results
    local results=tests/results/$1.xml before=$failed names name methods=()
    rm -f "$results"
    run_tier "$1" "$2" "$(program "$1")" -noLogo -noColor -maxThreads 4 -xml "$results" -trait- needs=plug
    local first=$((failed - before)) counted=("$passed" "$skipped") again
    [ "$first" -gt 0 ] && [ "$first" -le 4 ] && [ -s "$results" ] || return
    names=$(crowded_out "$results")
    [ "$(wc -w <<<"$names")" = "$first" ] || return
    names=$(tr ' ' '\n' <<<"$names" | sort -u)
    for name in $names; do methods+=(-method "$name"); done
    before=$failed
    run_tier "$1, once more" 300 "$(program "$1")" -noLogo -noColor -maxThreads 1 "${methods[@]}" -trait- needs=plug
    again=$((failed - before))
    failed=$((before - first + again)) passed=${counted[0]} skipped=${counted[1]}
    [ "$again" -lt "$first" ] || return
    passed=$((passed + first - again))
    # shellcheck disable=SC2206 # a word each
    alone+=($names)
}

# crowded_out RESULTS: TYPE.METHOD for each test that failed, but not by a connection that was lost.
crowded_out() {
    awk 'BEGIN { RS = "<test " } /result="Fail"/ && !/lateResets|a connection was lost|datagrams were lost/ {
        match($0, / type="[^"]*"/); type = substr($0, RSTART + 7, RLENGTH - 8)
        match($0, / method="[^"]*"/); print type "." substr($0, RSTART + 9, RLENGTH - 10)
    }' "$1"
}

# The tests that need sch_plug, in one go: an emulated machine takes its time to boot.
run_vm_tier() {
    local limit=420 project programs=() machine=() why
    for project in FlipController.Linux.Tests FlipController.System.Tests; do
        [ -z "$("$(program "$project")" -list tests -noLogo -noColor -trait needs=plug)" ] || programs+=("$(program "$project")")
    done
    if [ "$(id -u)" = 0 ] && unshare --net tc qdisc add dev lo root plug limit 1000000 2>/dev/null; then
        echo 'this kernel has sch_plug: no machine is emulated'
    elif why=$(tests/vm/run.sh --prepare 2>&1); then
        [ -z "$why" ] || echo "$why"
        machine=(tests/vm/run.sh --seconds $((limit - 20)))
    else
        echo
        echo "== vm: skipped. $why"
        case ,${FLIP_REQUIRE:-}, in
            *,vm,*) failed=$((failed + 1)) ;;
            *) skipped=$((skipped + 1)) ;;
        esac
        return
    fi
    # shellcheck disable=SC2016 # for the inner shell
    FLIP_REQUIRE=$(required_inside) run_tier vm "$limit" "${machine[@]}" bash -c '
        status=0
        for program in "$@"; do "$program" -noLogo -noColor -reporter verbose -trait needs=plug || status=1; done
        exit $status' vm "${programs[@]}"
}

# FLIP_REQUIRE with plug for vm: where these tests run, sch_plug was seen or is what the machine was booted for.
required_inside() { tr , '\n' <<<"${FLIP_REQUIRE:-}" | sed '/^ *\(vm *\)\{0,1\}$/d' | cat - <(echo plug) | paste -s -d ,; }

trap '[ -z "$running" ] || kill "$running" 2>/dev/null; sweep; exit 130' INT TERM

find_dotnet || nothing_ran 'nothing was built and nothing was tested'
if [ "$(id -u)" = 0 ]; then
    install_packages || nothing_ran 'nothing was built and nothing was tested'
    unpack_other_haproxy tests/results/other-haproxy
else
    echo 'not root: what needs it is skipped'
    missing=$(missing_packages)
    [ -z "$missing" ] || echo "missing: ${missing//$'\n'/ }"
fi
sweep

# What is killed would leave its debugger's pipes in /tmp, some thousand times.
export DOTNET_EnableDiagnostics=0
began=$SECONDS
dotnet build FlipController.sln -c Release -warnaserror --disable-build-servers -v quiet || nothing_ran 'the build failed; nothing was tested'
echo "built in $((SECONDS - began)) s"

for tier in "${tiers[@]}"; do
    case $tier in
        pure) run_project FlipController.Core.Tests 120 ;;
        netns) run_project FlipController.Linux.Tests 600 ;;
        vm) run_vm_tier ;;
        system) run_project FlipController.System.Tests 3000 ;;
        long)
            FLIP_KILLS=${FLIP_KILLS:-300} FLIP_FLIPS=${FLIP_FLIPS:-2000} run_tier long 9000 "$(program FlipController.System.Tests)" \
                -noLogo -noColor -maxThreads 1 -showLiveOutput -class '*KillTests' -class '*StormTests' ;;
    esac
done
echo
finish
