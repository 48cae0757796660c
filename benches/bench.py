#!/usr/bin/env python3
"""Silo side by side with other engines, in one run on one machine.

usage: SILO=path/to/silo benches/bench.py [name ...]

Every figure is the median of ten or more runs; the last column is the ratio to Silo's figure
(above 1: Silo is better). Peers that are not installed, or do not work on this host, are named
and left out. Nothing is written outside a temporary directory, and all engines are stopped.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SILO = os.environ.get("SILO", "target/release/silo")
RUNS = int(os.environ.get("RUNS", "15"))
WORK = Path(tempfile.mkdtemp(prefix="silo-bench-"))
ROOT = WORK / "rootfs"


def sh(*command, env=None, **keywords):
    """Runs a command that must succeed; returns its output."""
    result = subprocess.run(
        command, env={**os.environ, **(env or {})}, stdin=keywords.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **keywords)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {result.stderr.decode()[-500:]}")
    return result.stdout.decode(errors="replace").strip()


def median_ms(action, runs=RUNS, before=None):
    """The median time of `action` in milliseconds, after two runs to warm up."""
    times = []
    for number in range(runs + 2):
        if before:
            before()
        start = time.perf_counter()
        action()
        if number >= 2:
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


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
    storage = WORK / "podman"
    cli = ["podman", "--root", storage, "--runroot", WORK / "podman-run", "--cgroup-manager",
           "cgroupfs", "--events-backend", "file", "--runtime", "runc"]
    engine = Engine("podman", cli)
    engine("info")
    return engine


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
    """Runtimes without an engine; crun of Debian 12 wants a host without hybrid cgroups."""
    hide = ["unshare", "-m", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"", "sh"]
    yield "silo runtime", [SILO, "runtime", "--root", str(WORK / "rt-silo")]
    yield "runc", ["runc", "--root", str(WORK / "rt-runc")]
    yield "crun", [*hide, "crun", "--root", str(WORK / "rt-crun")]


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
    command = [*engine.cli, "import", "-c" if engine.name != "podman" else "--change", "CMD [\"sh\"]",
               "-", "busybox:latest"]
    subprocess.run(command, input=tar, env={**os.environ, **engine.env}, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def report(title, rows, unit="ms", better="lower"):
    """Prints one table; `rows` are (name, figure or None, note)."""
    print(f"\n## {title}\n")
    base = next((value for name, value in rows if name.startswith("silo")), None)
    for name, value in rows:
        if value is None:
            print(f"  {name:<28} not measured")
            continue
        ratio = (value / base if better == "lower" else base / value) if base and value else 0
        print(f"  {name:<28} {value:>12.2f} {unit:<6} x{ratio:.2f}")
    sys.stdout.flush()


def attempt(action):
    try:
        return action()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"  ({error})", file=sys.stderr)
        return None


def bench_run(engines):
    for title, extra in [("run --rm true, default network", []), ("run --rm true, no network", ["--network", "none"])]:
        rows = [(engine.name, attempt(lambda: median_ms(lambda: engine("run", "--rm", *extra, "busybox", "true"))))
                for engine in engines]
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
    report("20 runs at once", [(e.name, attempt(lambda: median_ms(lambda: burst(e), runs=10))) for e in engines])


def bench_exec(engines):
    rows = []
    for engine in engines:
        engine("run", "-d", "--name", "bench-exec", "busybox", "sleep", "1000")
        rows.append((engine.name, attempt(lambda: median_ms(lambda: engine("exec", "bench-exec", "true")))))
        engine("rm", "-f", "bench-exec")
    report("exec true", rows)


def bench_lifecycle(engines):
    def life(engine):
        engine("create", "--name", "bench-life", "busybox", "sleep", "1000")
        engine("start", "bench-life")
        engine("stop", "-t", "0", "bench-life")
        engine("rm", "bench-life")
    report("create, start, stop, rm", [(e.name, attempt(lambda: median_ms(lambda: life(e), runs=10))) for e in engines])


def bench_ps(engines):
    rows = []
    for engine in engines:
        for number in range(200):
            engine("create", "--name", f"bench-ps{number}", "busybox", "true")
        rows.append((engine.name, attempt(lambda: median_ms(lambda: engine("ps", "-a")))))
        engine("rm", *[f"bench-ps{number}" for number in range(200)])
    report("ps -a with 200 containers", rows)


def make_layers():
    """Two image archives: 100,000 small files, and four large ones."""
    archives = []
    for name, files, size in [("small", 100_000, 700), ("large", 4, 100 << 20)]:
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
        archives.append((name, layer))
    return archives


def bench_images(engines):
    for name, layer in make_layers():
        docker = next((e for e in engines if e.name == "docker"), engines[0])
        docker("import", layer, f"bench-{name}:latest")
        archive = WORK / f"{name}-image.tar"
        docker("save", "-o", archive, f"bench-{name}:latest")
        docker("rmi", f"bench-{name}:latest")
        sh("gzip", "-1", "-k", archive)
        sh("gzip", "-1", "-k", layer)
        loads, saves = [], []
        for engine in engines:
            def remove(engine=engine):
                subprocess.run([*engine.cli, "rmi", f"bench-{name}:latest"], check=False,
                               env={**os.environ, **engine.env}, capture_output=True)
                os.sync()
            loads.append((engine.name, attempt(lambda: median_ms(
                lambda: engine("load", "-i", f"{archive}.gz"), runs=3, before=remove))))
            saves.append((engine.name, attempt(lambda: median_ms(
                lambda: engine("save", "-o", WORK / "saved.tar", f"bench-{name}:latest"), runs=3))))
            remove()
        target = WORK / "untar"
        def fresh():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            os.sync()
        for cores in [1, 2]:
            loads.append((f"tar xzf on {cores} core(s)", attempt(lambda: median_ms(
                lambda: sh("taskset", "-c", "0" if cores == 1 else "0,1", "tar", "-C", target, "-xzf", f"{layer}.gz"),
                runs=3, before=fresh))))
        report(f"load of an image of {name} files (gzip)", loads)
        report(f"save of an image of {name} files", saves)
        shutil.rmtree(target, ignore_errors=True)


def bench_cp(engines):
    big = WORK / "big"
    with open(big, "wb") as file:
        for _ in range(500):
            file.write(os.urandom(1 << 20))
    into, out = [], []
    for engine in engines:
        engine("run", "-d", "--name", "bench-cp", "busybox", "sleep", "1000")
        into.append((engine.name, attempt(lambda: median_ms(lambda: engine("cp", big, "bench-cp:/big"), runs=5))))
        out.append((engine.name, attempt(lambda: median_ms(lambda: engine("cp", "bench-cp:/big", WORK / "back"), runs=5))))
        engine("rm", "-f", "bench-cp")
    report("cp of 500 MB into a container", into)
    report("cp of 500 MB out of a container", out)


def bench_port(engines):
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


def resident_kb(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Rss"].split()[0]), int(fields["Pss"].split()[0])


def pss_of(names):
    """The sum of the proportional set sizes of processes by command name."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if any(name in command for name in names):
                    total += resident_kb(folder.name)[1]
            except OSError:
                continue
    return total


