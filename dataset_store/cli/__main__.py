"""`python -m dataset_store.cli`: the command line where its script is not on the path."""

import sys

from dataset_store.cli import main

sys.exit(main())
