"""Where this machine keeps things, and which store is meant when none is named.

Argument, then environment, then user file, then default. No other module below the command line
reads the environment for settings of this package; what fsspec and S3's client are told is read where they are asked.
"""

import os
import re
import sys
from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct

from dataset_store.core.urls import redacted, require_whole_scheme, scheme_of
from dataset_store.errors import InvalidRequest
from dataset_store.local.durable import replace_file
from dataset_store.local.os_errors import naming_writes
from dataset_store.local.private import require_private

__all__ = [
    "Settings",
    "change_settings",
    "config_file",
    "load_settings",
    "parse_bytes",
    "require_own_folders",
    "settings_sources",
    "stores_named",
]

_APPLICATION = "dataset-store"
_XDG_DEFAULTS = {"config": "~/.config", "data": "~/.local/share", "cache": "~/.cache"}
_DEFAULT_CACHE_BYTES = 50 * 2**30
_VARIABLES = {
    "store": "DATASET_STORE_URL",
    "cache": "DATASET_STORE_CACHE",
    "data": "DATASET_STORE_DATA",
    "cache_bytes": "DATASET_STORE_CACHE_BYTES",
    "single_writer": "DATASET_STORE_SINGLE_WRITER",
    "shared_folders": "DATASET_STORE_SHARED_FOLDERS",
}
_KNOWN = frozenset(_VARIABLES)
_YES = {"1", "true", "yes", "on"}
_NO = {"", "0", "false", "no", "off"}

_BYTES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([a-z]*)")
_PREFIXES = ("k", "m", "g", "t")
_UNITS: dict[str, int] = (
    {"": 1, "b": 1}
    | {f"{prefix}b": 1000**power for power, prefix in enumerate(_PREFIXES, 1)}
    | {f"{prefix}ib": 1024**power for power, prefix in enumerate(_PREFIXES, 1)}
)


class Settings(Struct, frozen=True):
    """The store's URL or path, two folders of this machine, and the bound of the local-copy cache in bytes.

    Everything under `cache` can be deleted at any time; `data` holds drafts. `single_writer` is the user's word that
    nobody else writes to the store, which some storages need; `shared_folders` that everybody who can write to the two
    folders is trusted.
    """

    store: str
    cache: str
    data: str
    cache_bytes: int
    single_writer: bool = False
    shared_folders: bool = False

    def __repr__(self) -> str:
        # Without the store, whose URL may hold a password.
        return f"Settings(cache={self.cache!r}, data={self.data!r})"


def require_own_folders(settings: Settings) -> None:
    """Refuse a cache, or a folder of drafts, that others could have written into, unless the user trusts them.

    Raises:
        AccessDenied: Another user owns one, or may write it.
    """
    if not settings.shared_folders:
        require_private(settings.cache, _VARIABLES["cache"])
        require_private(settings.data, _VARIABLES["data"])


def config_file() -> str:
    """The path of the user's TOML file, which need not exist."""
    return os.path.join(_folder_of_user("config"), "config.toml")


def _folder_of_user(what: str) -> str:
    """Where a user's files of a kind belong: as the XDG Base Directory Specification says, elsewhere as is usual there.

    Loading `platformdirs`, which says the same of Linux, takes a tenth of what a command does that only looks.
    """
    system: str = sys.platform
    if system == "linux":
        given = os.environ.get(f"XDG_{what.upper()}_HOME", "").strip()
        return os.path.join(given or os.path.expanduser(_XDG_DEFAULTS[what]), _APPLICATION)
    import platformdirs  # noqa: PLC0415

    folders = {"config": "user_config_dir", "data": "user_data_dir", "cache": "user_cache_dir"}
    found: str = getattr(platformdirs, folders[what])(_APPLICATION)
    return found


