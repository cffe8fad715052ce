#!/bin/bash
# The emulated machine's first process, once its files are there: makes it a machine, runs the command, switches it off.
run=$1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
# The repository may be below one of the places that are fresh here.
repository=$(cat "$run/repository")
mkdir -p /kept
mount --rbind "$repository" /kept
for place in /run /dev/shm /tmp; do mount -t tmpfs tmpfs "$place"; done
[ -d "$repository" ] || { mkdir -p "$repository" && mount --rbind /kept "$repository"; }
cd "$repository" || exit 1
chmod 1777 /dev/shm /tmp
mkdir -p /run/lock /tmp/home
# shellcheck source=/dev/null
. "$run/command"
# FLIP_SLOW: so many times as long the tests wait here.
export HOME=/tmp/home FLIP_SLOW=4
# What costs most in an emulated processor: code that is generated, and memory whose rights change.
export DOTNET_TieredPGO=0 DOTNET_EnableWriteXorExecute=0
modules=/lib/modules/$(uname -r)
mkdir -p "$modules"
mount --bind "$kernel$modules" "$modules"
ip link set lo up
# The kernel rewrites its code when the first hook of a kind comes and when the last one goes (static keys: nf_hooks_needed,
# ingress_needed_key). QEMU's translation of it, when another processor runs just there, can keep the breakpoint of the rewriting for
# good (seen: asm_exc_int3 again and again below __netif_receive_skb_core, both processors busy). So one hook of each kind stays.
{
    for hook in prerouting input forward output postrouting; do
        echo "add table inet stay; add chain inet stay $hook { type filter hook $hook priority 0; }"
    done
    echo 'add table netdev stay; add chain netdev stay ingress { type filter hook ingress device lo priority 0; }'
} | nft -f -
setsid "$@" </dev/null >>"$run/output" 2>&1
echo $? >"$run/status"
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
