"""Evolution of a static scheme under a budget, as MCUNetV3 finds its own (Lin et al., NeurIPS 2022, section 3.2).

First every layer alone (contribution analysis); its gain is then the chance with which a mutation touches it.
Every draw is a function of seed, generation and place: the same scores give the same search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.schemes import Scheme, scheme_plan
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph

SHARES = (1.0, 0.5, 0.25, 0.125)
BIAS_LEVELS = (0.0, 0.5, 1.0)
LEAST_GAIN = 0.002
"""Chance of a layer whose gain is nothing, in accuracy: it may still help beside others."""
ATTEMPTS = 20
Evaluate = Callable[[Sequence[Scheme]], list[float]]


@dataclass(frozen=True)
class Genome:
    """A scheme as evolution sees it: share per layer, and how far from the end back to the first layer biases go."""

    shares: tuple[tuple[int, float], ...]
    bias_level: float

    @staticmethod
    def of(shares: Mapping[int, float], bias_level: float) -> Genome:
        """Return the genome of a mapping."""
        return Genome(tuple(sorted(shares.items())), bias_level)


@dataclass(frozen=True)
class SearchSpace:
    """The schemes of a network that a budget holds.

    Memory is the paper's counter at fp32 and batch 1, with Adam; MACs are those of the whole chain a device runs,
    biases included. Depthwise layers are left out: they hold next to nothing (MCUNetV3 updates none).
    """

    graph: LayerGraph
    budget: Budget

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers of which at least the smallest share fits; raises ``ConfigError`` where there is none."""
        found = tuple(x.index for x in self.graph.layers if x.groups == 1 and self.holds({x.index: SHARES[-1]}))
        if not found:
            plan = scheme_plan(self.graph, self.scheme(Genome(((self.graph.layers[-1].index, SHARES[-1]),), 0.0)))
            memory, macs = paper_memory(self.graph, plan).total_bytes, plan_macs(self.graph, plan).backward
            raise ConfigError(
                f"no layer of {self.graph.name} fits the budget of {self.budget.memory_bytes} bytes and "
                f"{self.budget.backward_macs} backward MACs; the last one needs {memory} bytes and {macs} MACs"
            )
        return found

    def scheme(self, genome: Genome) -> Scheme:
        """Return the scheme of a genome."""
        first = min((layer for layer, _ in genome.shares), default=len(self.graph.layers))
        biases = int(genome.bias_level * (len(self.graph.layers) - first))
        return Scheme(backbone=self.graph.name, input_shares=genome.shares, num_last_biases=biases)

    def genome(self, scheme: Scheme) -> Genome | None:
        """Return the genome nearest to ``scheme``, ``None`` where the budget does not hold it."""
        level = 1.0 if scheme.num_last_biases else 0.0
        shares = dict(scheme.input_shares)
        return Genome.of(shares, level) if shares and self.holds(shares, level) else None

    def holds(self, shares: Mapping[int, float], bias_level: float = 0.0) -> bool:
        """Return whether the budget holds these layers."""
        plan = scheme_plan(self.graph, self.scheme(Genome.of(shares, bias_level)))
        if plan_macs(self.graph, plan, chain="everything").backward > self.budget.backward_macs:
            return False
        return paper_memory(self.graph, plan).total_bytes <= self.budget.memory_bytes

    def singles(self) -> list[Genome]:
        """Return every layer alone, with the largest share that fits."""
        largest = {layer: next(s for s in SHARES if self.holds({layer: s})) for layer in self.layers}
        return [Genome(((layer, share),), 0.0) for layer, share in largest.items()]

    def draw(self, rng: np.random.Generator, chance: Mapping[int, float]) -> Genome:
        """Return a random genome: layers by their chance, each with a random share, as long as they fit."""
        shares: dict[int, float] = {}
        level = float(rng.choice(BIAS_LEVELS))
        weights = np.array([chance[layer] for layer in self.layers])
        for layer in rng.choice(self.layers, size=len(self.layers), replace=False, p=weights / weights.sum()):
            more = shares | {int(layer): float(rng.choice(SHARES))}
            shares = more if self.holds(more, level) else shares
        return Genome.of(shares, level) if shares else self.singles()[-1]

    def mutate(self, rng: np.random.Generator, genome: Genome, chance: Mapping[int, float]) -> Genome:
        """Return the genome with one to three changes: a layer's share drawn anew, a layer dropped, the biases."""
        shares, level = dict(genome.shares), genome.bias_level
        weights = np.array([chance[layer] for layer in self.layers])
        for _ in range(int(rng.integers(1, 4))):
            layer = int(rng.choice(self.layers, p=weights / weights.sum()))
            kind = rng.random()
            if kind < 0.65:
                shares[layer] = float(rng.choice(SHARES))
            elif kind < 0.9 and len(shares) > 1:
                del shares[int(rng.choice(sorted(shares)))]
            else:
                level = float(rng.choice(BIAS_LEVELS))
        return self.repaired(rng, shares, level)

    def cross(self, rng: np.random.Generator, one: Genome, other: Genome) -> Genome:
        """Return a child that takes each layer from one parent or the other."""
        first, second = dict(one.shares), dict(other.shares)
        picks = {layer: (first, second)[int(rng.integers(2))].get(layer) for layer in sorted({*first, *second})}
        shares = {layer: share for layer, share in picks.items() if share is not None}
        return self.repaired(rng, shares or first, one.bias_level)

    def repaired(self, rng: np.random.Generator, shares: Mapping[int, float], level: float) -> Genome:
        """Return the genome with shares halved, at last dropped, at random until the budget holds it."""
        left = dict(shares)
        while left and not self.holds(left, level):
            layer = int(rng.choice(sorted(left)))
            left[layer] /= 2
            if left[layer] < SHARES[-1]:
                del left[layer]
        return Genome.of(left, level) if left else self.singles()[-1]


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """How long to search; ``population`` schemes are new in each generation, the best so many of all are parents."""

    generations: int
    population: int
    seed: int

    def __post_init__(self) -> None:
        for key, least in (("generations", 1), ("population", 2)):
            if getattr(self, key) < least:
                raise ConfigError(f"--{key}: found {getattr(self, key)}; allowed: {least} or more")


