"""Pull and push: Silo beside dockerd, podman and `skopeo copy`, from and to the same servers on this
host: Debian's docker-registry and `silo registry serve`.

`skopeo copy` only moves blobs (to and from a directory); the engines also unpack what they pull.
dockerd and podman get every layer compressed anew before a push, Silo sends what it was given; so there
is a push of an image that came compressed and of one that came uncompressed. Every push goes to a server
that has nothing yet. What an engine has of an image is removed, and the disk flushed, before every pull.

SCALE multiplies the sizes (1: images of 1 GB), PULLS and PUSHES choose images, SERVERS servers.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

from common import SILO, WORK, attempt, report, sh

SCALE = float(os.environ.get("SCALE", "1"))
PULLS = os.environ.get("PULLS", "many,large,small").split(",")
PUSHES = os.environ.get("PUSHES", "many,large").split(",")
SERVERS = os.environ.get("SERVERS", "docker-registry,silo registry").split(",")
RUNS = int(os.environ.get("RUNS", "3"))
FOLDER = WORK / "registries"
SMALL = 20
found = {}


# What is pulled and pushed.

class Text:
    """Bytes that gzip makes about a third of, as it does of programs."""

    def __init__(self):
        source = random.Random(1)
        words = [source.randbytes(source.randrange(3, 12)) for _ in range(3000)]
        self.pool = b"".join(source.choices(words, k=1 << 20))
        self.source = source

    def __call__(self, size):
        pieces = []
        while size > 0:
            start = self.source.randrange(len(self.pool) - 4096)
            piece = self.pool[start:start + min(size, self.source.randrange(2048, 1 << 20))]
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def layer(text, files, size):
    """A tar of files with nobody's name in it."""
    tree = FOLDER / "tree"
    for number in range(files):
        below = tree / f"d{number // 100}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"f{number}").write_bytes(text(size))
    made = FOLDER / "layer.tar"
    sh("tar", "-C", tree, "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-cf", made, ".")
    shutil.rmtree(tree)
    return made


def digest_of(path):
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class Layout:
    """An OCI layout of one image."""

    def __init__(self, name, compressed):
        self.path = FOLDER / name
        self.blobs = self.path / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.compressed, self.layers, self.diff_ids = compressed, [], []

    def blob(self, path):
        digest, size = digest_of(path), os.path.getsize(path)
        os.replace(path, self.blobs / digest[7:])
        return {"digest": digest, "size": size}

    def document(self, value, media_type):
        path = FOLDER / "document"
        path.write_text(json.dumps(value))
        return {"mediaType": f"application/vnd.oci.image.{media_type}+json", **self.blob(path)}

    def add(self, tar):
        self.diff_ids.append(digest_of(tar))
        kind = "application/vnd.oci.image.layer.v1.tar"
        if self.compressed:
            sh("gzip", "-n", tar)
            self.layers.append({"mediaType": f"{kind}+gzip", **self.blob(f"{tar}.gz")})
        else:
            self.layers.append({"mediaType": kind, **self.blob(tar)})

    def finish(self):
        config = {"architecture": "amd64", "os": "linux", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.document(config, "config.v1"), "layers": self.layers}
        index = {"schemaVersion": 2, "manifests": [self.document(manifest, "manifest.v1")]}
        (self.path / "index.json").write_text(json.dumps(index))
        return self.path


