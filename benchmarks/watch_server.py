"""An API server with the objects of a world, in a process of its own: `python -m benchmarks.watch_server WORLD`.

Prints its port; then each line on its standard input has so many pods change, and is answered with its figures; it ends
with its input. It is the one that the tests break, here on its best behaviour."""

from __future__ import annotations

import json
import sys

from benchmarks import api_objects
from benchmarks.api_objects import World
from tests.api import history
from tests.api.history import History
from tests.api.server import Server


def stored(world: World) -> History:
    made = History()
    for number in range(world.spaces):
        made.put_bytes(history.NAMESPACES, ("", f"team-{number}"), api_objects.namespace(world, number))
    for number in range(world.policies):
        made.put_bytes(history.POLICIES, ("", f"policy-{number}"), api_objects.policy(world, number))
    for number in range(world.pods):
        made.put_bytes(history.PODS, ("", str(number)), api_objects.pod(world, number))
    made.put(history.NODES, history.node("node-0"))
    made.compact()
    made.past.clear()
    return made


def main(world: World) -> None:
    made = stored(world)
    with Server(made) as server:
        server.bookmark_every = 60
        print(server.port, flush=True)
        turn = 0
        for line in sys.stdin:
            for _ in range(int(line)):
                turn += 1
                body = api_objects.pod(world, turn * 7919 % world.pods, revision=str(turn))
                made.put_bytes(history.PODS, ("", str(turn * 7919 % world.pods)), body)
            print(json.dumps({"sent": server.sent, "requests": dict(server.requests)}), flush=True)


if __name__ == "__main__":
    main(World(**json.loads(sys.argv[1])))
