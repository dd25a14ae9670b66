"""The configuration's defaults are the settings' own: a default has one value, whichever door is used."""

from __future__ import annotations

from dataclasses import replace

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.metatraining.pretrain_settings import PretrainSettings
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import meta_train_settings, pretrain_settings, simulation_settings


def test_fine_tuning_selection_and_dispatch() -> None:
    settings = simulation_settings(JobConfig(), weights=None)
    assert settings.finetune == FineTuneSettings(curve_every=JobConfig().finetune.curve_every)
    assert settings.selection == SelectionSettings()
    assert settings.dispatch == DispatchSettings()


def test_meta_training() -> None:
    settings = meta_train_settings(JobConfig())
    assert settings == replace(MetaTrainSettings(), backbone=JobConfig().backbone.name)


def test_pre_training() -> None:
    assert pretrain_settings(JobConfig()) == replace(PretrainSettings(), backbone=JobConfig().backbone.name)
