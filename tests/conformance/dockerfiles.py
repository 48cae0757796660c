#!/usr/bin/env python3
"""Builds every Dockerfile below a directory on two engines with the classic builder, or with buildx,
and compares what comes out: trees, kinds, modes, owners, links, contents, and the configuration;
with buildx also the history, and of builds that fail the message.

    dockerfiles.py [--buildx] DIRECTORY HOST REFERENCE_HOST

A context is the directory that a Dockerfile is in. Names of base images that no stage has are
given to busybox on both engines before. Both engines must have busybox.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

CONFIG = ["User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "ExposedPorts", "Volumes",
          "OnBuild", "StopSignal", "Shell", "Healthcheck"]


BUILDX = "--buildx" in sys.argv


def docker(host, *arguments, **options):
    environment = dict(os.environ, DOCKER_HOST=host, DOCKER_BUILDKIT="1" if BUILDX else "0")
    return subprocess.run(["docker", *arguments], env=environment, capture_output=True, **options)


def bases(path):
    """The images that a Dockerfile begins stages with."""
    stages, images, variables = set(), set(), {}
    for line in open(path, errors="replace"):
        words = line.split()
        if words and words[0].upper() == "ARG" and len(words) > 1 and "=" in words[1]:
            name, value = words[1].split("=", 1)
            variables[name] = value
        if not words or words[0].upper() != "FROM":
            found = re.findall(r"--from=(\S+)|from=([^,\s]+)", line)
            names = [a or b for a, b in found]
        else:
            words = [word for word in words[1:] if not word.startswith("--")]
            names = words[:1]
            if len(words) > 2:
                stages.add(words[2].lower())
        for name in names:
            name = re.sub(r"\$\{?(\w+)\}?", lambda m: variables.get(m[1], ""), name).strip("\"'")
            if name and name != "scratch" and name.lower() not in stages and not name.isdigit():
                images.add(name)
    return images


def message(built):
    """What a build that failed said last: the exit code, and the error without what is random."""
    lines = built.stderr.decode(errors="replace").strip().splitlines()
    # An error may have several lines, behind the excerpt of the Dockerfile.
    starts = [at for at, line in enumerate(lines) if line.startswith("ERROR: ")] or [-1]
    said = " / ".join(lines[starts[-1]:])
    said = re.sub(r"[0-9a-z]{25}::[0-9a-z]{25}|sha256:[0-9a-f]{64}", "ID", said)
    return [built.returncode, said]


def result(host, context, dockerfile, tag):
    for image in bases(dockerfile):
        docker(host, "tag", "busybox", image)
    build = ["buildx", "build", "--load", "--progress=plain"] if BUILDX else ["build", "-q"]
    built = docker(host, *build, "--no-cache", "-t", tag, "-f", dockerfile, context, timeout=120)
    if built.returncode != 0:
        return None, message(built)
    config = json.loads(docker(host, "image", "inspect", tag).stdout)[0]["Config"]
    kept = {key: config.get(key) or None for key in CONFIG}
    if BUILDX:
        history = docker(host, "history", "--no-trunc", "--format", "{{json .CreatedBy}} {{.Comment}}", tag)
        kept["history"] = history.stdout.decode().splitlines()
    container = docker(host, "create", tag, "x").stdout.decode().strip()
    archive = docker(host, "export", container).stdout
    docker(host, "rm", "-f", container)
    docker(host, "rmi", "-f", tag)
    tree = {}
    for member in tarfile.open(fileobj=io.BytesIO(archive)):
        name = member.name.strip("./")
        # What every engine puts into a container.
        if name in ("", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"):
            continue
        if name.split("/")[0] in ("dev", "proc", "sys") or name == "etc":
            continue
        content = b""
        if member.isfile():
            content = tarfile.open(fileobj=io.BytesIO(archive)).extractfile(member.name).read() \
                if member.size < 1 << 20 else str(member.size).encode()
        tree[name] = (member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.linkname,
                      hashlib.sha256(content).hexdigest()[:12])
    return tree, kept


def main():
    root, host, reference = [argument for argument in sys.argv[1:] if argument != "--buildx"]
    counts = {}
    for directory, _, files in sorted(os.walk(root)):
        for name in sorted(files):
            if not re.match(r"(Dockerfile|Containerfile)", name) or name.endswith(".dockerignore"):
                continue
            path = os.path.join(directory, name)
            try:
                ours = result(host, directory, path, "conformance-one")
                theirs = result(reference, directory, path, "conformance-one")
            except subprocess.TimeoutExpired:
                ours, theirs = "timeout", None
            label = os.path.relpath(path, root)
            if ours == "timeout":
                kind, detail = "timeout", ""
            elif ours[0] is None and theirs[0] is None:
                kind, detail = "both refuse", ""
                if BUILDX and ours[1] != theirs[1]:
                    kind, detail = "refused in other words", (ours[1], theirs[1])
            elif theirs[0] is None:
                kind, detail = "only ours builds", theirs[1]
            elif ours[0] is None:
                kind, detail = "only theirs builds", ours[1]
            elif ours == theirs:
                kind, detail = "same", ""
            else:
                paths = [(p, ours[0].get(p), theirs[0].get(p)) for p in
                         sorted(set(ours[0]) | set(theirs[0])) if ours[0].get(p) != theirs[0].get(p)]
                keys = [(k, ours[1][k], theirs[1][k]) for k in ours[1] if ours[1][k] != theirs[1][k]]
                kind, detail = "different", (paths[:4], keys)
            counts[kind] = counts.get(kind, 0) + 1
            print(f"{kind}: {label} {detail}", flush=True)
    print(counts)


main()
