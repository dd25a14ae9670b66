"""``doctor``: what is installed, and whether it is what the package asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from tinytrain_dist.foundation.compiling import compiler
from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, problem, warning
from tinytrain_dist.foundation.errors import ExitCode

DISTRIBUTION = "tinytrain-dist"
SHOWN = ("torch", "ray", "pyarrow", "wandb", "numba", "duckdb", "numpy")
_INSTALL = "pip install -c constraints.txt -e ."


def diagnose_versions() -> Iterator[Diagnosis]:
    """Yield lines about Python, the requirements of the package, torch's build and the compiled loops."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    wrong = [text for text in map(_unmet, metadata.requires(DISTRIBUTION) or ()) if text]
    for text in wrong:
        yield problem("packages", text, _INSTALL, exit_code=ExitCode.USAGE)
    if not wrong:
        yield ok("packages", ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN))
    yield _torch()
    if compiler() is None:
        yield warning("numba", "not importable: the compiled loops are replaced by slower ones", _INSTALL)


def _unmet(text: str) -> str:
    """Return what is wrong about one requirement; empty where it is met or belongs to an extra."""
    asked = Requirement(text)
    if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
        return ""
    try:
        found = metadata.version(asked.name)
    except metadata.PackageNotFoundError:
        return f"{asked.name} is missing; needed: {asked}"
    return "" if asked.specifier.contains(found, prereleases=True) else f"{asked.name} {found}; needed: {asked}"


def _torch() -> Diagnosis:
    try:
        import torch
    except Exception as error:  # a build for another CPU or CUDA fails in many ways
        return problem("torch", f"cannot be imported: {error}", _INSTALL, exit_code=ExitCode.USAGE)
    cuda = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    seen = f", {torch.cuda.device_count()} GPUs seen" if torch.version.cuda else ""
    return ok("torch", f"{torch.__version__}: {cuda}{seen}; results are computed on the CPU unless a setting says cuda")