def make_images(names):
    """Layouts by name, a list each."""
    text = Text()
    files, size = {"many": (int(100_000 * SCALE), 10_000), "large": (4, int((250 << 20) * SCALE)),
                   "small": (SMALL, 1 << 20)}, {}
    for name in names:
        count, length = files[name]
        if name == "small":
            made = []
            for number in range(count):
                layout = Layout(f"small{number}", True)
                layout.add(layer(text, 10, length // 10))
                made.append(layout.finish())
        else:
            layout = Layout(name, True)
            for tar in ([(count, length)] if name == "many" else [(1, length)] * count):
                layout.add(layer(text, *tar))
            made = [layout.finish()]
        size[name] = made
    return size


# Servers.

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(kind):
    """An empty server; gives its address."""
    address, root = f"127.0.0.1:{free_port()}", FOLDER / f"server{time.monotonic_ns()}"
    root.mkdir()
    if kind == "silo registry":
        command = [SILO, "registry", "serve", "--root", root, "--listen", address]
    else:
        config = root / "config.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n"
                          f"http: {{addr: {address}}}\n")
        command = ["docker-registry", "serve", config]
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
    try:
        while True:
            try:
                socket.create_connection(address.split(":")).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise RuntimeError((root / "log").read_text()[-300:]) from None
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


def fill(address, images):
    for name, layouts in images.items():
        for number, layout in enumerate(layouts):
            sh("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{address}/{name}:{number}")


# Peers.

class Engine:
    """Silo or dockerd, driven by Docker's command line."""

    def __init__(self, name, command, socket_path):
        self.name, self.env = name, {"DOCKER_HOST": f"unix://{socket_path}", "DOCKER_CONFIG": str(FOLDER)}
        self.log = FOLDER / f"{name}.log"
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(socket_path))
                break
            if self.daemon.poll() is not None:
                raise RuntimeError(f"{name} ended: {self.log.read_text()[-300:]}")

    def __call__(self, *words):
        return sh("docker", *words, env=self.env)

    def pull(self, reference):
        self("pull", "-q", reference)

    def push(self, reference):
        self("push", "-q", reference)

    def have(self, reference, layout):
        """Gets an image that is not compressed."""
        archive = FOLDER / "archive.tar"
        sh("skopeo", "copy", "-q", f"oci:{layout}", f"docker-archive:{archive}:{reference}")
        self("load", "-q", "-i", archive)
        archive.unlink()

    def forget(self):
        ids = self("images", "-aq", "--no-trunc").split()
        if ids:
            self("rmi", "-f", *set(ids))

    def name_too(self, reference, other):
        self("tag", reference, other)

    def peak(self, begin):
        """Begins to look for, or gives, the most memory that the daemon has had at once, in MB."""
        if begin:
            Path(f"/proc/{self.daemon.pid}/clear_refs").write_text("5")
            return 0
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1000

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait()


