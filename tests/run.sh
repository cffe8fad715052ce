#!/usr/bin/env bash
# The one test command: installs what is missing, builds, runs every tier, sums up. See --help.
set -uo pipefail

usage() {
    cat <<'END'
tests/run.sh [--tier pure|netns|system]... [--help]

Builds the solution in Release (warnings are errors) and runs the tests:
  pure    FlipController.Core.Tests: no root, no I/O, first and alone
  netns   FlipController.Linux.Tests: network namespaces, real HAProxy, nft and conntrack
  system  FlipController.System.Tests: the whole daemon under load, flipctl, the examples, the README
As root on Debian it installs what is missing first. Without root, what needs it is skipped by name.
FLIP_REQUIRE=netns,haproxy makes a skip for want of those a failure.

The last line is `N passed, N failed, N skipped`; the exit code is 0 only when nothing failed and something passed.
END
}

tiers=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --tier)
            case ${2:-} in
                pure | netns | system) tiers+=("$2") ;;
                *) echo "tests/run.sh: --tier is pure, netns or system; see --help" >&2; exit 2 ;;
            esac
            shift ;;
        *) echo "tests/run.sh: \"$1\" is unknown; see --help" >&2; exit 2 ;;
    esac
    shift
done
[ ${#tiers[@]} -gt 0 ] || tiers=(pure netns system)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# shellcheck source=tests/packages.sh
. tests/packages.sh
# For the tests alone: the shells whose completion scripts are checked.
needed_packages+='
zsh             zsh
fish            fish
'

passed=0 failed=0 skipped=0 running=''

finish() {
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

# run_tier PROJECT SECONDS
run_tier() {
    local project=$1 limit=$2 log status summary shown began=$SECONDS
    local program=tests/$project/bin/Release/net10.0/$project
    log=$(mktemp)
    echo
    echo "== $project"
    timeout --kill-after=20 "$limit" "$program" -noLogo -noColor >"$log" 2>&1 &
    running=$!
    tail -n +1 -s 0.2 -f --pid="$running" "$log" | grep --line-buffered -v '^  \(Discover\|Starting\|Finished\)' &
    shown=$!
    wait "$running"
    status=$?
    wait "$shown"
    running=''
    [ "$status" != 124 ] && [ "$status" != 137 ] || echo "$project did not end within $limit s and was killed"
    summary=$(sed -n 's/.*Total: *\([0-9]*\), Errors: *\([0-9]*\), Failed: *\([0-9]*\), Skipped: *\([0-9]*\), Not Run: *\([0-9]*\).*/\1 \2 \3 \4 \5/p' "$log" | tail -1)
    rm -f "$log"
    if [ -z "$summary" ]; then
        echo "$project ended without a result (exit code $status)"
        failed=$((failed + 1))
    else
        local total errors bad skips left
        read -r total errors bad skips left <<<"$summary"
        passed=$((passed + total - bad - skips - left))
        failed=$((failed + bad + errors))
        skipped=$((skipped + skips))
        if [ "$status" != 0 ] && [ $((bad + errors)) = 0 ]; then
            echo "$project: no test failed, but its exit code is $status"
            failed=$((failed + 1))
        fi
    fi
    echo "== $project took $((SECONDS - began)) s"
    sweep
}

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

began=$SECONDS
dotnet build FlipController.sln -c Release -warnaserror --disable-build-servers -v quiet || nothing_ran 'the build failed; nothing was tested'
echo "built in $((SECONDS - began)) s"

for tier in "${tiers[@]}"; do
    case $tier in
        pure) run_tier FlipController.Core.Tests 120 ;;
        netns) run_tier FlipController.Linux.Tests 420 ;;
        system) run_tier FlipController.System.Tests 900 ;;
    esac
done
echo
finish
