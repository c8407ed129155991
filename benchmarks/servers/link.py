"""The link that far stores are behind."""

ROUND_TRIP = 0.030
"""Seconds."""

RATE = 100e6
"""Bytes a second, each way."""
