r"""A graph of versions as lines of text: one lane for each line of descent that is open, children above their parents.

*    3, of 2 and b
|\
    | *  b, of 1
* |  2, of 1
|/
*    1
"""

from collections.abc import Mapping, Sequence

__all__ = ["graph_lines"]


def graph_lines(ids: Sequence[str], parents: Mapping[str, Sequence[str]]) -> list[tuple[str, str | None]]:
    """The lines of a graph, from the top, each with the id that it shows, or None where it only joins lanes.

    Args:
        ids: The versions to show, every child before its parents.
        parents: Parents by id; those that are not to be shown are left out of the drawing.
    """
    shown = set(ids)
    lanes: list[str] = []
    lines: list[tuple[str, str | None]] = []
    for version in ids:
        if version not in lanes:
            lanes.append(version)
        at = lanes.index(version)
        lines.append((" ".join("*" if lane == at else "|" for lane in range(len(lanes))), version))
        above = dict.fromkeys(parent for parent in parents.get(version, ()) if parent in shown)
        fresh = [parent for parent in above if parent not in lanes]
        joined = [lanes.index(parent) for parent in above if parent in lanes]
        joint = _joint(len(lanes) - at - 1, at, len(fresh), joined)
        lines += [(joint, None)] if joint else []
        lanes[at : at + 1] = fresh
    return lines


def _joint(right: int, at: int, fresh: int, joined: Sequence[int]) -> str:
    """The line under a version where lanes open or close, with so many lanes to the right; empty where none does.

    A parent that has a lane already is joined only where the version's own lane ends; the row's text names all parents.
    """
    left = ["|"] * at
    if fresh > 1:
        return " ".join([*left, "|\\", *["\\"] * (fresh - 2 + right)])
    if fresh:
        return ""
    if joined and min(joined) < at:
        return " ".join(left) + "/" + " /" * right
    return " ".join([*left, "|/" if joined else " /", *["/"] * (right - 1)]) if right else ""
