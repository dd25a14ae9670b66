"""A W&B server of a few answers: enough for the real client, and what it was sent can be looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

HISTORY = "wandb-history.jsonl"


class WandbServer(ThreadingHTTPServer):
    """Keeps one run: its history lines in the order they came, ids of the runs that were opened, artifacts by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.status = 200
        self.lines: list[str] = []
        self.ids: list[str] = []
        self.artifacts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def steps(self) -> list[int]:
        """Return the steps of the history, as they came."""
        return [json.loads(line)["_step"] for line in self.lines]

    def refuse(self) -> None:
        """Take the key for a wrong one from now on."""
        self.status = 401

    def bucket(self) -> dict[str, Any]:
        """Return the run as the server would describe it to a client that goes on with it."""
        project = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}
        return {
            "id": "1", "name": self.ids[-1] if self.ids else "r", "displayName": "r", "description": "", "config": "{}",
            "sweepName": None, "project": project, "historyLineCount": len(self.lines), "logLineCount": 0,
            "eventsLineCount": 0, "historyTail": json.dumps(self.lines[-1:]), "eventsTail": "[]", "tags": [],
            "notes": "", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}',
        }  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/graphql"):
            self.reply(self.graphql(json.loads(text)))
        else:
            self.reply(self.stream(json.loads(text)) if self.path.endswith("/file_stream") else {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply({})

    def do_GET(self) -> None:
        self.reply({})

    def graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, values = asked["query"], asked.get("variables") or {}
        bucket = self.server.bucket()
        if "upsertBucket" in query:
            self.server.ids.append(values["name"])
            return {"data": {"upsertBucket": {"bucket": self.server.bucket(), "inserted": not self.server.lines}}}
        if "RunResumeStatus" in query:
            model = bucket["project"] | {"bucket": bucket if self.server.lines else None}
            return {"data": {"model": model}}
        if "viewer" in query:
            return {"data": {"viewer": {"id": "1", "entity": "e", "username": "u", "email": "", "flags": "{}",
                                        "teams": {"edges": []}}}}  # fmt: skip
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in values["files"]]
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        if "createArtifact(" in query:
            self.server.artifacts.append(values["input"])
            latest = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {
                "data": {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": latest}}}
            }
        return {"data": {"project": None} if "query ArtifactType" in query else {}}

    def stream(self, sent: dict[str, Any]) -> dict[str, Any]:
        for name, part in (sent.get("files") or {}).items():
            if name == HISTORY:
                del self.server.lines[part["offset"] :]
                self.server.lines += part["content"]
        return {}

    def reply(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Give a server on this machine."""
    found = WandbServer()
    Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
