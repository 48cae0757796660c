#!/usr/bin/env bash
# Boots Debian's kernel in QEMU, with control groups of version 2 alone, and runs `checks.sh` on the
# `silo` binary SILO in it. Prints what the checks print; fails when one of them does.
#
#   SILO       the binary, static
#   KERNEL_DEB a package linux-image-* to take the kernel from, else that of this Debian release
#   ONLY       a regular expression: only the checks whose names it matches
#   SUBTREE    `none` leaves cgroup.subtree_control of the root empty, as no service manager would
#   ACCEL      QEMU's accelerator, else tcg, which works everywhere and emulates everything
#   CACHE      where packages and the unpacked kernel are kept, else target/vm
#
# Wants qemu-system-x86, busybox-static, e2fsprogs, kmod, cpio (by apt-get, when missing) and no
# privilege beyond. A run takes two minutes or more.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
silo=$(realpath "${SILO:?the path of the silo binary}")
cache=$(realpath -m "${CACHE:-$here/../../target/vm}")
mkdir -p "$cache"
wanted=(qemu-system-x86_64:qemu-system-x86 busybox:busybox-static mkfs.ext4:e2fsprogs depmod:kmod cpio:cpio)
missing=()
for pair in "${wanted[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} = 0 ] || apt-get install -y --no-install-recommends "${missing[@]}"
PATH=$PATH:/usr/sbin:/sbin

# The kernel: downloaded and unpacked, not installed.
deb=${KERNEL_DEB:-}
if [ -z "$deb" ]; then
  package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  ls "$cache/$package"_*.deb >/dev/null 2>&1 || (cd "$cache" && apt-get download "$package")
  deb=$(ls "$cache/$package"_*.deb | tail -1)
fi
kernel=$cache/$(basename "$deb" .deb)
if [ ! -e "$kernel/boot" ]; then
  rm -rf "$kernel.new"
  dpkg-deb -x "$deb" "$kernel.new"
  mv "$kernel.new" "$kernel"
fi
modules=$(echo "$kernel"/lib/modules/*)
[ -d "$modules" ] || modules=$(echo "$kernel"/usr/lib/modules/*)
version=$(basename "$modules")

work=$(mktemp -d "$cache/run-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
userland() { # a root of busybox alone
  mkdir -p "$1"/{bin,dev,etc,proc,root,run,sys,tmp,var,usr/bin,www}
  cp "$(command -v busybox)" "$1/bin/busybox"
  for applet in $(busybox --list | grep -vx busybox); do ln -sf busybox "$1/bin/$applet"; done
  ln -sfn bin "$1/sbin"
  printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\nuser:x:1000:\n' >"$1/etc/group"
  printf '127.0.0.1 localhost\n' >"$1/etc/hosts"
  chmod 1777 "$1/tmp"
}

# The machine's disk, with an image to make containers of.
userland "$work/image"
echo hello >"$work/image/www/index.html"
userland "$root"
tar -C "$work/image" --owner=0 --group=0 -cf "$root/image.tar" .
mkdir -p "$root/var/log" "$root/mnt" "$root/lib/modules/$version"
if command -v strip >/dev/null; then strip -o "$root/bin/silo" "$silo"; else cp "$silo" "$root/bin/silo"; fi
cp "$here/boot.sh" "$here/checks.sh" "$root/"
chmod +x "$root/boot.sh" "$root/checks.sh"
printf 'ONLY=%q\nSUBTREE=%q\n' "${ONLY:-.}" "${SUBTREE:-all}" >"$root/settings"
printf '::sysinit:/boot.sh\n::shutdown:/bin/umount -a\n' >"$root/etc/inittab"
for part in net fs crypto lib block drivers/block drivers/virtio arch drivers/net/veth.ko; do
  [ -e "$modules/kernel/$part" ] || continue
  mkdir -p "$root/lib/modules/$version/kernel/$(dirname "$part")"
  cp -r "$modules/kernel/$part" "$root/lib/modules/$version/kernel/$(dirname "$part")/"
done
cp "$modules"/modules.{order,builtin*} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
truncate -s 3G "$work/disk"
mkfs.ext4 -q -d "$root" -E root_owner=0:0 "$work/disk"

# The initial RAM disk finds it.
first=$work/first
mkdir -p "$first"/{bin,dev,mnt,proc} "$first/lib/modules/$version"
cp "$(command -v busybox)" "$first/bin/busybox"
modprobe -S "$version" -d "$root" --show-depends -a virtio_pci virtio_blk ext4 crc32c_generic |
  sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' >"$work/list"
while read -r module; do
  cp "$module" "$first/lib/"
  echo "/bin/busybox insmod /lib/$(basename "$module")"
done <"$work/list" >"$work/insmods"
cat >"$first/init" <<END
#!/bin/busybox sh
$(cat "$work/insmods")
/bin/busybox mount -t devtmpfs dev /dev
until /bin/busybox mount -t ext4 /dev/vda /mnt 2>/dev/null; do /bin/busybox sleep 1; done
/bin/busybox umount /dev
exec /bin/busybox switch_root /mnt /sbin/init
END
chmod +x "$first/init"
(cd "$first" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"

nice -n 10 timeout "${TIMEOUT:-3600}" qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max -smp 1 -m 1024 \
  -display none -monitor none -no-reboot -nodefaults -serial stdio \
  -kernel "$(echo "$kernel"/boot/vmlinuz-*)" -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on" \
  -drive "file=$work/disk,if=virtio,format=raw,cache=unsafe" </dev/null |
  tr -d '\r' | tee "$cache/last.log"
grep -q '^every check held$' "$cache/last.log"
