#!/usr/bin/env bash
# Runs docker-py's integration suite, whose unpacked source lies in $1, against Silo, or
# against the engine at DOCKER_HOST when ENGINE=docker. Further arguments go to pytest.
set -euo pipefail
suite=$(realpath "$1"); shift
work=$(mktemp -d /tmp/silo-conformance-XXXXXX)
trap '[ -z "${daemon:-}" ] || { docker ps -aq | xargs -r docker rm -fv >/dev/null; kill "$daemon"; wait "$daemon" || true; "$SILO" daemon --remove-network --bridge silo-dpy --table silodpy || true; }; rm -rf "$work"' EXIT
venv=${VENV:-$PWD/target/docker-py}
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv"; "$venv/bin/pip" -q install requests urllib3 websocket-client paramiko pytest pytest-timeout; }
if [ "${ENGINE:-silo}" = silo ]; then
  export DOCKER_HOST=unix://$work/silo.sock
  "$SILO" daemon --root "$work/data" --run-root "$work/run" --host "$DOCKER_HOST" --bridge silo-dpy --table silodpy >"$work/daemon.log" 2>&1 &
  daemon=$!
  until docker version >/dev/null 2>&1; do kill -0 "$daemon"; done
fi
# The suite wants these names; their content only has to be a small userland.
mkdir -p "$work/root"/{bin,etc,tmp,root,var/opt,usr/bin,sbin,home}
cp /bin/busybox "$work/root/bin/"
for applet in $(/bin/busybox --list); do [ -e "$work/root/bin/$applet" ] || ln -s busybox "$work/root/bin/$applet"; done
chmod 1777 "$work/root/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/opt:/bin/sh\n' >"$work/root/etc/passwd"
printf 'root:x:0:\npostgres:x:70:\n' >"$work/root/etc/group"
printf 'NAME=Alpine\n' >"$work/root/etc/os-release"
path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Each name has an image of its own: the suite removes some of them.
for name in alpine:3.10 alpine:latest busybox:latest; do
  echo "$name" >"$work/root/etc/issue"
  tar -C "$work/root" -c . | docker import -c 'CMD ["/bin/sh"]' -c "ENV $path" - "$name" >/dev/null
done
tar -C "$work/root" -c . | docker import -c 'CMD ["/bin/echo","Hello from Docker!"]' -c "ENV $path" - hello-world:latest >/dev/null
# The suite writes contexts and credentials into the home directory.
export HOME=$work/home
mkdir -p "$HOME"
cd "$suite"
# Some tests drop DOCKER_HOST and expect the engine at its default place.
PYTHONPATH=$suite SOCKET=${DOCKER_HOST#unix://} unshare -m sh -c \
  'mount -t tmpfs run /run && ln -s "$SOCKET" /run/docker.sock && exec "$@"' sh \
  "$venv/bin/pytest" tests/integration -q -p no:cacheprovider --timeout 60 "$@"
