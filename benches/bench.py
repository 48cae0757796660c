#!/usr/bin/env python3
"""Silo side by side with other engines, in one run on one machine.

usage: SILO=path/to/silo [ENGINES=silo,docker] [RUNS=15] benches/bench.py [name ...]

Every figure is the median of ten or more runs, of three for images; the last column is the ratio to Silo's figure
(above 1: Silo is better). Peers that are not installed, or do not work on this host, are named
and left out. Nothing is written outside a temporary directory, and all engines are stopped.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import builds
import registries
import windows
from common import RUNS, SILO, WORK, attempt, median_ms, pss_kb, report, sh

ENGINES = os.environ.get("ENGINES", "silo,docker,podman,containerd").split(",")
ROOT = WORK / "rootfs"
ARCHIVE = WORK / "busybox.tar"
# crun of Debian 12 refuses hybrid cgroups: it gets a mount namespace that does not show them.
HIDE_UNIFIED = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]


class Engine:
    """An engine that is driven by its command line."""

    def __init__(self, name, cli, env=None, daemon=None, pid=None):
        self.name, self.cli, self.env = name, cli, env or {}
        self.daemon, self.pid = daemon, pid

    def __call__(self, *arguments, **keywords):
        return sh(*self.cli, *arguments, env=self.env, **keywords)

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()


class Containerd(Engine):
    """containerd alone, whose `ctr` has words of its own for what the benchmarks ask."""

    counter = iter(range(10**6))

    def __call__(self, *words, **keywords):
        verb, rest = words[0], list(words[1:])
        if verb == "run":
            name = f"c{next(self.counter)}"
            flags = ["-d"] if "-d" in rest else ["--rm"]
            if "--name" in rest:
                name = rest[rest.index("--name") + 1]
            image = rest.index("busybox")
            program = "/bin/" + rest[image + 1]
            return self.ctr("run", *flags, REFERENCE.format("busybox"), name, program, *rest[image + 2:])
        if verb == "exec":
            name = f"e{next(self.counter)}"
            return self.ctr("task", "exec", "--exec-id", name, rest[0], "/bin/" + rest[1], *rest[2:])
        if verb == "rm":
            for name in rest:
                if name != "-f":
                    self.ctr("task", "rm", "-f", name)
                    self.ctr("container", "rm", name)
            return ""
        if verb == "load":
            unpack = "gzip -dc" if rest[1].endswith(".gz") else "cat"
            pipe = f"{unpack} {rest[1]} | {shlex.join(self.cli)} images import -"
            return sh("bash", "-o", "pipefail", "-c", pipe)
        if verb == "save":
            return self.ctr("images", "export", rest[1], REFERENCE.format(rest[2].split(":")[0]))
        if verb == "rmi":
            return self.ctr("images", "rm", "--sync", REFERENCE.format(rest[0].split(":")[0]))
        raise RuntimeError(f"ctr has no {verb}")

    def ctr(self, *words):
        return sh(*self.cli, *words)


# What containerd calls an image that `docker save` names without a registry.
REFERENCE = "docker.io/library/{}:latest"


def wait_for_socket(path, daemon):
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                return
        except OSError:
            if daemon.poll() is not None:
                raise RuntimeError("the daemon ended") from None


def start_silo():
    path = WORK / "silo.sock"
    daemon = subprocess.Popen(
        [SILO, "daemon", "--root", WORK / "silo", "--run-root", WORK / "silo-run", "--host",
         f"unix://{path}", "--bridge", "silo-bench"],
        stdout=subprocess.DEVNULL, stderr=open(WORK / "silo.log", "wb"))
    wait_for_socket(path, daemon)
    return Engine("silo", [SILO], {"DOCKER_HOST": f"unix://{path}"}, daemon, daemon.pid)


def start_docker():
    path = WORK / "docker.sock"
    daemon = subprocess.Popen(
        ["dockerd", "--data-root", WORK / "docker", "--exec-root", WORK / "docker-run", "-H",
         f"unix://{path}", "-p", WORK / "docker.pid"],
        stdout=subprocess.DEVNULL, stderr=open(WORK / "docker.log", "wb"))
    wait_for_socket(path, daemon)
    return Engine("docker", ["docker"], {"DOCKER_HOST": f"unix://{path}"}, daemon, daemon.pid)


def start_podman():
    """Podman with crun. It asks for higher limits than a virtual machine may be allowed to set."""
    configuration = WORK / "containers.conf"
    configuration.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    runtime = WORK / "crun-without-unified"
    runtime.write_text(f'#!/bin/sh\nexec {shlex.join(HIDE_UNIFIED)} crun "$@"\n')
    runtime.chmod(0o755)
    cli = ["podman", "--root", WORK / "podman", "--runroot", WORK / "podman-run", "--cgroup-manager",
           "cgroupfs", "--events-backend", "file", "--runtime", runtime]
    engine = Engine("podman", cli, {"CONTAINERS_CONF": str(configuration)})
    engine("info")
    return engine


def start_containerd():
    path, folder = WORK / "containerd.sock", WORK / "containerd"
    folder.mkdir()
    kept_out = ["grpc.v1.cri", "internal.v1.opt", "snapshotter.v1.aufs", "snapshotter.v1.btrfs",
                "snapshotter.v1.devmapper", "snapshotter.v1.zfs"]
    (folder / "config.toml").write_text("\n".join([
        "version = 2", f'root = "{folder}/root"', f'state = "{folder}/state"',
        f"disabled_plugins = {json.dumps(['io.containerd.' + name for name in kept_out])}",
        "[grpc]", f'address = "{path}"', "[ttrpc]", f'address = "{folder}/ttrpc.sock"', ""]))
    daemon = subprocess.Popen(["containerd", "--config", folder / "config.toml"],
                              stdout=subprocess.DEVNULL, stderr=open(WORK / "containerd.log", "wb"))
    wait_for_socket(path, daemon)
    return Containerd("containerd (ctr)", ["ctr", "-a", str(path)], {}, daemon, daemon.pid)


def bundle(name, network):
    """A bundle with `runc spec`'s configuration that runs `true`."""
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    if not (folder / "config.json").exists():
        sh("runc", "spec", cwd=folder)
        config = json.loads((folder / "config.json").read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = ["true"]
        config["root"]["path"] = str(ROOT)
        if not network:
            config["linux"]["namespaces"] = [
                space for space in config["linux"]["namespaces"] if space["type"] != "network"]
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def runtimes():
    """Runtimes without an engine."""
    yield "silo runtime", [SILO, "runtime", "--root", str(WORK / "rt-silo")]
    yield "runc", ["runc", "--root", str(WORK / "rt-runc")]
    yield "crun", [*HIDE_UNIFIED, "crun", "--root", str(WORK / "rt-crun")]


def make_root():
    for folder in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"]:
        (ROOT / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", ROOT / "bin/busybox")
    for applet in sh("/bin/busybox", "--list").split():
        link = ROOT / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    (ROOT / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (ROOT / "etc/group").write_text("root:x:0:\n")


def import_busybox(engine):
    tar = subprocess.run(["tar", "-C", ROOT, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    if isinstance(engine, Containerd):
        engine("load", "-i", str(ARCHIVE))
        return
    command = [*engine.cli, "import", "-c" if engine.name != "podman" else "--change", "CMD [\"sh\"]",
               "-", "busybox:latest"]
    subprocess.run(command, input=tar, env={**os.environ, **engine.env}, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not ARCHIVE.exists():
        engine("save", "-o", ARCHIVE, "busybox:latest")


def with_docker_words(engines):
    """Without containerd, whose `ctr` has no commands to compare."""
    return [engine for engine in engines if not isinstance(engine, Containerd)]


def bench_run(engines):
    for title, extra in [("run --rm true, default network", []), ("run --rm true, no network", ["--network", "none"])]:
        # `ctr` sets no network up.
        rows = [(engine.name, attempt(lambda: median_ms(lambda: engine("run", "--rm", *extra, "busybox", "true"))))
                for engine in (engines if extra else with_docker_words(engines))]
        for name, cli in runtimes():
            folder = bundle("bundle", True)
            counter = iter(range(10**6))
            rows.append((f"{name} run (alone)", attempt(lambda: median_ms(
                lambda: sh(*cli, "run", f"b{next(counter)}", cwd=folder)))))
        report(title, rows)


def bench_parallel(engines):
    def burst(engine):
        threads = [threading.Thread(target=lambda: engine("run", "--rm", "busybox", "true")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    engines = with_docker_words(engines)
    report("20 runs at once", [(e.name, attempt(lambda: median_ms(lambda: burst(e), runs=10))) for e in engines])


def bench_exec(engines):
    rows = []
    for engine in engines:
        engine("run", "-d", "--name", "bench-exec", "busybox", "sleep", "1000")
        rows.append((engine.name, attempt(lambda: median_ms(lambda: engine("exec", "bench-exec", "true")))))
        engine("rm", "-f", "bench-exec")
    report("exec true", rows)


def bench_lifecycle(engines):
    engines = with_docker_words(engines)
    def life(engine):
        engine("create", "--name", "bench-life", "busybox", "sleep", "1000")
        engine("start", "bench-life")
        engine("stop", "-t", "0", "bench-life")
        engine("rm", "bench-life")
    report("create, start, stop, rm", [(e.name, attempt(lambda: median_ms(lambda: life(e), runs=10))) for e in engines])


def bench_ps(engines):
    engines = with_docker_words(engines)
    rows = []
    for engine in engines:
        for number in range(200):
            engine("create", "--name", f"bench-ps{number}", "busybox", "true")
        rows.append((engine.name, attempt(lambda: median_ms(lambda: engine("ps", "-a")))))
        engine("rm", *[f"bench-ps{number}" for number in range(200)])
    report("ps -a with 200 containers", rows)


def make_layer(name, files, size):
    """The tar of `files` files of `size` bytes."""
    tree = WORK / f"tree-{name}"
    for number in range(files):
        folder = tree / f"d{number % 1000 if files > 1000 else 0}"
        folder.mkdir(parents=True, exist_ok=True)
        block = os.urandom(min(size, 1 << 20) // 4) * 4
        with open(folder / f"f{number}", "wb") as file:
            for _ in range(max(size >> 20, 1)):
                file.write(block)
    layer = WORK / f"{name}.tar"
    sh("tar", "-C", tree, "-cf", layer, ".")
    shutil.rmtree(tree)
    return layer


def bench_small_files(engines):
    images("small", 100_000, 700, engines)


def bench_large_files(engines):
    images("large", 4, 100 << 20, engines)


def images(name, files, size, engines):
    image, saved, target = f"bench-{name}:latest", WORK / "saved.tar", WORK / "untar"
    layer, archive = make_layer(name, files, size), WORK / f"{name}-image.tar"
    # Podman 4.3 does not take what Docker 20.10 saved of 100,000 files; everyone takes this archive.
    engines[0]("import", layer, image)
    engines[0]("save", "-o", archive, image)
    sh("gzip", "-1", archive)
    sh("gzip", "-1", layer)

    def remove(engine):
        # Not there the first time.
        with contextlib.suppress(RuntimeError):
            engine("rmi", image)
        os.sync()

    def forget():
        saved.unlink(missing_ok=True)
        os.sync()

    def fresh():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        os.sync()

    def measure(action, before):
        return attempt(lambda: median_ms(action, runs=3, before=before, warm=0))

    loads, saves = [], []
    for engine in engines:
        loads.append((engine.name, measure(lambda: engine("load", "-i", f"{archive}.gz"), lambda: remove(engine))))
        saves.append((engine.name, measure(lambda: engine("save", "-o", saved, image), forget)))
        remove(engine)
        print(f"  ({engine.name}: load {loads[-1][1]}, save {saves[-1][1]})", file=sys.stderr, flush=True)
    loads.append(("tar xzf", measure(lambda: sh("tar", "-C", target, "-xzf", f"{layer}.gz"), fresh)))
    report(f"load of an image of {files} files of {size} bytes (gzip)", loads)
    report("save of it", saves)
    for path in [saved, Path(f"{archive}.gz"), Path(f"{layer}.gz")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)


def bench_cp(engines):
    engines = with_docker_words(engines)
    big = WORK / "big"
    with open(big, "wb") as file:
        for _ in range(500):
            file.write(os.urandom(1 << 20))
    into, out = [], []
    for engine in engines:
        engine("run", "-d", "--name", "bench-cp", "busybox", "sleep", "1000")
        into.append((engine.name, attempt(lambda: median_ms(
            lambda: engine("cp", big, "bench-cp:/big"), runs=5, before=os.sync))))
        out.append((engine.name, attempt(lambda: median_ms(
            lambda: engine("cp", "bench-cp:/big", WORK / "back"), runs=5, before=os.sync))))
        engine("rm", "-f", "bench-cp")
    report("cp of 500 MB into a container", into)
    report("cp of 500 MB out of a container", out)


def bench_port(engines):
    engines = with_docker_words(engines)
    rows = []
    size = 512 << 20
    for engine in engines:
        engine("run", "-d", "--name", "bench-port", "-p", "127.0.0.1::9000", "busybox", "nc", "-ll", "-p", "9000",
               "-e", "head", "-c", str(size), "/dev/zero")
        address = engine("port", "bench-port", "9000/tcp").splitlines()[0].split(":")

        def receive():
            while True:
                got = 0
                try:
                    with socket.create_connection((address[0], int(address[1]))) as connection:
                        while data := connection.recv(1 << 20):
                            got += len(data)
                except OSError:
                    pass
                if got == size:
                    return
        milliseconds = attempt(lambda: median_ms(receive, runs=5))
        rows.append((engine.name, milliseconds and size / milliseconds / 1000))
        engine("rm", "-f", "bench-port")
    report("published port, one connection", rows, unit="MB/s", better="higher")


def pss_of(names):
    """The sum of the proportional set sizes of processes by command name."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if any(name in command for name in names):
                    total += pss_kb(folder.name)[1]
            except OSError:
                continue
    return total


def bench_memory(engines):
    for engine in engines:
        names = {"silo": ["silo-shim", f"daemon --root {WORK}"],
                 "docker": ["dockerd", f"{WORK}/docker-run", "docker-proxy"],
                 "podman": ["conmon --api-version"],
                 "containerd (ctr)": [f"{WORK}/containerd"]}[engine.name]
        print(f"\n## memory of {engine.name}\n")
        if engine.pid:
            print(f"  daemon resident, idle          {pss_kb(engine.pid)[0]:>8} kB")
        before = pss_of(names)
        for number in range(50):
            engine("run", "-d", "--name", f"bench-mem{number}", "busybox", "sleep", "1000")
        if engine.pid:
            print(f"  daemon resident, 50 containers {pss_kb(engine.pid)[0]:>8} kB")
        print(f"  engine per idle container      {(pss_of(names) - before) / 50:>8.0f} kB (proportional)")
        engine("rm", "-f", *[f"bench-mem{number}" for number in range(50)])


def bench_windows(engines):
    windows.bench(engines[0])


def bench_build(engines):
    builds.bench([engine for engine in engines if engine.name in ("silo", "docker")], ARCHIVE)


def bench_registries(_):
    registries.bench()


BENCHES = {name[6:]: value for name, value in list(globals().items()) if name.startswith("bench_")}


def main():
    chosen = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if chosen == ["windows"]:
        # Its peer is Wine.
        ENGINES[:] = ["silo"]
    if chosen == ["build"]:
        # The other peer is buildah.
        ENGINES[:] = [name for name in ENGINES if name in ("silo", "docker")]
    if chosen == ["registries"]:
        # It starts engines of its own.
        ENGINES[:] = []
    make_root()
    bridges = [name for name in ["docker0", "cni-podman0"] if not Path("/sys/class/net", name).exists()]
    engines = []
    try:
        for name, start in [("silo", start_silo), ("docker", start_docker), ("podman", start_podman),
                            ("containerd", start_containerd)]:
            engine = attempt(start) if name in ENGINES else None
            if engine:
                engines.append(engine)
                if attempt(lambda: (import_busybox(engine), engine("run", "--rm", "busybox", "true"))) is None:
                    print(f"({engine.name} does not work on this host and is left out)")
                    engine.stop()
                    engines.remove(engine)
        print(f"{os.uname().release}, {os.cpu_count()} cores; medians; ratio to silo, above 1: silo is better")
        for name in chosen:
            BENCHES[name](engines)
    finally:
        for engine in engines:
            engine.stop()
        subprocess.run([SILO, "daemon", "--remove-network", "--bridge", "silo-bench"], check=False, capture_output=True)
        for bridge in bridges:
            subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
        # Podman keeps its storage mounted on itself.
        subprocess.run(["umount", "-l", WORK / "podman/overlay"], check=False, capture_output=True)
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
