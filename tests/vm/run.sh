#!/usr/bin/env bash
# Runs a command under Debian's own kernel, in an emulated machine that sees this one's files. See --help.
set -uo pipefail

usage() {
    cat <<'END'
tests/vm/run.sh [--seconds N] [--memory MB] COMMAND [ARGUMENT]...
tests/vm/run.sh --prepare

Boots Debian's linux-image-amd64 in QEMU (plain emulation: two processors, no network device, about ten times slower than
native) and runs COMMAND there as root, in the repository's directory. The machine sees all files of this one; what it writes
stays in its memory, but for tests/results, which is shared. The kernel's modules are there for modprobe.
COMMAND's output comes out on stdout as it is written, its exit code is the script's. PATH, LANG, FLIP_* and DOTNET_* go along.

  --seconds N   the machine is killed after N seconds (300); the exit code is 124
  --memory MB   of the machine (2048)
  --prepare     only gets what is missing: QEMU, busybox and cpio are installed (as root, on Debian), the kernel is
                downloaded, not installed, and kept in tests/results/vm; exit code 0 when a machine can be booted

The exit code is 125, with a sentence on stderr, when there is no machine or it ended before COMMAND did.
END
}

fail() {
    echo "tests/vm/run.sh: $1" >&2
    exit 125
}

