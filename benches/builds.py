"""Builds: Silo, by `silo build` and by the classic `docker build`, beside dockerd's classic builder
and buildah.

The classic builder of Docker's command line sends the whole context with every build; `silo build`
sends what changed; buildah reads the context where it lies. buildah is asked for a layer of each
instruction (`--layers`), as the others make and cache them; without, it has no cache at all.
"""

import itertools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from common import RUNS, SILO, WORK, attempt, median_ms, report, sh

# Which of them are measured.
PARTS = os.environ.get("BUILDS", "steps,stages,small,large").split(",")
FOLDER = WORK / "builds"
BASE = "busybox:latest"
STEPS, STAGES = 10, 20
found = {}
numbers = itertools.count(1)


class Builder:
    """One way to build: `words` come before the context."""

    def __init__(self, name, words, env=None, stages=()):
        self.name, self.words, self.env, self.stages = name, words, env or {}, stages

    def __call__(self, folder, *words):
        sh(*self.words, *words, "-t", f"bench-{folder.name}", folder, env=self.env)


def buildah(archive):
    """buildah with overlay and crun, whatever the containers' configuration of the host says."""
    # crun of Debian 12 refuses hybrid cgroups: it gets a mount namespace that does not show them.
    runtime = WORK / "crun-for-buildah"
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\""
    runtime.write_text(f'#!/bin/sh\nexec unshare -m sh -c {shlex.quote(hide)} sh "$@"\n')
    runtime.chmod(0o755)
    cli = ["buildah", "--root", WORK / "buildah", "--runroot", WORK / "buildah-run", "--storage-driver", "overlay"]
    sh(*cli, "pull", f"docker-archive:{archive}")
    sh(*cli, "tag", f"localhost/{BASE}", f"docker.io/library/{BASE}")
    words = [*cli, "bud", "--runtime", runtime]
    builder = Builder("buildah bud --layers", [*words, "--layers"], stages=["--jobs", str(STAGES)])
    alone = Builder("buildah bud, one layer, no cache", words)
    folder = context("probe")
    dockerfile(folder, ["FROM busybox", "RUN true"])
    builder(folder)
    return builder, alone


def stop_buildah():
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{WORK}/buildah")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def context(name):
    folder = FOLDER / name
    folder.mkdir(parents=True)
    return folder


def dockerfile(folder, lines):
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")


def note(part, rows):
    """Keeps the figures of a part for the goals."""
    found[part] = dict(rows)


def bench_steps(builders, alone):
    """Ten steps that do nothing. A step's words are new for every cold build, and differ within it,
    so that nobody has it in a cache."""
    folder = context("steps")

    def fresh():
        number = next(numbers)
        dockerfile(folder, ["FROM busybox", *[f"RUN true {number} {step}" for step in range(STEPS)]])
    rows = [(builder.name, attempt(lambda: median_ms(lambda: builder(folder), runs=RUNS, before=fresh)))
            for builder in [*builders, *alone]]
    report(f"{STEPS} RUN steps that do nothing, cold", rows)
    note("cold", rows)
    rows = []
    for builder in builders:
        fresh()
        rows.append((builder.name, attempt(lambda: median_ms(lambda: builder(folder)))))
    report("... everything in the cache", rows)
    note("cached", rows)


def bench_stages(builders, _):
    """Stages that need nothing of each other, and one that takes a file of each."""
    folder = context("stages")

    def fresh():
        number = next(numbers)
        lines = []
        for stage in range(STAGES):
            lines += [f"FROM busybox AS s{stage}", f"RUN echo {number} > /f{stage}"]
        copies = [f"COPY --from=s{stage} /f{stage} /" for stage in range(STAGES)]
        dockerfile(folder, [*lines, "FROM busybox", *copies])
    rows = []
    for builder in builders:
        rows.append((builder.name, attempt(lambda: median_ms(
            lambda: builder(folder, *builder.stages), runs=min(RUNS, 5), before=fresh, warm=1))))
    report(f"{STAGES} stages of one RUN, side by side where the builder can, then {STAGES} COPY --from", rows)
    note("stages", rows)


def fill(folder, files, size):
    """Files of a size in directories of a hundred."""
    for number in range(files):
        below = folder / f"d{number // 100}"
        below.mkdir(exist_ok=True)
        (below / f"f{number}").write_bytes(os.urandom(size))


def contexts(name, title, files, size, builders):
    rows = {"first": [], "same": [], "changed": []}
    for builder in builders:
        folders = []

        def fresh():
            """A directory that no builder has seen."""
            if folders:
                shutil.rmtree(folders.pop())
            folders.append(context(f"{name}-{next(numbers)}"))
            fill(folders[0], files, size)
            dockerfile(folders[0], ["FROM busybox", "COPY . /data"])
            os.sync()

        def change():
            (folders[0] / "d0/f0").write_bytes(os.urandom(size))
            os.sync()

        def measure(before, runs, warm):
            return attempt(lambda: median_ms(lambda: builder(folders[0]), runs=runs, before=before, warm=warm))
        rows["first"].append((builder.name, measure(fresh, 3, 0)))
        rows["same"].append((builder.name, measure(os.sync, 5, 1)))
        rows["changed"].append((builder.name, measure(change, 3, 0)))
        shutil.rmtree(folders.pop())
    for key, what in [("first", "COPY of all, first build"), ("same", "nothing changed"), ("changed", "one file changed")]:
        report(f"{title}: {what}", rows[key])
        note(f"{name} {key}", rows[key])


def bench_small(builders, _):
    contexts("small", "context of 10,000 files of 1 kB", 10_000, 1000, builders)


def bench_large(builders, _):
    contexts("large", "context of 500 files of 1 MB", 500, 1 << 20, builders)


def bench(engines, archive):
    """`engines` are those of bench.py, Silo first."""
    builders, alone = [], []
    for engine in engines:
        classic = {**engine.env, "DOCKER_BUILDKIT": "0"}
        if engine.name == "silo":
            builders.append(Builder("silo build", [SILO, "build", "-q"], engine.env))
        builders.append(Builder(f"{engine.name}, docker build", ["docker", "build", "-q"], classic))
    if pair := attempt(lambda: buildah(archive)):
        builders.append(pair[0])
        alone.append(pair[1])
    try:
        for name, action in [("steps", bench_steps), ("stages", bench_stages), ("small", bench_small), ("large", bench_large)]:
            if name in PARTS:
                attempt(lambda: action(builders, alone))
    finally:
        stop_buildah()
    if "steps" in PARTS:
        print("\n## goals\n")
    for part, factor in [("cold", 8), ("cached", 1)]:
        silo = [value for name, value in found.get(part, {}).items() if name.startswith("silo") and value]
        peers = [value for name, value in found.get(part, {}).items() if not name.startswith("silo") and value]
        for value, way in zip(silo, ["silo build", "docker build"]):
            if peers:
                ratio = min(peers) / value
                verdict = "holds" if ratio >= factor else "DOES NOT HOLD"
                print(f"  {part}, {way}: {ratio:.1f} times the fastest peer, of {factor}: {verdict}")
