#!/bin/sh
# Runs one program through silo-run in a fresh Wine session, as process 1 of its own namespaces.
# container.sh <runtime> <work>: the runtime has root/, c/ and prefix/; work has upper/ (of C:),
# overlay/, prefix/, root/, programs/ (all of ours) and wineboot.exe.
set -e
runtime=$1 work=$2
builtin=usr/lib/x86_64-linux-gnu/wine/x86_64-windows
mount --make-rprivate /
mount --bind "$runtime/root" "$work/root"
mount -o remount,bind,ro "$work/root"
cd "$work/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
mount -t overlay overlay c \
    -o "lowerdir=$runtime/c,upperdir=$work/upper,workdir=$work/overlay,redirect_dir=on"
mount --bind "$work/prefix" prefix
[ -p prefix/.silo/test/wake.fifo ] || mkfifo prefix/.silo/test/wake.fifo
mount --bind "$work/wineboot.exe" "$builtin/wineboot.exe"
for program in "$work"/programs/*; do
    name=${program##*/}
    # Wine prefers its own, which a real runtime lacks.
    if [ -e "$builtin/$name" ]; then mount --bind "$program" "$builtin/$name"; fi
done
ip link set lo up
hostname WINTEST
# A child, so that its end is waited for and everything else of the session dies with us.
env -i WINEPREFIX=/prefix WINEDEBUG=-all LC_ALL=C.UTF-8 USER=ContainerAdministrator HOME=/prefix \
    WINESERVER=/usr/lib/wine/wineserver64 PATH=/usr/bin \
    "$(command -v unshare)" --root=. --wd=/c /usr/lib/wine/wine64 'C:\windows\system32\silo-run.exe' test || exit $?
