"""Lets the modules of these tests import each other by name (pytest's importlib mode adds no folder)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
