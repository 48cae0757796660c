#!/bin/sh
# The first program that the machine's init runs: mounts, control groups of version 2, the checks.
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
. /settings
if [ "$SUBTREE" = all ]; then
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || echo "no $controller"
  done
fi
ip link set lo up
hostname vm
echo "$(uname -sr), $(cat /sys/fs/cgroup/cgroup.controllers)"
# Warnings of the kernel would be in between; what is serious is looked for in the end.
dmesg -n 1
setsid sh /checks.sh </dev/null 2>&1
sync
poweroff -f
