"""The command that tunes what a what-if had to leave out: the run's own, with the devices it lacks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tinytrain_dist.foundation.paths import check_name
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.what_if import profile_dirs
from tinytrain_dist.reporting.what_if_cells import Target

PROFILE_FOLDER = "what_if_devices"


def tuning_commands(run: RunResults, targets: Sequence[Target]) -> list[str]:
    """Return shell lines that extend the run by ``targets``: first a profile file for each that has none.

    Devices are grid keys: the command computes only what is missing, in the same run directory.
    """
    lines, names = [], [row["device"] for row in run.select("SELECT DISTINCT device FROM stored ORDER BY device")]
    written = False
    for target in targets:
        if target.label == target.profile.name:
            names.append(target.profile.name)
            continue
        name = f"{target.profile.name}--ram{target.profile.ram_bytes}"
        names.append(name)
        lines += ([] if written else [f"mkdir -p {PROFILE_FOLDER}"]) + [_write_profile(name, target)]
        written = True
    command = str(run.record.get("command") or "tinytrain simulate")
    words = [word for word in shlex.split(command) if not word.startswith(("devices.names=", "devices.dirs="))]
    words.append(f"devices.names=[{','.join(dict.fromkeys(names))}]")
    dirs = [*profile_dirs(run), *([PROFILE_FOLDER] if written else [])]
    words += [f"devices.dirs=[{','.join(dirs)}]"] if dirs else []
    return [*lines, " ".join(shlex.quote(word) for word in words)]


def _write_profile(name: str, target: Target) -> str:
    check_name(name, what="device profile")
    text = (
        f"name: {name}\\nextends: {target.profile.name}\\nram_bytes: {target.profile.ram_bytes}\\n"
        'provenance:\\n  ram_bytes: {kind: assumed, source: "a what-if"}\\n'
    )
    return f"printf '{text}' > {PROFILE_FOLDER}/{name}.yaml"
