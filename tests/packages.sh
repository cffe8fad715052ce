# shellcheck shell=bash
# Sourced by tests/run.sh and the examples: what they need beside the .NET 10 SDK, and how it is installed where it is missing.

# Program or library, and the Debian package that has it.
needed_packages='
haproxy         haproxy
keepalived      keepalived
nft             nftables
libnftables.so.1 libnftables1
conntrack       conntrack
ip              iproute2
ss              iproute2
curl            curl
jq              jq
openssl         openssl
diff            diffutils
ps              procps
nsenter         util-linux
'

export PATH="$PATH:/usr/sbin:/sbin"

# Prints the packages of what is not there, one a line.
missing_packages() {
    local what package
    while read -r what package; do
        case $what in
            '') ;;
            *.so.*) ldconfig -p | grep -qF "$what " || echo "$package" ;;
            *) command -v "$what" >/dev/null || echo "$package" ;;
        esac
    done <<<"$needed_packages" | sort -u
}

# Installs what is missing. A service that this brings along is kept from running; one that was there is not touched.
install_packages() {
    local missing policy=/usr/sbin/policy-rc.d own_policy=
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    missing=${missing//$'\n'/ }
    if [ "$(id -u)" != 0 ]; then
        echo "missing: $missing. As root they would be installed: apt-get install $missing" >&2
        return 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "missing: $missing, and there is no apt-get to install them with" >&2
        return 1
    fi
    echo "installing: $missing"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        own_policy=yes
    fi
    local log status=0
    log=$(mktemp)
    # shellcheck disable=SC2086 # one word a package
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || status=$?
    [ -z "$own_policy" ] || rm -f "$policy"
    # Only at the next boot would they start now; they were not wanted as services.
    if [ -d /run/systemd/system ]; then
        case " $missing " in *' haproxy '*) systemctl disable --now haproxy >/dev/null 2>&1 || true ;; esac
        case " $missing " in *' keepalived '*) systemctl disable --now keepalived >/dev/null 2>&1 || true ;; esac
        case " $missing " in *' nginx-light '*) systemctl disable --now nginx >/dev/null 2>&1 || true ;; esac
    fi
    if [ "$status" != 0 ]; then
        tail -20 "$log" >&2
        echo "installing $missing failed (apt-get exited $status)" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Another build of HAProxy beside the installed one, unpacked into the directory $1, where the registry has one: for the tests of
# an upgrade, which else make do with a copy that gives itself another version.
unpack_other_haproxy() {
    [ ! -x "$1/usr/sbin/haproxy" ] && command -v apt-cache >/dev/null && command -v apt-get >/dev/null || return 0
    local installed other place
    installed=$(dpkg-query -W -f '${Version}' haproxy 2>/dev/null) || return 0
    other=$(apt-cache madison haproxy 2>/dev/null | awk -v installed="$installed" '$3 != installed { print $3; exit }')
    [ -n "$other" ] || return 0
    place=$(mktemp -d)
    if (cd "$place" && apt-get download "haproxy=$other" >/dev/null 2>&1 && dpkg -x haproxy_*.deb "$place/unpacked"); then
        mkdir -p "$1" && cp -a "$place/unpacked/." "$1/"
    fi
    rm -rf "$place"
}

# Finds the SDK where it may be without being in PATH.
find_dotnet() {
    local place
    for place in '' "${DOTNET_ROOT:-}" /usr/share/dotnet /usr/lib/dotnet "$HOME/.dotnet"; do
        [ -z "$place" ] || [ ! -x "$place/dotnet" ] || PATH="$PATH:$place"
        if command -v dotnet >/dev/null && dotnet --list-sdks 2>/dev/null | grep -q '^10\.'; then
            export PATH DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
            return 0
        fi
    done
    echo 'the .NET 10 SDK is missing; https://learn.microsoft.com/dotnet/core/install/linux tells how to install it' >&2
    return 1
}
