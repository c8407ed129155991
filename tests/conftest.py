"""What every test gets: a store, a cache and a data folder of its own, and hypothesis profiles."""

import logging
import os
import threading
from collections import Counter
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder; the store, cache and data folders are `store`, `cache` and `own` in it."""
    use_home(tmp_path, monkeypatch.setenv)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use_home(path, set_variable):
    set_variable("DATASET_STORE_URL", str(path / "store"))
    set_variable("DATASET_STORE_CACHE", str(path / "cache"))
    set_variable("DATASET_STORE_DATA", str(path / "own"))


@pytest.fixture
def tell(request):
    """Tells at the end of a run what a test found: a text, or numbers, which are added up for tests of one title."""

    def figure(title, **numbers):
        request.node.user_properties.append(("figure", (title, {name: int(count) for name, count in numbers.items()})))

    return figure


def pytest_terminal_summary(terminalreporter):
    """Print the figures, wherever the tests ran."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    figures = {}
    for title, numbers in (value for one in reports for name, value in one.user_properties if name == "figure"):
        figures.setdefault(title, Counter()).update(numbers)
    if figures:
        terminalreporter.section("figures")
    for title, numbers in figures.items():
        counts = ", ".join(f"{name} {count:,}" for name, count in numbers.items())
        terminalreporter.line(f"{title}: {counts}" if counts else title)


@pytest.fixture(scope="session")
def s3_bucket(tmp_path_factory):
    """An S3 server on loopback and an empty bucket in it: the bucket's URL."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    # It looks whether a key is free, and then writes, without a lock; a server promises to decide that in one step.
    deciding, put_object = threading.Lock(), S3Response.put_object

    def put_one_at_a_time(self):
        with deciding:
            return put_object(self)

    S3Response.put_object = put_one_at_a_time
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of each request
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        import s3fs

        s3fs.S3FileSystem().mkdir("tests")
        yield "s3://tests"
    server.stop()


@pytest.fixture(scope="session")
def s3_line(s3_bucket):
    """A proxy before that server: one for all tests, as each new address costs a new client."""
    from fault_proxy import FaultProxy

    address = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    with FaultProxy(address.hostname, address.port).running() as proxy:
        yield proxy


@pytest.fixture
def s3_proxy(s3_line, monkeypatch):
    """The proxy, which harms nothing until it is told to; drivers opened now go through it."""
    from fsspec.config import conf

    s3_line.begin_anew()
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_line.url})
    yield s3_line
    s3_line.begin_anew()
