"""How a version shows itself in a notebook: HTML without script, everything in it escaped."""

import time
from html import escape

from dataset_store.core.version_numbers import title_of
from dataset_store.dataset.catalog.overview import VersionSummary

__all__ = ["version_html"]


def version_html(row: VersionSummary) -> str:
    """A version or draft as a small table."""
    facts = {
        "id": f"<code>{escape(row.id)}</code>",
        "status": escape(row.status) + (", archived" if row.archived else ""),
        "tags": escape(", ".join(row.tags)),
        "description": escape(row.description or ""),
        "files": "" if row.entries is None else f"{row.entries:,}, {row.bytes or 0:,} bytes",
        "changes": ""
        if row.added is None
        else f"{row.added:,} added, {row.modified:,} modified, {row.removed:,} removed",
        "parents": "<br>".join(f"<code>{escape(parent)}</code>" for parent in row.parents),
        "created": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row.created_ns // 10**9)),
    }
    rows = "".join(f"<tr><th>{name}</th><td>{fact}</td></tr>" for name, fact in facts.items() if fact)
    return f"<table><caption>{escape(title_of(row.project, row.name, row.number))}</caption>{rows}</table>"