def evolve(
    space: SearchSpace,
    evaluate: Evaluate,
    evolution: Evolution,
    *,
    first: Iterable[Scheme] = (),
    watch: Callable[[int, float], None] = lambda generation, best: None,
) -> list[tuple[Scheme, float]]:
    """Return every scheme that was scored with its score, the best first.

    Parameters
    ----------
    evaluate
        Scores of schemes (larger is better); asked once per scheme, a generation at a time.
    first
        Schemes known to be good: part of the first generation where the budget holds them.
    watch
        Told the best score after each generation.
    """
    singles = space.singles()
    nothing = Scheme(backbone=space.graph.name, input_shares=(), num_last_biases=0)
    base, *alone = evaluate([nothing, *map(space.scheme, singles)])
    chance = {g.shares[0][0]: max(score - base, 0.0) + LEAST_GAIN for g, score in zip(singles, alone, strict=True)}
    known = dict(zip(singles, alone, strict=True))
    given = [genome for genome in map(space.genome, first) if genome is not None]
    for generation in range(evolution.generations):
        new = _generation(space, evolution, generation, known=known, chance=chance, given=given)
        known |= dict(zip(new, evaluate([space.scheme(g) for g in new]), strict=True))
        watch(generation, max(known.values()))
    return [(space.scheme(genome), known[genome]) for genome in _ranked(known)]


def _generation(
    space: SearchSpace,
    evolution: Evolution,
    number: int,
    *,
    known: Mapping[Genome, float],
    chance: Mapping[int, float],
    given: Sequence[Genome],
) -> list[Genome]:
    """Return the new genomes of one generation, none of them known."""
    parents = _ranked(known)[: evolution.population]
    new: dict[Genome, None] = dict.fromkeys(given) if number == 0 else {}
    for place in range(len(new), evolution.population):
        rng = generator_of("scheme search", evolution.seed, number, place)
        for _ in range(ATTEMPTS):
            child = space.draw(rng, chance) if number == 0 else _child(space, rng, parents, chance)
            if child not in known and child not in new:
                new[child] = None
                break
    return list(new)


def _child(
    space: SearchSpace, rng: np.random.Generator, parents: Sequence[Genome], chance: Mapping[int, float]
) -> Genome:
    one, other = (parents[int(rng.integers(len(parents)))] for _ in range(2))
    child = space.cross(rng, one, other) if rng.random() < 0.5 else one
    return space.mutate(rng, replace(child), chance)


def _ranked(known: Mapping[Genome, float]) -> list[Genome]:
    return sorted(known, key=lambda genome: (-known[genome], genome.shares, genome.bias_level))
