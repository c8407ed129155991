"""Runs commands one after another as a small process of its own, and tells what each took.

A process counts the memory of the one that began it as its own largest, until it runs its program; so what begins
the commands that are measured must be small. This file imports little, and runs as `python -I -S`.

Standard input: JSON, a list of {"argv", "cwd", "env", "output"}. Standard output: JSON, a list of {"wall", "cpu",
"peak", "code"}: seconds, bytes. It ends at the first command that fails.
"""

import json
import os
import sys
import time


def run(command: dict) -> dict:
    os.chdir(command["cwd"])
    output = command["output"].encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [(os.POSIX_SPAWN_OPEN, 0, b"/dev/null", os.O_RDONLY, 0)]
    files += [(os.POSIX_SPAWN_OPEN, number, output, flags, 0o644) for number in (1, 2)]
    began = time.perf_counter()
    process = os.posix_spawnp(command["argv"][0], command["argv"], command["env"], file_actions=files)
    _, status, used = os.wait4(process, 0)
    wall = time.perf_counter() - began
    return {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss << 10,
        "code": os.waitstatus_to_exitcode(status),
    }


def main() -> None:
    results = []
    for command in json.load(sys.stdin):
        results.append(run(command))
        if results[-1]["code"]:
            break
    json.dump(results, sys.stdout)


main()
