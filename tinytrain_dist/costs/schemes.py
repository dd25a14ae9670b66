"""Static schemes of ``sparse_update``: one YAML file each, shipped in ``static_schemes/`` or given by the user.

A shipped file is called ``<backbone>--<origin>.yaml``; exactly one of a backbone's is its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tinytrain_dist.foundation.errors import ConfigError, PlanError, nearest
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.strict_yaml import load_yaml
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan

SHIPPED = Path(__file__).resolve().parent / "static_schemes"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a static scheme updates.

    Attributes
    ----------
    backbone
        Layer graph the indices refer to.
    input_shares
        (layer, share of its input channels), ascending by layer.
    num_last_biases
        Number of last layers whose bias is updated.
    """

    backbone: str
    input_shares: tuple[tuple[int, float], ...]
    num_last_biases: int

    @property
    def hash(self) -> str:
        """Content hash of what is updated: where the scheme comes from does not count."""
        return content_hash(self)


class Evidence(BaseModel):
    """How a scheme was found: everything that is needed to find it again, and how good it was.

    Accuracies are shares of the query set, means over ``num_tasks`` tasks of each of three sets that share no task: the
    evolution's, by which it ranked (``accuracy``); ``validation``, by which one of its best was chosen; ``held_out``,
    by which nothing was chosen: only that one says what the scheme is worth. ``..._before`` is the same set's accuracy
    without any update. Files of earlier versions call ``validation_accuracy`` ``fresh_accuracy``, hold no
    ``held_out``, and their ``accuracy_before`` is over both of their sets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    command: str
    seed: int
    checkpoint: str
    domains: list[str]
    num_tasks: int
    generations: int
    population: int
    num_schemes: int
    budget_memory_bytes: int
    budget_backward_macs: int
    budget_resolution: int
    accuracy_before: float
    accuracy: float
    validation_accuracy_before: float | None = None
    validation_accuracy: float = Field(validation_alias=AliasChoices("validation_accuracy", "fresh_accuracy"))
    held_out_accuracy_before: float | None = None
    held_out_accuracy: float | None = None
    others: dict[str, list[float]] = {}
    """Other finalists on the same tasks: name or hash -> (accuracy, validation, held out where there is one)."""


class SchemeFile(BaseModel):
    """A scheme as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1]
    backbone: str
    default: bool = False
    source: str
    note: str = ""
    input_shares: dict[int, Annotated[float, Field(gt=0, le=1)]]
    num_last_biases: Annotated[int, Field(ge=0)]
    updated_weights: int | None = None
    backward_macs: int | None = None
    memory_bytes: int | None = None
    search: Evidence | None = None

    @property
    def scheme(self) -> Scheme:
        """The scheme itself."""
        shares = tuple(sorted(self.input_shares.items()))
        return Scheme(backbone=self.backbone, input_shares=shares, num_last_biases=self.num_last_biases)


def scheme_names() -> list[str]:
    """Return the names of the shipped schemes, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_scheme(name_or_file: str) -> SchemeFile:
    """Return the shipped scheme of that name, or the one in that file.

    Raises
    ------
    ConfigError
        Neither a shipped name nor a file.
    PlanError
        A file that is no scheme, or is damaged.
    """
    if name_or_file in scheme_names():
        return _shipped(name_or_file)
    path = Path(name_or_file).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"scheme {name_or_file!r}: neither a file nor a shipped scheme; {nearest(name_or_file, scheme_names())}"
        )
    return read_scheme(path)


def default_scheme(backbone: str) -> Scheme | None:
    """Return the backbone's default scheme, ``None`` where none is shipped."""
    found = [file for name, file in shipped_schemes(backbone).items() if file.default]
    assert len(found) <= 1, f"{backbone}: more than one default scheme"
    return found[0].scheme if found else None


def shipped_schemes(backbone: str) -> dict[str, SchemeFile]:
    """Return the shipped schemes of a backbone by name."""
    return {name: _shipped(name) for name in scheme_names() if name.split("--")[0] == backbone}


@cache
def _shipped(name: str) -> SchemeFile:
    return read_scheme(SHIPPED / f"{name}.yaml")


def read_scheme(path: Path) -> SchemeFile:
    """Return the scheme in ``path``; raises ``PlanError`` naming file, key, what was found and what is allowed."""
    raw = load_yaml(path, error=PlanError)
    try:
        return SchemeFile.model_validate(raw)
    except ValidationError as error:
        raise PlanError(f"{path}: {_first_fault(error, raw)}") from error


def _first_fault(error: ValidationError, raw: Mapping[str, Any]) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"key {key!r} is missing; expected a static scheme of format {FORMAT}"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {nearest(key, SchemeFile.model_fields)}"
    return f"key {key!r}: found {fault['input']!r}; {fault['msg']}"


def write_scheme(path: Path, file: SchemeFile) -> None:
    """Write the scheme as YAML, at once or not at all."""
    document = file.model_dump(exclude_defaults=True)
    atomic_write(path, yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True).encode())


def scheme_plan(graph: LayerGraph, scheme: Scheme) -> UpdatePlan:
    """Return the plan of ``scheme`` with the first channels of each layer: which ones does not change the price.

    Raises ``PlanError`` for a scheme of another backbone, or one that names layers the backbone does not have.
    """
    if scheme.backbone != graph.name:
        raise PlanError(f"scheme for backbone {scheme.backbone!r} used with {graph.name!r}")
    if scheme.num_last_biases > len(graph.layers):
        raise PlanError(f"scheme: {scheme.num_last_biases} last biases; {graph.name} has {len(graph.layers)} layers")
    updates = tuple(
        LayerUpdate(layer=index, channels=tuple(range(_num_channels(graph, index, share))), side="input")
        for index, share in scheme.input_shares
    )
    biases = tuple(layer.index for layer in graph.layers[len(graph.layers) - scheme.num_last_biases :])
    return UpdatePlan(backbone=graph.name, updates=updates, bias_layers=biases).check(graph)


def _num_channels(graph: LayerGraph, index: int, share: float) -> int:
    return max(1, round(share * graph.layer(index).in_channels))
