"""The fault shim of this process, which must have been loaded before the process began.

python shim.py FOLDER                                       compiles it, and prints the file's path
LD_PRELOAD=FOLDER/fault_shim.so python sweep.py ...         a process under it
"""

import ctypes
import shutil
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("fault_shim.c")
MOST_CALLS = 1 << 16


class Mode(IntEnum):
    """What happens at the call that was chosen."""

    OFF = 0
    COUNT = 1
    KILL = 2
    FAIL = 3
    FAIL_ON = 4
    SHORT = 5


def build(folder: Path) -> Path:
    """Compile the shim into a folder."""
    library = folder / "fault_shim.so"
    compiler = shutil.which("gcc") or "cc"
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"],
        check=True,
    )
    return library


class Shim:
    """Arms the shim of this process, and asks it what it saw."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._watch = library.shim_watch
        self._arm = library.shim_arm
        self._arm.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]
        self._calls = library.shim_calls
        self._calls.restype = ctypes.c_long
        self._trace = library.shim_trace

    def watch(self, folder: Path) -> None:
        """From here on calls count that concern a folder and what lies below it."""
        self._watch(str(folder).encode())

    def arm(self, mode: Mode, call: int = 0, error: int = 0) -> None:
        """Let something happen at a call, counted from 1; the counter begins anew."""
        self._arm(mode, call, error)

    def calls(self) -> str:
        """The kinds of the calls since `arm`, a letter each."""
        kinds = ctypes.create_string_buffer(MOST_CALLS)
        count = self._calls(kinds, MOST_CALLS)
        return kinds.raw[:count].decode()

    def trace(self, file: int) -> None:
        """Write what succeeds from here on to an open file; -1 ends that."""
        self._trace(file)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
