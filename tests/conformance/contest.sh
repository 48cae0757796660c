#!/usr/bin/env bash
# Runs youki's `contest`, built in the folder $1 (with `contest` and a static `runtimetest` in it),
# against `silo runtime`, or against the runtime named by RUNTIME. One group at a time, since a
# test that panics ends the whole run. Prints every result and the sums.
set -uo pipefail
folder=$(realpath "$1")
work=$(mktemp -d /tmp/silo-contest-XXXXXX)
# A group that ends early leaves its containers: what runs on comes to this script's helper below,
# and their control groups, named by random UUIDs, are told apart by not having been there before.
groups() { find /sys/fs/cgroup -mindepth 2 -maxdepth 4 -type d | grep -E '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' | sort; }
groups >"$work/groups"
trap 'groups | comm -13 "$work/groups" - | sort -r | xargs -r rmdir 2>/dev/null; rm -rf "$work"' EXIT
adopt='import ctypes, os, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
code = subprocess.call(sys.argv[1:])
me = os.getpid()
while children := open(f"/proc/{me}/task/{me}/children").read().split():
    for child in children:
        os.kill(int(child), signal.SIGKILL)
        os.waitpid(int(child), 0)
sys.exit(code)'
runtime=${RUNTIME:-$work/silo-runtime}
printf '#!/bin/sh\nexec %q runtime "$@"\n' "$SILO" >"$work/silo-runtime"
chmod +x "$work/silo-runtime"
# Some tests count the descriptors that the runtime inherits.
for number in $(seq 3 254); do eval "exec $number>&-"; done
cd "$folder"
for group in $(./contest list); do
  python3 -c "$adopt" timeout 120 ./contest run --runtime "$runtime" --runtimetest ./runtimetest -t "$group" >"$work/log" 2>&1 ||
    echo "1 / 1 : $group : not ok (the group ended early: $(grep -m1 -A1 panicked "$work/log" | tail -1 | cut -c1-160))" >>"$work/log"
  sed "s/^/$group: /" "$work/log" >>"$work/all"
  grep -E '^[0-9]+ / [0-9]+ : ' -A1 "$work/log" | sed "s/^/$group: /"
done
count() { grep -cE "^[a-z0-9_]+: [0-9]+ / [0-9]+ : .* : $1" "$work/all"; }
[ -z "${LOG:-}" ] || cp "$work/all" "$LOG"
echo "$(count ok) passed, $(count 'not ok') failed, $(count skipped) skipped"
