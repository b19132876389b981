"""Small networks on a shared machine: one thread is fastest, and two may wait for each other."""

import torch

torch.set_num_threads(1)
