#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""REST: create, exec, destroy, and what every wrong request of these routes gets (api.md §1, §2)."""

import base64
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (BUS_PATH, Rest, busctl, check, equal, fresh_key, main, rest, test, wait_for)  # noqa: E402

UNKNOWN_ID = "cl-" + "0" * 24 + "1"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$")


def expect_error(answer, status, code, what):
    equal((answer.status, answer.code), (status, code), f"{what}: {answer.body[:300]!r}")
    check(answer.headers["Content-Type"].startswith("application/json"), f"{what}: not JSON")


@test
def health_needs_no_key_and_stands_below_api_too():
    for path in ("/health", "/api/health"):
        answer = Rest().expect(200, "GET", path)
        equal(answer.json["status"], "ok")


@test
def create_exec_and_destroy():
    api = rest()
    capsule = api.create()
    check(re.fullmatch(r"cl-[0-9a-z]{25}", capsule["id"]), capsule["id"])
    equal((capsule["status"], capsule["template"], capsule["timeout_sec"]), ("running", "minimal", 0))
    equal((capsule["vcpus"], capsule["memory_mb"]), (1, 512))
    for name in ("created_at", "started_at", "last_active_at", "last_updated"):
        check(TIMESTAMP.match(capsule[name]), f"{name}: {capsule[name]}")

    done = api.exec(capsule["id"], "/bin/sh", ["-c", "echo out; echo err >&2; exit 3"])
    equal((done["stdout"], done["stderr"], done["exit_code"], done["encoding"]), ("out\n", "err\n", 3, "utf-8"))
    equal((done["sandbox_id"], done["cmd"]), (capsule["id"], "/bin/sh"))
    check(isinstance(done["duration_ms"], int) and done["duration_ms"] >= 0, "duration_ms")

    check(capsule["id"] in [c["id"] for c in api.expect(200, "GET", "/v1/capsules").json], "not listed")
    equal(api.expect(200, "GET", f"/api/v1/capsules/{capsule['id']}").json["id"], capsule["id"])
    equal(api.expect(204, "POST", f"/v1/capsules/{capsule['id']}/ping").body, b"")

    equal(api.expect(204, "DELETE", f"/v1/capsules/{capsule['id']}").body, b"")
    check(capsule["id"] not in [c["id"] for c in api.expect(200, "GET", "/v1/capsules").json], "still listed")
    equal(api.expect(200, "GET", f"/v1/capsules/{capsule['id']}").json["status"], "stopped")
    api.destroy(capsule["id"])
    expect_error(api.request("POST", f"/v1/capsules/{capsule['id']}/ping"), 409, "invalid_state", "ping of a stopped one")
    expect_error(api.request("POST", f"/v1/capsules/{capsule['id']}/exec", {"cmd": "true"}), 409, "invalid_state",
                 "exec in a stopped one")


@test
def exec_follows_the_rules_for_commands_text_and_environment():
    api = rest()
    capsule = api.create(vcpus=1, memory_mb=256)["id"]
    equal(api.exec(capsule, "echo $((6 * 7))")["stdout"], "42\n", "a line for the shell")
    equal(api.exec(capsule, "printf", ["%s|", "a b", "$HOME"])["stdout"], "a b|$HOME|", "arguments as they are")
    equal(api.exec(capsule, "echo $A; pwd", envs={"A": "ä ü"}, cwd="/tmp")["stdout"], "ä ü\n/tmp\n")
    binary = api.exec(capsule, "printf '\\377\\000x'; echo e >&2")
    equal((binary["encoding"], binary["stdout"], binary["stderr"]), ("base64", b"\xff\x00x", b"e\n"))
    missing = api.exec(capsule, "no-such-program", ["x"])
    equal(missing["exit_code"], 127)
    check(missing["stderr"], "no word about the missing program")
    equal(api.exec(capsule, "kill -9 $$")["exit_code"], -1, "killed by a signal")
    equal(len(api.exec(capsule, "head -c 3000000 /dev/zero | tr '\\0' a")["stdout"]), 3000000)
    equal(api.exec(capsule, "id -un; echo $HOME; tty; cat")["stdout"], "root\n/root\nnot a tty\n")
    equal(api.exec(capsule, "(sleep 60 &) ; echo now")["stdout"], "now\n", "a grandchild keeps the pipe open")


