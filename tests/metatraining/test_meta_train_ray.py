"""One, two and four real Ray workers give the weights of the serial run, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.execution.settings import ExecutorSettings, cluster
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.training import meta_train

pytestmark = pytest.mark.slow


def test_weights_do_not_depend_on_the_workers(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    results = [meta_train(tiny, root=tmp_path / "serial", executor=ExecutorSettings(kind="serial"), roots=[data_root])]
    with cluster(ExecutorSettings(num_workers=4)):
        for workers in (1, 2, 4):
            settings = ExecutorSettings(num_workers=workers)
            results.append(meta_train(tiny, root=tmp_path / str(workers), executor=settings, roots=[data_root]))
    first, *others = (load_checkpoint(result.weights_path).state for result in results)
    for other in others:
        np.testing.assert_array_equal(first, other)
    assert len({result.weights_hash for result in results}) == 1
    assert len({str(result.validation) for result in results}) == 1
