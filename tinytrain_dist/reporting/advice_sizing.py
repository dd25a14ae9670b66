"""From the pictures there are to the tasks to draw, and what more pictures would allow to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinytrain_dist.foundation.errors import ConfigError, DataError
from tinytrain_dist.reporting.quantiles import MIN_TASKS_P95

MAX_WAY, MAX_SHOT, MAX_QUERY = 50, 5, 10
MIN_TASKS, MAX_TASKS = 6, MIN_TASKS_P95
WORK_CORE_SECONDS = 320.0
"""Computing aimed at: with the start and the page below five minutes on two cores."""
CORE_SECONDS_PER_MAC = 4.0e-10
"""Of all methods together, per MAC of (support and its augmented copy) x iterations x forward pass: 15 core-seconds for
a 10-way 5-shot task of mcunet at 84 pixels, none, last_layer, full_train and tinytrain on twelve devices, mode fast
(one core of an x86-64 server with AVX-512, 2026-11-22)."""
WORST_SHARE = 0.5
"""Accuracy at which a binomial interval is widest."""
Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class TaskSizes:
    """The tasks to draw. ``num_classes`` can be used of ``num_found``; ``way`` of them stand in each task.

    ``smallest_usable``: pictures a class must have to be used; ``shot_given``: the user fixed ``shot``; ``judged``: the
    different pictures that are queries in the tasks drawn (None: not counted).
    """

    way: int
    shot: int
    query: int
    num_tasks: int
    num_classes: int
    num_found: int
    num_pictures: int
    smallest_class: int
    smallest_usable: int = 2
    shot_given: bool = False
    judged: int | None = None

    @property
    def num_judged(self) -> int:
        """Return how many different pictures are queries; where they are not counted, how many can be at most."""
        return (
            self.judged if self.judged is not None else min(self.num_pictures, self.num_tasks * self.way * self.query)
        )


def size_tasks(
    class_sizes: Sequence[int],
    *,
    forward_macs: int,
    iterations: int,
    shot: int | None = None,
    num_tasks: int | None = None,
) -> TaskSizes:
    """Return the sizes of the tasks, from pictures per class; the same on every machine.

    Parameters
    ----------
    forward_macs
        Of one picture through the network.
    shot, num_tasks
        Fixed by the user; None: chosen here.

    Raises
    ------
    DataError
        Fewer than two classes have enough pictures; says how many are needed.
    ConfigError
        A shot or a number of tasks below 1.
    """
    for option, value in (("--shot", shot), ("--tasks", num_tasks)):
        if value is not None and value < 1:
            raise ConfigError(f"{option}: found {value}; allowed: 1 or more")
    wanted = 1 if shot is None else shot
    usable = [size for size in class_sizes if size > wanted]
    if len(usable) < 2:
        raise DataError(_too_few(class_sizes, wanted))
    smallest, shot_given = min(usable), shot is not None
    shot = max(1, min(MAX_SHOT, smallest // 2)) if shot is None else shot
    way = min(MAX_WAY, len(usable))
    work = CORE_SECONDS_PER_MAC * 2 * way * shot * iterations * forward_macs
    tasks = round(WORK_CORE_SECONDS / work) if work else MAX_TASKS
    return TaskSizes(
        way=way,
        shot=shot,
        query=min(MAX_QUERY, smallest - shot),
        num_tasks=max(MIN_TASKS, min(MAX_TASKS, tasks)) if num_tasks is None else num_tasks,
        num_classes=len(usable),
        num_found=len(class_sizes),
        num_pictures=sum(usable),
        smallest_class=smallest,
        smallest_usable=wanted + 1,
        shot_given=shot_given,
    )


def _too_few(class_sizes: Sequence[int], shot: int) -> str:
    usable = sum(size > shot for size in class_sizes)
    more = "" if shot >= MAX_SHOT else f"{2 * MAX_SHOT} pictures in each class for {MAX_SHOT} to learn from, and "
    return (
        f"{len(class_sizes)} {'class' if len(class_sizes) == 1 else 'classes'} with {sum(class_sizes)} pictures, "
        f"{usable} of them with the {shot + 1} pictures that {shot} to learn from and 1 to be judged on take; needed: "
        f"two such classes for any statement, {more}"
        f"about {pictures_for(0.05)} pictures in all for an accuracy that holds within 5 points for new pictures"
    )


def needs(sizes: TaskSizes) -> list[str]:
    """Return what cannot be said with these pictures or tasks, and what it would take, one sentence each."""
    found = []
    if sizes.num_classes < sizes.num_found:
        found.append(
            f"{sizes.num_found - sizes.num_classes} of {sizes.num_found} classes are left out: a class needs "
            f"{sizes.smallest_usable} pictures, {sizes.smallest_usable - 1} to learn from and 1 to be judged on."
        )
    if sizes.way < sizes.num_classes:
        found.append(
            f"Each task holds {sizes.way} of the {sizes.num_classes} classes; telling all apart at once is harder."
        )
    if sizes.shot < MAX_SHOT and sizes.shot_given:
        found.append(f"Learning from {sizes.shot} per class, as --shot asks; without it up to {MAX_SHOT}.")
    elif sizes.shot < MAX_SHOT:
        found.append(
            f"Learning from {sizes.shot} per class, since the smallest class has {sizes.smallest_class} pictures; "
            f"{2 * MAX_SHOT} in every class allow {MAX_SHOT} (a fixed number: --shot)."
        )
    if sizes.num_pictures < pictures_for(0.05):
        found.append(
            f"Accuracy on new pictures within 5 points takes about {pictures_for(0.05)} pictures in all; "
            f"there are {sizes.num_pictures}."
        )
    if sizes.num_tasks < MIN_TASKS_P95:
        found.append(f"p95 of time and energy over tasks takes {MIN_TASKS_P95} tasks (--tasks {MIN_TASKS_P95}).")
    return found


def pictures_for(half_width: float, share: float = WORST_SHARE) -> int:
    """Return how many pictures, each judged once, bring a 95 % interval of an accuracy to ``half_width`` (a share)."""
    return math.ceil(share * (1 - share) * (Z95 / half_width) ** 2 - _ROUNDING)


def tasks_for(half_width: float, *, low: float, high: float, num_tasks: int) -> int:
    """Return about how many tasks bring the interval ``low`` to ``high`` of ``num_tasks`` tasks to ``half_width``."""
    return math.ceil(num_tasks * ((high - low) / 2 / half_width) ** 2 - _ROUNDING)


def new_pictures_interval(share: float, num_pictures: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy as if each of ``num_pictures`` had been judged once (Wilson, 1927)."""
    if num_pictures < 1:
        raise ValueError(f"num_pictures: found {num_pictures}; allowed: 1 or more")
    spread = Z95**2 / num_pictures
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / num_pictures + spread / (4 * num_pictures))
    return max(0.0, middle - half), min(1.0, middle + half)


_ROUNDING = 1e-9
