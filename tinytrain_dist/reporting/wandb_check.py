"""``doctor``: which W&B mode a job would use, and why. No key is ever printed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, warning
from tinytrain_dist.reporting.wandb_session import resolve_mode

CONNECT_TIMEOUT_S = 4.0
SERVER = "https://api.wandb.ai"


def diagnose_wandb() -> Iterator[Diagnosis]:
    """Yield the mode of ``wandb.mode=auto`` with its reason, and whether the server can be reached if it is online."""
    mode = resolve_mode("auto")
    asked = os.environ.get("WANDB_MODE", "")
    if mode != "online":
        reason = f"WANDB_MODE={asked}" if asked == mode else "no key in WANDB_API_KEY or the netrc file"
        later = "'wandb login', or 'wandb sync RUN/wandb/*' later, sends runs" if mode == "offline" else ""
        yield ok("wandb", f"{mode}: {reason}", later)
        return
    reason = "a key is in WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else "a key is in the netrc file"
    server = os.environ.get("WANDB_BASE_URL") or SERVER
    refusal = _refusal(server)
    if refusal:
        advice = "runs succeed and keep an offline copy; set WANDB_MODE=offline to not even try"
        yield warning(
            "wandb", f"online: {reason}, but {urlsplit(server).hostname} cannot be reached: {refusal}", advice
        )
    else:
        yield ok("wandb", f"online: {reason}")


def _refusal(server: str) -> str:
    """Return why the server cannot be reached; empty where it can."""
    place = urlsplit(server)
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""
