"""The pictures of sample episodes are the images the network gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import load_episode
from tinytrain_dist.metatraining.episode_pictures import GAP, save_episode_pictures
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import round_slots


def test_a_picture_holds_support_and_query_by_class(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    settings = replace(tiny, augment=False, way=(3, 3), shot=(2, 2))
    paths = save_episode_pictures(settings, tmp_path, roots=(data_root,))
    assert [path.name for path in paths] == [f"{number}-stripes.png" for number in range(4)]
    domain = open_domain("stripes", roots=[data_root])
    episode = load_episode(domain, round_slots(settings, {"stripes": domain}, 0)[1].spec, resolution=32)
    sheet = np.asarray(Image.open(paths[1]))
    assert sheet.shape == (3 * 32, 4 * 32 + GAP, 3)
    np.testing.assert_array_equal(sheet[32:64, 32:64], episode.support_images[3].transpose(1, 2, 0))
    np.testing.assert_array_equal(sheet[:32, 64 + GAP : 96 + GAP], episode.query_images[0].transpose(1, 2, 0))


def test_augmented_episodes_are_shown_augmented(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    plain, seen = (
        np.asarray(Image.open(save_episode_pictures(settings, tmp_path / name, roots=(data_root,))[0]))
        for name, settings in (("plain", replace(tiny, augment=False)), ("seen", tiny))
    )
    assert plain.shape == seen.shape and (plain != seen).any()
