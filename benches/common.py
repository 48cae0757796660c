"""What the benchmarks share: running commands, medians, and tables."""

import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
RUNS = int(os.environ.get("RUNS", "15"))
WORK = Path(tempfile.mkdtemp(prefix="silo-bench-"))


def built():
    """The newest release build of Silo."""
    found = [*glob.glob(f"{TOP}/target/*/release/silo"), *glob.glob(f"{TOP}/target/release/silo")]
    return max(found, key=os.path.getmtime, default="silo")


SILO = os.environ.get("SILO") or built()


def sh(*command, env=None, **keywords):
    """Runs a command that must succeed; returns its output."""
    result = subprocess.run(
        command, env={**os.environ, **(env or {})}, stdin=keywords.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **keywords)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {result.stderr.decode()[-500:]}")
    return result.stdout.decode(errors="replace").strip()


def median_ms(action, runs=RUNS, before=None, warm=2):
    """The median time of `action` in milliseconds, after some runs to warm up. An action that
    times itself returns its milliseconds."""
    times = []
    for number in range(runs + warm):
        if before:
            before()
        start = time.perf_counter()
        own = action()
        if number >= warm:
            times.append(own if isinstance(own, float) else (time.perf_counter() - start) * 1000)
    return statistics.median(times)


def report(title, rows, unit="ms", better="lower"):
    """Prints one table; `rows` are (name, figure or None)."""
    print(f"\n## {title}\n")
    base = next((value for name, value in rows if name.startswith("silo")), None)
    for name, value in rows:
        if value is None:
            print(f"  {name:<34} not measured")
            continue
        ratio = (value / base if better == "lower" else base / value) if base and value else 0
        print(f"  {name:<34} {value:>12.2f} {unit:<6} x{ratio:.2f}")
    sys.stdout.flush()


def attempt(action):
    """What an action returns, or nothing and a line when it fails."""
    try:
        return action()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"  ({error})", file=sys.stderr)
        return None


def pss_kb(pid):
    """(resident, proportional) size of a process in kB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Rss"].split()[0]), int(fields["Pss"].split()[0])
