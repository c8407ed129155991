"""Where things are, and what the user's file may say."""

import sys

import platformdirs
import pytest

from dataset_store.errors import InvalidRequest
from dataset_store.local.settings import change_settings, config_file, load_settings, settings_sources, stores_named


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("50GB", 50 * 10**9),
        ("50gb", 50 * 10**9),
        ("50 GiB", 50 * 2**30),
        ("7kB", 7_000),
        ("7KIB", 7 * 1024),
        ("2MB", 2_000_000),
        ("2MiB", 2 * 2**20),
        ("3TB", 3 * 10**12),
        ("3tib", 3 * 2**40),
        ("12B", 12),
        ("1.5 KiB", 1536),
        ("0.0001 kB", 0),
    ],
)
def test_the_bound_of_the_cache_may_have_a_unit(text, count):
    assert load_settings(environment={"DATASET_STORE_CACHE_BYTES": text}).cache_bytes == count
    change_settings({"cache_bytes": text})
    assert load_settings(environment={}).cache_bytes == count


@pytest.mark.parametrize("text", ["many", "-1", "1.5.5GB", "50XB", "GB", "٣"])
def test_what_is_no_number_of_bytes_is_refused_by_the_name_of_its_setting(text):
    with pytest.raises(InvalidRequest, match="DATASET_STORE_CACHE_BYTES is"):
        load_settings(environment={"DATASET_STORE_CACHE_BYTES": text})
    with pytest.raises(InvalidRequest, match="The setting cache_bytes is"):
        change_settings({"cache_bytes": text})


def test_paths_in_the_file_mean_the_same_in_every_folder(tmp_path, monkeypatch):
    change_settings({"store": "rel/st", "cache": "kept", "data": "../own"})
    monkeypatch.chdir("/")
    found = load_settings(environment={})
    assert (found.store, found.cache) == (str(tmp_path / "rel/st"), str(tmp_path / "kept"))
    assert found.data == str(tmp_path.parent / "own")


def test_urls_in_the_file_stay_as_they_are():
    change_settings({"store": "s3://bucket/x"})
    assert load_settings(environment={}).store == "s3://bucket/x"


@pytest.mark.parametrize("name", ["store", "cache", "data"])
def test_an_empty_place_is_refused_and_nothing_is_written(name):
    with pytest.raises(InvalidRequest, match=f"setting {name} is empty"):
        change_settings({name: ""})
    assert settings_sources({})[name][1] == "default"


def test_a_store_that_lacks_a_slash_is_refused_wherever_it_is_named():
    for named in (
        lambda: load_settings("s3:/bucket/x", {}),
        lambda: load_settings(environment={"DATASET_STORE_URL": "s3:/bucket/x"}),
        lambda: change_settings({"store": "s3:/bucket/x"}),
    ):
        with pytest.raises(InvalidRequest, match="Did you mean s3://bucket/x"):
            named()


def test_stores_are_named_by_the_environment_and_then_by_the_file():
    assert stores_named({}) == []
    change_settings({"store": "/from/file"})
    assert stores_named({"DATASET_STORE_URL": "/from/variable"}) == ["/from/variable", "/from/file"]


def test_the_store_is_told_without_its_password():
    value, source = settings_sources({"DATASET_STORE_URL": "sftp://u:SECRET@h/x"})["store"]
    assert (value, source) == ("sftp://h/x", "DATASET_STORE_URL")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs itself is asked")
@pytest.mark.parametrize("given", [{}, {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/k"}])
def test_folders_of_a_user_are_those_that_platformdirs_names(monkeypatch, given):
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in given.items():
        monkeypatch.setenv(name, folder)
    found = load_settings(environment={})
    assert found.data == platformdirs.user_data_dir("dataset-store")
    assert found.cache == platformdirs.user_cache_dir("dataset-store")
    assert config_file() == str(platformdirs.user_config_path("dataset-store") / "config.toml")
