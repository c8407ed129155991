"""The servers that stand beside what is measured: they keep what they are given, find it, and count what was asked."""

import asyncio
import os

import pytest

from benchmarks.running import together
from benchmarks.servers import far_store
from benchmarks.servers.beside import ask, beside
from benchmarks.servers.link import RATE
from benchmarks.systems import SYSTEMS, Home
from dataset_store import Dataset
from dataset_store.testing.folders import read, write


@pytest.fixture
def far(monkeypatch):
    """A far store that S3's clients find; none that was made for another server is left, nor one for this."""
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    with beside("far_store") as address:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
        }.items():
            monkeypatch.setenv(name, value)
        yield address
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_far_store_keeps_versions_and_tells_what_was_asked(far, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", "s3://bench/store")
    data = os.urandom(300_000)
    write(tmp_path / "data", {"f": data})
    made = Dataset.create("d", "p")
    made.add_files(tmp_path / "data")
    made.finalize(auto_upload=True)
    told = ask(far, "-", method="DELETE")
    assert told["received"] > len(data)
    assert told["bytes"] > len(data)
    assert 3 <= told["objects"] <= told["requests"]
    assert ask(far, "-")["requests"] == ask(far, "-")["received"] == 0
    assert read(Dataset.get(made.id).get_local_copy()) == read(tmp_path / "data")
    assert ask(far, "-")["sent"] > len(data)


def test_a_far_store_lists_in_pages_with_folders_and_ranges_and_takes_uploads_in_parts(far):
    s3fs = pytest.importorskip("s3fs")
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    files.pipe({f"b/k/{number:04d}/x": b"%d" % number for number in range(30)})
    assert files.cat_file("b/k/0007/x", start=0, end=1) == b"7"
    client = files.call_s3
    pages = [files.call_s3("list_objects_v2", Bucket="b", Prefix="k/", Delimiter="/", MaxKeys=20)]
    pages.append(
        client(
            "list_objects_v2",
            Bucket="b",
            Prefix="k/",
            Delimiter="/",
            ContinuationToken=pages[0]["NextContinuationToken"],
        )
    )
    found = [one["Prefix"] for page in pages for one in page["CommonPrefixes"]]
    assert found == [f"k/{number:04d}/" for number in range(30)]
    large = os.urandom(11 << 20)
    with files.open("b/large", "wb", block_size=5 << 20) as target:
        target.write(large)
    assert files.cat_file("b/large", start=-5) == large[-5:]
    assert files.cat_file("b/large") == large
    with pytest.raises(FileNotFoundError):
        files.cat_file("b/none")
    files.rm("b/k", recursive=True)
    assert files.find("b") == ["b/large"]


def test_a_signed_body_is_its_data():
    body = b"5;chunk-signature=aa\r\nhello\r\n6;chunk-signature=bb\r\n world\r\n0;chunk-signature=cc\r\n\r\n"
    assert b"".join(far_store.decoded(body)) == b"hello world"


def test_what_passes_a_link_takes_its_turn(monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    async def two():
        lane = far_store.Lane()
        await asyncio.gather(lane.carry(int(RATE)), lane.carry(int(RATE)))
        return lane.passed

    monkeypatch.setattr(far_store.asyncio, "sleep", sleep)
    assert asyncio.run(two()) == 2 * RATE
    assert [round(one) for one in waited] == [1, 2]


def test_a_task_is_made_changed_finished_and_found(tmp_path):
    with beside("clearml_api") as service:

        def call(call, /, **asked):
            return ask(service, call, asked)["data"]

        project = call("projects.create", name="p/.datasets/n")["id"]
        tasks = [call("tasks.create", name="n", project=project)["id"] for _ in range(2)]
        for number, task in enumerate(tasks):
            call("tasks.edit", task=task, runtime={"version": f"1.0.{number}"}, output_dest="file:///s")
        call("tasks.add_or_update_artifacts", task=tasks[0], artifacts=[{"key": "state", "uri": "old"}])
        call("tasks.add_or_update_artifacts", task=tasks[0], artifacts=[{"key": "state", "uri": "new"}])
        call("tasks.completed", task=tasks[0])
        found = call("tasks.get_by_id", task=tasks[0])["task"]
        assert found["execution"]["artifacts"] == [{"key": "state", "uri": "new"}]
        assert found["output"] == {"destination": "file:///s"}
        newest = call("tasks.get_all", project=[project], order_by=["-created"], only_fields=["id"])["tasks"]
        assert newest == [{"id": tasks[1]}, {"id": tasks[0]}]
        assert [one["name"] for one in call("projects.get_all", name="^p")["projects"]] == [
            "p",
            "p/.datasets",
            "p/.datasets/n",
        ]
        assert SYSTEMS["ClearML"].identities(Home(tmp_path, service=service)) == {"1.0.0": tasks[0]}


def test_commits_of_a_chain_are_one_sample():
    from benchmarks.measuring.samples import Sample

    samples = [Sample("chain", "restic", "chain", 0, 1.0, 2.0, 0.5, peak) for peak in (5, 9, 7)]
    assert together(samples) == Sample("chain", "restic", "chain", 0, 3.0, 6.0, 1.5, 9)
