#!/bin/sh
# What Silo does on this machine: one line for each check, the output of those that fail, and
# `every check held` in the end. Each is a function that fails when something is not as wanted.
. /settings
group=/sys/fs/cgroup/silo
socket=/run/silo/silo.sock
failed=0
log=/var/log/silo.log

check() { # a function and what it is about
  echo "$1" | grep -qE "$ONLY" || return 0
  began=$(date +%s)
  # Not a condition of `if`, where `set -e` would do nothing.
  (set -ex; $1) >/tmp/output 2>&1
  code=$?
  dmesg -c >/tmp/kernel
  cat /tmp/kernel >>/var/log/kernel.log
  if [ $code = 0 ]; then
    echo "ok    $1: $2 ($(($(date +%s) - began)) s)"
  else
    echo "FAIL  $1: $2"
    sed 's/^/      | /' /tmp/output | tail -n 30
    sed 's/^/      k /' /tmp/kernel | tail -n 5
    failed=$((failed + 1))
  fi
  # The command line would start a daemon.
  [ -S $socket ] || return 0
  silo ps -aq --filter label=check | xargs -r silo rm -fv >/dev/null 2>&1
}
start() { # a container that is removed after the check
  silo run -d --label check "$@"
}
is() { [ "$1" = "$2" ] || { echo "found '$1', wanted '$2'"; return 1; }; }
not() { if "$@"; then echo "succeeded: $*"; return 1; fi; }
field() { silo inspect -f "{{$2}}" "$1"; }
of() { echo "$group/$(field "$1" .Id)"; }
until_true() { # waits for what a command sees to be true
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "never: $*"; return 1; }
    sleep 0.2
  done 2>/dev/null
}
daemon() { # in a group of its own, as a service manager has it
  mkdir -p /sys/fs/cgroup/system.slice/silo.service
  sh -c 'echo $$ >/sys/fs/cgroup/system.slice/silo.service/cgroup.procs; exec silo daemon' >>$log 2>&1 &
  echo $! >/run/daemon
  # With an address the command line does not start one itself, beside this one.
  until_true silo -H unix://$socket version
}