def load_settings(store: str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force.

    Args:
        store: The store that the caller names, if any.
        environment: Instead of the process's own: `DATASET_STORE_URL`, `DATASET_STORE_CACHE`, `DATASET_STORE_DATA`,
            `DATASET_STORE_CACHE_BYTES`, `DATASET_STORE_SINGLE_WRITER`, `DATASET_STORE_SHARED_FOLDERS`.

    Raises:
        InvalidRequest: The user's file, a number or the store's URL cannot be understood.
    """
    env = os.environ if environment is None else environment
    written = _read_file(config_file())
    data = env.get("DATASET_STORE_DATA") or str(written.get("data") or _folder_of_user("data"))
    cache = env.get("DATASET_STORE_CACHE") or str(written.get("cache") or _folder_of_user("cache"))
    named = store or next(iter(_stores(env, written)), "")
    require_whole_scheme(named)
    data = os.path.abspath(os.path.expanduser(data))
    return Settings(
        named or os.path.join(data, "store"),
        os.path.abspath(os.path.expanduser(cache)),
        data,
        _cache_bytes(env, written),
        _is_set("single_writer", env, written),
        _is_set("shared_folders", env, written),
    )


def stores_named(environment: Mapping[str, str] | None = None) -> list[str]:
    """The stores that the environment and the user's file name, in that order; none where the default is in force."""
    return _stores(os.environ if environment is None else environment, _read_file(config_file()))


def _stores(env: Mapping[str, str], written: Mapping[str, object]) -> list[str]:
    found = (env.get(_VARIABLES["store"]), str(written.get("store") or ""))
    return [store for store in found if store]


def _cache_bytes(env: Mapping[str, str], written: Mapping[str, object]) -> int:
    variable = _VARIABLES["cache_bytes"]
    if env.get(variable):
        return parse_bytes(env[variable], variable)
    return parse_bytes(str(written.get("cache_bytes", _DEFAULT_CACHE_BYTES)), "The setting cache_bytes")


def parse_bytes(text: str, what: str) -> int:
    """A number of bytes, with a unit or without, rounded down; `what` says in an error where it stood.

    Raises:
        InvalidRequest: It is none.
    """
    match = _BYTES.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise InvalidRequest(
            f"{what} is {text!r}, no number of bytes.",
            "Give a number, with kB, MB, GB or TB (of 1000), or KiB, MiB, GiB or TiB (of 1024), or no unit.",
        )
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _is_set(name: str, env: Mapping[str, str], written: Mapping[str, object]) -> bool:
    return _is_yes(name, env.get(_VARIABLES[name]) or str(written.get(name, "")))


def _is_yes(name: str, text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise InvalidRequest(f"{name} is {text!r}, neither yes nor no.", "Give 1 or 0.")
    return text.lower() in _YES


def settings_sources(environment: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """For each setting its value as text, and where it comes from: a variable, the user's file, or `default`.

    The store is told without a password.
    """
    env = os.environ if environment is None else environment
    settings = load_settings(environment=env)
    written = _read_file(config_file())
    values = {
        "store": redacted(settings.store),
        "cache": settings.cache,
        "data": settings.data,
        "cache_bytes": str(settings.cache_bytes),
        "single_writer": "true" if settings.single_writer else "false",
        "shared_folders": "true" if settings.shared_folders else "false",
    }
    found = {}
    for name, value in values.items():
        variable = _VARIABLES[name]
        source = variable if env.get(variable) else config_file() if name in written else "default"
        found[name] = (value, source)
    return found


def change_settings(changes: Mapping[str, str | None]) -> None:
    """Write settings into the user's file, or with None take them out of it; what else it says stays.

    Raises:
        InvalidRequest: A name or value is none that it may have; nothing was written.
        AccessDenied, DiskFull, StorageFailed: The file cannot be written.
    """
    path = config_file()
    values = {name: value for name, value in _read_file(path).items() if name not in changes}
    for name, text in changes.items():
        if name not in _KNOWN:
            raise InvalidRequest(f"There is no setting {name!r}.", f"Known settings are {', '.join(sorted(_KNOWN))}.")
        if text is not None:
            values[name] = _parsed(name, text)
    with naming_writes(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in sorted(values.items()))
        replace_file(path, text.encode())


def _parsed(name: str, text: str) -> object:
    """A value as it is written. Paths are made absolute: the file means the same whatever the working folder."""
    if name == "cache_bytes":
        return parse_bytes(text, "The setting cache_bytes")
    if name in {"single_writer", "shared_folders"}:
        return _is_yes(name, text)
    if not text:
        raise InvalidRequest(f"The setting {name} is empty.", f"Give a value, or take it out with --unset {name}.")
    if name == "store":
        require_whole_scheme(text)
    value = text if name == "store" and scheme_of(text) else os.path.abspath(os.path.expanduser(text))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The value {text!r} of {name} is no text.", "Give UTF-8.") from error
    return value


def _toml(value: object) -> str:
    """A value as TOML; its strings are those of JSON, but for DEL."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _unreadable(path: str, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"The settings file {path} cannot be read: {error}.", "Mend or remove it.")


def _read_file(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    import tomllib  # noqa: PLC0415  (most users have no such file)

    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise _unreadable(path, error) from error
    unknown = sorted(values.keys() - _KNOWN)
    if unknown:
        raise InvalidRequest(
            f"The settings file {path} has the unknown setting {unknown[0]!r}.",
            f"Known settings are {', '.join(sorted(_KNOWN))}.",
        )
    return values
