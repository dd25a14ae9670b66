"""Asks a Ray head who it is, without joining the cluster: answers or refuses within seconds, whatever listens.

``ray.init`` and Ray's own client wait up to minutes for a head that is not there; a plain call has a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinytrain_dist.foundation.errors import ClusterError

CALL_TIMEOUT_S = 4.0


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a head says.

    Attributes
    ----------
    is_open
        Whether it answers callers without a token.
    accepts
        Whether it accepts the caller's token; ``None`` where there is none to try.
    ray_version, nodes, cpus, dashboard
        Version, nodes alive, their CPUs, ``host:port`` of the dashboard; empty where it refused to say.
    """

    is_open: bool
    accepts: bool | None
    ray_version: str = ""
    nodes: int = 0
    cpus: float = 0.0
    dashboard: str = ""


def ask_head(address: str, *, token: str | None) -> Head:
    """Return what the head at ``host:port`` says, first to anybody, then to the holder of ``token``.

    Raises ``ClusterError`` where nothing that is a Ray head answers within a few seconds.
    """
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])  # as Ray itself
    try:
        is_open = _ask(channel, address, None) is not None
        found = _ask(channel, address, token) if token else None
        accepts = found is not None if token else None
        if not is_open and not accepts:
            return Head(is_open=False, accepts=accepts)
        return Head(is_open=is_open, accepts=accepts, **_facts(channel, address, token if accepts else None))
    finally:
        channel.close()


def _ask(channel: Any, address: str, token: str | None) -> str | None:
    """Return the head's Ray version, ``None`` where it refuses the token (or its absence)."""
    from ray.core.generated import gcs_service_pb2 as messages
    from ray.core.generated import gcs_service_pb2_grpc as services

    alive = services.NodeInfoGcsServiceStub(channel).CheckAlive
    reply = _call(alive, messages.CheckAliveRequest(), address, token)
    return None if reply is None else str(reply.ray_version)


def _facts(channel: Any, address: str, token: str | None) -> dict[str, Any]:
    from ray.core.generated import gcs_pb2
    from ray.core.generated import gcs_service_pb2 as messages
    from ray.core.generated import gcs_service_pb2_grpc as services

    nodes = services.NodeInfoGcsServiceStub(channel).GetAllNodeInfo
    listed = _call(nodes, messages.GetAllNodeInfoRequest(), address, token)
    alive = [node for node in listed.node_info_list if node.state == gcs_pb2.GcsNodeInfo.ALIVE]
    stored = services.InternalKVGcsServiceStub(channel).InternalKVGet
    dashboard = _call(stored, messages.InternalKVGetRequest(key=b"dashboard", namespace=b"dashboard"), address, token)
    return {
        "ray_version": _ask(channel, address, token) or "",
        "nodes": len(alive),
        "cpus": sum(node.resources_total.get("CPU", 0.0) for node in alive),
        "dashboard": dashboard.value.decode(errors="replace"),
    }


def _call(method: Any, request: Any, address: str, token: str | None) -> Any:
    import grpc

    headers = [("authorization", f"Bearer {token}")] if token else []
    try:
        return method(request, timeout=CALL_TIMEOUT_S, metadata=headers)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return None
        raise ClusterError(f"no Ray head answers at {address}: {error.code().name}: {error.details()}") from error
