"""Content-addressed dataset versioning without a server.

    from dataset_store import Dataset

    folder = Dataset.get(dataset_project="data", dataset_name="cats").get_local_copy()

Importing this package loads nothing heavy; names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.errors import DatasetStoreError
    from dataset_store.storage_manager import StorageManager

__all__ = ["Dataset", "DatasetStoreError", "StorageManager"]
__version__ = "0.1.0"

_HOMES = {
    "Dataset": "dataset_store.dataset",
    "DatasetStoreError": "dataset_store.errors",
    "StorageManager": "dataset_store.storage_manager",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
