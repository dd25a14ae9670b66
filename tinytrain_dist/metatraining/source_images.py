"""All train images of the source domains under one numbering, with one joint set of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinytrain_dist.data.domain import Domain
from tinytrain_dist.data.images import Pixels

Ints = npt.NDArray[np.int64]


class SourceImages:
    """Images of the ``train`` classes of several domains.

    Attributes
    ----------
    domain_of, image_of, label_of
        int64 [n]: position of the image's domain, its index there, and its class among all domains' train classes.
    num_classes
        Train classes of all domains together.
    """

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = tuple(domains)
        classes = [(number, c) for number, domain in enumerate(domains) for c in domain.classes("train")]
        images = [self.domains[number].class_images(c) for number, c in classes]
        sizes = [len(own) for own in images]
        self.num_classes = len(classes)
        self.label_of: Ints = np.repeat(np.arange(len(classes)), sizes)
        self.domain_of: Ints = np.repeat([number for number, _ in classes], sizes)
        self.image_of: Ints = np.concatenate(images) if images else np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.image_of)

    def pixels(self, numbers: Ints, *, resolution: int) -> Pixels:
        """Return uint8 [n, 3, R, R]."""
        result = np.empty((len(numbers), 3, resolution, resolution), dtype=np.uint8)
        for position, domain in enumerate(self.domains):
            chosen = self.domain_of[numbers] == position
            if chosen.any():
                result[chosen] = domain.images(self.image_of[numbers[chosen]], resolution=resolution)
        return result
