"""An API server in few lines, on loopback: it serves lists in pages, refuses what it is told to, and remembers what it
was asked for, and in which forms."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cli.exec_server import Runs, is_exec, pod_of, serve_exec

_PATHS = {"Pod": "pods", "NetworkPolicy": "networkpolicies", "Service": "services", "EndpointSlice": "endpointslices"}
_PATHS |= {"Namespace": "namespaces", "Node": "nodes"}
TOKEN = "s3cr3t"


class Server:
    """`refuse` are parts of paths that are answered with 403; `agents` are the pods in which commands can be run."""

    def __init__(
        self, objects: list[dict[str, Any]], refuse: tuple[str, ...] = (), agents: dict[str, Runs] | None = None
    ) -> None:
        self.objects = objects
        self.refuse = refuse
        self.agents = agents or {}
        self.asked: list[str] = []
        self.forms: set[str] = set()
        self.url = ""

    def answer(self, target: str, authorization: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append(parts.path)
        if authorization != f"Bearer {TOKEN}":
            return 401, {}
        if any(each in parts.path for each in self.refuse):
            return 403, {}
        words = parts.path.split("/")
        namespace = words[words.index("namespaces") + 1] if "namespaces" in words[:-1] else ""
        found = [
            {key: value for key, value in each.items() if key not in ("kind", "apiVersion")}
            for each in self.objects
            if _PATHS[each["kind"]] == words[-1] and namespace in ("", each["metadata"].get("namespace"))
        ]
        if selector := query.get("fieldSelector"):
            address = selector.removeprefix("status.podIP=")
            found = [each for each in found if each.get("status", {}).get("podIP") == address]
        start, limit = int(query.get("continue", 0)), 2 if "limit" in query else len(found)
        more = str(start + limit) if start + limit < len(found) else ""
        return 200, {"metadata": {"continue": more}, "items": found[start : start + limit]}

    def kubeconfig(self, folder: Path) -> Path:
        file = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        }
        file.write_text(json.dumps(config))
        return file


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            run = server.agents.get(pod_of(self.path)) if is_exec(self.path) else None
            if run and not any(each in self.path for each in server.refuse):
                server.asked.append(self.path)
                serve_exec(self, run)
                return
            server.forms.add(self.headers.get("Accept", ""))
            status, body = server.answer(self.path, self.headers.get("Authorization", ""))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
