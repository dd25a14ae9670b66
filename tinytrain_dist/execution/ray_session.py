"""The one connection to Ray of this process: an existing cluster, or one that lives as long as the program.

Measured on Ray 2.60: an embedded start takes 3-7 s and 0.6 GB; ``ray.init`` on an address where nothing
answers blocks for two minutes and then ends the process, so the address is tried first.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import ClusterError, ConfigError
from tinytrain_dist.foundation.logs import logger

_log = logger(__name__)
PROBE_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 500_000_000
_CURRENT = Path("ray") / "ray_current_cluster"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS_FRAME = 4


@contextmanager
def connect(*, num_workers: int | None = None, address: str | None = None) -> Iterator[None]:
    """Join the cluster at ``address`` (else ``RAY_ADDRESS``), or start one of ``num_workers`` CPUs here.

    A connection that this process already has is used as it is. Ends only what it started.
    Raises ``ClusterError`` within seconds if nothing answers or there is no CPU to work on.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    _set_environment(embedded=target == "local")
    import ray

    if ray.is_initialized():
        yield
        return
    if target == "local":
        _start_embedded(ray, num_workers)
    else:
        _join(ray, target)
    try:
        require_cpu()
        yield
    finally:
        ray.shutdown()


def cluster_cpus() -> int:
    """Return the CPUs of the cluster as it is now."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def node_resources() -> list[dict[str, float]]:
    """Return what each living node of the cluster offers, by the scheduler's name of the resource."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def require_cpu(needed: int = 1) -> None:
    """Raise ``ClusterError`` unless the cluster has ``needed`` CPUs."""
    available = cluster_cpus()
    if available < needed:
        raise ClusterError(f"the Ray cluster is too small: needed {needed} CPU(s), available {available}")


def _set_environment(*, embedded: bool) -> None:
    """Set what Ray reads when it is first imported; what the user exported stands."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"):
        os.environ.setdefault(name, "0")
    if "RAY_AUTH_MODE" in os.environ:
        return
    if embedded:
        # A token of this process alone: authentication is on, and no token file is left in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = auth_mode(embedded=embedded)


def auth_mode(*, embedded: bool) -> str:
    """Return whether this process sends a token: what the user exported, else ``token`` where there is one."""
    return os.environ.get("RAY_AUTH_MODE") or ("token" if embedded or _has_token() else "disabled")


def _has_token() -> bool:
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _start_embedded(ray: Any, num_workers: int | None) -> None:
    _init(
        ray,
        "a Ray cluster of this machine",
        address="local",
        num_cpus=num_workers or len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _join(ray: Any, address: str) -> None:
    place = place_of(address)
    probe(place)
    context = _init(ray, f"the Ray cluster at {place}", address=place)
    host = str(getattr(context, "dashboard_url", "") or "").partition(":")[0]
    if os.environ["RAY_AUTH_MODE"] == "disabled" and host not in ("", "127.0.0.1", "localhost"):
        _log.warning(
            "the Ray dashboard at %s is reachable without authentication: anyone who reaches it can run code "
            "(CVE-2023-48022); start the cluster with RAY_AUTH_MODE=token",
            host,
        )


def _init(ray: Any, what: str, **options: Any) -> Any:
    """Call ``ray.init``; its SIGTERM handler must not replace one that the program has set."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        return ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (Exception, SystemExit) as error:
        raise ClusterError(f"{what} cannot be used: {type(error).__name__}: {' '.join(str(error).split())}") from error
    finally:
        if main and before not in (signal.SIG_DFL, None):
            signal.signal(signal.SIGTERM, before)


def place_of(address: str) -> str:
    """Return ``host:port`` of an address; ``auto`` is ``RAY_ADDRESS``, else the cluster that ``ray start`` left here.

    Raises ``ClusterError`` where this machine is part of no cluster.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if address != "auto" or named not in ("", "auto", "local"):
        return address if address != "auto" else named
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / _CURRENT
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(f"'auto': this machine is part of no cluster ({path}: {error.strerror})") from error


def probe(address: str) -> None:
    """Raise within seconds unless something that speaks gRPC (HTTP/2) answers at ``host:port``."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"Ray address {address!r}: allowed: host:port of the cluster's head (usually port 6379) or 'auto'; "
            "a dashboard address (http://...) is for 'ray job submit'"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S) as connection:
            connection.settimeout(PROBE_TIMEOUT_S)
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: tried for {PROBE_TIMEOUT_S:.0f} s: {error}"
        ) from error
    if len(answer) < 4 or answer[3] != _HTTP2_SETTINGS_FRAME:
        raise ClusterError(f"no Ray cluster answers at {address}: what listens there is not a Ray head")
