"""File systems that fsspec reaches, by URL: the one module that imports it.

Promises: a scheme without its driver, or that nobody knows, is a typed error before anything is touched; what a driver
raises comes out as an error of this package that names what was being done, never with a password in it; what the
user's own configuration of a driver says goes before what is chosen here. Never: retries, or remembers what a storage
answered.
"""

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from threading import RLock
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from dataset_store.core.urls import WEB, has_secrets, is_remote, redacted, scheme_of
from dataset_store.errors import (
    AccessDenied,
    DatasetStoreError,
    DriverMissing,
    InvalidRequest,
    StorageFailed,
    StorageRefused,
    StoreUnreachable,
)

__all__ = [
    "S3",
    "STALL_SECONDS",
    "WEB",
    "answers",
    "cause",
    "failure",
    "found_nothing",
    "given_options",
    "has_secrets",
    "is_remote",
    "is_slow_machine",
    "local_path",
    "open_filesystem",
    "redacted",
    "scheme_of",
    "turn_of",
]

_EXTRAS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
    "azure": "azure",
    "sftp": "sftp",
    "ssh": "sftp",
    "http": "http",
    "https": "http",
}
"""Scheme to the extra of this package that installs its driver."""

S3: Final = frozenset({"s3", "s3a"})

STALL_SECONDS: Final = 20
"""How long a server may say nothing."""

_S3_CLIENT: Final = {
    "connect_timeout": 5,
    "read_timeout": STALL_SECONDS,
    "max_pool_connections": 32,
    # What is read is checked against our own hashes; servers that send the sum of the whole with a part are right too.
    "response_checksum_validation": "when_required",
}

_ONE_CONNECTION: Final = frozenset({"sftp", "ssh", "ftp", "smb"})
"""Drivers that answer over one connection, and mix the answers up when several threads ask."""

_one_at_a_time = RLock()

_SECRETS = re.compile(r"(?<=://)[^@\s]+@|(?<=\?)[^\s'\"]+")
"""What may be a secret in the words of a driver: users with passwords, and queries."""

# Errors by name: the classes of drivers are there only where the driver is, and that of sockets need not be loaded.
_DENIED: Final = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "SSOError",
        "LoginError",
        "TokenRetrievalError",
        "ClientAuthenticationError",
    }
)
_OF_MACHINE: Final = frozenset({"iam-role", "container-role"})
"""What gives a machine its credentials, and may have been slow once."""

_NEVER_SENT: Final = frozenset({"ParamValidationError"})
"""A driver's checks of what it is asked for."""

_DENIED_STATUS: Final = frozenset({401, 403})
_DENIED_WORDS: Final = "Forbidden: "
"""How Google's driver begins an `OSError` that tells of a 403 and has no status."""

_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
"""In the words of whoever tells that a server's certificate is not good; the classes of drivers for it differ."""

_UNREACHABLE: Final = frozenset(
    {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ServiceRequestError",
        "SSHException",
        "gaierror",
    }
)


def local_path(url: str) -> str:
    """The path that a `file://` URL, or a path itself, means.

    Raises:
        InvalidRequest: It names another machine.
    """
    if not scheme_of(url):
        return url
    host, slash, path = url.partition("://")[2].partition("/")
    if host not in {"", "localhost"} or not slash:
        raise InvalidRequest(f"The URL {url!r} names another machine.", "Use a path, or file:///path.")
    return os.fsdecode(unquote_to_bytes(f"/{path}"))


def given_options(*schemes: str) -> dict[str, Any]:
    """What the user's configuration of fsspec says of these schemes; fsspec is not loaded where there is none."""
    folder = os.environ.get("FSSPEC_CONFIG_DIR", os.path.join(os.path.expanduser("~"), ".config", "fsspec"))
    told = any(name.startswith("FSSPEC_") for name in os.environ) or os.path.isdir(folder)
    if not told and "fsspec.config" not in sys.modules:
        return {}
    configuration = import_module("fsspec.config").conf
    return {name: option for scheme in schemes for name, option in configuration.get(scheme, {}).items()}


