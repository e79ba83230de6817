# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the agent register here, in the order in which they run."""

import time

tests = []


def test(*where):
    """where: "detached" (an ordinary process), "guest" (PID 1 of a real one), or both."""
    def register(f):
        tests.append((f.__name__, where, f))
        return f

    return register


def equal(have, want):
    assert have == want, f"have {have!r}, want {want!r}"


def wait_for(condition, timeout=60):
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)