class Podman:
    name = "podman"

    def __init__(self):
        self.words = ["podman", "--root", FOLDER / "podman", "--runroot", FOLDER / "podman-run",
                      "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        self("info")

    def __call__(self, *words):
        return sh(*self.words, *words)

    def pull(self, reference):
        self("pull", "-q", "--tls-verify=false", reference)

    def push(self, reference):
        self("push", "-q", "--tls-verify=false", reference)

    have = Engine.have

    def name_too(self, reference, other):
        self("tag", reference, other)

    def forget(self):
        self("rmi", "-af")

    def peak(self, _):
        return 0

    def stop(self):
        for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
            mount = line.split()[1]
            if mount.startswith(f"{FOLDER}/podman"):
                subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


class Skopeo:
    """Moves blobs, and unpacks nothing."""

    name = "skopeo copy"

    def __init__(self):
        self.at = {}

    def pull(self, reference):
        target = FOLDER / "skopeo" / hashlib.sha256(reference.encode()).hexdigest()
        target.mkdir(parents=True)
        sh("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"dir:{target}")
        self.at[reference] = f"dir:{target}"

    def push(self, reference):
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", self.at[reference], f"docker://{reference}")

    def have(self, reference, layout):
        target = FOLDER / "skopeo" / "made.tar"
        target.parent.mkdir(exist_ok=True)
        sh("skopeo", "copy", "-q", f"oci:{layout}", f"docker-archive:{target}:{reference}")
        self.at[reference] = f"docker-archive:{target}"

    def name_too(self, reference, other):
        self.at[other] = self.at[reference]

    def forget(self):
        shutil.rmtree(FOLDER / "skopeo", ignore_errors=True)
        self.at.clear()

    def peak(self, _):
        return 0

    def stop(self):
        pass


def start_silo():
    path = FOLDER / "silo.sock"
    return Engine("silo", [SILO, "daemon", "--root", FOLDER / "silo", "--run-root", FOLDER / "silo-run", "--host",
                           f"unix://{path}", "--bridge", "silo-bench-r", "--table", "silo-bench-r"], path)


def start_docker():
    path = FOLDER / "docker.sock"
    return Engine("dockerd", ["dockerd", "--data-root", FOLDER / "docker", "--exec-root", FOLDER / "docker-run", "-H",
                              f"unix://{path}", "-p", FOLDER / "docker.pid", "--bridge=none", "--iptables=false",
                              "--ip6tables=false", "--storage-driver", "overlay2"], path)


# What is measured.

def timed(peer, runs, prepare, action):
    """Median time in milliseconds, and the most memory of the daemon in MB."""
    times, most = [], 0
    for _ in range(runs):
        prepare()
        os.sync()
        peer.peak(True)
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1000)
        most = max(most, peer.peak(False))
    return statistics.median(times), most


def at_once(actions):
    failures = []

    def guarded(action):
        try:
            action()
        except RuntimeError as error:
            failures.append(error)
    threads = [threading.Thread(target=guarded, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def table(title, rows):
    report(title, [(name, row and row[0]) for name, row in rows])
    for name, row in rows:
        if row and row[1]:
            print(f"  most memory of {name:<19} {row[1]:>12.1f} MB")
    found[title] = {name: row for name, row in rows if row}


TITLES = {"many": f"{int(100_000 * SCALE)} files of 10 kB in one layer",
          "large": f"4 layers of {int(250 * SCALE)} MB", "small": f"{SMALL} images of 1 MB at once"}


def bench_pulls(kind, peers, images):
    with server(kind) as address:
        fill(address, images)
        for name, layouts in images.items():
            references = [f"{address}/{name}:{number}" for number in range(len(layouts))]
            rows = []
            for peer in peers:
                pull = [lambda reference=reference: peer.pull(reference) for reference in references]
                rows.append((peer.name, attempt(lambda: timed(peer, RUNS, peer.forget, lambda: at_once(pull)))))
                attempt(peer.forget)
            table(f"pull from {kind}: {TITLES[name]}", rows)


def bench_pushes(kind, peers, images):
    for how in ["came compressed", "came uncompressed"]:
        for name, layouts in images.items():
            rows = []
            for peer in peers:
                def run():
                    times, most = [], 0
                    peer.forget()
                    for number in range(RUNS):
                        with server(kind) as address:
                            target = f"{address}/pushed:1"
                            if number > 0:
                                peer.name_too(before, target)
                            elif how == "came compressed":
                                with server("docker-registry") as source:
                                    fill(source, {name: layouts})
                                    peer.pull(f"{source}/{name}:0")
                                    peer.name_too(f"{source}/{name}:0", target)
                            else:
                                peer.have(target, layouts[0])
                            os.sync()
                            peer.peak(True)
                            start = time.perf_counter()
                            peer.push(target)
                            times.append((time.perf_counter() - start) * 1000)
                            most, before = max(most, peer.peak(False)), target
                    peer.forget()
                    return statistics.median(times), most
                rows.append((peer.name, attempt(run)))
            table(f"push to {kind}, {how}: {TITLES[name]}", rows)


def bench():
    FOLDER.mkdir()
    peers = []
    chosen = os.environ.get("PEERS", "silo,dockerd,podman,skopeo").split(",")
    try:
        for name, start in [("silo", start_silo), ("dockerd", start_docker), ("podman", Podman), ("skopeo", Skopeo)]:
            if name in chosen and (peer := attempt(start)):
                peers.append(peer)
        images = make_images([name for name in TITLES if name in PULLS + PUSHES])
        for kind in SERVERS:
            bench_pulls(kind, peers, {name: images[name] for name in images if name in PULLS})
            bench_pushes(kind, peers, {name: images[name] for name in images if name in PUSHES})
    finally:
        for peer in peers:
            peer.stop()
        subprocess.run([SILO, "daemon", "--remove-network", "--bridge", "silo-bench-r", "--table", "silo-bench-r"],
                       check=False, capture_output=True)
    print("\n## goals\n")
    for title, rows in found.items():
        silo, docker = rows.get("silo"), rows.get("dockerd")
        if silo and docker and title.startswith("pull"):
            ratio = docker[0] / silo[0]
            print(f"  {title}: {ratio:.1f} times dockerd, of 2: {'holds' if ratio >= 2 else 'DOES NOT HOLD'}")
        if silo and silo[1]:
            print(f"  {title}: {silo[1]:.0f} MB at most, of 100: {'holds' if silo[1] < 100 else 'DOES NOT HOLD'}")
