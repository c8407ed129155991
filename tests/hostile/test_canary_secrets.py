"""Secrets that are given are used, and found again nowhere: not in the store, on the disk, or in what is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from http_server import http_server

CANARIES = ["AKIACANARY0000000001", "canary/secret+key", "canarypassword", "CANARYSIGNATURE", "canarytoken"]

RUN = """
import json, logging, os, sys, traceback
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
logging.getLogger("dataset_store").setLevel(logging.DEBUG)
from dataset_store import Dataset, StorageManager
from dataset_store.cli import main

web, password, signature, token = sys.argv[1:]
host = web.partition("://")[2]
failures = 0

def failing(act, *arguments, **named):
    global failures
    try:
        act(*arguments, **named)
    except Exception as error:
        failures += 1
        print("".join(traceback.TracebackException.from_exception(error, capture_locals=False).format()))
        print(repr(error), error.args)

made = Dataset.create(dataset_project="p", dataset_name="d")
os.mkdir("files")
open("files/a", "w").write("a")
made.sync_folder("files")
signed = f"http://user:{password}@{host}/linked?X-Amz-Signature={signature}&token={token}"
failing(made.add_external_files, signed)
made.add_external_files(f"{web}/linked")
made.set_metadata({"a": 1})
made.get_logger().report_text("reported")
made.finalize(auto_upload=True, verbose=True)
seen = Dataset.get(dataset_project="p", dataset_name="d")
print(seen.get_local_copy(), seen.list_files(), repr(seen))
StorageManager.get_local_copy(signed)
failing(StorageManager.get_local_copy, signed.replace("linked", "nothing"))
failing(StorageManager.get_local_copy, f"http://user:{password}@127.0.0.1:9/x?X-Amz-Signature={signature}")
failing(Dataset.get, dataset_project="p", dataset_name="nothing")
for store in (f"sftp://user:{password}@127.0.0.1:9/x", f"http://user:{password}@{host}/store", "s3://not-there/x"):
    os.environ["DATASET_STORE_URL"] = store
    failing(Dataset.list_datasets)
    failing(Dataset.create, dataset_project="p", dataset_name="d")
    for words in ("list", "config", "config --json", "create --name x", "get --name x", "doctor"):
        main(words.split())
failing(Dataset.create, dataset_project="p", dataset_name="o", output_uri=f"sftp://user:{password}@127.0.0.1:9/x")
assert failures >= 6, failures
print(open("/proc/self/environ", "rb").read().count(b"CANARY") > 0)
"""


@pytest.fixture
def answers(home, s3_bucket):
    """What a whole run says, with its secrets in the environment; its store is in a bucket."""
    os.mkdir(home / "web")
    (home / "web" / "linked").write_bytes(b"linked")
    environment = os.environ | {
        "DATASET_STORE_URL": f"{s3_bucket}/canaries-{os.getpid()}",
        "AWS_ACCESS_KEY_ID": CANARIES[0],
        "AWS_SECRET_ACCESS_KEY": CANARIES[1],
        "AWS_SESSION_TOKEN": CANARIES[4],
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    with http_server(home / "web") as web:
        words = [sys.executable, "-W", "ignore", "-c", RUN, web, *CANARIES[2:]]
        done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert done.stdout.endswith("True\n"), "the secrets were there to be leaked"
    return done.stdout + done.stderr, environment["DATASET_STORE_URL"]


@pytest.mark.heavy
def test_no_secret_of_a_whole_run_is_found_again(home, answers):
    import s3fs

    said, store = answers
    bucket = s3fs.S3FileSystem()
    kept = {path: bucket.cat_file(path) for path in bucket.find(store)}
    assert len(kept) >= 3
    files = {str(path): path.read_bytes() for path in Path(home).rglob("*") if path.is_file()}
    assert any("cache" in path for path in files)
    assert "sftp://127.0.0.1:9/x" in said, "what the secrets were in is told without them"
    for canary in CANARIES:
        assert canary not in said
        assert not [path for path, data in (kept | files).items() if canary.encode() in data]
