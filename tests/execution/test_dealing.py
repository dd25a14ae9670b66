"""Dealing: every chunk once, no chunk told to two workers, and what was told is mostly what comes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.execution.dealing import Chunk, Dealing


def chunks_of(num_slots: int, num_workers: int) -> list[Chunk]:
    size = max(1, -(-num_slots // (2 * num_workers)))
    return [tuple(range(start, min(start + size, num_slots))) for start in range(0, num_slots, size)]


def play(
    num_workers: int,
    chunks: Sequence[Chunk],
    *,
    seconds: Sequence[Sequence[float]],
    losses: frozenset[int] = frozenset(),
) -> tuple[int, int]:
    """Play a round per row of ``seconds`` (of each call); returns calls whose worker had been told, and calls."""
    dealing, prepared, hits, calls = Dealing(), dict[int, tuple[int, Chunk]](), 0, 0
    for number, row in enumerate(seconds):
        dealing.begin(chunks, later=chunks)
        lengths, done, now = iter(row), list[int](), 0.0
        busy: list[tuple[float, int, Chunk]] = []
        lost = set(losses)
        while len(done) < sum(map(len, chunks)):
            dealt = dealing.deal([w for w in range(num_workers) if w not in {worker for _, worker, _ in busy}])
            for worker, chunk in dealt.items():
                calls, hits = calls + 1, hits + (prepared.pop(worker, None) == (number, chunk))
                heapq.heappush(busy, (now + next(lengths, 1.0), worker, chunk))
                if told := dealing.tell(worker):
                    prepared[worker] = (number + told[1], told[0])
            assert len(set(prepared.values())) == len(prepared), "no chunk is told to two"
            now, worker, chunk = heapq.heappop(busy)
            if chunk[0] in lost:  # its worker died: the slots wait again, one by one
                lost.discard(chunk[0])
                prepared.pop(worker, None)
                for slot in chunk:
                    dealing.put_back((slot,))
            else:
                done += chunk
        assert sorted(done) == sorted(slot for chunk in chunks for slot in chunk)
    return hits, calls


@given(
    st.integers(1, 5), st.integers(1, 12), st.lists(st.lists(st.floats(0.1, 3.0), max_size=12), min_size=1, max_size=4),
    st.frozensets(st.integers(0, 11)),
)  # fmt: skip
def test_every_slot_is_done_once_a_round(
    num_workers: int, num_slots: int, seconds: list[list[float]], losses: frozenset[int]
) -> None:
    play(num_workers, chunks_of(num_slots, num_workers), seconds=seconds, losses=losses)


@pytest.mark.parametrize(
    ("num_workers", "num_slots", "least"),
    [(1, 1, 0.9), (1, 8, 0.9), (2, 8, 0.6), (3, 8, 0.6), (4, 8, 0.6), (2, 5, 0.5)],
)
def test_most_calls_are_what_the_worker_was_told(num_workers: int, num_slots: int, least: float) -> None:
    jitter = np.random.default_rng(0).uniform(0.9, 1.1, (50, 12)).tolist()
    hits, calls = play(num_workers, chunks_of(num_slots, num_workers), seconds=jitter)
    assert hits / calls >= least
