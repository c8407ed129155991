"""The process of one command: it ends at once, and leaves nothing out that anybody waits for."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("dataset-store")


def ended(main, *options):
    """What a process printed whose command is carried out by these lines, and its exit code."""
    lines = f"import atexit, sys, threading, time\nimport dataset_store.cli.program as program\n{main}\n"
    code = f"{lines}program.main = main\nprogram.run()\n"
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)
    return done.stdout.split(), done.stderr, done.returncode


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["nothing"], 2), (["get", "--project", "p", "--name", "n"], 3)]
)
def test_the_exit_code_is_that_of_the_command(tmp_path, words, code):
    environment = {"HOME": str(tmp_path), "DATASET_STORE_URL": str(tmp_path / "store")}
    done = subprocess.run([PROGRAM, *words], capture_output=True, env=environment)
    assert done.returncode == code
    assert done.stderr if code else done.stdout


def test_threads_end_first_and_what_was_registered_is_called():
    main = """
def later():
    time.sleep(0.2)
    print("thread")

def main():
    atexit.register(print, "registered")
    threading.Thread(target=later).start()
    sys.stderr.write("told")
    print("result")
    return 7
"""
    assert ended(main) == (["result", "thread", "registered"], "told", 7)


def test_nothing_is_taken_apart_but_in_development_mode():
    main = """
class Last:
    def __del__(self):
        print("apart")

kept = Last()
def main():
    return 0
"""
    assert ended(main) == ([], "", 0)
    assert ended(main, "-X", "dev") == (["apart"], "", 0)


def test_what_goes_wrong_beside_the_command_is_told_as_python_tells_it():
    printed, told, code = ended("def main():\n    raise ZeroDivisionError")
    assert (printed, code) == ([], 1)
    assert "ZeroDivisionError" in told
    assert ended("def main():\n    raise KeyboardInterrupt")[2] == -2


@pytest.mark.parametrize("code", [130, 143])
def test_a_command_that_was_ended_by_a_signal_waits_for_no_thread(code):
    main = f"""
def main():
    threading.Thread(target=time.sleep, args=[60]).start()
    print("told")
    return {code}
"""
    begun = time.monotonic()
    assert ended(main) == (["told"], "", code)
    assert time.monotonic() - begun < 30


OPENED = """
def main():
    from dataset_store.dataset.workspace import _reached
    from dataset_store.local.settings import load_settings
    _reached(load_settings(), "{url}")
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
    print("numpy" in sys.modules)
    return 0
"""


@pytest.mark.parametrize(("url", "loaded"), [("memory://far", ["True"]), ("/near", ["False"])])
def test_arrays_are_loaded_while_a_far_store_answers(url, loaded):
    assert ended(OPENED.format(url=url)) == (loaded, "", 0)


def test_a_process_that_may_fork_loads_nothing_ahead():
    code = f"import sys, threading\n{OPENED.format(url='memory://far')}\nmain()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
