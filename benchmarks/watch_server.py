"""An API server with the objects of a world, in a process of its own: `python -m benchmarks.watch_server WORLD`.

Prints its port. Each line on its standard input has so many pods change, `N [PAUSE]`, or become another
application's, `moves N [PAUSE]`, and is answered with its figures; it ends with its input. It is the one that the
tests break, here on its best behaviour."""

from __future__ import annotations

import json
import sys
import time

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
            moves = line.startswith("moves")
            count, pause = [*line.removeprefix("moves").split(), "0"][:2]
            for _ in range(int(count)):
                turn += 1
                number = turn * 7919 % world.pods
                labels = api_objects.app_labels(turn * 31 % world.apps) if moves else {"revision": str(turn)}
                if not (moves and number % world.nodes == 0):  # those of the agent's own node stay as they are
                    made.put_bytes(history.PODS, ("", str(number)), api_objects.pod(world, number, **labels))
                time.sleep(float(pause))
            print(json.dumps({"sent": server.sent, "requests": dict(server.requests)}), flush=True)


if __name__ == "__main__":
    main(World(**json.loads(sys.argv[1])))
