"""Which episodes a round holds: a pure function of (settings, round), so that any worker can do any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinytrain_dist.data.domain import Domain, SplitName
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.foundation.seeding import generator_of, seed_of
from tinytrain_dist.metatraining.settings import MetaTrainSettings, Range
from tinytrain_dist.metatraining.training_settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One episode of a round. ``augmentation_seed`` None: the images stay as they are."""

    spec: EpisodeSpec
    augmentation_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class SlotGroup:
    """Episodes that pass the network together."""

    slots: tuple[Slot, ...]


def domains_of(slot: object) -> tuple[str, ...]:
    """Return the domain of each episode of a slot; empty of a batch, which mixes domains."""
    if isinstance(slot, SlotGroup):
        return tuple(member.spec.domain for member in slot.slots)
    return (slot.spec.domain,) if isinstance(slot, Slot) else ()


def grouped(slots: Sequence[Slot], size: int) -> Sequence[Slot] | Sequence[SlotGroup]:
    """Return the slots, in groups of ``size`` where that is above 1."""
    if size == 1:
        return slots
    return [SlotGroup(slots=tuple(slots[start : start + size])) for start in range(0, len(slots), size)]


def round_slots(settings: MetaTrainSettings, domains: Mapping[str, Domain], round_index: int) -> tuple[Slot, ...]:
    """Return the episodes of a training round, from the ``train`` classes."""
    names = _domains_of_round(settings, round_index)
    return tuple(_slot(settings, domains[name], round_index, index) for index, name in enumerate(names))


def validation_slots(settings: TrainingSettings, domain: Domain, *, split: SplitName) -> tuple[Slot, ...]:
    """Return the validation episodes of a domain, never augmented: the same ones in every round."""
    return tuple(
        Slot(spec=EpisodeSpec.of(domain, split=split, settings=settings.validation, seed=settings.seed, index=index))
        for index in range(settings.validation_episodes)
    )


def _domains_of_round(settings: MetaTrainSettings, round_index: int) -> Sequence[str]:
    """Systematic sampling: each domain's share of a round is within one episode of its weight."""
    weights = np.array([weight for _, weight in settings.domains], dtype=np.float64)
    count = settings.episodes_per_round
    places = (np.arange(count) + generator_of("round", settings.seed, round_index).random()) / count
    chosen = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], places, side="right")
    return [settings.domains[index][0] for index in chosen]


def _slot(settings: MetaTrainSettings, domain: Domain, round_index: int, index: int) -> Slot:
    rng = generator_of("slot", settings.seed, round_index, index)
    shape = EpisodeSettings(
        way=_draw(rng, settings.way), shot=_draw(rng, settings.shot), query=_draw(rng, settings.query), clamp_way=True
    )
    number = round_index * settings.episodes_per_round + index
    return Slot(
        spec=EpisodeSpec.of(domain, split="train", settings=shape, seed=settings.seed, index=number),
        augmentation_seed=seed_of("augment", settings.seed, round_index, index) if settings.augment else None,
    )


def _draw(rng: np.random.Generator, limits: Range) -> int:
    low, high = limits
    return int(rng.integers(low, high + 1))