@test
def exec_in_the_background_answers_at_once():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    began = time.monotonic()
    answer = api.expect(202, "POST", f"/v1/capsules/{capsule}/exec",
                        {"cmd": "sleep 2; echo $X >/tmp/done", "background": True, "envs": {"X": "yes"}}).json
    check(time.monotonic() - began < 2, "it waited")
    check(answer["pid"] > 1 and re.fullmatch(r"proc-[0-9a-f]{8}", answer["tag"]), str(answer))
    wait_for(lambda: api.exec(capsule, "cat /tmp/done || true")["stdout"] == "yes\n", 20, "the end of the process")
    tagged = api.expect(202, "POST", f"/v1/capsules/{capsule}/exec", {"cmd": "sleep", "args": ["60"], "background": True,
                                                                      "tag": "mine"}).json
    equal(tagged["tag"], "mine")


@test
def a_timeout_kills_the_process_group():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    answer = api.request("POST", f"/v1/capsules/{capsule}/exec", {"cmd": "sleep 4242 & sleep 4243", "timeout_sec": 1})
    check(answer.status in (502, 504) and answer.code == "agent_error", f"{answer.status} {answer.body!r}")
    wait_for(lambda: not api.exec(capsule, "ps ax -o args= | grep '[s]leep 424' || true")["stdout"], 10, "its end")


WRONG_CREATES = (
    ("nothing", b"", 400), ("no object", b"[]", 400), ("broken", b"{", 400), ("no text", b"\xff", 400),
    ("template of the wrong type", {"template": 1}, 400), ("a bad template name", {"template": "-x"}, 400),
    ("a path as template", {"template": "../minimal"}, 400), ("an unknown template", {"template": "nosuch"}, 404),
    ("negative vcpus", {"vcpus": -1}, 400), ("too many vcpus", {"vcpus": 100000}, 400),
    ("vcpus as text", {"vcpus": "2"}, 400), ("a fraction of a vcpu", {"vcpus": 1.5}, 400),
    ("negative memory", {"memory_mb": -1}, 400), ("too little memory", {"memory_mb": 1}, 400),
    ("too much memory", {"memory_mb": 1 << 40}, 400), ("a negative timeout", {"timeout_sec": -1}, 400),
    ("a huge timeout", {"timeout_sec": 1 << 62}, 400), ("labels that are no text", {"metadata": {"a": 1}}, 400),
    ("one member twice", b'{"vcpus":1,"vcpus":1}', 400),
)
WRONG_EXECS = (
    ("nothing", b"", 400), ("no command", {}, 400), ("an empty command", {"cmd": ""}, 400),
    ("a command of the wrong type", {"cmd": ["true"]}, 400), ("arguments of the wrong type", {"cmd": "a", "args": "b"}, 400),
    ("a number as argument", {"cmd": "a", "args": [1]}, 400), ("an environment of numbers", {"cmd": "a", "envs": {"A": 1}}, 400),
    ("a name with =", {"cmd": "a", "envs": {"A=B": "c"}}, 400), ("a bad timeout", {"cmd": "a", "timeout_sec": "1"}, 400),
    ("a bad flag", {"cmd": "a", "background": "yes"}, 400), ("a NUL in the command", {"cmd": "a\0b"}, 400),
    ("a directory that is not there", {"cmd": "true", "cwd": "/nosuch"}, 400),
    ("a file as directory", {"cmd": "true", "cwd": "/etc/passwd"}, 400),
)


@test
def every_wrong_create_gets_its_code():
    api = rest()
    for what, body, status in WRONG_CREATES:
        expect_error(api.request("POST", "/v1/capsules", body), status, "not_found" if status == 404 else "invalid_request",
                     what)
    equal(api.expect(200, "GET", "/v1/capsules").json, [], "capsules after nothing but errors")


@test
def every_wrong_exec_gets_its_code():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    for what, body, status in WRONG_EXECS:
        expect_error(api.request("POST", f"/v1/capsules/{capsule}/exec", body), status, "invalid_request", what)
    too_large = {"cmd": "x" * (600 * 1024)}
    expect_error(api.request("POST", f"/v1/capsules/{capsule}/exec", too_large), 413, "too_large", "a huge command")
    equal(api.exec(capsule, "echo well")["stdout"], "well\n", "after all these")


