"""A forward and a backward pass over more images than memory holds activations for, with the same sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinytrain_dist.adaptation.prefix_cache import split
from tinytrain_dist.adaptation.sparse_pass import SparsePass, Tape
from tinytrain_dist.backbones.network import LayerState

TAPE_BYTES = 448 * 2**20
"""Activations kept for one backward pass; more images than fit are processed in micro-batches, all but the last of
which run forward twice. Holds every weight of a bundled network at 84 pixels for a task of 100 support images."""


def pass_in_parts(
    run: SparsePass,
    state: LayerState,
    *,
    images: int,
    head: Callable[[Tensor], Tensor],
    backward: Callable[[Tape, Tensor], Tensor],
) -> list[Tensor]:
    """Return what ``backward`` makes of each part of at most so many ``images``, in order.

    Parameters
    ----------
    head
        The gradient of the features of all images, ``[N, F]`` each: the loss sees them together.
    backward
        Takes a part's tape and the gradient of its features. The last part, whose tape is at hand, comes first; no
        two tapes are ever alive.
    """
    *earlier, last = split(state, max(1, images))
    features = [run.forward(part, keep=False)[0] for part in earlier]
    of_last, tape = run.forward(last)
    gradients = torch.split(head(torch.cat([*features, of_last])), [len(part.x) for part in (*earlier, last)])
    found = [backward(tape, gradients[-1])]
    del tape
    for part, gradient in zip(earlier, gradients[:-1], strict=True):
        found.append(backward(run.forward(part)[1], gradient))
    return [*found[1:], found[0]]
