"""A graph of versions as Mermaid text and as SVG: values in, text out. What is written in it is escaped.

In the SVG each version is a row, children above their parents, in the lane of its line of descent. A lane belongs to
the parent that it leads to until that is reached, so no line crosses a version that it does not belong to.
"""

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["mermaid", "svg"]

_ROW = 28
_LANE = 20
_MARGIN = 14
_TEXT_WIDTH = 7.2
"""Points that a character of the monospaced label takes, a little more than it does."""

_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")


def mermaid(ids: Sequence[str], parents: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> str:
    """A Mermaid flow chart: an arrow from each parent to its child.

    Args:
        ids: The versions, every child before its parents.
        parents: Of each; parents that are not among `ids` are left out.
        labels: What is written on each.
    """
    names = {version: f"v{number}" for number, version in enumerate(ids)}
    lines = ["flowchart BT"]
    lines += [f'    {names[version]}["{_quoted(labels[version])}"]' for version in ids]
    lines += [
        f"    {names[parent]} --> {names[child]}" for child in ids for parent in parents[child] if parent in names
    ]
    return "\n".join(lines) + "\n"


def svg(ids: Sequence[str], parents: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> str:
    """The same as a stand-alone SVG image, without script."""
    lanes = _lanes(ids, parents)
    rows = {version: row for row, version in enumerate(ids)}
    left = _MARGIN + (max(lanes.values(), default=0) + 1) * _LANE
    width = left + max((len(label) for label in labels.values()), default=0) * _TEXT_WIDTH + _MARGIN
    size = f'width="{width:.0f}" height="{len(ids) * _ROW + _MARGIN}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">']
    edges = [(child, parent) for child in ids for parent in parents[child] if parent in rows]
    parts += [_line(lanes[child], rows[child], lanes[parent], rows[parent]) for child, parent in edges]
    for version in ids:
        x, y = _at(lanes[version], rows[version])
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{_colour(lanes[version])}"/>')
        parts.append(f'<text x="{left}" y="{y + 4}" fill="currentColor">{escape(labels[version])}</text>')
    return "".join([*parts, "</svg>"])


def _lanes(ids: Sequence[str], parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The lane of each version. `waiting` holds, for each lane, the version that it leads to, or none."""
    waiting: list[str | None] = []
    lanes: dict[str, int] = {}
    known = set(ids)
    for version in ids:
        own = waiting.index(version) if version in waiting else _free(waiting)
        lanes[version] = own
        waiting[own] = None
        for parent in parents[version]:
            if parent in known and parent not in waiting:
                waiting[own if waiting[own] is None else _free(waiting)] = parent
    return lanes


def _free(waiting: list[str | None]) -> int:
    """The first lane that leads nowhere; a new one where all do."""
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _line(lane: int, row: int, lane_below: int, row_below: int) -> str:
    """From a child into its parent's lane within one row, then down."""
    x, y = _at(lane, row)
    x_below, y_below = _at(lane_below, row_below)
    bend = f"C {x} {y + _ROW * 0.6:.0f} {x_below} {y + _ROW * 0.4:.0f} {x_below} {y + _ROW}"
    return (
        f'<path d="M {x} {y} {bend} L {x_below} {y_below}" fill="none" stroke="{_colour(lane_below)}" '
        'stroke-width="2"/>'
    )


def _at(lane: int, row: int) -> tuple[int, int]:
    return _MARGIN + lane * _LANE, _MARGIN + row * _ROW


def _colour(lane: int) -> str:
    return _COLOURS[lane % len(_COLOURS)]


def _quoted(text: str) -> str:
    """Mermaid's own entities: those of HTML with `#` for `&`."""
    return escape(text.replace("#", "\0").replace("\n", " ")).replace("&", "#").replace("\0", "#35;")
