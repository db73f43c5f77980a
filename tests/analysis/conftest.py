"""Fixtures shared by the tests of the analysis."""

import os
import sys
from pathlib import Path

# Small matrices only: on a busy machine threads of the linear algebra wait for one another longer than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The test folders are no packages; this makes `study_database` importable for the tests beside it.
sys.path.insert(0, str(Path(__file__).parent))
