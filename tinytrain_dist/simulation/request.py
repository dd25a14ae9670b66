"""What travels to a worker: small frozen values; weights and the setup go once as shared objects."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.episodes import EpisodeSpec
from tinytrain_dist.foundation.hashing import content_hash

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

    def profile(self, name: str) -> DeviceProfile:
        """Return the profile called ``name``."""
        return next(p for p in self.profiles if p.name == name)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some tasks, all with the same cells, that one remote call computes.

    Attributes
    ----------
    attempt
        Which attempt this is, from 1.
    """

    tasks: tuple[EpisodeSpec, ...]
    cells: Cells
    attempt: int = 1

    @property
    def name(self) -> str:
        """File name of the chunk's shard: a hash of what is computed, not of who computes it."""
        return content_hash([[t.task_id for t in self.tasks], self.cells], length=20)

    def halves(self) -> tuple[Chunk, Chunk]:
        """Return the chunk cut in two: how the one task that kills its worker is found."""
        middle = len(self.tasks) // 2
        first, second = self.tasks[:middle], self.tasks[middle:]
        return (
            Chunk(tasks=first, cells=self.cells, attempt=self.attempt),
            Chunk(tasks=second, cells=self.cells, attempt=self.attempt),
        )


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the manifest keeps about one shard.

    Attributes
    ----------
    files
        Path below the run folder -> SHA-256 of the file's bytes.
    tasks
        Ids of the tasks whose rows the shard holds.
    profiles
        Content hash of every device profile the rows were priced with.
    """

    name: str
    rows: int
    failed_tasks: int
    tasks: tuple[str, ...]
    cells: Cells
    profiles: dict[str, str]
    files: dict[str, str]

    @property
    def rows_file(self) -> str:
        """Path of the shard's result rows below the run folder."""
        return next(path for path in self.files if path.startswith("shards/"))
