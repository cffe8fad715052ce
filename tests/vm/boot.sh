#!/bin/busybox sh
# The emulated machine's first process: reaches the files outside and goes on there with inside.sh.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
for word in $($busybox cat /proc/cmdline); do
    case $word in flip.run=*) run=/results/vm/${word#*=} ;; esac
done
while read -r module; do
    $busybox insmod "/modules/$module" || echo "insmod $module failed"
done </modules/order
# Nobody writes there while the machine lives but the machine's own share, so what was read once may be kept.
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,noxattr,msize=1048576 outside /outside &&
    $busybox mount -t tmpfs -o size=75% tmpfs /memory &&
    $busybox mkdir /memory/upper /memory/work &&
    $busybox mount -t overlay -o lowerdir=/outside,upperdir=/memory/upper,workdir=/memory/work overlay /root &&
    $busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=1048576 results /results || echo 'the files outside are out of reach'
repository=$($busybox cat "$run/repository")
$busybox mount --move /results "/root$repository/tests/results" || echo 'no tests/results'
$busybox umount /proc
exec $busybox switch_root /root /bin/bash "$repository/tests/vm/inside.sh" "$repository/tests$run"
