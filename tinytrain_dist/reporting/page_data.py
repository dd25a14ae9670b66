"""What the page knows: aggregated figures by domain, device and method, as one JSON value its scripts draw from.

Places are numbers: a domain's, device's or method's position in its list. ``ALL`` stands for every domain (tasks
pooled) or every device (each task averaged over its devices), ``NO_DEVICE`` for methods that know no device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.distributions import NUM_BINS, device_histograms, histograms
from tinytrain_dist.reporting.failures import troubles
from tinytrain_dist.reporting.formatting import one_line
from tinytrain_dist.reporting.intervals import Estimate
from tinytrain_dist.reporting.labels import AdaptationKey, adaptation_key, adaptation_labels
from tinytrain_dist.reporting.learning_curves import learning_curves
from tinytrain_dist.reporting.multiplicity import ALPHA
from tinytrain_dist.reporting.palette import styles
from tinytrain_dist.reporting.phases import breakdowns
from tinytrain_dist.reporting.plan_pictures import layer_names, plan_pictures
from tinytrain_dist.reporting.potentials import potentials
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.views import BASELINE, NETWORK_FREE

ALL, NO_DEVICE = -2, -1
MAX_CELLS = 6000
"""A page of more (domain, device, method) cells would not stay small; it then shows all domains together only."""
MAX_TROUBLES = 1000

Json = dict[str, Any]


@dataclass(frozen=True)
class PageData:
    """Collects the figures of a run."""

    run: RunResults

    @cached_property
    def by_device(self) -> list[ComparisonRow]:
        """The comparison per device, over all domains."""
        return comparison_table(self.run, by="device")

    @cached_property
    def by_method(self) -> list[ComparisonRow]:
        """The comparison over all devices and domains."""
        return comparison_table(self.run, by="method")

    @cached_property
    def labels(self) -> dict[AdaptationKey, str]:
        """Name of every adaptation, in display order."""
        return adaptation_labels(self.by_device)

    @cached_property
    def devices(self) -> list[str]:
        """Devices of the run, sorted."""
        return sorted({row.device for row in self.by_device if row.device is not None})

    @cached_property
    def domains(self) -> list[str]:
        """Domains that can be chosen; none where there would be too many cells."""
        found = [str(row["domain"]) for row in self.run.select("SELECT DISTINCT domain FROM stored ORDER BY domain")]
        return found if len(found) * len(self.devices) * len(self.labels) <= MAX_CELLS else []

    def document(self) -> Json:
        """Return everything the scripts need, ready for JSON."""
        pictures = self._pictures()
        used = {layer for picture in pictures for layer in picture["layers"]}
        shares = self._potentials()
        used |= {layer for entry in shares for layer in entry["shares"]}
        return {
            "domains": [_name(name) for name in self.domains],
            "devices": [_name(name) for name in self.devices],
            "methods": self._methods(),
            "columns": [
                *cells.ACCURACY_COLUMNS[1:],
                *cells.COST_COLUMNS,
                *cells.BASIS_COLUMNS,
                *cells.LAST_COLUMNS,
            ],
            "cells": list(self._cells()),
            "bins": NUM_BINS,
            "spread": list(self._spread()),
            "curves": list(self._curves()),
            "phases": list(self._phases()),
            "pictures": pictures,
            "potentials": shares,
            "layers": [{"i": n.index, "t": n.text, "c": n.channels} for n in layer_names(self.run, used)],
            "troubles": (found := self._troubles())[:MAX_TROUBLES],
            "troubles_left_out": max(0, len(found) - MAX_TROUBLES),
        }

    def _methods(self) -> list[Json]:
        looks = styles(self.labels.values())
        return [
            {
                "label": _name(label), "colour": looks[label].colour, "symbol": looks[label].symbol,
                "baseline": key[3] in (BASELINE, NETWORK_FREE), "reference": key[3] == BASELINE,
            }
            for key, label in self.labels.items()
        ]  # fmt: skip

    def _place(self, domain: str | None, device: str | None, key: AdaptationKey, *, averaged: bool = False) -> Json:
        """Return the three positions of a figure."""
        place = self.devices.index(device) if device is not None else (ALL if averaged else NO_DEVICE)
        where = ALL if domain is None else self.domains.index(domain)
        return {"d": where, "v": place, "m": self._position[key]}

    @cached_property
    def _position(self) -> dict[AdaptationKey, int]:
        return {key: place for place, key in enumerate(self.labels)}

    def _cells(self) -> Iterator[Json]:
        yield from self._table(self.by_device, self.by_method)
        if self.domains:
            yield from self._table(*(comparison_table(self.run, by=by) for by in ("device,domain", "domain")))

    def _table(self, by_device: Sequence[ComparisonRow], averaged: Sequence[ComparisonRow]) -> Iterator[Json]:
        by_domain: dict[str | None, list[ComparisonRow]] = defaultdict(list)
        for row in by_device:
            by_domain[row.domain].append(row)
        sure = {id(row) for rows in by_domain.values() for row in admissible(rows)}
        for row in by_device:
            place = self._place(row.domain, row.device, adaptation_key(row))
            yield place | self._figures(row) | {"sure": id(row) in sure}
        for row in averaged if len(self.devices) > 1 else ():
            if row.backbone is not None:  # the others are there already: they know no device
                yield self._place(row.domain, None, adaptation_key(row), averaged=True) | self._figures(row)

    def _figures(self, row: ComparisonRow) -> Json:
        label = self.labels[adaptation_key(row)]
        basis = cells.basis_cells(row)
        printed = [*cells.accuracy_cells(row, label)[1:], *cells.cost_cells(row), *basis, *cells.last_cells(row)]
        return {
            "n": row.num_tasks, "rows": row.num_rows, "failed": row.num_failed, "infeasible": row.num_infeasible,
            "inapplicable": row.is_inapplicable,
            "fits": short(row.fits_share), "unsure": short(row.uncertain_share),
            "acc": _percent(row.accuracy_mean, row.accuracy_low, row.accuracy_high),
            "gain": _shorts(row.gain_points, row.gain_low_points, row.gain_high_points),
            "told": row.gain_p_holm is not None and row.gain_p_holm < ALPHA,
            "time": _scaled(1e-3, row.latency_p50_ms, row.latency_low_ms, row.latency_high_ms),
            "energy": _scaled(1e-3, row.energy_p50_mj, row.energy_low_mj, row.energy_high_mj),
            "memory": _scaled(2**-10, row.peak_p50_bytes, None, None),
            "standing": row.standing, "basis": cells.basis(row),
            "text": printed,
        }  # fmt: skip

    def _spread(self) -> Iterator[Json]:
        if not self.domains:
            return
        on_devices = [item for item in device_histograms(self.run) if item.device is not None]
        for item in histograms(self.run) + on_devices:
            averaged = item.device is None and item.key[0] is not None
            yield self._place(item.domain, item.device, item.key, averaged=averaged) | {"counts": item.counts}

    def _curves(self) -> Iterator[Json]:
        for curve in learning_curves(self.run):
            if self._shown(curve.domain):
                points = [
                    [p.iteration, short(p.time_s), *_percent_of(p.accuracy), p.accuracy.num] for p in curve.points
                ]
                yield self._place(curve.domain, curve.device, curve.key) | {"points": points}

    def _phases(self) -> Iterator[Json]:
        for item in breakdowns(self.run):
            if self._shown(item.domain):
                yield self._place(item.domain, item.device, item.key) | {
                    "n": item.num,
                    "time": _scaled(1e-3, *item.latency, *item.latency_ends),
                    "energy": _scaled(1e-3, *item.energy, *(item.energy_ends or ())) if item.energy else None,
                }

    def _pictures(self) -> list[Json]:
        return [
            self._place(p.domain, p.device, p.key)
            | {"n": p.num, "layers": {layer: _shorts(*values) for layer, values in p.layers.items()}}
            for p in plan_pictures(self.run)
            if self._shown(p.domain)
        ]

    def _potentials(self) -> list[Json]:
        found = potentials(self.run)
        several = len({p.network for p in found}) > 1
        return [
            {
                "d": ALL if p.domain is None else self.domains.index(p.domain),
                "name": _name(", ".join((*p.network[:2], p.network[2][:8])) if several else ""),
                "n": max(share.num for share in p.shares.values()),
                "shares": {layer: _percent_of(share) for layer, share in p.shares.items()},
            }
            for p in found
            if self._shown(p.domain) and p.shares
        ]

    def _troubles(self) -> list[Json]:
        return [
            self._place(t.domain if self.domains else None, t.device, t.key)
            | {"kind": t.kind, "num": t.num, "example": t.example}
            for t in troubles(self.run)
        ]

    def _shown(self, domain: str | None) -> bool:
        return domain is None or bool(self.domains)


def short(value: float | None) -> float | None:
    """Return five significant digits: a page is read, not computed with."""
    return None if value is None else float(f"{value:.5g}")


def _name(text: str) -> str:
    return one_line(redact_text(text))


def _shorts(*values: float | None) -> list[float | None] | None:
    return None if values[0] is None else [short(value) for value in values]


def _scaled(factor: float, *values: float | None) -> list[float | None] | None:
    return _shorts(*(None if value is None else factor * value for value in values))


def _percent(*values: float | None) -> list[float | None] | None:
    return _scaled(100, *values)


def _percent_of(found: Estimate) -> list[float | None]:
    return _percent(found.mean, found.low, found.high) or []