@test
def wrong_ids_routes_and_methods():
    api = rest()
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/ping"), ("POST", "/exec")):
        body = {"cmd": "true"} if tail == "/exec" else None
        for wrong in ("cl-", "cl-short", "xx-" + "0" * 25, "cl-" + "A" * 25, "cl-" + "z" * 25, "cl-" + "0" * 26):
            expect_error(api.request(method, f"/v1/capsules/{wrong}{tail}", body), 400, "invalid_request",
                         f"{method} {wrong}{tail}")
        expect_error(api.request(method, f"/v1/capsules/{UNKNOWN_ID}{tail}", body), 404, "not_found",
                     f"{method} of an unknown capsule{tail}")
    for path in ("/", "/v1", "/v1/", "/v1/nothing", "/v2/capsules", "/v1/capsules/", f"/v1/capsules/{UNKNOWN_ID}/nothing"):
        expect_error(api.request("GET", path), 404, "not_found", path)
    for method, path in (("PUT", "/v1/capsules"), ("PATCH", f"/v1/capsules/{UNKNOWN_ID}"),
                         ("GET", f"/v1/capsules/{UNKNOWN_ID}/exec"), ("DELETE", "/health")):
        expect_error(api.request(method, path), 405, "invalid_request", f"{method} {path}")


@test
def without_a_key_with_a_wrong_key_with_a_revoked_key():
    key_id, secret = fresh_key()
    Rest(secret).expect(200, "GET", "/v1/capsules")
    wrong = (None, "x", "wrn_" + "0" * 32, secret[:-1], secret + "0", secret.upper())
    for method, path, body in (("GET", "/v1/capsules", None), ("POST", "/v1/capsules", {}),
                               ("GET", f"/v1/capsules/{UNKNOWN_ID}", None), ("DELETE", f"/v1/capsules/{UNKNOWN_ID}", None),
                               ("POST", f"/v1/capsules/{UNKNOWN_ID}/exec", {"cmd": "true"}),
                               ("POST", f"/v1/capsules/{UNKNOWN_ID}/ping", None)):
        for key in wrong:
            expect_error(Rest(key).request(method, path, body), 401, "unauthorized", f"{method} {path} with key {key}")
    busctl(BUS_PATH, "Manager", "RevokeKey", "s", key_id)
    wait_for(lambda: Rest(secret).request("GET", "/v1/capsules").status == 401, 2, "the revocation")


@test
def another_team_sees_nothing():
    api = rest()
    stranger = Rest(fresh_key("1", "Team", "s", "strangers")[1])
    capsule = api.create(memory_mb=256)["id"]
    equal(stranger.expect(200, "GET", "/v1/capsules").json, [])
    for method, tail, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/ping", None),
                               ("POST", "/exec", {"cmd": "true"})):
        expect_error(stranger.request(method, f"/v1/capsules/{capsule}{tail}", body), 404, "not_found", f"{method}{tail}")
    equal(api.exec(capsule, "echo mine")["stdout"], "mine\n")


@test
def a_client_that_leaves_during_create_leaves_nothing():
    api = rest()
    try:
        api.request("POST", "/v1/capsules", {"memory_mb": 256}, timeout=0.3)
        return                          # it was faster than the client
    except TimeoutError:
        pass
    wait_for(lambda: api.expect(200, "GET", "/v1/capsules").json == [], 60, "the end of what nobody waits for")


@test
def a_client_that_leaves_during_exec_kills_the_command():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    try:
        api.request("POST", f"/v1/capsules/{capsule}/exec", {"cmd": "sleep 4711"}, timeout=2)
        raise AssertionError("sleep 4711 ended")
    except TimeoutError:
        pass
    wait_for(lambda: not api.exec(capsule, "ps ax -o args= | grep '[s]leep 4711' || true")["stdout"], 10, "its end")


@test
def text_survives_base64():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    raw = bytes(range(256)) * 8
    done = api.exec(capsule, "printf %s \"$D\" | base64 -d", envs={"D": base64.b64encode(raw).decode()})
    equal(done["stdout"], raw)


main()
