"""The help text of a job: its keys with their defaults, and an example that works as typed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.verbs.job_config import JobConfig


def job_help(verb: str, what: str, *, sections: tuple[str, ...] = (), example: str = "experiment=quickstart") -> str:
    """Return the help of ``verb``; ``sections`` limits the keys shown (empty: all)."""
    names = sorted(path.stem for path in (resource_folder("conf") / "experiment").glob("*.yaml"))
    keys = asdict(JobConfig())
    lines = [
        f"  {key}={_shown(value)}"
        for section, content in keys.items()
        if section != "experiment" and (not sections or section in sections)
        for key, value in _flat(section, content)
    ]
    return (
        f"usage: tinytrain {verb} [experiment=NAME] [key=value ...]\n\n{what}\n\n"
        f"experiments: {', '.join(names)}\n\nkeys and their defaults:\n" + "\n".join(lines) + "\n\n"
        f"example:\n  tinytrain {verb} {example}"
    )


def _flat(section: str, content: Any) -> list[tuple[str, Any]]:
    if isinstance(content, dict):
        return [(f"{section}.{key}", value) for key, value in content.items()]
    return [(section, content)]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ",".join(str(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
