"""The kinds of entries that a tree may hold, as numbers that stand in stored nodes.

The numbers are part of the on-disk format: append-only, never reused. This module never decides what a local
file is; the scan does.
"""

from enum import IntEnum

__all__ = ["Kind"]


class Kind(IntEnum):
    """What an entry is."""

    FILE = 1
    SYMLINK = 2
    DIRECTORY = 3  # an empty one; a directory that holds anything is implied by the entries below it
    EXTERNAL = 4
