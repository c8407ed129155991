"""Where this machine keeps things, and which store is meant when none is named.

Argument, then environment, then user file, then default. This is the only module below the command line that reads
the environment.
"""

import json
import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from platformdirs import user_cache_dir, user_config_dir, user_data_dir

from dataset_store.errors import InvalidRequest
from dataset_store.local.os_errors import naming_writes

__all__ = ["Settings", "change_settings", "config_file", "load_settings", "settings_sources"]

_APPLICATION = "dataset-store"
_DEFAULT_CACHE_BYTES = 50 * 2**30
_VARIABLES = {
    "store": "DATASET_STORE_URL",
    "cache": "DATASET_STORE_CACHE",
    "data": "DATASET_STORE_DATA",
    "cache_bytes": "DATASET_STORE_CACHE_BYTES",
    "single_writer": "DATASET_STORE_SINGLE_WRITER",
}
_KNOWN = frozenset(_VARIABLES)
_YES = {"1", "true", "yes", "on"}
_NO = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The store's URL or path, two folders of this machine, and the bound of the local-copy cache in bytes.

    Everything under `cache` can be deleted at any time; `data` holds drafts. `single_writer` is the user's word that
    nobody else writes to the store, which some storages need.
    """

    store: str = field(repr=False)  # a URL may hold a password
    cache: str
    data: str
    cache_bytes: int
    single_writer: bool = False


def config_file() -> str:
    """The path of the user's TOML file, which need not exist."""
    return os.path.join(user_config_dir(_APPLICATION), "config.toml")


def load_settings(store: str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force.

    Args:
        store: The store that the caller names, if any.
        environment: Instead of the process's own: `DATASET_STORE_URL`, `DATASET_STORE_CACHE`, `DATASET_STORE_DATA`,
            `DATASET_STORE_CACHE_BYTES`, `DATASET_STORE_SINGLE_WRITER`.

    Raises:
        InvalidRequest: The user's file, or a number, cannot be understood.
    """
    env = os.environ if environment is None else environment
    written = _read_file(config_file())
    data = env.get("DATASET_STORE_DATA") or str(written.get("data") or user_data_dir(_APPLICATION))
    cache = env.get("DATASET_STORE_CACHE") or str(written.get("cache") or user_cache_dir(_APPLICATION))
    named = store or env.get("DATASET_STORE_URL") or str(written.get("store") or "")
    limit = env.get("DATASET_STORE_CACHE_BYTES") or str(written.get("cache_bytes", _DEFAULT_CACHE_BYTES))
    if not limit.isdecimal():
        raise InvalidRequest(f"The cache bound {limit!r} is no number of bytes.", "Give a whole number.")
    data = os.path.abspath(os.path.expanduser(data))
    return Settings(
        named or os.path.join(data, "store"),
        os.path.abspath(os.path.expanduser(cache)),
        data,
        int(limit),
        _is_yes(env.get("DATASET_STORE_SINGLE_WRITER") or str(written.get("single_writer", ""))),
    )


def _is_yes(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise InvalidRequest(f"single_writer is {text!r}, neither yes nor no.", "Give 1 or 0.")
    return text.lower() in _YES


def settings_sources(environment: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """For each setting its value as text, and where it comes from: a variable, the user's file, or `default`."""
    env = os.environ if environment is None else environment
    settings = load_settings(environment=env)
    written = _read_file(config_file())
    values = {
        "store": settings.store,
        "cache": settings.cache,
        "data": settings.data,
        "cache_bytes": str(settings.cache_bytes),
        "single_writer": "true" if settings.single_writer else "false",
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
        temporary = f"{path}.{secrets.token_hex(4)}.part"
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in sorted(values.items()))
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)


def _parsed(name: str, text: str) -> object:
    if name == "cache_bytes":
        if not text.isdecimal():
            raise InvalidRequest(f"The cache bound {text!r} is no number of bytes.", "Give a whole number.")
        return int(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The value {text!r} of {name} is no text.", "Give UTF-8.") from error
    return _is_yes(text) if name == "single_writer" else text


def _toml(value: object) -> str:
    """A value as TOML; its strings are those of JSON, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_file(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # of TOML, or of UTF-8
        raise InvalidRequest(f"The settings file {path} cannot be read: {error}.", "Mend or remove it.") from error
    unknown = sorted(values.keys() - _KNOWN)
    if unknown:
        raise InvalidRequest(
            f"The settings file {path} has the unknown setting {unknown[0]!r}.",
            f"Known settings are {', '.join(sorted(_KNOWN))}.",
        )
    return values
