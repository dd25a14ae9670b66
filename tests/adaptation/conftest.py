"""One torch thread: the networks are small, and the test machine is shared."""

import torch

torch.set_num_threads(1)
