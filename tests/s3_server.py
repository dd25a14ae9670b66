"""A real S3 service on loopback (moto's server), and a proxy in front of it that is slow or loses answers."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

REFUSED = "http://127.0.0.1:9"  # the discard port: nobody listens


class OneRequestAtATime:
    """S3 compares and stores in one step; moto's threads do not, so they take turns."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.turn = app, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self.turn:
            return list(self.app(environ, start_response))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Start the service once and give its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    assert server._server is not None
    server._server.app = OneRequestAtATime(server._server.app)
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the environment at the service and give the URI of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request):
        pass
    set_account(monkeypatch, s3_endpoint)
    return f"s3://{name}"


def set_account(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Give this process and its children credentials for ``endpoint``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("TINYTRAIN_STORAGE_RETRY_S", "1")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


class Proxy(ThreadingHTTPServer):
    """Forwards to ``target``, answers ``delay_s`` late; the next ``lost_answers`` PUTs are done but not answered.

    After ``puts_left`` more PUTs it is as if the service were gone (or, with ``then_slow_s``, so slow).
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.target = target.removeprefix("http://")
        self.delay_s = 0.0
        self.lost_answers = 0
        self.puts_left: int | None = None
        self.then_slow_s: float | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._is_out():
            if self.server.then_slow_s is None:
                self.close_connection = True
                return
            time.sleep(self.server.then_slow_s)
        upstream = http.client.HTTPConnection(self.server.target)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        time.sleep(self.server.delay_s)
        if self.command == "PUT" and self.server.lost_answers > 0:
            self.server.lost_answers -= 1
            self.close_connection = True
            return
        with suppress(ConnectionError):  # who asked has given up
            self._answer(answer, content)

    def _is_out(self) -> bool:
        left = self.server.puts_left
        if left and self.command == "PUT":
            self.server.puts_left = left - 1
        return left == 0

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    """Run a proxy in front of ``target``."""
    server = Proxy(target)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
