"""Who is making versions right now: a value that tasks set and manifests record.

It is the one thread between pipelines and datasets, so that datasets need not know pipelines.
"""

from contextvars import ContextVar

from dataset_store.core.log_entries import Producer

__all__ = ["current_producer"]

current_producer: ContextVar[Producer | None] = ContextVar("current_producer", default=None)
"""The running task; None outside any."""
