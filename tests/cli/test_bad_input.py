"""Whatever is wrong with a call, it ends in the documented exit code, one line that says what, and one what to do."""

import pytest

USAGE, NOT_FOUND, CONFLICT = 2, 3, 4
NONE = "0" * 32

OF_A_VERSION = [
    "list",
    "log",
    "diff",
    "status",
    "tag",
    "archive",
    "delete",
    "verify",
    "stats",
    "get",
    "publish",
    "upload",
    "close",
]
OF_A_VERSION += ["add --files .", "remove --files x", "sync --folder .", "cat x", "set-description --description x"]
BY_NAME = ["get", "list --filter x", "log", "diff", "status", "cat x", "tag", "delete", "verify", "publish"]
CALLS = [
    # What is meant is not there.
    *[(NOT_FOUND, [command, "--id", NONE]) for command in OF_A_VERSION],
    *[(NOT_FOUND, [command, "--project", "data", "--name", "nothing"]) for command in BY_NAME],
    (NOT_FOUND, ["rename --project data --name nothing --new-name x"]),
    (NOT_FOUND, ["move --project data --name nothing --new-project x"]),
    (NOT_FOUND, ["create --name x --parents", NONE]),
    (NOT_FOUND, ["squash --name x --ids", NONE]),
    (NOT_FOUND, ["compare --source", NONE, "--target", NONE]),
    (NOT_FOUND, ["diff --id CLOSED --against", NONE]),
    (NOT_FOUND, ["add --id DRAFT --files ./none"]),
    (NOT_FOUND, ["add --id DRAFT --links ./none"]),
    (NOT_FOUND, ["sync --id DRAFT --folder ./none"]),
    (NOT_FOUND, ["status --id CLOSED --folder ./none"]),
    (NOT_FOUND, ["verify --id CLOSED --folder ./none"]),
    (NOT_FOUND, ["cat none.txt --id CLOSED"]),
    (NOT_FOUND, ["get --id CLOSED --files none.txt"]),
    (NOT_FOUND, ["import --name x --folders ./none"]),
    (NOT_FOUND, ["import --name x --dvc . --target data"]),
    (NOT_FOUND, ["list --id", NONE, "--store ./no-store"]),
    # What is final takes no change, and names that are taken stay.
    *[
        (CONFLICT, [command, "--id CLOSED"])
        for command in ("add --files .", "remove --files x", "sync --folder .", "upload", "close")
    ],
    (CONFLICT, ["publish --id DRAFT"]),
    (CONFLICT, ["get --id DRAFT"]),
    (CONFLICT, ["archive --id DRAFT"]),
    (CONFLICT, ["create --project data --name cats --version 1.0.0"]),
    (CONFLICT, ["create --name x --parents DRAFT"]),
    (CONFLICT, ["get --id CLOSED --copy ."]),
    (CONFLICT, ["get --id CLOSED --link pictures"]),
    # Flags that contradict each other or mean nothing.
    (USAGE, ["add --id DRAFT"]),
    (USAGE, ["create"]),
    (USAGE, ["sync"]),
    (USAGE, ["sync --folder . --id DRAFT --name x"]),
    (USAGE, ["sync --folder . --id DRAFT --tags x"]),
    (USAGE, ["get --id CLOSED --project data"]),
    (USAGE, ["get --id CLOSED --overwrite"]),
    (USAGE, ["get --id CLOSED --copy out --files a.txt"]),
    (USAGE, ["get --id CLOSED --part 3 --num-parts 2"]),
    (USAGE, ["get --id CLOSED --num-parts 2"]),
    (USAGE, ["list --versions --id CLOSED"]),
    (USAGE, ["tag --id CLOSED --set a --add b"]),
    (USAGE, ["search --name ("]),
    (USAGE, ["delete"]),
    (USAGE, ["delete --project data --name cats --entire-dataset"]),
    (USAGE, ["config --set nothing"]),
    (USAGE, ["completion tcsh"]),
    (USAGE, ["import --name x"]),
    (USAGE, ["import --name x --dvc ."]),
    (USAGE, ["get --id CLOSED --store nope://x"]),
    (USAGE, ["create --name x --storage sftp://user:secret@host/x"]),
    (USAGE, ["nothing"]),
    (USAGE, ["get --nothing"]),
]  # fmt: skip


@pytest.mark.parametrize(("code", "words"), CALLS, ids=[" ".join(words).replace(NONE, "NONE") for _, words in CALLS])
def test_a_wrong_call_ends_in_its_code_and_says_what_to_do(shell, closed, code, words):
    draft = shell("create", "--name", "draft").out.strip()
    line = " ".join(words).replace("CLOSED", closed).replace("DRAFT", draft)
    answer = shell(*line.split())
    assert (answer.code, answer.out) == (code, "")
    what, *rest = answer.err.splitlines()
    assert what.startswith("Error: ")
    assert what.endswith(".")
    assert len(rest) == 1
    assert rest[0].endswith(".")
    assert "Traceback" not in answer.err
    assert "secret" not in answer.err
