"""A process that commits is killed before any of its file-changing system calls; nothing acknowledged is ever lost."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

STEPS = Path(__file__).with_name("commit_steps.py")
CALLS = [
    *("write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "ftruncate"),
    *("openat", "link", "linkat", "rename", "renameat", "renameat2"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
]

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace"),
]

_TRACED = re.compile(r"(\d+) +(\w+)\((.*)")
_MAKES_A_FILE = re.compile(r"O_CREAT|O_TMPFILE")


@pytest.fixture
def start():
    """A home with an acknowledged version and the folder of the next one."""
    home = Path(tempfile.mkdtemp(prefix="kill-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    source = random.Random(1)
    long = source.randbytes(300_000)
    for name, inserted in (("start/first", b""), ("start/second", b"put in between")):
        folder = home / name
        (folder / "d").mkdir(parents=True)
        (folder / "long").write_bytes(long[:100_000] + inserted + long[100_000:])
        for number in range(40):
            changed = number % 3 == 0
            (folder / "d" / str(number)).write_bytes(source.randbytes(3000) if changed else b"%d" % number * 100)
    (home / "start/second/more").write_bytes(source.randbytes(1_400_000))
    (home / "start/second/link").symlink_to("long")
    done = run("begin", home / "start")
    assert done.returncode == 0, done.stderr
    yield home
    shutil.rmtree(home)


def run(step, home, *before, **variables):
    command = [*before, sys.executable, str(STEPS), step, str(home)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | variables
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)


def strace(calls, *more):
    return ["strace", "-f", "-e", "trace=" + ",".join(f"?{call}" for call in calls), *more]


def kill_points(home, **variables):
    """Every file-changing call as (name, the how-manieth of that name in its thread), in the order of a whole run."""
    trace = home / "trace"
    copy = copy_of(home, "recorded")
    done = run("commit", copy, *strace(CALLS, "-o", str(trace)), **variables)
    assert done.returncode == 0, done.stderr
    counts = defaultdict(int)
    points = {}
    for line in trace.read_text(errors="replace").splitlines():
        match = _TRACED.match(line)
        if match is None:
            continue
        thread, call, arguments = match.groups()
        counts[thread, call] += 1
        if call != "openat" or _MAKES_A_FILE.search(arguments):
            points[call, counts[thread, call]] = None
    shutil.rmtree(copy)
    return list(points)


def evenly(points, count):
    """`count` of the points, or all where there are fewer."""
    count = min(count, len(points))
    return [points[at * len(points) // count] for at in range(count)]


def copy_of(home, name):
    subprocess.run(["cp", "-a", str(home / "start"), str(home / name)], check=True)
    return home / name


def killed_at(home, point, **variables):
    """Kill the commit at one point, look, run it again and look again: what became of it, and what was wrong."""
    call, number = point
    copy = copy_of(home, f"{call}-{number}")
    try:
        cut = run(
            "commit",
            copy,
            *strace([call], "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}"),
            **variables,
        )
        landed = (copy / "store" / "log" / "catalog" / f"{1:012d}").exists()
        fate = ("after" if landed else "before") if cut.returncode else "not killed"
        return fate, problem_of(copy, landed, **variables)
    finally:
        shutil.rmtree(copy)


def problem_of(home, landed, **variables):
    """Which law a killed commit broke; None if none."""
    seen = run("look", home)
    if seen.returncode:
        return f"after the kill: {seen.stderr[-2000:]}"
    again = run("commit", home, **variables)
    if again.returncode:
        return f"the commit does not go on: {again.stderr[-2000:]}"
    shutil.rmtree(home / "cache-fresh")
    last = run("look", home)
    if last.returncode:
        return f"after going on: {last.stderr[-2000:]}"
    state = json.loads(last.stdout)
    if not state["finished"] or not 2 <= state["versions"] <= 2 + landed:
        return f"after going on: {state}"
    return None


def kill_all(home, points, **variables):
    """Every point's fate and problem, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda point: killed_at(home, point, **variables), points))


def test_a_commit_killed_anywhere_loses_nothing_and_goes_on(start, capsys):
    every = kill_points(start)
    points = evenly(every, 300)
    results = kill_all(start, points)
    fates = Counter(fate for fate, _ in results)
    with capsys.disabled():
        print(
            f"\n{len(points)} kill points of {len(every)}: {fates['before']} killed before the commit, "
            f"{fates['after']} after it, {fates['not killed']} not killed"
        )
    problems = {point: problem for point, (_, problem) in zip(points, results, strict=True) if problem}
    assert not problems, problems
    assert fates["before"] > 100
    assert fates["after"] > 10
    assert fates["not killed"] < len(points) // 10


def test_a_log_entry_written_before_the_packs_is_found_out(start):
    points = evenly(kill_points(start, PLANTED="1"), 40)
    problems = [problem for _, problem in kill_all(start, points, PLANTED="1") if problem]
    assert any("ObjectMissing" in problem for problem in problems), problems
