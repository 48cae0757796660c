"""Where the time of a Windows container's start goes, by the kernel's own trace of its processes.

The events of processes (start, execute, name, end) are recorded through a tracefs instance of its
own, which costs microseconds for each. `trace(action, runs)` gives the median of every phase of
`action`, which runs one container with `silo run --rm`.
"""

import contextlib
import os
import re
import statistics
import time
from pathlib import Path

INSTANCE = Path("/sys/kernel/tracing/instances/silo-bench")
EVENTS = ["sched/sched_process_fork", "sched/sched_process_exec", "sched/sched_process_exit", "task/task_rename"]
LINE = re.compile(r"-(\d+)\s+\[\d+\]\s+\S+\s+(\d+\.\d+): (\w+): (.*)")
# Each phase by what ends it.
PHASES = [
    ("engine: request, record, registry copied, network", "shim forked"),
    ("supervisor starts", "shim executed"),
    ("container: namespaces, cgroup, mounts, seccomp", "init executed"),
    ("process 1 starts wineserver", "server executed"),
    ("wineserver goes to the background", "server ready"),
    ("process 1 starts Wine's loader", "loader executed"),
    ("registry read; Wine's own libraries, silo-run.exe", "boot forked"),
    ("silo-boot: what programs look at", "run named"),
    ("silo-run.exe: what to start, pipes (services start)", "program forked"),
    ("Linux loads the program (drivers and services start)", "program named"),
    ("services awaited; the program: DLLs, console, work", "program ended"),
    ("silo-run.exe ends", "run ended"),
    ("process 1 ends", "init ended"),
    ("Wine ends; supervisor, engine, command line", "client ended"),
]


def fields(text):
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def marks(lines, client):
    """The moments of one run, in seconds, by name."""
    at, parent, own, run, program = {}, {}, None, None, None
    shim = init = server = boot = None
    for line in lines:
        if not (match := LINE.search(line)):
            continue
        pid, moment, event, rest = int(match[1]), float(match[2]), match[3], match[4]
        values = fields(rest)
        if event == "sched_process_exec":
            file = values["filename"]
            if "client executed" not in at:
                if file == client:
                    own = pid
                    at["client executed"] = moment
            elif shim is None and file.startswith("/proc/self/fd/"):
                shim = pid
                at["shim forked"], at["shim executed"] = parent[pid][1], moment
            elif init is None and file.endswith("/docker-init") and parent.get(pid, (0,))[0] == shim:
                init = pid
                at["init executed"] = moment
            elif init and parent.get(pid, (0,))[0] == init:
                if server is None and "wineserver" in file:
                    server = pid
                    at["server executed"] = moment
                elif run is None:
                    run = pid
                    at["loader executed"] = moment
        elif event == "sched_process_fork":
            parent[int(values["child_pid"])] = (int(values["pid"]), moment)
        elif event == "task_rename":
            name = values["newcomm"]
            # Wine forks twice for a process; the first fork is where it begins. A process has its
            # name when Windows code is about to run in it, the first one after the session is up.
            if name == "wineboot.exe" and boot is None:
                boot, middle = pid, parent[pid][0]
                at["boot forked"] = parent[middle][1]
            elif name in ("cmd", "cmd.exe") and program is None and run:
                program, middle = pid, parent[pid][0]
                at["program forked"], at["program named"] = parent[middle][1], moment
            elif name == "silo-run.exe" and pid == run:
                at["run named"] = moment
        elif event == "sched_process_exit":
            name = {own: "client ended", init: "init ended", run: "run ended", server: "server ready",
                    program: "program ended"}.get(pid)
            if name:
                at[name] = moment
    return at


@contextlib.contextmanager
def tracing():
    INSTANCE.mkdir(exist_ok=True)
    try:
        (INSTANCE / "buffer_size_kb").write_text("4096")
        (INSTANCE / "tracing_on").write_text("0")
        for event in EVENTS:
            (INSTANCE / "events" / event / "enable").write_text("1")
        yield
    finally:
        INSTANCE.rmdir()


def trace(action, runs):
    """[(phase, median milliseconds)]; runs in which a mark is missing are left out."""
    import common
    durations = [[] for _ in PHASES]
    with tracing():
        for _ in range(runs):
            (INSTANCE / "trace").write_text("")
            (INSTANCE / "tracing_on").write_text("1")
            action()
            # The supervisor ends after the client.
            time.sleep(0.02)
            (INSTANCE / "tracing_on").write_text("0")
            at = marks((INSTANCE / "trace").read_text().splitlines(), common.SILO)
            if any(end not in at for _, end in PHASES):
                continue
            last = at["client executed"]
            for number, (_, end) in enumerate(PHASES):
                durations[number].append((at[end] - last) * 1000)
                last = at[end]
    if not durations[0]:
        raise RuntimeError(f"no run had all of {[end for _, end in PHASES]}")
    return [(name, statistics.median(times)) for (name, _), times in zip(PHASES, durations)]
