"""``doctor``: is there a cluster, do its head and this client agree about authentication, who else can reach it?"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tinytrain_dist.execution.head_inquiry import Head, ask_head
from tinytrain_dist.execution.ray_session import auth_mode, place_of, probe
from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, problem, warning
from tinytrain_dist.foundation.errors import ExitCode, TinyTrainError

DASHBOARD_TIMEOUT_S = 2.0
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]", "")
_TOKEN_FILE = Path(".ray") / "auth_token"


def diagnose_cluster(address: str | None = None) -> Iterator[Diagnosis]:
    """Yield lines about the cluster at ``address`` (else ``RAY_ADDRESS``), or about starting one here."""
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    origin = "--address" if address else "RAY_ADDRESS"
    if target == "local":
        yield ok("ray", "no address is set: a job starts a cluster of this machine and ends it again")
        return
    try:
        place = place_of(target)
        probe(place)
        head = ask_head(place, token=_token())
    except TinyTrainError as error:
        advice = f"start the head there, correct {origin}, or leave it out to use this machine alone"
        yield problem("ray", f"{error} ({origin}={target})", advice, exit_code=error.exit_code)
        return
    yield _authentication(head, place)
    if head.ray_version:
        yield _size(head, place)
        yield from _version(head)
        yield from _dashboard(head)


def _token() -> str | None:
    """Return the token Ray's client would send, from where Ray looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / _TOKEN_FILE)
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _authentication(head: Head, place: str) -> Diagnosis:
    mode = auth_mode(embedded=False)
    if head.is_open:
        found = f"the head at {place} takes anybody's calls (token authentication is off)"
        if place.rpartition(":")[0] in _LOCAL_HOSTS:
            return ok("ray auth", found, "before other machines can reach it, restart it with RAY_AUTH_MODE=token")
        return warning("ray auth", found, "whoever reaches it runs code there: restart it with RAY_AUTH_MODE=token")
    if mode == "token" and head.accepts:
        return ok("ray auth", "token authentication, and the head accepts this client's token")
    what = {None: "this client has no token", False: "the head refuses this client's token"}.get(
        head.accepts, f"this client has the token, but RAY_AUTH_MODE={mode}"
    )
    advice = "export RAY_AUTH_MODE=token and the head's own token (RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH=FILE)"
    return problem("ray auth", f"the head asks for a token; {what}", advice, exit_code=ExitCode.NO_CLUSTER)


def _size(head: Head, place: str) -> Diagnosis:
    found = f"{place}: {head.nodes} nodes alive, {head.cpus:g} CPUs"
    if head.cpus < 1:
        return problem("ray", found, "add a node with at least one CPU", exit_code=ExitCode.NO_CLUSTER)
    return ok("ray", found)


def _version(head: Head) -> Iterator[Diagnosis]:
    ours = metadata.version("ray")
    if head.ray_version != ours:
        found = f"Ray {head.ray_version} on the cluster, {ours} here"
        advice = f"install ray=={head.ray_version} here, or the nodes from constraints.txt"
        yield problem("ray version", found, advice, exit_code=ExitCode.NO_CLUSTER)


def _dashboard(head: Head) -> Iterator[Diagnosis]:
    """Yield a warning where somebody outside may submit jobs without a token (CVE-2023-48022)."""
    host = head.dashboard.rpartition(":")[0]
    if host in _LOCAL_HOSTS:
        return
    if _answers_anybody(head.dashboard):
        yield warning(
            "ray dashboard",
            f"ANYBODY WHO REACHES {head.dashboard} CAN RUN CODE ON THE CLUSTER: the dashboard asks for no token "
            "(CVE-2023-48022)",
            "restart the head with RAY_AUTH_MODE=token, or with --dashboard-host 127.0.0.1, and close the port",
        )
    else:
        yield ok("ray dashboard", f"{head.dashboard} answers nobody without a token")


def _answers_anybody(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=DASHBOARD_TIMEOUT_S)
    try:
        connection.request("GET", "/api/version")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
