"""Requests to one bucket of S3, or of what speaks its protocol: the one module that imports its client.

Credentials, endpoint and region come from where Amazon's own tools take them: environment variables, their files, the
machine's role. What fsspec's configuration says of S3, under the names of its driver, goes before.

Promises: each request is sent once, unless a bucket of another region answers that it lies there, and an object by one
request; a server that says nothing is given up after 20 s, and one that takes no more of an upload after 10. What is
sent is signed with its hash, so that a server that takes it has what was sent; the configuration may say otherwise.
Errors are the client's own, and hold nothing of what was sent. Never: retries, or outlives a fork: a forked process
opens connections of its own.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

from dataset_store.errors import AccessDenied, DriverMissing, InvalidRequest, StorageFailed
from dataset_store.storage.backend import Buffers
from dataset_store.storage.ended_frames import let_go
from dataset_store.storage.filesystems import STALL_SECONDS, failure, is_slow_machine
from dataset_store.storage.raw_files import PiecesFile

__all__ = ["REQUESTS_AT_ONCE", "BucketClient"]

REQUESTS_AT_ONCE: Final = 32
"""As many as one client keeps connections for."""

_PATIENCE: Final = {
    "connect_timeout": 10,  # what it may take to connect, and then to send each piece of an upload, of 128 KiB
    "read_timeout": STALL_SECONDS,
}
"""Also of what is asked for credentials."""

_SETTINGS: Final = {
    "max_pool_connections": REQUESTS_AT_ONCE + 8,
    # What is read is checked against our own hashes; servers that send the sum of the whole with a part are right too.
    "response_checksum_validation": "when_required",
    # Many servers do not know the sums that newer clients add to what they send; the hash that signs it is enough.
    "request_checksum_calculation": "when_required",
}

_OF_CLIENT: Final = {
    "key": "aws_access_key_id",
    "username": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "password": "aws_secret_access_key",
    "token": "aws_session_token",
    "endpoint_url": "endpoint_url",
    "use_ssl": "use_ssl",
}
"""The driver's names of options, and the client's."""

_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
    "": False,
}
"""What a switch may say."""

_RANGE: Final = re.compile(r"bytes (\d+)-")
"""Where a part begins, as the head of an answer has it."""


class BucketClient:
    """One bucket; safe to use from several threads.

    Args:
        bucket: Its name.
        options: What is to go before what the client finds by itself, and what requests say besides, as fsspec's
            driver of S3 names it. What only tells that driver how to work is passed over.

    Raises:
        DriverMissing: The client is not installed.
        InvalidRequest: It cannot be opened with these options.
        AccessDenied: What gives out credentials refused.
    """

    def __init__(self, bucket: str, options: Mapping[str, Any]) -> None:
        self._bucket = bucket
        self._options = options
        # By process. Those of processes before this one are kept: to end them might wait for a thread that is not here.
        self._clients: dict[int, Any] = {os.getpid(): _open(options)}
        self._also = _also(options, self._clients[os.getpid()])

    def connect(self) -> None:
        """Have a client in this process: to be called before its threads ask all at once, and each would open one."""
        self._client()

    def read(self, name: str) -> bytes:
        """An object."""
        return self._body("get_object", Key=name)[1]

    def read_part(self, name: str, wanted: str) -> tuple[int, bytes]:
        """The part of an object that is `wanted`, as the header of a request has it: where it begins, and its bytes.

        A server that knows no parts sends the whole, which begins at 0.
        """
        return self._body("get_object", Key=name, Range=wanted)

    def size(self, name: str) -> int:
        """The bytes of an object."""
        size: int = _said(self._ask("head_object", Key=name), "ContentLength")
        return size

    def write(self, name: str, buffers: Buffers, *, if_absent: bool = False) -> None:
        """Make an object of buffers, one behind another; what S3 has made it names by a tag."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        _said(self._ask("put_object", Key=name, Body=PiecesFile(buffers), **condition), "ETag")

    def delete(self, name: str) -> None:
        """Remove an object; none is no error."""
        self._ask("delete_object", Key=name)

    def list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Name, bytes, and seconds since 1970 of each object whose name begins so."""
        goes_on: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", Prefix=prefix, **goes_on)
            is_cut = _said(page, "IsTruncated")
            for row in page.get("Contents", ()):
                yield _asked_for(row["Key"], prefix), row["Size"], row["LastModified"].timestamp()
            if not is_cut:
                return
            goes_on = {"ContinuationToken": _next_token(page, goes_on)}

    def _body(self, verb: str, **what: Any) -> tuple[int, bytes]:
        """Where a body begins in its object, and what it is."""
        answer = self._ask(verb, **what)
        _require_whole(answer, "ContentLength")
        begins = _RANGE.match(answer.get("ContentRange", ""))
        return int(begins[1]) if begins else 0, answer["Body"].read()

    def _ask(self, verb: str, **what: Any) -> dict[str, Any]:
        """Send one request, with what the options say of requests of this kind."""
        client = self._client()
        known = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[verb]).input_shape.members
        also = {name: said for name, said in self._also.items() if name in known}
        of_caller = sys.exc_info()[1]
        try:
            answer: dict[str, Any] = getattr(client, verb)(**(also | what), Bucket=self._bucket)
        except import_module("botocore.exceptions").NoCredentialsError:
            # A client looks for them once; what tells this machine's role may only have been slow.
            self._clients.pop(os.getpid(), None)
            raise
        except Exception as error:
            let_go(error, of_caller)
            raise
        return answer

    def _client(self) -> Any:
        """That of this process."""
        client = self._clients.get(os.getpid())
        if client is None:
            client = self._clients[os.getpid()] = _open(self._options)
        return client


def _require_whole(answer: Mapping[str, Any], part: str) -> None:
    """Refuse an answer that was cut off.

    To Python, and so to the client, a head that ends too early is a short one, and a list without its body is empty.

    Args:
        answer: As the client tells it.
        part: What of it is in each that is whole; or its body comes in chunks, of which the last is known.

    Raises:
        ConnectionResetError: It was cut off.
    """
    if part not in answer and "transfer-encoding" not in answer["ResponseMetadata"]["HTTPHeaders"]:
        raise ConnectionResetError(errno.ECONNRESET, "the answer was cut off")


def _said(answer: Mapping[str, Any], part: str) -> Any:
    """A part of an answer that each of its kind has. Raises as `_require_whole`; StorageFailed: It is not of S3."""
    _require_whole(answer, part)
    if part not in answer:
        raise StorageFailed(
            f"The answer has no {part}: what gave it does not speak S3.",
            "Check the endpoint and what lies before it, then repeat.",
        )
    return answer[part]


def _asked_for(name: str, prefix: str) -> str:
    """A name of a list, which must begin as was asked: what passes over its rows would find nothing for another."""
    if not name.startswith(prefix):
        raise StorageFailed(
            f"The server lists '{name}' where names below '{prefix}' were asked for.",
            "It cannot hold a store; use another.",
        )
    return name


def _next_token(page: Mapping[str, Any], goes_on: Mapping[str, str]) -> str:
    """Where the next page of a list begins. What is not listed is taken to be absent, so it must be said."""
    token: str = page.get("NextContinuationToken", "")
    if not token or token in goes_on.values():
        raise StorageFailed(
            "The server says that its list goes on, and not where.", "It cannot hold a store; use another."
        )
    return token


def _open(options: Mapping[str, Any]) -> Any:
    """A client. Raises as `BucketClient`."""
    try:
        client = _client_of(options)
    except ImportError as error:
        raise DriverMissing(
            "The driver for s3:// URLs is not installed.", "Install it with `pip install 'dataset-store[s3]'`."
        ) from error
    except InvalidRequest:
        raise
    except Exception as error:
        told = failure(error, "open a client of S3")
        if isinstance(told, AccessDenied) or is_slow_machine(error):
            raise told from error
        raise InvalidRequest(
            f"S3 cannot be used as it is configured: {error}.",
            "Check the variables and files of AWS, and fsspec's configuration.",
        ) from error
    client.meta.events.register("before-sign.s3.PutObject", _ask_nothing_first)
    client.meta.events.register("before-call.s3.HeadBucket", _ask_for_no_region)
    return client


def _client_of(options: Mapping[str, Any]) -> Any:
    session = import_module("botocore.session").Session(profile=options.get("profile"))
    session.register_component("data_loader", _models())
    config = import_module("botocore.config").Config
    once = {"mode": "standard", "total_max_attempts": 1}  # made anew each time: the client writes into it
    session.set_default_client_config(config(**_PATIENCE, retries=once))
    settings = config(**_settings(options))
    told = {name: options[given] for given, name in _OF_CLIENT.items() if given in options}
    if "use_ssl" in told:
        told["use_ssl"] = _switch(options, "use_ssl")
    return session.create_client("s3", config=settings, **(told | _table(options, "client_kwargs")))


def _ask_nothing_first(request: Any, **_: Any) -> None:
    """Send an object with its head.

    By itself the client asks first whether it will be taken, which for a small one takes twice as long; and where the
    line is cut within the answer to that, it reads for ever.
    """
    del request.headers["Expect"]


def _ask_for_no_region(**_: Any) -> tuple[Any, dict[str, Any]]:
    """Answer in the bucket's place that it does not say where it lies.

    The client asks so when it is sent elsewhere and not told where; and where that is answered likewise, for ever.
    """
    return SimpleNamespace(status_code=200), {"ResponseMetadata": {"HTTPHeaders": {}}}


@cache
def _models() -> Any:
    """What the client reads of its own files, a tenth of a second for each client, kept for the next one."""
    return import_module("botocore.loaders").create_loader(os.environ.get("AWS_DATA_PATH"))


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    unsigned = {"signature_version": import_module("botocore").UNSIGNED} if _switch(options, "anon") else {}
    return _SETTINGS | unsigned | _table(options, "config_kwargs")


def _also(options: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """What requests say besides, each of what its kind knows; what none of S3 knows is refused."""
    also = _table(options, "s3_additional_kwargs")
    model = client.meta.service_model
    shapes = (model.operation_model(name).input_shape for name in (model.operation_names if also else ()))
    unknown = also.keys() - {name for shape in shapes if shape for name in shape.members}
    if unknown:
        raise InvalidRequest(
            f"No request of S3 knows {min(unknown)}, which fsspec's configuration names in s3_additional_kwargs.",
            "Spell it as S3's client does, such as ServerSideEncryption.",
        )
    return also | ({"RequestPayer": "requester"} if _switch(options, "requester_pays") else {})


def _switch(options: Mapping[str, Any], name: str) -> bool:
    """An option that is on or off: a variable of the environment can only say so in words."""
    said = options.get(name, False)
    if isinstance(said, str):
        said = _WORDS.get(said.lower(), said)
    if said is None or isinstance(said, int):
        return bool(said)
    raise InvalidRequest(f"fsspec's configuration of S3 says neither yes nor no for {name}.", "Write true or false.")


def _table(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    said = options.get(name, {})
    if not isinstance(said, Mapping):  # which may be a secret, so it is not shown
        raise InvalidRequest(
            f"What fsspec's configuration says for {name} of S3 is no table, but of type {type(said).__name__}.",
            f"In the environment write FSSPEC_S3='{{\"{name}\": {{…}}}}'.",
        )
    return {**said}
