"""Nothing that is read is ever run: no module that could do it is used, and a whole round trip unpickles nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dataset_store

ROOT = Path(dataset_store.__file__).parent
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "runpy"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "system",
    "popen",
    "read_pickle",
    "to_pickle",
    "unsafe_load",
    "full_load",
}
"""Names of functions, whatever they are looked up in; `re.compile` is none of these."""

ROUND_TRIP = """
import os, sys
found = []
sys.addaudithook(lambda event, args: found.append((event, args)) if event in EVENTS else None)
import numpy as np, pandas as pd, pyarrow as pa
from pathlib import Path
from dataset_store import Dataset, StorageManager
folder = Path("files")
(folder / "sub").mkdir(parents=True)
(folder / "small").write_bytes(b"small")
(folder / "sub" / "large").write_bytes(os.urandom(400_000))
(folder / "sub" / "model.pkl").write_bytes(PICKLE)
os.symlink("small", folder / "link")
made = Dataset.create(dataset_project="p", dataset_name="d")
made.sync_folder(folder)
for name, value in {
    "frame": pd.DataFrame({"a": [1, "x"], "b": [b"b", None]}), "array": np.arange(3), "text": np.array(["a"]),
    "table": pa.table({"x": [1]}), "plain": {"a": [1]}, "series": pd.Series([1.5]),
}.items():
    made.set_metadata(value, name)
made.get_logger().report_table("t", "s", table_plot=pd.DataFrame({"a": [1]}))
made.finalize(auto_upload=True)
del found[:]
seen = Dataset.get(dataset_project="p", dataset_name="d")
copy = Path(seen.get_local_copy())
assert (copy / "sub" / "model.pkl").read_bytes() == PICKLE
seen.get_mutable_local_copy("mutable")
for name in ("frame", "array", "text", "table", "plain", "series"):
    seen.get_metadata(name)
assert seen.reports
seen.list_files(); seen.verify_dataset_hash()
StorageManager.get_local_copy(str(copy / "sub" / "model.pkl"))
assert not os.path.exists("ran"), "the pickle was run"
print([row for row in found if row[0] != "exec"], flush=True)
"""


def trees():
    for path in sorted(ROOT.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported(node):
    """The modules that a statement or call imports by name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    if isinstance(node, ast.Call) and called(node)[1] == "import_module":
        return [word.value for word in node.args if isinstance(word, ast.Constant)]
    return []


def called(node):
    """What a call looks its function up in, where that is a name, and the function's name."""
    if isinstance(node.func, ast.Attribute):
        return getattr(node.func.value, "id", ""), node.func.attr
    return "", getattr(node.func, "id", "")


def offences(tree):
    """What a module uses that could run what it reads, with the line."""
    for node in ast.walk(tree):
        yield from ((name, node.lineno) for name in imported(node) if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            owner, name = called(node)
            forbidden = name in CALLS and (owner, name) != ("re", "compile")
            loads = name == "load" and owner in {"yaml", "np", "numpy", "torch"}
            if forbidden or loads or any(word.arg in {"shell", "allow_pickle"} for word in node.keywords):
                yield name, node.lineno


def test_no_module_uses_what_could_run_what_it_reads():
    found = [(path.relative_to(ROOT), *each) for path, tree in trees() for each in offences(tree)]
    assert found == []
    assert len(list(trees())) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch.serialization",
        "import_module('pickle')",
        "eval(text)",
        "exec(text)",
        "builtins.compile(text, '', 'exec')",
        "yaml.load(text)",
        "np.load(path)",
        "load(path, allow_pickle=True)",
        "os.system(text)",
        "run(text, shell=True)",
        "pandas.read_pickle(path)",
    ],
)
def test_what_is_forbidden_is_found(source):
    assert list(offences(ast.parse(source)))


def test_a_round_trip_with_metadata_unpickles_nothing(home):
    """Dependencies import pickle; what counts is that nobody looks up a class by what a pickle says."""
    events = "{'pickle.find_class', 'os.system', 'subprocess.Popen', 'os.exec', 'os.posix_spawn'}"
    pickled = b"cos\nsystem\n(S'touch ran'\ntR."
    script = f"EVENTS = {events}\nPICKLE = {pickled!r}\n{ROUND_TRIP}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.splitlines()[-1] == "[]"
