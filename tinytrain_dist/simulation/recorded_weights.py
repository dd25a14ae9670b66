"""The weights a run was made from, found again by their content hash, whatever word its record has for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.backbones.card import checkpoint_files, read_card
from tinytrain_dist.backbones.shipped_weights import shipped_files
from tinytrain_dist.backbones.weight_words import RANDOM, WORDS
from tinytrain_dist.foundation.errors import CheckpointError

MAX_SEARCHED = 1000
"""Checkpoint files of a run root that are looked at."""


@dataclass(frozen=True, kw_only=True)
class RecordedWeights:
    """What a run's record says about the weights it started from.

    Attributes
    ----------
    hash
        Content hash of the weights.
    backbone
        Name of the network.
    word
        ``backbone.weights`` of the command that wrote the record: a file, one of ``WORDS``, or ``None``: not recorded.
    initialization
        Kind of the weights, as the rows have it. Where it is ``random`` they may have been drawn from the seed.
    """

    hash: str
    backbone: str
    word: str | None
    initialization: str

    def find(self, *, given: Path | None, search: Path | None) -> Path | None:
        """Return the checkpoint file of this hash; ``None`` where the weights are drawn from the run's seed.

        Whoever draws them compares their hash; here no network is built.

        Parameters
        ----------
        given
            The only file to look at, if any.
        search
            Run root in which a stage has left them, or in which a file that has moved may lie.

        Raises
        ------
        CheckpointError
            None of the files is it; says what each of them is.
        """
        for path in self._candidates(given=given, search=search):
            if _hash_of(path) == self.hash:
                return path
        if given is None and self._may_be_drawn:
            return None
        looked = [f"{path} ({_hash_of(path)})" for path in self._named(given)]
        looked += [f"a checkpoint below {search}"] if given is None and search is not None else []
        recorded = f" (recorded as {self.word!r})" if self.word in WORDS else ""
        raise CheckpointError(
            f"weights {self.hash} of this run{recorded}: not {', nor '.join(looked) or 'recorded as a file'}; "
            f"name their file: --weights FILE"
        )

    @property
    def _may_be_drawn(self) -> bool:
        """A file's weights may be random too: then the word is the file, and drawing others would not replace it."""
        return self.initialization == RANDOM and (self.word is None or self.word in WORDS)

    def _candidates(self, *, given: Path | None, search: Path | None) -> Iterator[Path]:
        yield from self._named(given)
        if given is None and search is not None and not (self._may_be_drawn and self.word is not None):
            yield from itertools.islice(checkpoint_files(search), MAX_SEARCHED)

    def _named(self, given: Path | None) -> list[Path]:
        """Return the files to look at first: the one named, or the one of the record and the package's."""
        if given is not None:
            return [given]
        own = [] if self.word is None or self.word in WORDS else [Path(self.word).expanduser()]
        shipped = shipped_files().get(self.backbone)
        return own if shipped is None else [*own, shipped]


def _hash_of(path: Path) -> str:
    if not path.is_file():
        return "no such file"
    try:
        return read_card(path).content_hash
    except CheckpointError as error:
        return str(error)
