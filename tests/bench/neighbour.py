#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""neighbour.py [ROUNDS]: exec in one capsule while the agent of another one lies and floods, against the same in quiet.

Runs inside the test host (tests/bench/run starts it).
"""

import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import stats  # noqa: E402
import wrenntest  # noqa: E402
from capsules import Rest  # noqa: E402
from hostile import hostile_capsule  # noqa: E402

FLOODS = ("flood", "flood-of-nothing", "line-flood", "endless-error")
CALLS = 100


def times(rest, capsule):
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        rest.exec_true(capsule)
        found.append((time.perf_counter() - began) * 1e3)
    return found


def flood(capsule, stop):
    """One lie after the other, until told to stop."""
    while not stop.is_set():
        for lie in FLOODS:
            wrenntest.rest().request("POST", f"/v1/capsules/{capsule}/exec", {"cmd": f"hostile:{lie}", "args": ["x"], "timeout_sec": 2})
            if stop.is_set():
                return


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rest = Rest(wrenntest.rest().key)
    hostile, neighbour = hostile_capsule(), rest.create()
    try:
        times(rest, neighbour)
        quiet, flooded = [], []
        for _ in range(rounds):
            quiet.append(stats.percentile(times(rest, neighbour), 99))
            stop = threading.Event()
            thread = threading.Thread(target=flood, args=(hostile, stop))
            thread.start()
            time.sleep(0.5)
            flooded.append(stats.percentile(times(rest, neighbour), 99))
            stop.set()
            thread.join()
    finally:
        rest.destroy(neighbour)
        wrenntest.run_cleanups()
    stats.header()
    stats.row("p99 of a neighbour's exec under a flood / in quiet", flooded, quiet, "ms", 2.0)
    return 1 if stats.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
