#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fifty create-destroy cycles leave nothing (threats.md §2.6)."""

import concurrent.futures
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import equal, main, rest, test  # noqa: E402

CYCLES = 50
AT_ONCE = 2


def cycle(_):
    api = rest()
    capsule = api.create(memory_mb=128)["id"]
    equal(api.exec(capsule, "true")["exit_code"], 0)
    api.destroy(capsule)
    return capsule


@test
def fifty_cycles():
    """Fifty create-destroy cycles, two at a time"""
    rest()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        ids = list(pool.map(cycle, range(CYCLES)))
    equal(len(set(ids)), CYCLES, "different ids")
    equal(rest().expect(200, "GET", "/v1/capsules").json, [])


main()
