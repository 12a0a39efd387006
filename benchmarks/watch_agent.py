"""The start of an agent that hears of the cluster, in a process of its own: `python -m benchmarks.watch_agent PORT
plain|gzip EVENTS`.

Everything from the interpreter's first instruction to the allow-sets of the node's pods, but nothing of the kernel.
Then it hears of so many events, and says what all of that cost."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from queue import SimpleQueue

NODE = "node-0"


def main(port: int, compress: bool, events: int) -> dict[str, float]:
    gc.disable()
    bare = resident()
    from compiler.changes import Event
    from compiler.index import Index
    from enforcer.cluster.api_config import connect
    from enforcer.cluster.heard import Heard
    from enforcer.cluster.news import News
    from enforcer.cluster.resources import resources
    from enforcer.cluster.watchers import Watchers

    ours, ours_seconds = resident(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        path.write_text(json.dumps({**kubeconfig, "current-context": "c"}))
        api = connect(str(path), compress=compress)
    imported, imported_seconds = resident(), time.process_time()

    inbox: SimpleQueue[News] = SimpleQueue()
    watchers = Watchers(resources(NODE), api, inbox.put)
    heard, index = Heard(), Index(NODE)
    watchers.start()
    changed: list[Event] = []
    while not heard.synced:
        changed = heard.take(inbox.get())
    subjects = index.apply(changed).subjects
    assert subjects
    del changed, subjects
    gc.collect()
    gc.freeze()
    gc.enable()
    told = {
        "seconds": time.process_time(),
        "wall": time.monotonic(),
        "megabytes": resident() / 1e6,
        "bare": bare / 1e6,
        "ours": (ours - bare) / 1e6,
        "client": (imported - ours) / 1e6,
        "ours seconds": ours_seconds,
        "client seconds": imported_seconds - ours_seconds,
        "received": float(api.received),
    }
    print(json.dumps({"synced": True}), flush=True)
    began = time.process_time()
    for _ in range(events):
        index.apply(heard.take(inbox.get()))
    told["event µs"] = (time.process_time() - began) / max(events, 1) * 1e6
    watchers.stop()
    return told


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2] == "gzip", int(sys.argv[3]))))
