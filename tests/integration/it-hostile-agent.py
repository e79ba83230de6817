#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest whose agent lies (tests/fake/hostile-agent.c): its own requests fail with a code, and nobody else notices."""

import contextlib
import http.client
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from hostile import hostile_capsule  # noqa: E402
from wrenntest import (bus_property, capsule_path, check, equal, main, main_pid, rest, test, wait_for)  # noqa: E402

DAEMONS = ("wrennd.service", "wrenn-restd.service")
MEMORY_GROWTH_MAX = 2 << 20
ANSWER_TIMEOUT_SEC = 90

# What a process does, and what a caller may see of it.
PROCESS_LIES = {
    "frame-too-long": {502, 413},
    "frame-unknown": {502},
    "frame-cut": {502},
    "not-started": {200, 502},
    "started-garbage": {200, 502},
    "started-lies": {200, 502},
    "exit-lies": {502},
    "exit-twice": {200},
    "no-exit": {502},
    "silence": {504},
    "text": {200},
    "flood": {413},
    "flood-of-nothing": {504, 502},
    "reset": {502},
    "odd-status": {502, 404},
    "endless-error": {502, 504},
    "console-flood": {200},
}
SESSION_LIES = ("garbage", "ping-flood", "settings-flood", "window-overflow", "data-for-nobody", "push-promise")
FILE_LIES = {
    ("list", "entry-dotdot"): {502},
    ("list", "entry-type"): {502},
    ("list", "entry-garbage"): {502},
    ("list", "entry-numbers"): {502},
    ("list", "entries-flood"): {502, 413, 200},
    ("list", "line-flood"): {502, 413, 200},
    ("list", "cut"): {502, 200},
    ("list", "silence"): {504, 502},
    ("stat", "entry-dotdot"): {502},
    ("stat", "entry-garbage"): {502},
    ("stat", "line-flood"): {502, 413},
    ("stat", "no-content"): {502},
    ("mkdir", "entry-type"): {502},
    ("mkdir", "odd-status"): {502, 404},
    ("remove", "entry-garbage"): {502, 204},
    ("remove", "endless-error"): {502},
    ("read", "cut"): {200, 502},
    ("read", "no-content"): {200, 502},
}


def private_bytes(unit):
    with open(f"/proc/{main_pid(unit)}/smaps_rollup", encoding="utf-8") as f:
        return sum(int(line.split()[1]) << 10 for line in f if line.startswith("Private_Dirty"))


def lie(capsule, name, **body):
    request = {"cmd": f"hostile:{name}", "args": ["x"], "timeout_sec": 5, **body}
    return rest().request("POST", f"/v1/capsules/{capsule}/exec", request, timeout=ANSWER_TIMEOUT_SEC)


class Unimpressed:
    """The daemons and a neighbour before and after."""

    def __init__(self):
        self.neighbour = rest().create(memory_mb=256)["id"]
        self.exercise()
        self.pids = {unit: main_pid(unit) for unit in DAEMONS}
        self.memory = {unit: private_bytes(unit) for unit in DAEMONS}

    def exercise(self):
        equal(rest().exec(self.neighbour, "echo", ["here"])["stdout"], "here\n", "what the neighbour says")

    def check(self):
        self.exercise()
        for unit in DAEMONS:
            equal(main_pid(unit), self.pids[unit], f"{unit}: pid")
            grown = private_bytes(unit) - self.memory[unit]
            check(grown <= MEMORY_GROWTH_MAX, f"{unit}: {grown} bytes more than before")


def is_well(capsule):
    answer = lie(capsule, "good")
    return answer.status == 200 and answer.json["stdout"] == "good\n"


def status(capsule):
    return rest().expect(200, "GET", f"/v1/capsules/{capsule}").json["status"]


@test
def lies_about_processes():
    """A process that lies about itself costs its own request"""
    around = Unimpressed()
    capsule = hostile_capsule()
    for name, allowed in PROCESS_LIES.items():
        answer = lie(capsule, name)
        check(answer.status in allowed, f"{name}: {answer.status} {answer.body[:300]!r}")
        check(answer.status == 200 or answer.code in ("agent_error", "too_large", "not_found"), f"{name}: {answer.body[:300]!r}")
        check(b"\x1b" not in answer.body, f"{name}: control characters in {answer.body[:300]!r}")
        check(is_well(capsule), f"after {name} the capsule is lost")
    equal(lie(capsule, "text").json["encoding"], "base64", "encoding of what is no text")
    around.check()


@test
def lies_about_processes_in_the_list():
    """A list of processes that is none is an error of the agent"""
    around = Unimpressed()
    capsule = hostile_capsule()
    for name in ("entry-garbage", "line-flood", "cut", "no-content", "odd-status", "entries-flood"):
        lie(capsule, name)
        answer = rest().request("GET", f"/v1/capsules/{capsule}/processes", timeout=ANSWER_TIMEOUT_SEC)
        check(answer.status in (502, 413, 404), f"{name}: {answer.status} {answer.body[:300]!r}")
    around.check()


@test
def lies_below_the_requests():
    """A broken session is begun anew; an agent that goes on breaking them is given up, with a reason"""
    around = Unimpressed()
    capsule = hostile_capsule()
    for _ in range(3):
        for name in SESSION_LIES:
            if status(capsule) != "running":
                break
            answer = lie(capsule, name)
            check(answer.status in (200, 409, 502, 503, 504), f"{name}: {answer.status} {answer.body[:300]!r}")
            wait_for(lambda: status(capsule) != "running" or is_well(capsule), ANSWER_TIMEOUT_SEC, f"an answer after {name}")
    equal(status(capsule), "stopped", "status after too many broken sessions")
    path = capsule_path(capsule)
    equal(bus_property(path, "Capsule", "TerminationReason"), "agent-lost", "reason")
    check("broke too many sessions" in bus_property(path, "Capsule", "StatusMessage"), "no reason is told")
    around.check()


@test
def agents_that_end():
    """A guest that dies is told as such; one that hangs costs its callers their time-out and can be destroyed"""
    around = Unimpressed()
    capsule = hostile_capsule()
    check(lie(capsule, "die").status in (409, 502), "the answer of a guest that died")
    wait_for(lambda: status(capsule) == "stopped", ANSWER_TIMEOUT_SEC, "the end of the capsule")
    equal(bus_property(capsule_path(capsule), "Capsule", "TerminationReason"), "guest-exit", "reason")

    capsule = hostile_capsule()
    began = time.monotonic()
    equal(lie(capsule, "hang").status, 504, "the answer of a guest that hangs")
    equal(lie(capsule, "good").status, 504, "the next one")
    check(time.monotonic() - began < ANSWER_TIMEOUT_SEC, "the time-outs do not hold")
    rest().destroy(capsule)
    around.check()


@test
def lies_about_files():
    """A listing, an entry or a content that lies costs its own request"""
    around = Unimpressed()
    capsule = hostile_capsule()
    for (verb, name), allowed in FILE_LIES.items():
        answer = None
        with contextlib.suppress(OSError, http.client.HTTPException):     # what fails behind its head is cut
            answer = rest().request("POST", f"/v1/capsules/{capsule}/files/{verb}", {"path": f"/hostile/{name}"}, timeout=ANSWER_TIMEOUT_SEC)
        if answer is None:
            check(200 in allowed, f"{verb} {name}: no answer")
            continue
        check(answer.status in allowed, f"{verb} {name}: {answer.status} {answer.body[:300]!r}")
        if answer.status >= 400:
            check(answer.code in ("agent_error", "too_large", "not_found"), f"{verb} {name}: {answer.body[:300]!r}")
    around.check()


main()