def turn_of(url: str) -> AbstractContextManager[object]:
    """Held while a driver is used: only some are safe to use from several threads."""
    return _one_at_a_time if scheme_of(url) in _ONE_CONNECTION else nullcontext()


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Credentials, endpoints and other options come from where the driver takes them by itself: environment variables,
    its own files, and fsspec's configuration.

    Args:
        url: Of a file or folder.

    Raises:
        DriverMissing: The driver of the scheme is not installed.
        InvalidRequest: No driver knows the scheme, or the URL cannot be understood.
        AccessDenied, StoreUnreachable, StorageFailed: The driver needs a connection and did not get it.
    """
    scheme = scheme_of(url)
    core = import_module("fsspec.core")
    try:
        if not is_remote(url):
            return core.url_to_fs("file://")[0], local_path(url)
        return _opened(core, scheme, url)
    except ImportError as error:
        raise _driver_missing(scheme, error) from cause(error, url)
    except ValueError as error:
        raise InvalidRequest(
            f"The URL {redacted(url)} cannot be used: {_in_words(error)}.", "Known schemes are those of fsspec."
        ) from cause(error, url)
    except Exception as error:
        raise failure(error, f"connect to {redacted(url)}") from cause(error, url)


def cause(error: Exception, url: str) -> Exception | None:
    """What an error may name as its cause: nothing where the driver's own words might hold a secret of the URL."""
    return None if has_secrets(url) else error


def failure(error: Exception, doing: str) -> DatasetStoreError:
    """The typed error for what a driver raised.

    Args:
        error: What was raised; one of this package's own comes back as it is.
        doing: What was being done, to follow "Cannot".
    """
    if isinstance(error, DatasetStoreError):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    said = f"Cannot {doing}: {_in_words(error, whole=bool(names & _NEVER_SENT))}."
    refused = _status(error) in _DENIED_STATUS or str(error).startswith(_DENIED_WORDS)
    denied = refused or isinstance(error, PermissionError) or names & _DENIED
    if denied and not is_slow_machine(error):
        return AccessDenied(said, "Check the credentials and their rights, then repeat.")
    if names & _NEVER_SENT:
        return InvalidRequest(said, "Check the URL; nothing was sent.")
    if _UNTRUSTED in str(error):
        return StorageRefused(said, "Check the endpoint, this machine's clock, and its certificate authorities.")
    if isinstance(error, ConnectionError) or names & _UNREACHABLE:
        return StoreUnreachable(said, "Check the address, the endpoint and the network, then repeat.")
    return StorageFailed(said, "Check the storage and the network, then repeat; nothing acknowledged is lost.")


def is_slow_machine(error: Exception) -> bool:
    """Whether what gives this machine its credentials did not, which may be otherwise the next time."""
    told = getattr(error, "kwargs", None)
    return isinstance(told, dict) and told.get("provider") in _OF_MACHINE


def found_nothing(error: Exception) -> bool:
    """Whether a driver was told that what it asked for is not there."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) or _status(error) == 404


def answers(error: Exception) -> frozenset[str]:
    """What a server answered, as HTTP's number; empty where a driver tells of no answer."""
    status = _status(error)
    return frozenset() if status is None else frozenset({str(status)})


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of a driver came from, where it says so."""
    told = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    return next((one for one in told if isinstance(one, int)), None)


def _opened(core: Any, scheme: str, url: str) -> tuple[Any, str]:
    """The file system of a URL's host or bucket, and the path exactly as the URL has it.

    fsspec's own reading of whole URLs takes `::`, `#` and `?` in names of files for something else.
    """
    authority, _, path = url.partition("://")[2].partition("/")
    if scheme == "azure":
        # ClearML's spelling, `azure://<account>.blob.core.windows.net/<container>/<path>`.
        return core.get_filesystem_class("az")(account_name=authority.partition(".")[0]), path
    driver = core.get_filesystem_class(scheme)
    options = driver._get_kwargs_from_urls(f"{scheme}://{authority}/")
    if scheme in S3:
        options |= _s3_options()
    filesystem = driver(**{name: value for name, value in options.items() if name not in {"path", "protocol"}})
    if scheme in WEB:
        return filesystem, url
    return filesystem, f"/{path}" if scheme in _ONE_CONNECTION else driver._strip_protocol(url)


def _s3_options() -> dict[str, Any]:
    """What S3's client is told; what the user's configuration says of it goes before."""
    return {"config_kwargs": {**_S3_CLIENT, **given_options(*sorted(S3)).get("config_kwargs", {})}}


def _driver_missing(scheme: str, error: ImportError) -> DriverMissing:
    extra = _EXTRAS.get(scheme)
    hint = f"Install it with `pip install 'dataset-store[{extra}]'`." if extra else f"{error}."
    return DriverMissing(f"The driver for {scheme}:// URLs is not installed.", hint)


def _in_words(error: Exception, *, whole: bool = False) -> str:
    """The first line of what a driver says, as what follows are numbers of requests; or the whole of it, as a line."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    text = " ".join(line.strip() for line in lines) if whole else lines[0]
    return _SECRETS.sub("", text.rstrip(". "))
