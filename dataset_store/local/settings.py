"""Where this machine keeps things, and which store is meant when none is named.

Argument, then environment, then user file, then default. This is the only module below the command line that reads
the environment.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from platformdirs import user_cache_dir, user_config_dir, user_data_dir

from dataset_store.errors import InvalidRequest

__all__ = ["Settings", "config_file", "load_settings"]

_APPLICATION = "dataset-store"
_DEFAULT_CACHE_BYTES = 50 * 2**30
_KNOWN = {"store", "cache", "data", "cache_bytes", "single_writer"}
_YES = {"1", "true", "yes", "on"}
_NO = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The store's URL or path, two folders of this machine, and the bound of the local-copy cache in bytes.

    Everything under `cache` can be deleted at any time; `data` holds drafts. `single_writer` is the user's word that
    nobody else writes to the store, which some storages need.
    """

    store: str
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
    limit = env.get("DATASET_STORE_CACHE_BYTES") or str(written.get("cache_bytes") or _DEFAULT_CACHE_BYTES)
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
