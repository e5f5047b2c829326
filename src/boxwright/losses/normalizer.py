"""What a sum of losses is divided by, the same on every process."""

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_processes(count: Tensor, least: float = 1.0) -> Tensor:
    """The mean of `count` over processes; their sum counts as `least` at least.

    Gradients are averaged over processes, so dividing each process's sum by the mean count gives the
    gradient of one process with the whole batch.
    """
    if dist.is_available() and dist.is_initialized():
        count = count.detach().clone()
        dist.all_reduce(count)
        return count.clamp(min=least).to(torch.float32) / dist.get_world_size()
    return count.clamp(min=least).to(torch.float32)
