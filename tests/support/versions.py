"""Versions made in one call."""

from pathlib import Path

from dataset_store import Dataset


def version_of(folder: Path | str, **create) -> Dataset:
    """The folder as a final version, of the dataset p/d unless told otherwise."""
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset
