"""The façade: storage and local joined into datasets, as users see them."""

from dataset_store.dataset.dataset import Dataset

__all__ = ["Dataset"]
