"""What a workload is: a folder made from a seed, and the same folder changed, step by step."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np


class Workload(ABC):
    """A folder, and what becomes of it. All content follows from `seed` and `scale`, on any machine.

    Attributes:
        name: In commands and tables.
        about: One sentence, for readers of the tables.
        room: Bytes of the image at scale 1.
        quick_limit: What its first commit is compared with where there is little time.
        file_system: What the image is formatted as.
        versions: How many; the first, the same again, and an edit of the one before for each further.
        far: Whether the store is an object store behind a link.
        limits: Which of the machine's limits are measured beside it; None for all.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    room: ClassVar[int]
    quick_limit: ClassVar[str] = "compress"
    file_system: ClassVar[str] = "ext4"
    versions: ClassVar[int] = 3
    far: ClassVar[bool] = False
    limits: ClassVar[frozenset[str] | None] = None

    def __init__(self, scale: float = 1.0, seed: int = 1) -> None:
        self.scale = scale
        self.seed = seed

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Fill an empty folder with the first version."""

    @abstractmethod
    def edit(self, folder: Path, step: int = 1) -> None:
        """Change the folder in place: step 1 what was built, step 2 what step 1 left, where there are so many.

        A file that changes is made anew: what is written into a hard link changes a store that shares it.
        """

    def rng(self, *place: int) -> np.random.Generator:
        """Random numbers that depend on the seed and on what they are for, not on what was drawn before."""
        return np.random.default_rng([self.seed, *place])

    def count(self, at_scale_1: int) -> int:
        return max(1, round(at_scale_1 * self.scale))
