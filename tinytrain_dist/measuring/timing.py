"""Timing on a machine that others use too: processor time, interleaved rounds, ratios to a reference kernel.

Every sample of a case stands between two runs of the reference kernel. The case's time is the lowest tenth of its
samples over the lowest tenth of the kernel's in the same block, x what the kernel takes when the machine is quiet:
short disturbances fall out, and what slows everything (a busy neighbour, a lower clock) cancels. With eight other
processes on two cores such times repeat within 4 %, medians of processor time within 10 %.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tinytrain_dist.backbones.kernels import convolve
from tinytrain_dist.graphs.layer_graph import ConvLayer
from tinytrain_dist.measuring.cases import Case, Probe, Run
from tinytrain_dist.measuring.energy_sensors import EnergyMeter

QUIET_SAMPLES = 150
LOW_QUANTILE = 0.1
MAX_INNER = 2000


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One case: milliseconds on the quiet machine, the median as it was, the kernel's, the relative spread of the
    samples (half their middle half), and the mean power while it ran.

    Power, not energy: what is wanted may be a part of what ran, and the machine may have been slower than quiet.
    """

    latency_ms: float
    median_ms: float
    reference_ms: float
    spread: float
    power_w: float | None


class Stopwatch:
    """Processor time of this thread, or wall time where several threads work or waiting counts."""

    def __init__(self, *, threads: int) -> None:
        self.name = "thread_cpu" if threads == 1 else "wall"
        self._clock = time.thread_time if threads == 1 else time.perf_counter

    def seconds(self, run: Run, *, times: int, waits: bool = False) -> float:
        """Return the seconds of one of ``times`` runs."""
        if isinstance(run, Probe):
            return self._part_seconds(run, times=times)
        clock = time.perf_counter if waits else self._clock
        start = clock()
        for _ in range(times):
            run()
        return (clock() - start) / times

    def _part_seconds(self, probe: Probe, *, times: int) -> float:
        before = probe.part.seconds
        for _ in range(times):
            probe.run()
        return (probe.part.seconds - before) / times


class ReferenceKernel:
    """A 1x1 and a depthwise convolution through the kernels everything else uses; about 0.2 ms."""

    TIMES = 4

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._steps = [_step("expand", 64, 1, 1), _step("depthwise", 64, 3, 64)]
        for _ in range(20):
            self.run()

    def run(self) -> None:
        """Run it once."""
        for layer, x, weight, bias in self._steps:
            with torch.no_grad():
                convolve(x, weight, bias, layer=layer)

    def seconds(self) -> float:
        """Return what it takes now."""
        return self._stopwatch.seconds(self.run, times=self.TIMES)

    def quiet_seconds(self) -> float:
        """Return what it takes on the quiet machine: the lowest tenth of many samples."""
        return _low([self.seconds() for _ in range(QUIET_SAMPLES)])


def _step(
    role: str, channels: int, kernel: int, groups: int
) -> tuple[ConvLayer, torch.Tensor, torch.Tensor, torch.Tensor]:
    size = 28
    layer = ConvLayer(
        index=0, block=0, role="depthwise" if role == "depthwise" else "expand", in_channels=channels,
        out_channels=channels, kernel=kernel, stride=1, groups=groups, in_size=size, out_size=size,
        residual_after=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn((1, channels, size, size), generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn((channels, channels // groups, kernel, kernel), generator=generator)
    return layer, x, weight.contiguous(memory_format=torch.channels_last), torch.zeros(channels)


@dataclass
class _Running:
    """A case whose turn has come: what it runs, and its samples so far."""

    runs: tuple[Run, ...]
    inner: int
    raws: list[float]
    references: list[float]
    joules: float
    wall_s: float


class Timer:
    """Times cases a block at a time, the cases of a block in turns."""

    def __init__(
        self, *, threads: int, rounds: int, min_sample_ms: float, quiet_seconds: float | None, meter: EnergyMeter | None
    ) -> None:
        self.stopwatch = Stopwatch(threads=threads)
        self._reference = ReferenceKernel(self.stopwatch)
        self.quiet_seconds = self._reference.quiet_seconds() if quiet_seconds is None else quiet_seconds
        self._rounds, self._min_sample_s, self._meter = rounds, min_sample_ms / 1e3, meter

    def time_block(self, cases: Sequence[Case]) -> list[Timing]:
        """Return the timings of ``cases``; round by round, so that each case meets the same disturbances."""
        running = [self._start(case) for case in cases]
        for number in range(self._rounds):
            step = 1 if number % 2 == 0 else -1
            for case, item in list(zip(cases, running, strict=True))[::step]:
                self._sample(case, item)
        kernel = _low([reference for item in running for reference in item.references])
        return [self._timing(case, item, kernel) for case, item in zip(cases, running, strict=True)]

    def _start(self, case: Case) -> _Running:
        """Build the case and warm it up."""
        runs = case.build()
        longest = 0.0
        for run in runs:
            warm = [self.stopwatch.seconds(run, times=1, waits=case.waits) for _ in range(3)]
            longest = max(longest, min(warm))
        inner = 1 if case.waits else min(MAX_INNER, max(1, round(self._min_sample_s / max(longest, 1e-7))))
        return _Running(runs=runs, inner=inner, raws=[], references=[], joules=0.0, wall_s=0.0)

    def _sample(self, case: Case, item: _Running) -> None:
        before = self._reference.seconds()
        total = 0.0
        for run in item.runs:
            started, wall = (None if self._meter is None else self._meter.start()), time.perf_counter()
            total += self.stopwatch.seconds(run, times=item.inner, waits=case.waits)
            if self._meter is not None:
                seconds = time.perf_counter() - wall
                item.joules += self._meter.joules(started, seconds)
                item.wall_s += seconds
        reference = (before + self._reference.seconds()) / 2
        item.raws.append(total)
        item.references.append(reference)

    def _timing(self, case: Case, item: _Running, kernel_s: float) -> Timing:
        scale = 1.0 if case.waits else self.quiet_seconds / kernel_s
        relative = [raw / reference for raw, reference in zip(item.raws, item.references, strict=True)]
        return Timing(
            latency_ms=1e3 * _low(item.raws) * scale,
            median_ms=1e3 * statistics.median(item.raws),
            reference_ms=1e3 * kernel_s,
            spread=_spread(item.raws if case.waits else relative),
            power_w=item.joules / item.wall_s if item.joules > 0 else None,
        )


def _low(samples: Sequence[float]) -> float:
    """Return the lowest tenth."""
    return sorted(samples)[int(LOW_QUANTILE * len(samples))]


def _spread(samples: Sequence[float]) -> float:
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4)
    return (high - low) / 2 / abs(middle) if middle else 0.0
