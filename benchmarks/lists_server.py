"""An API server that lists the objects of a world, in a process of its own: `python -m benchmarks.lists_server WORLD`.

Prints its port, and ends with its input. Pages are put together beforehand, so that what is measured is who reads."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from benchmarks import api_objects
from benchmarks.api_objects import World


def lists(world: World) -> dict[str, list[bytes]]:
    """The items at each path; those of other paths are none."""
    found: dict[str, list[bytes]] = defaultdict(list)
    found["/api/v1/namespaces"] = [api_objects.namespace(world, number) for number in range(world.spaces)]
    for kind, count, made, group in (
        ("pods", world.pods, api_objects.pod, "/api/v1"),
        ("networkpolicies", world.policies, api_objects.policy, "/apis/networking.k8s.io/v1"),
    ):
        for number in range(count):
            item = made(world, number)
            space = json.loads(item)["metadata"]["namespace"]
            found[f"{group}/namespaces/{space}/{kind}"].append(item)
            found[f"{group}/{kind}"].append(item)
    return found


def main(world: World) -> None:
    known, pages = lists(world), dict[str, bytes]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path not in pages:
                pages[self.path] = _page(known, self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(pages[self.path])))
            self.end_headers()
            self.wfile.write(pages[self.path])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()


def _page(known: dict[str, list[bytes]], target: str) -> bytes:
    parts = urlsplit(target)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    items = known.get(parts.path, []) if "fieldSelector" not in query else []
    start, limit = int(query.get("continue", 0)), int(query.get("limit", len(items) or 1))
    more = str(start + limit) if start + limit < len(items) else ""
    body = b",".join(items[start : start + limit])
    return b'{"metadata":{"continue":"%s"},"items":[%s]}' % (more.encode(), body)


if __name__ == "__main__":
    main(World(**json.loads(sys.argv[1])))
