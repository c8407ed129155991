"""How calls end: exit codes, messages, help, documents, start-up."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from dataset_store import __version__, errors
from dataset_store.cli import main
from dataset_store.cli.arguments import build_parser

MAKING = ["create", "add", "remove", "sync", "upload", "close"]
KEEPING = ["tag", "archive", "set-description", "rename", "move", "squash", "delete", "expire", "gc", "repack"]
SHARING = ["push", "pull", "clone"]
COMMANDS = [
    *MAKING,
    "publish",
    "get",
    "list",
    "log",
    "diff",
    "status",
    "cat",
    "search",
    "compare",
    *KEEPING,
    *SHARING,
    "verify",
    "repair",
    "stats",
    "doctor",
    "config",
    "import",
    "completion",
]
READING = ["get", "list", "log", "diff", "status", "search", "tag", "verify", "stats", "doctor", "config"]
ENGINE = ["numpy", "lmdb", "blake3", "msgspec", "zstandard", "rich", "platformdirs", "dataset_store.dataset"]


def every_error(kind=errors.DatasetStoreError):
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


@pytest.fixture
def fails(monkeypatch):
    """Makes `doctor` raise."""

    def arrange(error):
        def doctor(_arguments):
            raise error

        monkeypatch.setattr("dataset_store.cli.store.doctor", doctor)

    return arrange


def process(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "dataset_store.cli", *words], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.kind)
def test_every_error_ends_with_its_own_code_two_lines_and_no_traceback(shell, fails, kind):
    fails(kind("What happened.", "What to do."))
    answer = shell("doctor")
    assert answer.code == kind.exit_code
    assert answer.out == ""
    assert answer.err == "Error: What happened.\nWhat to do.\n"


def test_exit_codes_are_those_of_the_help():
    codes = {kind.kind: kind.exit_code for kind in every_error()}
    meant = ("error", "invalid-request", "not-found", "conflict", "corrupt")
    assert [codes[kind] for kind in meant] == [1, 2, 3, 4, 5]


def test_debug_shows_where_an_error_came_from(shell, fails):
    fails(errors.NotFound("What happened.", "What to do."))
    answer = shell("doctor", "--debug")
    assert answer.code == 3
    assert "Traceback" in answer.err
    assert answer.err.endswith("Error: What happened.\nWhat to do.\n")


def test_an_unexpected_error_is_one_line(shell, fails):
    fails(KeyError("x"))
    answer = shell("doctor")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "Internal error: KeyError: 'x'; repeat with --debug\n"
    assert "Traceback" in shell("--debug", "doctor").err


def test_errors_that_caused_each_other_end_a_call_like_any_other(shell, fails):
    error = errors.StorageFailed("The disk said no.", "Repeat.")
    error.__cause__ = OSError("told")
    error.__cause__.__cause__ = error
    fails(error)
    answer = shell("doctor")
    assert (answer.code, answer.err) == (errors.StorageFailed.exit_code, "Error: The disk said no.\nRepeat.\n")


def test_with_json_an_error_is_a_document_too(shell, fails):
    fails(errors.StoreNotFound("What happened.", "What to do."))
    answer = shell("doctor", "--json")
    assert json.loads(answer.out) == {
        "error": {"kind": "store-not-found", "what": "What happened.", "next_step": "What to do."}
    }
    assert answer.err.startswith("Error: ")


def test_an_interrupt_ends_with_130_and_says_what_is_safe(shell, fails):
    fails(KeyboardInterrupt())
    answer = shell("doctor")
    assert answer.code == 130
    assert answer.err == "Interrupted; what was acknowledged is safe, repeat the command to go on.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["add"],
        ["sync"],
        ["add", "--files"],
        ["upload", "--chunk-size", "many"],
        ["list", "--proj", "data"],
        ["get", "--lnk", "x"],
    ],
)
def test_a_wrong_call_is_an_error_like_any_other_and_points_to_help(shell, words):
    answer = shell(*words)
    assert (answer.code, answer.out) == (2, "")
    first, second = answer.err.splitlines()
    assert first.startswith("Error: ")
    assert re.fullmatch(r"See `dataset-store.* --help`\.", second)


def test_what_is_mistyped_points_to_what_was_meant(shell):
    assert shell("get", "--nothing").err.endswith("See `dataset-store get --help`.\n")
    assert "did you mean 'list'?" in shell("lsit").err
    unlike = shell("xyzzy").err
    assert "did you mean" not in unlike
    assert len(unlike) < 100
    swallowed = shell("cat", "--tags", "latest", "a.txt")
    assert swallowed.code == 2
    assert "Put paths first, or `--` before them" in swallowed.err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["sync", "--help"],
        ["--version"],
        [],
        ["list", "--json"],
        ["list"],
        ["cat", "large"],
        ["completion", "zsh"],
    ],
)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_standard_output_is_one_clear_line(shell, machine, pictures, words, buffered):
    (pictures / "large").write_bytes(bytes(100_000))
    shell("sync", "--folder", "pictures", "--name", "cats")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dataset_store.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
        )
    told = "Error: Standard output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_help_tells_every_exit_code(shell):
    help_text = shell("--help").out
    for told in ("130 interrupted", "141 nobody", "1 failed, or `verify --folder` found"):
        assert told in help_text


def test_no_command_prints_help_and_counts_as_a_wrong_call(shell):
    answer = shell()
    assert answer.code == 2
    assert "usage: dataset-store" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_that_parses(shell, command):
    answer = shell(command, "--help")
    assert answer.code == 0
    example = answer.out.partition("Example:\n  dataset-store ")[2].strip()
    assert build_parser().parse_args(shlex.split(example)).command == command


def test_help_names_every_command_and_no_other():
    (choices,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert list(choices) == COMMANDS


def test_version_is_that_of_the_package(shell):
    assert shell("--version").out == f"dataset-store {__version__}\n"


@pytest.mark.parametrize("command", READING)
def test_every_command_that_reads_prints_one_document(shell, closed, command):
    answer = shell(command, "--json")
    assert answer.code == 0
    assert isinstance(json.loads(answer.out), dict)


def test_the_store_can_be_named_before_and_after_the_command(shell, machine):
    one, other = str(machine / "one"), str(machine / "other")
    assert json.loads(shell("--store", one, "doctor", "--json").out)["store"] == one
    assert json.loads(shell("doctor", "--store", other, "--json").out)["store"] == other
    assert json.loads(shell("doctor", "--json").out)["store"] == str(machine / "url")


def test_errors_of_the_engine_keep_their_codes(shell, machine, closed):
    assert shell("list", "--id", "0" * 32).code == 3
    assert shell("list", "--store", str(machine / "nowhere")).code == 3
    assert shell("list", "--store", "nope://bucket/x").code == 2
    (machine / "file").touch()
    assert shell("create", "--name", "cats", "--store", str(machine / "file" / "below")).code == 1
    for pack in (machine / "url" / "packs").rglob("*"):
        if pack.is_file():
            pack.unlink()
    assert shell("get", "--id", closed).code == 5


def test_warnings_go_to_standard_error(shell, pictures):
    (pictures / "aux").write_text("x")
    shell("create", "--name", "cats")
    added = shell("add", "--files", str(pictures))
    assert added.out == "4 added, 0 modified\n"
    assert added.err.startswith("Warning: ")


def test_help_and_wrong_calls_load_no_engine():
    code = f"""