def bench_memory(engines):
    for engine in engines:
        if not engine.pid:
            continue
        names = {"silo": ["silo-shim", "silo daemon", "daemon --root " + str(WORK)],
                 "docker": ["dockerd", "containerd", "docker-proxy"]}[engine.name]
        idle = resident_kb(engine.pid)[0]
        before = pss_of(names)
        for number in range(50):
            engine("run", "-d", "--name", f"bench-mem{number}", "busybox", "sleep", "1000")
        loaded = resident_kb(engine.pid)[0]
        after = pss_of(names)
        print(f"\n## memory of {engine.name}\n\n  daemon resident, idle          {idle:>8} kB"
              f"\n  daemon resident, 50 containers {loaded:>8} kB"
              f"\n  engine per idle container      {(after - before) / 50:>8.0f} kB (proportional)")
        engine("rm", "-f", *[f"bench-mem{number}" for number in range(50)])


BENCHES = {name[6:]: value for name, value in list(globals().items()) if name.startswith("bench_")}


def main():
    chosen = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    make_root()
    engines = []
    try:
        for start in [start_silo, start_docker, start_podman]:
            engine = attempt(start)
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
        # Podman keeps its storage mounted on itself.
        subprocess.run(["umount", "-l", WORK / "podman/overlay"], check=False, capture_output=True)
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
