#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wrenn-restd byte by byte, on a bus of its own with tests/fake/fake-wrennd in wrennd's place: every wrong request of every
route, odd framing against h11 as the reference, slow clients, quotas, keys, lost clients, lost daemons. Needs no virtual machine.

    it-rest-wire.py [NAME…]     TAP output; names choose tests
"""
import concurrent.futures
import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import h11

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from restd import KEY, OTHER_KEY, Client, Restd, create, equal, expect, run_tests, test  # noqa: E402

HEAD = "Host: localhost\r\n"
KEYED = HEAD + "X-API-Key: " + KEY + "\r\n"
NO_SUCH = "cl-0000000000000000000000000"


def status_of(answer):
    """Status of a single raw answer, whose error body must be an envelope."""
    if not answer:
        return 0
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status >= 400 and body:
        error = json.loads(body)["error"]
        assert error["code"] and error["message"], error
        assert b"application/json" in head
    return status


# Capsules


@test()
def health_needs_no_key(r):
    for path in "/health", "/api/health":
        equal(r.request("GET", path, key=None)[2]["status"], "ok")
    with Client(r, key=None) as c:
        status, headers, body = c.request("HEAD", "/health")
        equal((status, body), (200, b""))
        assert int(headers["content-length"]) > 0
        equal(c.request("GET", "/health")[0], 200)


@test()
def life_of_a_capsule(r):
    with Client(r) as c:
        made = expect(c.request("POST", "/v1/capsules", {"template": "minimal", "vcpus": 2, "memory_mb": 256, "timeout_sec": 60,
                                                         "metadata": {"a": "ö"}, "unknown": 1}), 201)
        equal((made["status"], made["vcpus"], made["memory_mb"], made["timeout_sec"]), ("running", 2, 256, 60))
        equal(made["metadata"]["a"], "ö")
        for name in "created_at", "started_at", "last_active_at", "last_updated":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made[name]), made
        options = r.get("last_options")
        equal((options["Team"], options["KeyId"], options["NoWait"]), ("default", "key-1", 1))
        path = "/v1/capsules/" + made["id"]
        equal(expect(c.request("GET", path), 200), made)
        equal(expect(c.request("GET", "/api" + path), 200), made)
        equal(c.request("HEAD", path)[0], 200)
        assert made in expect(c.request("GET", "/v1/capsules"), 200)
        equal(c.request("POST", path + "/ping")[0], 204)
        equal(c.request("POST", path + "/ping", b"")[0], 204)
        status, headers, body = c.request("DELETE", path)
        equal((status, body), (204, b""))
        equal(expect(c.request("GET", path), 200)["status"], "stopped")
        equal(c.request("DELETE", path)[0], 204)
        equal([x["id"] for x in c.request("GET", "/v1/capsules")[2] if x["id"] == made["id"]], [])
        expect(c.request("POST", path + "/ping"), 409, "invalid_state")
        expect(c.request("POST", path + "/exec", {"cmd": "true"}), 409, "invalid_state")


@test()
def ended_capsules_are_shown_after_restarts(r):
    i = create(r)
    expect(r.request("DELETE", "/v1/capsules/" + i), 204)
    r.control.Absent(True)
    r.control.Absent(False)
    equal(expect(r.request("GET", "/v1/capsules/" + i), 200)["status"], "stopped")
    equal(r.stop(), 0)
    r.start()
    equal(expect(r.request("GET", "/v1/capsules/" + i), 200)["status"], "stopped")
    equal(r.request("DELETE", "/v1/capsules/" + i)[0], 204)
    expect(r.request("GET", "/v1/capsules/" + i, key=OTHER_KEY), 404, "not_found")
    equal(r.request("GET", "/v1/capsules")[2], [c for c in r.request("GET", "/v1/capsules")[2] if c["id"] != i])


@test()
def list_is_newest_first(r):
    ids = []
    for _ in range(3):
        ids.append(create(r))
        time.sleep(0.002)
    listed = [c["id"] for c in r.request("GET", "/v1/capsules")[2]]
    equal([i for i in listed if i in ids], ids[::-1])


@test()
def default_template_of_the_key(r):
    create(r, key=OTHER_KEY)
    equal(r.get("last_template"), "standard")
    create(r)
    equal(r.get("last_template"), "")


@test()
def slow_create_is_answered_starting(r):
    r.set(create_delay=5.0)
    begin = time.monotonic()
    status, _, made = r.request("POST", "/v1/capsules", {})
    took = time.monotonic() - begin
    r.set(create_delay=0.0)
    equal((status, made["status"]), (201, "pending"))
    assert 3.5 < took < 4.8, took
    r.wait(lambda: r.request("GET", "/v1/capsules/" + made["id"])[2]["status"] == "running")


@test()
def create_failures(r):
    for mode, status, code in (("no-capacity", 503, "host_unavailable"), ("no-space", 507, "host_unavailable"),
                               ("no-kvm", 503, "host_unavailable"), ("not-found", 404, "not_found"),
                               ("invalid", 400, "invalid_request"), ("error", 502, "agent_error"),
                               ("disk-full", 507, "host_unavailable"), ("no-kernel", 503, "host_unavailable")):
        r.set(create_mode=mode)
        body = expect(r.request("POST", "/v1/capsules", {}), status, code)
        if mode == "error":
            equal(body["error"]["message"], "The VMM ended: exit 1")
    r.set(create_mode="good")
    failed = [i for i in r.control.Ids() if r.control.State(i) == "error"]
    equal(r.request("GET", "/v1/capsules/" + failed[0])[2]["status"], "error")
    assert not [c for c in r.request("GET", "/v1/capsules")[2] if c["id"] in failed]


@test()
def client_gone_before_create_is_answered(r):
    for values in {"create_delay": 1.0}, {"call_delay": 1.0}:
        before = set(r.control.Ids())
        r.set(**values)
        with Client(r) as c:
            c.send("POST", "/v1/capsules", {})
            time.sleep(0.3)
        r.wait(lambda: set(r.control.Ids()) - before)
        (made,) = set(r.control.Ids()) - before
        r.wait(lambda: r.control.State(made) == "stopped")
        r.set(**{name: 0.0 for name in values})


@test()
def wrong_create_bodies(r):
    with Client(r) as c:
        for body in (b"", b"[]", b"1", b"null", b"{", b'{"vcpus":1,"vcpus":2}', b'{"vcpus":-1}', b'{"vcpus":33}', b'{"vcpus":"2"}',
                     b'{"vcpus":1.0}', b'{"vcpus":1e999}', b'{"vcpus":99999999999999999999}', b'{"memory_mb":127}',
                     b'{"memory_mb":17592186044416}', b'{"disk_size_mb":1}', b'{"timeout_sec":-1}', b'{"timeout_sec":2678401}',
                     b'{"template":"../../etc/passwd"}', b'{"template":""}', b'{"template":7}', b'{"template":"\\u0000"}',
                     b'{"metadata":{"a":1}}', b'{"metadata":7}', b'{"metadata":{"agent_version":"1"}}', b'\xff\xfe', b'{"a":"\xff"}',
                     b"[" * 30000, json.dumps({"metadata": {"k%d" % i: "v" for i in range(65)}}).encode(),
                     json.dumps({"metadata": {"k": "v" * 257}}).encode()):
            expect(c.request("POST", "/v1/capsules", body), 400, "invalid_request")
        expect(c.request("POST", "/v1/capsules", b"{}"), 201)


@test()
def wrong_ids_paths_and_methods(r):
    ident = create(r)
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/ping"), ("POST", "/exec")):
        body = {"cmd": "true"} if suffix == "/exec" else None
        for bad in ("x", "cl-", "cl-nonexistent00000000000000000", "CL" + ident[2:], ident + "0", ident[:-1],
                    "cl-zzzzzzzzzzzzzzzzzzzzzzzzz", "cl-" + "%61" * 25 + "x", "~root", "%20"):
            expect(r.request(method, "/v1/capsules/%s%s" % (bad, suffix), body), 400, "invalid_request")
        missing = expect(r.request(method, "/v1/capsules/%s%s" % (NO_SUCH, suffix), body), 404, "not_found")
        foreign = expect(r.request(method, "/v1/capsules/%s%s" % (ident, suffix), body, key=OTHER_KEY), 404, "not_found")
        equal(foreign, missing)
    equal(r.request("GET", "/v1/capsules", key=OTHER_KEY)[2], [c for c in r.request("GET", "/v1/capsules", key=OTHER_KEY)[2]
                                                               if c["id"] != ident])
    for path in ("/", "/v1", "/v1/", "/v1/capsules/", "/v1/capsules/%s/" % ident, "/v1/capsules/%s/none" % ident, "/V1/capsules",
                 "/api", "/api/", "/api/api/health", "/health/", "/v2/capsules", "/v1/snapshot"):
        expect(r.request("GET", path), 404, "not_found")
    for method, path, allow in (("PUT", "/v1/capsules", "GET, HEAD, POST"), ("DELETE", "/v1/capsules", "GET, HEAD, POST"),
                                ("POST", "/v1/capsules/" + ident, "GET, HEAD, DELETE"), ("GET", "/v1/capsules/%s/exec" % ident, "POST"),
                                ("PATCH", "/v1/capsules/%s/ping" % ident, "POST"), ("POST", "/health", "GET, HEAD"),
                                ("OPTIONS", "/v1/capsules", "GET, HEAD, POST")):
        status, headers, body = r.request(method, path)
        equal((status, headers.get("allow"), body["error"]["code"]), (405, allow, "invalid_request"), path)
        assert not [h for h in headers if h.startswith("access-control")]


# Exec


def run(r, ident, cmd=None, key=KEY, **body):
    return r.request("POST", "/v1/capsules/%s/exec" % ident, {"cmd": cmd, **body}, key=key)


@test()
def exec_foreground(r):
    i = create(r)
    body = expect(run(r, i, "echo out; echo err >&2; exit 3"), 200)
    assert 0 <= body.pop("duration_ms") < 5000
    equal(body, {"sandbox_id": i, "cmd": "echo out; echo err >&2; exit 3", "stdout": "out\n", "stderr": "err\n", "exit_code": 3,
                 "encoding": "utf-8"})
    equal(run(r, i, "/bin/sh", args=["-c", "echo $A $0", "x y"], envs={"A": "b c"}, background=False, tag="z")[2]["stdout"], "b c x y\n")
    equal(run(r, i, "echo", args=["a b"])[2]["stdout"], "a b\n")
    equal(run(r, i, "pwd", cwd="/usr")[2]["stdout"], "/usr\n")
    equal(run(r, i, "/bin/pwd", cwd="/usr")[2]["stdout"], "/usr\n")
    equal(run(r, i, "cat")[2]["stdout"], "")
    equal(run(r, i, "kill -9 $$")[2]["exit_code"], -1)
    body = run(r, i, "no-such-program", args=["x"])[2]
    equal(body["exit_code"], 127)
    assert body["stderr"]
    body = run(r, i, "printf '\\0\\1\\177\"\\\\\\303\\244'")[2]
    equal((body["encoding"], body["stdout"]), ("utf-8", "\0\1\x7f\"\\ä"))
    body = run(r, i, "printf '\\377'; echo text >&2")[2]
    equal((body["encoding"], body["stdout"], body["stderr"]), ("base64", "/w==", "dGV4dAo="))
    equal(r.get("last_spec")["stdin"], False)
    equal(r.get("last_spec")["on_disconnect"], "kill")


@test()
def exec_background(r):
    i = create(r)
    body = expect(run(r, i, "sleep 30", background=True, timeout_sec=1), 202)
    assert re.fullmatch("proc-[0-9a-f]{8}", body["tag"]) and body["pid"] > 0
    equal(set(body), {"sandbox_id", "cmd", "pid", "tag"})
    equal(r.get("last_spec")["timeout_usec"], 0)
    time.sleep(0.2)
    os.kill(body["pid"], 0)
    os.killpg(body["pid"], 9)
    body = expect(run(r, i, "true", background=True, tag="my tag"), 202)
    equal(body["tag"], "my tag")


@test()
def exec_timeout_kills_the_group(r):
    i = create(r)
    marker = "3%d" % random.randrange(10**6)
    begin = time.monotonic()
    body = expect(run(r, i, "sleep %s & sleep %s" % (marker, marker), timeout_sec=1), 504, "agent_error")
    assert "timed out" in body["error"]["message"] and time.monotonic() - begin < 4
    r.wait(lambda: not processes("sleep", marker))
    equal(run(r, i, "echo", args=["on"])[2]["stdout"], "on\n")


def processes(*argv):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if f.read() == b"".join(a.encode() + b"\0" for a in argv):
                    found.append(int(pid))
        except OSError:
            pass
    return found


@test()
def exec_dies_with_its_client(r):
    i = create(r)
    marker = "4%d" % random.randrange(10**6)
    with Client(r) as c:
        c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep", "args": [marker]})
        r.wait(lambda: processes("sleep", marker))
    r.wait(lambda: not processes("sleep", marker), 3)
    with Client(r) as c:
        c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep", "args": [marker], "background": True})
    time.sleep(0.5)
    for pid in processes("sleep", marker):
        os.kill(pid, 9)


@test()
def exec_wrong_bodies(r):
    i = create(r)
    with Client(r) as c:
        path = "/v1/capsules/%s/exec" % i
        for body in (b"", b"{}", b"[]", b"{", b'{"cmd":""}', b'{"cmd":null}', b'{"cmd":7}', b'{"cmd":"a\\u0000"}', b'{"cmd":"a","cmd":"b"}',
                     b'{"cmd":"a","args":"b"}', b'{"cmd":"a","args":[1]}', b'{"cmd":"a","args":["\\u0000"]}', b'{"cmd":"a","timeout_sec":-1}',
                     b'{"cmd":"a","timeout_sec":"1"}', b'{"cmd":"a","timeout_sec":2678401}', b'{"cmd":"a","timeout_sec":1e400}',
                     b'{"cmd":"a","background":1}', b'{"cmd":"a","envs":{"A":1}}', b'{"cmd":"a","envs":{"A=":"x"}}', b'{"cmd":"a","cwd":[]}',
                     json.dumps({"cmd": "a" * (128 << 10)}).encode(), json.dumps({"cmd": "a", "args": ["x"] * 1024}).encode(),
                     json.dumps({"cmd": "a", "envs": {"E%d" % k: "" for k in range(257)}}).encode(),
                     json.dumps({"cmd": "a", "cwd": "/" * 4097}).encode()):
            expect(c.request("POST", path, body), 400, "invalid_request")
        expect(c.request("POST", path, {"cmd": "true", "cwd": "/no/such"}), 400, "invalid_request")
        expect(c.request("POST", path, {"cmd": "true", "args": None, "envs": {}, "zzz": {"a": [1]}, "timeout_sec": 0}), 200)
        expect(c.request("POST", path, {"cmd": ": " + "x" * 120000}), 200)


@test()
def exec_large_output(r):
    i = create(r)
    n = 24 << 20
    body = expect(run(r, i, "head -c %d /dev/zero | tr '\\0' a" % n), 200)
    equal(len(body["stdout"]), n)
    body = expect(run(r, i, "head -c 3000000 /dev/zero"), 200)
    equal(body["stdout"], "\0" * 3000000)
    body = expect(run(r, i, "head -c 70000000 /dev/zero"), 413, "too_large")
    equal(run(r, i, "echo on")[2]["stdout"], "on\n")


@test()
def many_execs_lose_nothing(r):
    i = create(r)

    def one(k):
        body = run(r, i, "head -c 20000 /dev/zero | tr '\\0' x; echo %d" % k)[2]
        return body["stdout"] == "x" * 20000 + "%d\n" % k

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        equal(list(pool.map(one, range(200))), [True] * 200)


@test()
def processes_are_listed_and_signalled(r):
    i = create(r)
    path = "/v1/capsules/%s/processes" % i
    before = expect(r.request("GET", path), 200)["processes"]
    plain = expect(run(r, i, "sleep 3000", background=True), 202)
    tagged = expect(run(r, i, "/bin/sleep", args=["3000"], background=True, tag="my tag/%"), 202)
    listed = expect(r.request("GET", path), 200)["processes"]
    equal([p for p in listed if p not in before],
          [{"pid": plain["pid"], "tag": plain["tag"], "cmd": "sleep 3000"},
           {"pid": tagged["pid"], "tag": "my tag/%", "cmd": "/bin/sleep", "args": ["3000"]}])

    for query in "signal", "signal=", "signal=0", "signal=65", "signal=term", "signal=SIG", "signal=-9", "x=1", "signal=1&signal=1", "signal=%ff":
        expect(r.request("DELETE", path + "/1?" + query), 400, "invalid_request")
    for selector in "nosuch", "4294967295", "4294967296", "%20":
        expect(r.request("DELETE", path + "/" + selector), 404, "not_found")
    tried = "trap 'echo caught >%s/caught' USR1; >%s/ready; while :; do sleep 0.01; done" % (r.dir, r.dir)
    stubborn = expect(run(r, i, tried, background=True, tag="stubborn"), 202)
    r.wait(lambda: os.path.exists(r.dir + "/ready"))
    equal(r.request("DELETE", "%s/stubborn?signal=SIGWINCH" % path)[0], 204)
    equal(r.request("DELETE", "%s/stubborn?signal=USR1" % path)[0], 204)
    r.wait(lambda: os.path.exists(r.dir + "/caught"))
    equal(r.request("DELETE", "%s/%d?signal=15" % (path, stubborn["pid"]))[0], 204)
    equal(r.request("DELETE", "%s/%d" % (path, plain["pid"]))[0], 204)
    equal(r.request("DELETE", "%s/%s" % (path, tagged["tag"].replace("%", "%25").replace(" ", "%20").replace("/", "%2F")))[0], 400)
    equal(r.request("DELETE", "%s/%d?signal=KILL" % (path, tagged["pid"]))[0], 204)
    r.wait(lambda: r.request("GET", path)[2]["processes"] == before)
    expect(r.request("DELETE", "%s/%d" % (path, plain["pid"])), 404, "not_found")
    expect(r.request("POST", path), 405, "invalid_request")
    expect(r.request("GET", path, key=OTHER_KEY), 404, "not_found")
    expect(r.request("GET", path.replace(i, "cl-x")), 400, "invalid_request")
    r.control.SetState(i, "stopped")
    expect(r.request("GET", path), 409, "invalid_state")
    expect(r.request("DELETE", path + "/1"), 409, "invalid_state")


@test()
def lists_of_lying_agents(r):
    path = "/v1/capsules/%s/processes" % create(r)
    entry = {"pid": 1, "tag": "", "cmd": "a", "args": []}
    for lie in ([], {"processes": {}}, {"processes": [1]}, {"processes": [{"pid": 0, "cmd": "a"}]}, {"processes": [{"pid": 1}]},
                {"processes": [{**entry, "args": [1]}]}, {"processes": [{**entry, "args": {"a": "b"}}]}, {"processes": [entry] * 513},
                {"processes": [{**entry, "cmd": "x" * (1 << 19)}]}):
        r.set(process_list=lie)
        expect(r.request("GET", path), 502, "agent_error")
    r.set(process_list={"processes": [entry] * 512})
    equal(expect(r.request("GET", path), 200)["processes"], [{"pid": 1, "cmd": "a"}] * 512)
    r.set(process_list=None)


@test()
def lying_agents(r):
    i = create(r)
    for mode in "close", "garbage", "end":
        r.set(agent_mode=mode)
        expect(run(r, i, "true"), 502, "agent_error")
    r.set(agent_mode="silent")
    begin = time.monotonic()
    expect(run(r, i, "true", timeout_sec=1), 504, "agent_error")
    assert time.monotonic() - begin < 9
    r.set(agent_mode="run")
    equal(run(r, i, "echo on")[2]["stdout"], "on\n")
    r.control.CloseChannels()
    equal(run(r, i, "echo on")[2]["stdout"], "on\n")
    r.set(refuse_channels=True)
    r.control.CloseChannels()
    time.sleep(0.1)
    expect(run(r, i, "true"), 502, "agent_error")
    r.set(refuse_channels=False)


@test()
def one_channel_for_all(r):
    i = create(r)
    before = r.get("n_channels")
    for _ in range(5):
        run(r, i, "true")
    equal(r.get("n_channels") - before, 1)
    with Client(r) as c:
        c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep 20"})
        time.sleep(0.2)
        expect(r.request("DELETE", "/v1/capsules/" + i), 204)
        status, _, body = c.receive()
        equal((status, body["error"]["code"]), (502, "agent_error"))


# Keys


@test()
def keys(r):
    for key in None, "", "wrong", "wrn_", KEY[:-1], KEY + "0", KEY.upper(), "x" * 300:
        headers = ["X-API-Key: "] if key == "" else []
        status, answer, body = r.request("GET", "/v1/capsules", key=key, headers=headers)
        equal((status, body["error"]["code"], answer["connection"]), (401, "unauthorized", "close"), key)
    expect(r.request("GET", "/v1/capsules", key=None, headers=["Authorization: Bearer x"]), 401, "unauthorized")
    expect(r.request("GET", "/v1/capsules?X-API-Key=" + KEY, key=None), 401, "unauthorized")


@test()
def key_is_cached_until_revoked(r):
    secret = "wrn_" + "ab" * 16
    r.control.AddKey(secret, "key-3", "default", "")
    before = r.get("n_auth")
    with Client(r, key=secret) as c:
        for _ in range(10):
            expect(c.request("GET", "/v1/capsules"), 200)
        expect(r.request("GET", "/v1/capsules", key=secret), 200)
        equal(r.get("n_auth") - before, 1)
        r.control.RevokeKey("key-3")
        r.wait(lambda: r.request("GET", "/v1/capsules", key=secret)[0] == 401, 2)
        equal(c.request("GET", "/v1/capsules")[0], 401)


@test()
def unknown_keys_are_rationed(r):
    before = r.get("n_auth")
    for _ in range(10):
        expect(r.request("GET", "/v1/capsules", key="wrn_same"), 401)
    equal(r.get("n_auth") - before, 1)
    statuses = [r.request("GET", "/v1/capsules", key="wrn_%d" % k)[0] for k in range(80)]
    assert set(statuses) == {401, 429} and r.get("n_auth") - before < 60, statuses
    expect(r.request("GET", "/v1/capsules"), 200)
    time.sleep(1)


@test()
def refused_before_the_body(r):
    with r.connect() as s:
        s.sendall(("POST /v1/capsules HTTP/1.1\r\n" + HEAD + "X-API-Key: no\r\nContent-Length: 1073741824\r\n"
                   "Expect: 100-continue\r\n\r\n").encode())
        answer = s.recv(4096)
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        sent = 0
        try:
            while sent < 50 << 20:
                sent += s.send(b"x" * 65536)
        except OSError:
            pass
        assert sent < 10 << 20, sent
    for line, status in (("Content-Length: 65537", 413), ("Content-Length: 10000000000", 413)):
        equal(status_of(r.raw(("POST /v1/capsules HTTP/1.1\r\n%s%s\r\n\r\n" % (KEYED, line)).encode())), status)
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    equal(status_of(r.raw(("POST /v1/capsules HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % KEYED).encode() + chunk * 3)), 413)


# Framing


def smuggling_table():
    chunked = "Transfer-Encoding: chunked\r\n"
    second = "GET /health HTTP/1.1\r\n" + HEAD + "\r\n"
    post = "POST /v1/capsules HTTP/1.1\r\n" + KEYED
    get = "GET /health HTTP/1.1\r\n" + HEAD
    yield from (
        ("CL and TE", post + "Content-Length: 5\r\n" + chunked + "\r\n0\r\n\r\n" + second),
        ("TE and CL", post + chunked + "Content-Length: 5\r\n\r\n0\r\n\r\n" + second),
        ("two CL", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"),
        ("equal CL", post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
        ("CL list", post + "Content-Length: 2, 2\r\n\r\n{}"),
        ("two hosts", get + "Host: localhost\r\n\r\n"), ("no host", "GET /health HTTP/1.1\r\n\r\n"),
        ("empty host", "GET /health HTTP/1.1\r\nHost:\r\n\r\n"),
        ("blank before colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("bare LF", get.replace("\r\n", "\n") + "\n"), ("bare LF in the middle", get + "X: y\n\r\n"),
        ("bare CR", get + "X: a\rb\r\n\r\n"), ("NUL in value", get + "X: a\0b\r\n\r\n"), ("NUL in name", get + "X\0: a\r\n\r\n"),
        ("fold", get + "X: a\r\n b\r\n\r\n"), ("fold first", "GET /health HTTP/1.1\r\n " + HEAD + "\r\n"),
        ("no colon", get + "X\r\n\r\n"), ("empty name", get + ": x\r\n\r\n"), ("no token", get + "X[]: x\r\n\r\n"),
        ("control in value", get + "X: \x01\r\n\r\n"), ("DEL in value", get + "X: \x7f\r\n\r\n"),
        ("trailer", post + chunked + "\r\n2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n"),
        ("chunk extension", post + chunked + "\r\n2;a\r\n{}\r\n0\r\n\r\n"),
        ("first byte TLS", "\x16\x03\x01\x02\x00\x01"), ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ("HTTP/0.9", "GET /health\r\n"),
        ("garbage", "\xff\xfe\xfd"), ("blank first", " GET /health HTTP/1.1\r\n\r\n"), ("empty line first", "\r\n" + get + "\r\n"),
    )
    for te in "gzip", "identity", "xchunked", "chunked, chunked", "gzip, chunked", "\x0bchunked", "chunked;q=1", "", '"chunked"':
        yield "TE " + repr(te), post + "Transfer-Encoding: %s\r\n\r\n0\r\n\r\n" % te
    yield "TE in 1.0", ("POST /v1/capsules HTTP/1.0\r\n" + KEYED + chunked + "\r\n0\r\n\r\n")
    for cl in "+2", "-1", "0x2", "2_0", "2 2", "", "2;", "18446744073709551618", "٢":
        yield "CL " + repr(cl), post + "Content-Length: %s\r\n\r\n{}" % cl
    for size in "0x2", "-2", "", " 2", "2 ", "g", "fffffffffffffffff2", "2\n", "+2":
        yield "chunk size " + repr(size), post + chunked + "\r\n%s\r\n{}\r\n0\r\n\r\n" % size
    for end in "{}0\r\n\r\n", "{}\n0\r\n\r\n", "{}x\r\n0\r\n\r\n", "{}\r\n0\n\n", "{}\r\n0\r\n\n":
        yield "chunk end " + repr(end), post + chunked + "\r\n2\r\n" + end
    for target in ("/a%00b", "/%2e%2e/health", "/v1%2fcapsules", "/v1%5ccapsules", "/./health", "/x/../health", "//health", "/health#x",
                   "/hea lth", "/\x01", "/\\health", "http://localhost/health", "*", "health", "", "/%", "/%zz", "/é", "/health?%00"):
        yield "target " + repr(target), "GET %s HTTP/1.1\r\n%s\r\n" % (target, HEAD)
    for method in "get", "GET\x01", "G(T", "CONNECT", "TRACE", "BREW", "", "GET GET":
        yield "method " + repr(method), "%s /health HTTP/1.1\r\n%s\r\n" % (method, HEAD)
    for version in "HTTP/1.2", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", "HTTP/1.10", "HTTP/11", "HTTPS/1.1", "1.1":
        yield "version " + repr(version), "GET /health %s\r\n%s\r\n" % (version, HEAD)


@test()
def odd_framing_is_refused_and_closed(r):
    n = 0
    for name, text in smuggling_table():
        answer = r.raw(text.encode("utf-8" if "٢" in text or "é" in text else "latin-1"))
        equal(len(re.findall(rb"HTTP/1\.1 \d", answer)), 1, name)
        assert status_of(answer) in (400, 501, 505), (name, answer)
        assert b"Connection: close" in answer, name
        n += 1
    assert n >= 74, n
    expect(r.request("GET", "/v1/capsules"), 200)


@test()
def agrees_with_h11(r):
    """Mutations of good requests: what h11 refuses is refused, and what passes has the same extent in both."""
    rng = random.Random(7)
    seeds = [("GET /health HTTP/1.1\r\n" + HEAD + "\r\n").encode(),
             ("GET /health HTTP/1.1\r\n" + HEAD + "Content-Length: 5\r\n\r\nhello").encode(),
             ("GET /health HTTP/1.1\r\n" + HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").encode()]
    alphabet = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"0", b"5", b"x", b";", b",", b"Content-Length: 3\r\n", b"\x80",
                b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"/", b"%"]
    end = b"GET /health HTTP/1.1\r\n" + HEAD.encode() + b"Connection: close\r\nX-End: 1\r\n\r\n"
    passed = 0
    for _ in range(600):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(data) + 1)
            if rng.random() < 0.4 and at < len(data):
                del data[at]
            else:
                data[at:at] = rng.choice(alphabet)
        answers = [int(m) for m in re.findall(rb"HTTP/1\.1 (\d+) ", r.raw(bytes(data) + end))]
        ours = answers.count(200)
        reference = h11_count(bytes(data) + end)
        assert ours <= reference, (bytes(data), answers, reference)
        passed += answers == [200, 200]
    assert passed > 30, passed


def h11_count(data):
    """How many requests h11 sees before it objects."""
    c = h11.Connection(h11.SERVER)
    c.receive_data(data)
    n = 0
    try:
        while True:
            event = c.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                if event is not h11.PAUSED or c.their_state is not h11.DONE:
                    return n
                c.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                c.send(h11.EndOfMessage())
                if c.our_state is not h11.DONE:
                    return n
                c.start_next_cycle()
            elif isinstance(event, h11.EndOfMessage):
                n += 1
    except h11.RemoteProtocolError:
        return n


@test()
def large_heads(r):
    for text, status in (("GET /%s HTTP/1.1\r\n%s\r\n" % ("a" * 8191, HEAD), 404), ("GET /%s HTTP/1.1\r\n%s\r\n" % ("a" * 8192, HEAD), 414),
                         ("GET /" + "a" * 40000, 414), ("GET /health HTTP/1.1\r\n%sX: %s\r\n\r\n" % (HEAD, "a" * 15000), 200),
                         ("GET /health HTTP/1.1\r\n%sX: %s\r\n\r\n" % (HEAD, "a" * 17000), 431),
                         ("GET /health HTTP/1.1\r\n%s%s\r\n" % (HEAD, "X: y\r\n" * 99), 200),
                         ("GET /health HTTP/1.1\r\n%s%s\r\n" % (HEAD, "X: y\r\n" * 100), 431),
                         ("GET /health HTTP/1.1\r\n%sExpect: 200-ok\r\n\r\n" % HEAD, 417)):
        text = text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n") if status == 200 and text.count("X: y") < 90 else text
        answer = r.raw(text.encode(), half_close=True)
        equal(status_of(answer), status, text[:60])


@test()
def pipelining_and_pieces(r):
    i = create(r)
    good = "GET /v1/capsules/%s HTTP/1.1\r\n%s\r\n" % (i, KEYED)
    slow = json.dumps({"cmd": "sleep 0.3; echo slow"})
    execution = "POST /v1/capsules/%s/exec HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (i, KEYED, len(slow), slow)
    with Client(r) as c:
        c.socket.sendall((good + execution + good * 50 + "GET /x HTTP/1.1\r\n" + KEYED + "\r\n").encode())
        equal([c.receive()[0] for _ in range(53)], [200] * 52 + [404])
    with Client(r) as c:
        c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in (good + execution).encode():
            c.socket.send(bytes((byte,)))
        equal(c.receive()[2]["id"], i)
        equal(c.receive()[2]["stdout"], "slow\n")
    with Client(r) as c:    # a refusal does not overtake the answer before it
        c.socket.sendall((execution + "BAD\x01").encode())
        equal(c.receive()[2]["stdout"], "slow\n")
        equal(c.receive()[0], 400)
    body = '{"cmd":"echo chunks"}'
    chunked = "".join("%x\r\n%s\r\n" % (1, x) for x in body) + "0\r\n\r\n"
    with Client(r) as c:
        c.socket.sendall(("POST /v1/capsules/%s/exec HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%s" % (i, KEYED, chunked) + good).encode())
        equal(c.receive()[2]["stdout"], "chunks\n")
        equal(c.receive()[2]["id"], i)
    with Client(r) as c:    # Expect: 100-continue
        c.socket.sendall(("POST /v1/capsules/%s/exec HTTP/1.1\r\n%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" %
                          (i, KEYED, len(body))).encode())
        assert c.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        c.socket.sendall(body.encode())
        equal(c.receive()[2]["stdout"], "chunks\n")
    answer = r.raw(good.replace("1.1\r\n", "1.0\r\n", 1).encode())
    assert b"200 OK" in answer and i.encode() in answer
    answer = r.raw(good.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
    assert b"200 OK" in answer and i.encode() in answer


@test()
def hosts_and_origins(r):
    for host, status in (("localhost:%d" % r.port, 200), ("127.0.0.1", 200), ("[::1]:8080", 200), ("LOCALHOST", 200), ("extra.example", 200),
                         ("evil.example", 421), ("localhost.", 421), ("127.0.0.1.nip.io", 421), ("localhost.evil", 421), ("a@localhost", 421),
                         ("3000-%s.localhost" % NO_SUCH, 502), ("3000-cl-x.localhost", 421)):
        answer = r.raw(("GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host).encode())
        equal(status_of(answer), status, host)
    for line, status in (("Origin: http://localhost", 200), ("Origin: http://evil.example", 403), ("Origin: null", 403),
                         ("Origin: http://localhost:1", 403), ("Sec-Fetch-Site: cross-site", 403), ("Sec-Fetch-Site: same-site", 403),
                         ("Sec-Fetch-Site: same-origin", 200), ("Sec-Fetch-Site: none", 200)):
        answer = r.raw(("GET /health HTTP/1.1\r\n%s%s\r\nConnection: close\r\n\r\n" % (HEAD, line)).encode())
        equal(status_of(answer), status, line)
        assert b"access-control" not in answer.lower()
    answer = r.raw(("GET /v1/capsules HTTP/1.1\r\n%sOrigin: http://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n" % KEYED).encode())
    equal(status_of(answer), 403)


@test()
def unix_socket(r):
    expect(r.request("GET", "/v1/capsules", unix=True), 200)
    expect(r.request("GET", "/v1/capsules", key=None, unix=True), 401)


# Time and quotas


def closed_after(s, limit):
    """Seconds until the other side closed, and what it said."""
    begin, said = time.monotonic(), b""
    s.settimeout(limit)
    try:
        while True:
            part = s.recv(4096)
            if not part:
                break
            said += part
    except ConnectionResetError:
        pass
    return time.monotonic() - begin, said


@test(arguments=["--first-byte-timeout=1", "--head-timeout=2", "--idle-timeout=3", "--write-timeout=2"])
def slow_clients(r):
    took, said = closed_after(r.connect(), 5)
    assert 0.8 < took < 2 and not said, (took, said)

    def drip(text, limit, expected):
        with r.connect() as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin = time.monotonic()
            done = threading.Event()

            def feed():
                try:
                    s.sendall(text)
                    while not done.wait(0.1):
                        s.send(b"a")
                except OSError:
                    pass

            thread = threading.Thread(target=feed)
            thread.start()
            _, said = closed_after(s, limit)
            done.set()
            thread.join()
            took = time.monotonic() - begin
        assert expected <= took < expected + 1.2, (text[:40], took)
        assert said.startswith(b"HTTP/1.1 408 ") or not said, said

    many = [r.connect() for _ in range(200)]
    for s in many:
        s.sendall(b"GET / HTTP/1.1\r\n")
    with Client(r) as c:
        begin = time.monotonic()
        for _ in range(100):
            expect(c.request("GET", "/health"), 200)
        assert time.monotonic() - begin < 2
        drip(b"GET /", 6, 2)
        drip(("POST /v1/capsules HTTP/1.1\r\n" + KEYED + "Content-Length: 60000\r\n\r\n").encode(), 6, 2)
        for s in many:
            equal(s.recv(100)[:13], b"HTTP/1.1 408 ")
            s.close()
    c = Client(r)
    expect(c.request("GET", "/health"), 200)
    took, said = closed_after(c.socket, 6)
    assert 2.8 < took < 4.2 and not said, (took, said)
    i = create(r)
    with Client(r) as c:    # does not read its answer
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "head -c 30000000 /dev/zero | tr '\\0' a"})
        time.sleep(6)
        got = 0
        try:
            while True:
                part = c.socket.recv(1 << 20)
                if not part:
                    break
                got += len(part)
        except ConnectionResetError:
            pass
        assert got < 20000000, got
    equal(run(r, i, "echo on")[2]["stdout"], "on\n")
    with Client(r) as c:    # a long request is none of this
        equal(c.request("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep 5; echo long"})[2]["stdout"], "long\n")


@test(arguments=["--connections=64"])
def connection_quota(r):
    held = [r.connect() for _ in range(48)]
    time.sleep(0.2)
    for _ in range(20):
        with Client(r) as c:
            status, headers, body = c.request("GET", "/health")
            equal((status, body["error"]["code"], headers["connection"]), (503, "host_unavailable", "close"))
    if os.getuid() == 0:    # the reserved ones
        expect(r.request("GET", "/health", unix=True), 200)
    for s in held:
        s.close()
    r.wait(lambda: r.request("GET", "/health")[0] == 200, 2)


@test()
def connection_quota_of_one_address(r):
    """In a network namespace of its own: loopback addresses have no such quota."""
    if os.getuid() == 0:
        script = "ip link set lo up && ip address add 10.9.9.9/32 dev lo && exec /usr/bin/python3 -B %s --from-one-address"
        subprocess.run(["unshare", "-n", "sh", "-c", script % os.path.realpath(__file__)], check=True, timeout=60)


def from_one_address():
    with Restd(arguments=["--connections-per-peer=10"], address="10.9.9.9") as r:
        held = [r.connect() for _ in range(10)]
        time.sleep(0.2)
        for _ in range(5):
            expect(r.request("GET", "/health"), 503, "host_unavailable")
        expect(r.request("GET", "/health", unix=True), 200)
        held.pop().close()
        r.wait(lambda: r.request("GET", "/health")[0] == 200, 2)


def clients(r, n, key=KEY):
    """n connections at once, closed afterwards."""
    stack = contextlib.ExitStack()
    return stack, [stack.enter_context(Client(r, key=key)) for _ in range(n)]


@test()
def connection_quota_of_one_key(r):
    secret = "wrn_" + "cd" * 16
    r.control.AddKey(secret, "key-5", "default", "")
    stack, held = clients(r, 256, secret)
    with stack:
        for c in held:
            expect(c.request("GET", "/v1/capsules"), 200)
        expect(r.request("GET", "/v1/capsules", key=secret), 429, "quota_exceeded")
        expect(r.request("GET", "/v1/capsules"), 200)
        expect(held[0].request("GET", "/v1/capsules"), 200)
        held[1].socket.close()
        r.wait(lambda: r.request("GET", "/v1/capsules", key=secret)[0] == 200, 2)


@test()
def execs_that_wait_for_a_stream_are_bounded(r):
    secret = "wrn_" + "ef" * 16
    r.control.AddKey(secret, "key-6", "default", "")
    i = create(r)
    run(r, i, "true")
    r.set(agent_mode="silent")
    stack, held = clients(r, 160)
    with stack:
        held += [stack.enter_context(Client(r, key=secret)) for _ in range(160)]
        for c in held:      # 64 have a stream, 256 wait
            c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "true"})
        time.sleep(1)
        expect(run(r, i, "true"), 503, "host_unavailable")
        expect(r.request("GET", "/v1/capsules/" + i), 200)
    r.set(agent_mode="run")
    r.wait(lambda: run(r, i, "echo on", timeout_sec=5)[0] == 200)


@test()
def refused_streams_are_tried_again(r):
    i = create(r)
    run(r, i, "true")
    r.set(refusals=8)       # as often as one request may be, should it come alone
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        equal(set(pool.map(lambda k: run(r, i, "echo %d" % k)[2]["stdout"] == "%d\n" % k, range(60))), {True})
    r.set(refusals=100000)
    expect(run(r, i, "true"), 503, "host_unavailable")
    r.set(refusals=0)


@test()
def known_keys_are_bounded(r):
    secrets = ["wrn_%032x" % k for k in range(1, 1030)]
    for k, secret in enumerate(secrets):
        r.control.AddKey(secret, "key-m%d" % k, "many", "")
    before = r.get("n_auth")
    for secret in secrets + secrets[-100:]:
        expect(r.request("GET", "/v1/capsules", key=secret), 200)
    equal(r.get("n_auth") - before, len(secrets))
    expect(r.request("GET", "/v1/capsules", key=secrets[0]), 200)
    equal(r.get("n_auth") - before, len(secrets) + 1)


@test()
def requests_that_wait_for_the_daemon_are_bounded(r):
    r.control.Absent(True)
    time.sleep(0.1)
    stack, held = clients(r, 1024)
    with stack:
        for c in held:
            c.send("GET", "/v1/capsules")
        time.sleep(0.5)
        begin = time.monotonic()
        expect(r.request("GET", "/v1/capsules"), 503, "host_unavailable")
        assert time.monotonic() - begin < 2
        r.control.Absent(False)
        statuses = [c.receive()[0] for c in held]
    equal((statuses.count(200), set(statuses)), (256, {200, 429}))     # the quota of one key
    r.wait(lambda: r.request("GET", "/v1/capsules")[0] == 200, 2)


@test(limit_nofile=256)
def few_file_descriptors(r):
    held = []
    for _ in range(600):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", r.port))
        held.append(s)
    time.sleep(0.5)
    usage = cpu(r.restd.pid)
    time.sleep(1)
    assert cpu(r.restd.pid) - usage < 0.3
    for s in held:
        s.close()
    r.wait(lambda: r.request("GET", "/health")[0] == 200, 2)


def cpu(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


@test()
def nothing_leaks(r):
    i = create(r)
    run(r, i, "true")
    r.wait(lambda: r.request("GET", "/health")[0] == 200)
    time.sleep(0.3)
    before = fds(r.restd.pid)

    def abuse(k):
        rng = random.Random(k)
        body = json.dumps({"cmd": "sleep 0.05"}).encode()
        text = b"POST /v1/capsules/%s/exec HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (i.encode(), KEYED.encode(), len(body), body)
        with r.connect() as s:
            if rng.random() < 0.5:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                s.sendall((text * 2)[:rng.randrange(2 * len(text))])
                time.sleep(rng.random() * 0.1)
            except OSError:
                pass

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(abuse, range(400)))
    r.wait(lambda: fds(r.restd.pid) <= before, 8)
    equal(run(r, i, "echo on")[2]["stdout"], "on\n")
    usage = cpu(r.restd.pid)
    time.sleep(1)
    assert cpu(r.restd.pid) - usage < 0.1


# The daemon


@test()
def wrennd_leaves_and_comes_back(r):
    i = create(r)
    r.control.Absent(True)
    time.sleep(0.1)
    equal(r.request("GET", "/health")[0], 200)
    with Client(r) as c:
        c.send("GET", "/v1/capsules/" + i)
        time.sleep(0.5)
        r.control.Absent(False)
        equal(c.receive()[0], 200)
    r.control.Absent(True)
    time.sleep(0.1)
    begin = time.monotonic()
    expect(r.request("GET", "/v1/capsules/" + i), 503, "host_unavailable")
    assert 9 < time.monotonic() - begin < 12
    r.control.Absent(False)
    r.wait(lambda: r.request("GET", "/v1/capsules/" + i)[0] == 200)
    r.control.Forget(i)
    r.wait(lambda: r.request("GET", "/v1/capsules/" + i)[0] == 404)
    expect(run(r, i, "true"), 404, "not_found")


@test()
def states_follow_the_daemon(r):
    i = create(r)
    for state, status in (("paused", "paused"), ("pausing", "running"), ("stopping", "running"), ("running", "running")):
        r.control.SetState(i, state)
        r.wait(lambda s=status: r.request("GET", "/v1/capsules/" + i)[2]["status"] == s)
        equal(run(r, i, "true")[0], 200 if state == "running" else 409)


@test()
def stops_gently(r):
    i = create(r)
    with Client(r) as c, Client(r) as idle:
        expect(idle.request("GET", "/health"), 200)
        c.send("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep 1; echo done"})
        time.sleep(0.3)
        r.restd.terminate()
        equal(c.receive()[2]["stdout"], "done\n")
        equal(r.restd.wait(5), 0)
    r.start()       # the sockets were kept
    expect(r.request("GET", "/v1/capsules/" + i), 200)


def main():
    if sys.argv[1:] == ["--from-one-address"]:
        from_one_address()
        return 0
    return run_tests(arguments=["--host=extra.example"])


if __name__ == "__main__":
    sys.exit(main())
