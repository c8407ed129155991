"""Memory does not grow with the size of a file, and by less than a kilobyte for each file."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "studies" / "memory.py"

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def memory():
    spec = importlib.util.spec_from_file_location("memory_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["memory_benchmark"] = module
    spec.loader.exec_module(module)
    return module


def require_space(folder: str, gib: int) -> None:
    if shutil.disk_usage(folder).free < gib << 30:
        pytest.skip(f"needs {gib} GiB in {folder}")


@pytest.mark.parametrize(("kind", "gib", "needed"), [("repeating", 10, 32), ("random", 1, 6)])
def test_a_large_file_takes_less_than_300_mib_in_every_step(memory, tmp_path, kind, gib, needed):
    require_space(str(tmp_path), needed)
    peaks = memory.run_big(kind, gib << 30, str(tmp_path))
    assert max(peaks.values()) < 300 << 20, peaks


@pytest.mark.xdist_group("a million files")
def test_a_million_files_take_less_than_a_gib_in_every_step(memory, roomy):
    peaks = memory.run_many(1_000_000, str(roomy))
    assert max(peaks.values()) < 1 << 30, peaks