import sys
from dataset_store.cli import main
assert main(["--help"]) == 0 and main(["sync", "--help"]) == 0 and main(["sync"]) == 2 and main(["--version"]) == 0
print([name for name in {ENGINE} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_module_and_the_function_answer_alike(machine, capsys):
    done = process("list", "--id", "0" * 32)
    assert main(["list", "--id", "0" * 32]) == done.returncode == 3
    assert done.stderr == capsys.readouterr().err


def test_commands_of_separate_processes_go_on_with_one_version(machine, pictures):
    made = process("create", "--project", "data", "--name", "cats")
    assert (made.returncode, made.stderr) == (0, f"note: began a new store at file://{machine / 'url'}\n")
    synced = process("sync", "--folder", "pictures")
    assert (synced.returncode, synced.stderr) == (0, "")
    got = process("get", "--copy", "out")
    assert (got.returncode, got.stdout) == (0, f"{machine / 'work' / 'out'}\n")
    assert (machine / "work" / "out" / "a.txt").read_text() == "alpha"


def test_a_reader_that_leaves_early_causes_no_complaint(machine, closed):
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "dataset_store.cli", "list", "--versions"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, b"Interrupted"), (signal.SIGTERM, 143, b"Terminated")]
)
def test_an_interrupted_process_clears_up_and_shows_no_traceback(machine, pictures, number, code, word):
    os.mkfifo(machine / "work" / "pipe")
    program = """
import os, signal, sys
import dataset_store.cli.store as store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets jobs in the background ignore it
def doctor(arguments):
    try:
        os.close(os.open("pipe", os.O_WRONLY))
        while True: os.read(os.open("pipe", os.O_RDONLY), 1)
    finally:
        os.mkdir("cleared up")
store.doctor = doctor
from dataset_store.cli import main
sys.exit(main(["doctor"]))
"""
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    os.close(os.open("pipe", os.O_RDONLY))
    running.send_signal(number)
    _, said = running.communicate(timeout=20)
    assert running.returncode == code
    assert said == word + b"; what was acknowledged is safe, repeat the command to go on.\n"
    assert (machine / "work" / "cleared up").is_dir()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_process_that_waits_for_others_says_so_and_a_second_signal_ends_it_at_once(
    machine, pictures, number, code
):
    program = """
import signal, sys, time
from concurrent.futures import ThreadPoolExecutor
import dataset_store.cli.store as store
signal.signal(signal.SIGINT, signal.default_int_handler)
def doctor(arguments):
    with ThreadPoolExecutor() as pool:
        pool.submit(time.sleep, 60)
        print("asked", flush=True)
        time.sleep(60)
store.doctor = doctor
from dataset_store.cli import main
sys.exit(main(["doctor"]))
"""
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"asked\n"
        running.send_signal(number)
        assert running.stderr.readline() == b"Waiting for what is under way; Ctrl-C again ends it at once.\n"
        running.send_signal(number)
        assert running.wait(20) == code


@pytest.mark.parametrize("error", [RuntimeError("release unlocked lock"), errors.StorageFailed("What.", "Do.")])
def test_an_error_that_an_interrupt_led_to_is_an_interrupt(shell, monkeypatch, error):
    def doctor(_arguments):
        try:
            raise KeyboardInterrupt
        finally:
            raise error

    monkeypatch.setattr("dataset_store.cli.store.doctor", doctor)
    answer = shell("doctor")
    assert answer.code == 130
    assert answer.err.startswith("Interrupted; ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_gives_commands_keeps_its_own_handlers_of_signals(shell, number):
    before = signal.getsignal(number)
    shell("--version")
    assert signal.getsignal(number) is before