seconds=300 memory=2048 only_prepare=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --prepare) only_prepare=yes ;;
        --seconds | --memory)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "tests/vm/run.sh: $1 wants a number; see --help" >&2; exit 2; }
            declare "${1#--}=$2"
            shift ;;
        --) shift; break ;;
        -*) echo "tests/vm/run.sh: \"$1\" is unknown; see --help" >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || [ -n "$only_prepare" ] || { usage >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
results=$root/tests/results
cache=$results/vm
mkdir -p "$cache" || fail "$cache cannot be made"
# shellcheck source=tests/packages.sh
. "$here/../packages.sh"
# kmod is for the machine: its kernel calls modprobe.
needed_packages='
qemu-system-x86_64 qemu-system-x86
busybox         busybox-static
cpio            cpio
modprobe        kmod
setpriv         util-linux
flock           util-linux
'

# The name and version of the kernel's package, from what apt knows already.
kernel_package() {
    local name
    name=$(apt-cache depends --important linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    [ -n "$name" ] && apt-cache show --no-all-versions "$name" 2>/dev/null | sed -n 's/^Package: *//p; s/^Version: *//p' | head -2 | paste -s -d ' '
}

# whole DIRECTORY: every file that was unpacked there is there, and as it was.
whole() { [ -s "$1/files" ] && (cd "$1" && sha256sum --quiet --strict --check files >/dev/null 2>&1); }

# unpack PACKAGE VERSION DIRECTORY: the kernel, and of its modules what a network test may want.
unpack() {
    local place=$3.$$ modules
    rm -rf "$3" "$3".[0-9]*
    mkdir -p "$place" || return
    (
        cd "$place" &&
            apt-get download "$1=$2" >log 2>&1 &&
            dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards --no-wildcards-match-slash \
                './boot/vmlinuz-*' './lib/modules/*/modules.*' './lib/modules/*/kernel/arch' './lib/modules/*/kernel/crypto' \
                './lib/modules/*/kernel/lib' './lib/modules/*/kernel/net' './lib/modules/*/kernel/fs/9p' \
                './lib/modules/*/kernel/fs/fscache' './lib/modules/*/kernel/fs/netfs' './lib/modules/*/kernel/fs/overlayfs' \
                './lib/modules/*/kernel/drivers/net/*.ko*' './lib/modules/*/kernel/drivers/virtio' >>log 2>&1
        rm -f ./*.deb
        mv boot/vmlinuz-* vmlinuz && rmdir boot || exit
        modules=$(echo lib/modules/*)
        # The boot has no way to load a compressed one.
        find "$modules" -name '*.ko.xz' -exec xz -d {} + && find "$modules" -name '*.ko.zst' -exec zstd -q -d --rm {} + || exit
        depmod -b . "${modules##*/}" >>log 2>&1 &&
            find vmlinuz lib -type f -exec sha256sum {} + >files
    ) || { tail -5 "$place/log" >&2; rm -rf "$place"; return 1; }
    mv "$place" "$3"
}

# Sets kernel: the directory with vmlinuz and lib/modules/VERSION.
prepare() {
    [ "$(uname -m)" = x86_64 ] || fail 'the machine is an emulated x86_64, and so must this one be: it runs the same programs'
    command -v apt-get >/dev/null || fail 'there is no apt-get to get Debian'\''s kernel with'
    # One at a time; the lock goes with this shell.
    exec 9>"$cache/lock"
    command -v flock >/dev/null && flock 9
    install_packages || fail 'what a machine is made of is not there'
    local package version
    read -r package version <<<"$(kernel_package)"
    if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
        apt-get update >/dev/null 2>&1
        read -r package version <<<"$(kernel_package)"
    fi
    kernel=$cache/kernel-$version
    if [ -z "$version" ] || ! whole "$kernel"; then
        if [ -z "$version" ] || ! unpack "$package" "$version" "$kernel"; then
            # The registry may have moved on since apt last looked.
            [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 && read -r package version <<<"$(kernel_package)" &&
                kernel=$cache/kernel-$version && [ -n "$version" ] && unpack "$package" "$version" "$kernel" ||
                fail "the kernel's package (linux-image-amd64 ${version:-of no known version}) could not be downloaded"
        fi
    fi
    exec 9>&-
}

# The first file system: busybox, the modules that reach the files outside, and boot.sh.
initramfs() {
    local tree=$1 version=$2 module line
    mkdir -p "$tree"/{bin,modules,outside,memory,root,results,proc}
    cp "$(command -v busybox)" "$tree/bin/busybox" && cp "$here/boot.sh" "$tree/init" && chmod 755 "$tree/init" || return
    for module in virtio_pci 9pnet_virtio 9p overlay; do
        while read -r line; do
            [[ $line = insmod\ * ]] || continue
            line=${line#insmod }
            line=${line%% *}
            grep -qxF "${line##*/}" "$tree/modules/order" 2>/dev/null && continue
            cp "$line" "$tree/modules/" && echo "${line##*/}" >>"$tree/modules/order" || return
        done < <(modprobe -d "$kernel" -S "$version" --show-depends "$module")
    done
    (cd "$tree" && find . | cpio -o -H newc --quiet) >"$3" && rm -rf "$tree"
}

prepare
[ -z "$only_prepare" ] || exit 0

version=$(basename "$kernel"/lib/modules/*)
# Left by one that was killed outright.
for run in "$cache"/run-*; do
    maker=${run##*/run-}
    [ ! -d "$run" ] || [ -d "/proc/${maker%%-*}" ] || rm -rf "$run"
done
run=$(mktemp -d "$cache/run-$$-XXXXXX") || fail "no directory can be made in $cache"
machine='' shown=''
end() {
    [ -z "$machine" ] || kill -9 "$machine" 2>/dev/null
    [ -z "$shown" ] || kill "$shown" 2>/dev/null
    rm -rf "$run"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

initramfs "$run/tree" "$version" "$run/initramfs" || fail 'the first file system of the machine could not be made'
{
    declare -p PATH
    for name in LANG "${!FLIP_@}" "${!DOTNET_@}"; do [ -z "${!name+set}" ] || declare -p "$name"; done
    printf 'cd %q\nkernel=%q\nset -- ' "$root" "$kernel"
    printf '%q ' "$@"
    echo
} >"$run/command"
printf '%s' "$root" >"$run/repository"
: >"$run/output"

# The signal at the parent's death: should this shell be killed outright, the machine dies too.
# `tsc=reliable`: the emulated counter is what the kernel would else distrust, for a clock many times as slow to read.
setpriv --pdeathsig KILL timeout --foreground --signal=KILL "$seconds" \
    setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nic none -no-reboot -nodefaults \
    -display none -monitor none -serial file:"$run/console" \
    -kernel "$kernel/vmlinuz" -initrd "$run/initramfs" \
    -append "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on flip.run=${run##*/}" \
    -virtfs local,path=/,mount_tag=outside,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=${results//,/,,},mount_tag=results,security_model=none,multidevs=remap" \
    </dev/null >"$run/qemu" 2>&1 &
machine=$!
tail -n +1 -s 0.1 -f --pid="$machine" "$run/output" &
shown=$!
began=$SECONDS
wait "$machine" 2>/dev/null
wait "$shown"
machine='' shown=''
if [ -s "$run/status" ]; then exit "$(cat "$run/status")"; fi
if [ $((SECONDS - began)) -ge "$seconds" ]; then
    echo "tests/vm/run.sh: the machine was killed after $seconds s" >&2
    exit 124
fi
tail -n 20 "$run/console" "$run/qemu" >&2
fail 'the machine ended before the command did; its last words are above'