doctor_early() { silo doctor >/tmp/doctor; cat /tmp/doctor; not grep FAIL /tmp/doctor; }
daemon_starts() { daemon; kill -0 $(cat /run/daemon); }
image() { silo import -c 'CMD ["sh"]' - busybox </image.tar; silo images | grep busybox; }
doctor() { silo doctor >/tmp/doctor; cat /tmp/doctor; not grep -E '^(FAIL|warn)' /tmp/doctor; silo info; silo info | grep -i 'cgroup version: 2'; }
run_rm() {
  is "$(silo run --rm busybox echo hello)" hello
  silo run --rm busybox sh -c 'exit 7' && return 1
  is "$(echo text | silo run --rm -i busybox cat)" text
  is "$(silo run --rm --init -u user --read-only --tmpfs /tmp busybox sh -c 'id -un; touch /tmp/x; ls /tmp')" "user
x"
}
limits() {
  start --name limited --memory 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 \
    --pids-limit 20 --cpuset-cpus 0 --cpuset-mems 0 --blkio-weight 300 \
    --device-read-bps /dev/vda:1mb --device-write-bps /dev/vda:2mb --device-read-iops /dev/vda:100 \
    busybox sleep 1000
  cat >/tmp/limits <<'END'
memory.max 67108864
memory.swap.max 33554432
memory.low 33554432
cpu.max 50000 100000
pids.max 20
cpuset.cpus 0
cpuset.mems 0
END
  while read -r file wanted; do
    is "$(cat $(of limited)/$file)" "$wanted"
    is "$(silo exec limited cat /sys/fs/cgroup/$file </dev/null)" "$wanted"
  done </tmp/limits
  grep . $(of limited)/cpu.weight $(of limited)/io.*
  is "$(cat $(of limited)/cpu.weight) $(sed "s/default //" $(of limited)/io.weight)" "59 2930"
  grep 'rbps=1048576 wbps=2097152 riops=100' $(of limited)/io.max
}
limits_bite() {
  start --name bitten --memory 64m --pids-limit 12 --cpus 0.2 --device-read-bps /dev/vda:1mb --device /dev/vda busybox sleep 1000
  # processes
  silo exec bitten sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 100 & done' 2>&1 | grep -i "can't fork"
  # processor time
  silo restart -t 0 bitten
  silo exec bitten timeout 5 sh -c 'while :; do :; done' || true
  grep throttled $(of bitten)/cpu.stat
  [ "$(sed -n 's/^nr_throttled //p' $(of bitten)/cpu.stat)" -gt 10 ]
  # the disk: 3 MiB at 1 MiB a second, not from the page cache
  echo 3 >/proc/sys/vm/drop_caches
  before=$(date +%s)
  silo exec bitten dd if=/dev/vda of=/dev/null bs=1M count=4 skip=1024
  [ $(($(date +%s) - before)) -ge 3 ]
}
update() {
  start --name updated --memory 64m --pids-limit 20 busybox sleep 1000
  silo update --memory 96m --memory-swap 96m --pids-limit 30 --cpus 0.25 --cpu-shares 2048 updated
  is "$(cat $(of updated)/memory.max $(of updated)/memory.swap.max $(of updated)/pids.max $(of updated)/cpu.max)" "100663296
0
30
25000 100000"
  is "$(field updated .HostConfig.Memory)" 100663296
  silo update --restart always updated
}
oom() {
  start --name hungry --memory 24m --memory-swap 24m busybox tail /dev/zero
  is "$(silo wait hungry)" 137
  is "$(field hungry .State.OOMKilled)" true
  # one that is killed by us is not
  start --name killed --memory 24m busybox sleep 1000
  silo kill killed
  is "$(silo wait killed)" 137
  is "$(field killed .State.OOMKilled)" false
  # a child that is killed, while the first process lives on
  start --name parent --memory 24m --memory-swap 24m busybox sh -c 'tail /dev/zero; echo child $?; sleep 1000'
  until_true sh -c 'silo logs parent | grep "child 137"'
  timeout 60 silo events --since 0 --until "$(date +%s)" --filter event=oom | grep -c oom
}
devices() {
  make='rm -f /tmp/d; mknod /tmp/d b 254 0 || exit 3; dd if=/tmp/d of=/dev/null bs=512 count=1'
  major=$(stat -c %t /dev/vda); make=$(echo "$make" | sed "s/254/$((0x$major))/")
  silo run --rm busybox sh -c "$make" 2>&1 | grep 'not permitted'
  silo run --rm busybox sh -c 'echo x >/dev/null; head -c 4 /dev/urandom | wc -c; : </dev/tty; mknod /tmp/z c 1 5; head -c 4 /tmp/z | wc -c' | grep 4
  silo run --rm --device /dev/vda:/dev/disk:r busybox sh -c 'dd if=/dev/disk of=/dev/null bs=512 count=1 && not=1; dd if=/dev/zero of=/dev/disk bs=512 count=1 conv=notrunc 2>&1' 2>&1 | grep 'not permitted'
  silo run --rm --device /dev/vda:/dev/disk:r busybox dd if=/dev/disk of=/dev/null bs=512 count=1
  silo run --rm --device-cgroup-rule "b $((0x$major)):* rm" busybox sh -c "$make"
  silo run --rm --privileged busybox dd if=/dev/vda of=/dev/null bs=512 count=1
  start --name devs busybox sleep 1000
  silo exec devs sh -c "$make" 2>&1 | grep 'not permitted'
  silo exec --privileged devs sh -c "$make" 2>&1 | grep 'not permitted'
}
pause() {
  start --name paused busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done'
  until_true silo exec paused test -s /count
  silo pause paused
  is "$(field paused .State.Status)" paused
  is "$(cat $(of paused)/cgroup.freeze)" 1
  grep 'frozen 1' $(of paused)/cgroup.events
  silo exec paused true 2>&1 | grep -i paused
  merged=/proc/$(field paused .State.Pid)/root/count
  one=$(cat $merged); sleep 2; is "$(cat $merged)" "$one"
  silo unpause paused
  until_true sh -c "[ \"\$(cat $merged)\" != \"$one\" ]"
  for again in 1 2 3 4 5; do silo pause paused; silo rm -f paused; start --name paused busybox sleep 100; done
}
stats() {
  start --name self --memory 64m busybox sh -c 'while :; do :; done'
  silo stats --no-stream self | tee /tmp/stats
  grep -E '[1-9][0-9]*\.[0-9]+%.*/ 64MiB' /tmp/stats
  curl="GET /v1.44/containers/self/stats?stream=false&one-shot=true HTTP/1.0"
  printf '%s\r\n\r\n' "$curl" | nc local:$socket 2>/dev/null | tail -1 || true
}
top() {
  start --name tree0 busybox sh -c 'sleep 1000 & sleep 1000'
  until_true sh -c '[ "$(silo top tree0 | grep -c "sleep 1000")" -ge 2 ]'
}
exec_() {
  start --name execs -e A=b -w /tmp busybox sleep 1000
  is "$(silo exec execs sh -c 'echo $A; pwd')" "b
/tmp"
  is "$(echo text | silo exec -i execs cat)" text
  silo exec -u user -e X=y -w /www execs sh -c 'id -un; echo $X; pwd; exit 5' || is $? 5
  silo exec -d execs touch /detached
  until_true silo exec execs test -e /detached
  silo exec execs cat /proc/self/cgroup | grep '0::/$'
  is "$(cat $(of execs)/cgroup.procs | wc -l)" 1
}
ending() {
  start --name self busybox sh -c 'trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.1; done'
  until_true sh -c 'silo logs self | grep up'
  silo stop self
  is "$(field self .State.ExitCode)" 3
  silo logs self | grep bye
  silo start self; until_true sh -c '[ "$(silo logs self | grep -c up)" = 2 ]'
  silo restart self; until_true sh -c '[ "$(silo logs self | grep -c up)" = 3 ]'
  silo kill -s TERM self; is "$(silo wait self)" 3
  start --name stubborn busybox sleep 1000
  silo stop -t 1 stubborn; is "$(field stubborn .State.ExitCode)" 137
  start --name again --restart on-failure:2 busybox false
  until_true sh -c '[ "$(silo inspect -f "{{.RestartCount}} {{.State.Running}}" again)" = "2 false" ]'
  start --name well --health-cmd true --health-interval 1s busybox sleep 1000
  until_true sh -c '[ "$(silo inspect -f "{{.State.Health.Status}}" well)" = healthy ]'
}
logs() {
  start --name talks busybox sh -c 'echo err >&2; sleep 0.5; for i in 1 2 3; do echo $i; done'
  silo wait talks
  is "$(silo logs talks 2>/dev/null | wc -l)" 3
  is "$(silo logs --tail 1 talks)" 3
  is "$(silo logs talks 2>&1 >/dev/null)" err
  silo logs -t -f talks
}
published() {
  start --name web -p 8080:80 busybox httpd -f -h /www
  until_true wget -q -O - http://127.0.0.1:8080/
  address=$(field web .NetworkSettings.IPAddress)
  is "$(wget -q -O - http://$address/)" hello
  is "$(wget -q -O - http://127.0.0.1:8080/)" hello
  is "$(silo run --rm busybox wget -q -O - http://$address/)" hello
  gateway=$(field web .NetworkSettings.Gateway)
  is "$(silo run --rm busybox wget -q -O - http://$gateway:8080/)" hello
  # another machine: it reaches the port, and is reached
  unshare -n sleep 1000 & outside=$!
  until_true sh -c "[ \$(readlink /proc/$outside/ns/net) != \$(readlink /proc/self/ns/net) ]"
  ip link add out0 type veth
  ip link set veth0 netns $outside
  ip addr add 192.0.2.1/24 dev out0; ip link set out0 up
  nsenter -n -t $outside sh -c 'ip link set lo up; ip addr add 192.0.2.2/24 dev veth0; ip link set veth0 up'
  is "$(nsenter -n -t $outside timeout 10 wget -q -O - http://192.0.2.1:8080/)" hello
  nsenter -n -t $outside nc -l -p 9000 -e sh -c 'echo $SILO outside' &
  sleep 1
  is "$(silo run --rm busybox nc -w 5 192.0.2.2 9000)" outside || { kill $outside; return 1; }
  kill $outside
  silo rm -f web
  not timeout 2 wget -q -O - http://127.0.0.1:8080/
  silo run --rm --network none busybox ip addr | grep lo
  silo run --rm --network host busybox ip addr | grep silo0
}
volumes() {
  silo volume create data
  silo run --rm -v data:/d busybox sh -c 'echo kept >/d/f'
  is "$(silo run --rm -v data:/d:ro busybox cat /d/f)" kept
  silo run --rm -v data:/d:ro busybox touch /d/g 2>&1 | grep 'Read-only'
  mkdir -p /tmp/bind; echo bound >/tmp/bind/f
  is "$(silo run --rm -v /tmp/bind:/b busybox sh -c 'cat /b/f; touch /b/made')" bound
  test -e /tmp/bind/made
  silo run --rm -v data:/www busybox true
  silo run --rm --mount type=tmpfs,target=/t,tmpfs-size=1m busybox sh -c 'df /t | grep 1024'
  silo run --rm --shm-size 8m busybox df /dev/shm | grep 8192
  silo volume rm data
  # an empty volume gets what the image has at its place
  is "$(silo run --rm -v filled:/www busybox cat /www/index.html)" hello
  silo volume rm filled
}
files_of() { # container; what is done with files of one, whether it runs or not
  echo in >/tmp/in; mkdir -p /tmp/tree/sub; echo deep >/tmp/tree/sub/file
  silo cp /tmp/in $1:/root/in
  silo cp /tmp/tree $1:/root/
  silo cp $1:/root/in /tmp/out; is "$(cat /tmp/out)" in
  rm -rf /tmp/tree2; silo cp $1:/root/tree /tmp/tree2; is "$(cat /tmp/tree2/sub/file)" deep
  is "$(silo cp $1:/www/index.html - | tar -xOf -)" hello
  is "$(silo cp $1:/vol/f - | tar -xOf -)" volume
  silo cp /tmp/in $1:/vol/in
  silo cp /tmp/in $1:/ro/in 2>&1 | grep read-only
  silo cp $1:/nothing /tmp/ 2>&1 | grep 'Could not find'
  silo export $1 >/tmp/export.tar
  tar -xOf /tmp/export.tar root/in | grep in
  tar -tf /tmp/export.tar | grep -c .
  not tar -tf /tmp/export.tar vol/f
  rm /tmp/export.tar
  silo diff $1 >/tmp/diff
  cat /tmp/diff
  grep 'A /root/in' /tmp/diff
  grep 'D /etc/hosts.gone' /tmp/diff || grep 'A /written' /tmp/diff || grep 'A /root/tree' /tmp/diff
  silo commit $1 made
  is "$(silo run --rm made cat /root/in)" in
  is "$(silo run --rm made cat /root/tree/sub/file)" deep
  silo rmi made
}
with_volume() {
  echo volume >/tmp/ro-f; mkdir -p /tmp/rodir
  silo run --rm -v vol:/vol busybox sh -c 'echo volume >/vol/f'
  "$@"
}
files_running() {
  with_volume start --name files -v vol:/vol -v /tmp/rodir:/ro:ro busybox sleep 1000
  files_of files
  silo rm -f files; silo volume rm vol
}
files_stopped() {
  with_volume start --name files -v vol:/vol -v /tmp/rodir:/ro:ro busybox sh -c 'echo x >/written; rm /www/index.html; echo hello >/www/index.html'
  silo wait files
  files_of files
  is "$(silo cp files:/written - | tar -xOf -)" x
  silo start files; silo wait files
  silo rm -f files; silo volume rm vol
}
files_created() {
  silo create --label check --name never busybox cat /root/in
  echo early >/tmp/in
  silo cp /tmp/in never:/root/in
  silo cp never:/root/in - | tar -xOf - | grep early
  silo export never | tar -t | grep root/in
  is "$(silo start -a never)" early
}
files_of_many_layers() {
  silo tag busybox layers
  for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    silo run --label check --name m$i layers sh -c "echo $i >/layer$i; rm -f /layer$((i - 2))"
    silo commit m$i layers; silo rm m$i
  done
  silo run --label check --name last layers touch /new
  silo export last | tar -t | grep -E 'layer|new'
  is "$(silo cp last:/layer12 - | tar -xOf -)" 12
  not silo cp last:/layer10 /tmp/
  silo save layers | silo load
  silo rm last; silo rmi layers
}
files_at_once() { # several mounts at the same time, and after a failure
  start --name files busybox true; silo wait files
  mine=
  for i in 1 2 3 4 5 6; do silo export files >/tmp/e$i & mine="$mine $!"; done
  for pid in $mine; do wait $pid; done
  for i in 1 2 3 4 5 6; do tar -tf /tmp/e$i | grep www/index.html; rm /tmp/e$i; done
  # and of those that write
  mine=
  for i in 1 2 3 4 5 6; do
    mkdir -p /tmp/in$i/etc; echo $i >/tmp/in$i/etc/f$i; echo $i >/tmp/in$i/etc/group
    silo cp /tmp/in$i/etc files:/ & mine="$mine $!"
    silo cp files:/www/index.html - >/tmp/e$i & mine="$mine $!"
  done
  for pid in $mine; do wait $pid; done
  for i in 1 2 3 4 5 6; do
    is "$(tar -xOf /tmp/e$i)" hello
    is "$(silo cp files:/etc/f$i - | tar -xOf -)" $i
  done
  rm -rf /tmp/e? /tmp/in?
}
runtime() {
  mkdir -p /tmp/bundle/rootfs; tar -C /tmp/bundle/rootfs -xf /image.tar
  cd /tmp/bundle; silo runtime spec
  mkdir -p /tmp/over/one /tmp/over/two; echo overlaid >/tmp/over/two/f
  sed -i 's|"mounts": *\[|&{"destination":"/over","type":"overlay","source":"overlay","options":["lowerdir=/tmp/over/one:/tmp/over/two"]},|' config.json
  sed -i 's/"terminal": *true/"terminal": false/; s/"sh"/"sleep", "1000"/' config.json
  silo runtime create r </dev/null >/tmp/created 2>&1
  silo runtime state r | grep created
  silo runtime start r
  silo runtime state r | grep running
  silo runtime exec r echo inside | grep inside
  is "$(silo runtime exec r cat /over/f)" overlaid
  silo runtime list; silo runtime ps r
  silo runtime pause r; silo runtime state r | grep paused; silo runtime resume r
  silo runtime update --memory 67108864 --pids-limit 9 r
  find /sys/fs/cgroup -name memory.max | xargs grep 67108864
  silo runtime events --stats r | grep -c memory
  silo runtime kill r KILL
  until_true sh -c 'silo runtime state r | grep stopped'
  silo runtime delete r
  not silo runtime state r
  sed -i 's/"sleep", *"1000"/"echo", "ran"/' config.json
  is "$(silo runtime run q </dev/null)" ran
  cd /; rm -rf /tmp/bundle /tmp/over
}
daemon_killed() {
  start --name live busybox sh -c 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done'
  start --name dies busybox sh -c 'until [ -e /die ]; do sleep 0.1; done; exit 9'
  start --name port -p 8081:80 busybox httpd -f -h /www
  until_true wget -q -O - http://127.0.0.1:8081/
  dies=/proc/$(field dies .State.Pid)/root
  kill -9 "$(cat /run/daemon)"
  until_true sh -c "! test -d /proc/$(cat /run/daemon)" || true
  is "$(wget -q -O - http://127.0.0.1:8081/)" hello
  touch "$dies/die"; until_true sh -c "! test -e $dies/die"
  daemon
  is "$(field live .State.Running)" true
  is "$(field dies .State.ExitCode)" 9
  is "$(silo exec live echo here)" here
  one=$(silo logs live | wc -l); sleep 1; [ "$(silo logs live | wc -l)" -gt "$one" ]
  is "$(wget -q -O - http://127.0.0.1:8081/)" hello
  silo stats --no-stream live; silo pause live; silo unpause live
  silo stop -t 1 live; is "$(field live .State.Running)" false
  silo start live; silo restart -t 1 port; until_true wget -q -O - http://127.0.0.1:8081/
}
leftovers() {
  is "$(silo ps -aq)" ""
  until_true sh -c '! ls /run/silo/shims 2>/dev/null | grep .'
  find $group -type d
  until_true sh -c "[ \$(find $group -mindepth 1 -type d 2>/dev/null | wc -l) = 0 ]"
  is "$(grep -c overlay /proc/mounts || true)" 0
  is "$(ps | grep -E '[s]ilo-shim|[z]ombie' || true)" ""
  is "$(ls /var/lib/silo/containers | wc -l)" 0
  is "$(ls /var/lib/silo/snapshots | wc -l)" 0
  ip link | grep -c veth || true
  ls -l /proc/$(cat /run/daemon)/fd | wc -l
  [ "$(ls /proc/$(cat /run/daemon)/fd | wc -l)" -lt 80 ]
  is "$(ls -l /proc/$(cat /run/daemon)/fd | grep -c deleted || true)" 0
}
daemon_ends() {
  kill "$(cat /run/daemon)"
  until_true sh -c "! kill -0 $(cat /run/daemon) 2>/dev/null"
  silo daemon --remove-network
  not ip link show silo0
  until_true sh -c "! ip link | grep veth"
}
kernel_calm() { not grep -E 'BUG|WARNING|Oops|hung task|segfault' /var/log/kernel.log; }

