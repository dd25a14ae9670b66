"""What travels to a worker: small frozen values; weights and the setup go once as shared objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.domain import SplitName
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.simulation.ranges import Ranges, indices_of, num_in, split

Cells = tuple[tuple[str, tuple[str, ...]], ...]
"""Which devices each method is priced on: ((method, (device, ...)), ...)."""


@dataclass(frozen=True, kw_only=True)
class UnitSetup:
    """Everything all units of a run share, besides the weights themselves.

    Attributes
    ----------
    checkpoint
        Content hash of the initial weights.
    scale
        The checkpoint's factor of the cosine logits.
    profiles
        Every device profile of the run.
    run_folder
        Location of the run directory: an absolute path or a URI.
    split, episodes, seed, domain_hashes
        With a domain and an index they make a unit's ``EpisodeSpec``; content hash by domain.
    run_identity
        Hash of everything that decides the numbers of the run; stands in every shard.
    """

    checkpoint: str
    initialization: str
    backbone: str
    resolution: int
    scale: float
    finetune: FineTuneSettings
    selection: SelectionSettings
    profiles: tuple[DeviceProfile, ...]
    data_roots: tuple[str, ...]
    run_folder: str
    split: SplitName = "test"
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    seed: int = 0
    domain_hashes: tuple[tuple[str, str], ...] = ()
    run_identity: str = ""

    def profile(self, name: str) -> DeviceProfile:
        """Return the profile called ``name``."""
        return next(p for p in self.profiles if p.name == name)

    def spec(self, domain: str, index: int) -> EpisodeSpec:
        """Return the task of one unit."""
        return EpisodeSpec(
            domain=domain,
            domain_hash=dict(self.domain_hashes)[domain],
            split=self.split,
            settings=self.episodes,
            seed=self.seed,
            index=index,
        )


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some tasks of a domain, all with the same cells, that one remote call computes.

    Attributes
    ----------
    ranges
        Indices of the tasks.
    attempt
        Which attempt this is, from 1.
    stored
        Shards that hold finished rows of these tasks: (rows file, Fisher file or empty), see ``reuse``.
    """

    domain: str
    ranges: Ranges
    cells: Cells
    attempt: int = 1
    stored: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """File name of the chunk's shard: a hash of what is computed, not of who computes it."""
        return content_hash([self.domain, self.ranges, self.cells], length=20)

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return num_in(self.ranges)

    @property
    def num_rows(self) -> int:
        """Number of result rows."""
        return self.num_tasks * sum(len(devices) for _, devices in self.cells)

    def indices(self) -> Iterator[int]:
        """Yield the indices of the tasks, ascending: the order they are computed in."""
        return indices_of(self.ranges)

    def cut(self, *counts: int) -> list[Chunk]:
        """Return the tasks as consecutive chunks of ``counts`` tasks, then one of the rest; no empty ones."""
        parts, rest = [], self.ranges
        for count in counts:
            first, rest = split(rest, count)
            parts.append(first)
        return [replace(self, ranges=ranges) for ranges in (*parts, rest) if ranges]

    def halves(self) -> list[Chunk]:
        """Return the chunk cut in two: how the one task that kills its worker is found."""
        return self.cut(self.num_tasks // 2)


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the manifest keeps about one shard.

    Attributes
    ----------
    files
        Path below the run folder -> SHA-256 of the file's bytes.
    ranges, cells
        The tasks of ``domain`` and the cells of each whose rows the shard holds.
    profiles
        Content hash of every device profile the rows were priced with.
    digest
        Sum of the rows' hashes (``row_hash``).
    """

    name: str
    domain: str
    ranges: Ranges
    cells: Cells
    rows: int
    failed_tasks: int
    profiles: dict[str, str]
    files: dict[str, str]
    digest: str

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return num_in(self.ranges)

    @property
    def rows_file(self) -> str:
        """Path of the shard's result rows below the run folder."""
        return next(path for path in self.files if path.startswith("shards/"))

    @property
    def fisher_file(self) -> str:
        """Path of the shard's Fisher information, empty where there is none."""
        return next((path for path in self.files if path.startswith("fisher/")), "")

    def document(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)


def record_of(raw: dict[str, Any]) -> ShardRecord:
    """Return the record of ``document()``'s JSON values; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    return ShardRecord(
        name=str(raw["name"]),
        domain=str(raw["domain"]),
        ranges=tuple((int(start), int(stop)) for start, stop in raw["ranges"]),
        cells=cells_of(raw["cells"]),
        rows=int(raw["rows"]),
        failed_tasks=int(raw["failed_tasks"]),
        profiles=dict(raw["profiles"]),
        files=dict(raw["files"]),
        digest=str(raw["digest"]),
    )


def cells_of(raw: Any) -> Cells:
    """Return cells read back from JSON, where tuples are lists."""
    return tuple((str(method), tuple(str(device) for device in devices)) for method, devices in raw)
