"""One torch thread: the networks are small, and the test machine is shared."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))  # the plain arm lives in benchmarks/, which is not installed