check doctor_early "the doctor before anything was loaded"
check daemon_starts "the daemon starts"
[ -S $socket ] || { echo "no daemon:"; tail -n 20 $log; }
check image "import"
check doctor "the doctor and info"
check run_rm "run --rm"
check limits "limits arrive in the group"
check limits_bite "limits take effect"
check update "update"
check oom "memory runs out"
check devices "device rules"
check pause "pause and unpause"
check stats "stats"
check top "top"
check exec_ "exec"
check ending "stop, kill, restart, policies, health"
check logs "logs"
check published "published ports, neighbours, the outside"
check volumes "volumes, binds, tmpfs"
check files_running "cp, export, diff, commit of a running container"
check files_stopped "cp, export, diff, commit of a stopped container"
check files_created "cp, export of a container that never ran"
check files_of_many_layers "many layers"
check files_at_once "several exports at once"
check runtime "silo runtime"
check daemon_killed "the daemon is killed and started again"
check leftovers "nothing is left"
check daemon_ends "the daemon ends and removes its network"
check kernel_calm "the kernel has not complained"
grep -E 'ERROR|WARN|panic' $log | tail -n 20 | sed 's/^/log   /'
[ $failed = 0 ] || tail -n 5 $log | sed 's/^/log   /'
if [ $failed = 0 ]; then echo "every check held"; else echo "$failed failed"; fi
