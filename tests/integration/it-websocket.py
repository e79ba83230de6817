#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How wrenn-restd lets WebSockets in, counts them and ends them: keys, quotas, refusals before the 101, ends of keys, capsules and
the service, a thousand at once. On a bus of its own with tests/fake/fake-wrennd; needs no virtual machine. What goes on within a
WebSocket is tried by unit/test-websocket.py (RFC 6455) and it-streams-wire.py (the messages).

    it-websocket.py [NAME…]     TAP output; names choose tests
"""
import contextlib
import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from restd import KEY, OTHER_KEY, Client, create, equal, expect, run_tests, test  # noqa: E402
from rfc6455 import BINARY, CLOSE, PATIENCE, PING, PONG, TEXT, Peer, close, frame, text  # noqa: E402

NO_SUCH = "cl-0000000000000000000000000"
SAMPLE = {"Host": "localhost", "X-API-Key": KEY, "Connection": "Upgrade", "Upgrade": "websocket",
          "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
ROUTES = "/v1/capsules/%s/exec/stream", "/v1/capsules/%s/processes/1/stream", "/v1/capsules/%s/pty"
PATIENT = ROUTES[0], ROUTES[2]     # these wait for a first message
HOUR = json.dumps({"type": "start", "cmd": "/bin/sleep", "args": ["3600"]})


def open_one(r, i, route=ROUTES[0], key=KEY, **more):
    return Peer(r.connect(more.pop("unix", False)), "/api" + route % i, [("X-API-Key", key)], **more)


def upgrade(r, path, line="GET %s HTTP/1.1", body=b"", **changes):
    """Status and head of the answer. changes: headers with _ for -; None leaves one out."""
    headers = {**SAMPLE, **{k.replace("_", "-"): v for k, v in changes.items()}}
    head = line % path + "".join("\r\n%s: %s" % x for x in headers.items() if x[1] is not None) + "\r\n\r\n"
    with r.connect() as s:
        s.settimeout(PATIENCE)
        s.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = s.recv(65536)
            assert part, answer
            answer += part
        status = int(answer.split()[1])
        if status == 101:
            return status, answer.decode()
        while part := s.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert line.startswith("HEAD") or json.loads(body)["error"]["message"], answer
    return status, head.decode()


def is_alive(p):
    p.send(frame(PING, b"alive?"))
    while (got := p.next()) != (PONG, b"alive?"):
        assert got and got[0] in (TEXT, BINARY), got


def told(p):
    """The error that a WebSocket tells before it closes; its code."""
    while (got := p.next())[0] in (TEXT, BINARY):
        message = json.loads(got[1])
        if message["type"] == "error":
            error = message["data"]
    equal(got[0], CLOSE)
    return error, got[1]


@test()
def who_may_not_upgrade(r):
    i = create(r)
    for route in ROUTES:
        path = route % i
        for status, changes in (
                (101, {}), (101, {"Origin": "http://localhost"}), (101, {"Connection": "keep-alive, Upgrade"}),
                (401, {"X_API_Key": None}), (401, {"X_API_Key": "wrn_nobody"}), (401, {"X_API_Key": None, "Upgrade": None}),
                (401, {"X_API_Key": "wrn_nobody", "Sec_WebSocket_Version": "8"}), (401, {"X_API_Key": None, "Authorization": "Bearer x"}),
                (426, {"Upgrade": None}), (426, {"Upgrade": "h2c"}), (426, {"Connection": "close"}), (426, {"Sec_WebSocket_Version": "8"}),
                (400, {"Sec_WebSocket_Key": None}), (400, {"Sec_WebSocket_Key": "x"}), (400, {"Content_Length": "3", "body": b"abc"}),
                (400, {"Transfer_Encoding": "chunked", "body": b"0\r\n\r\n"}), (400, {"line": "GET %s HTTP/1.0"}),
                (405, {"line": "POST %s HTTP/1.1"}), (405, {"line": "HEAD %s HTTP/1.1"}), (403, {"Origin": "http://evil.example"}),
                (403, {"Origin": "null"}), (403, {"Sec_Fetch_Site": "cross-site"}), (421, {"Host": "evil.example"})):
            got, head = upgrade(r, path, **changes)
            equal(got, status, "%s %s" % (path, changes))
            if status == 101:
                assert "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head, head
            if status == 405:
                assert head.endswith("\r\nAllow: GET"), head
            if status == 426:
                assert "\r\nSec-WebSocket-Version: 13" in head and "\r\nUpgrade: websocket" in head, head
        for bad in "x", "cl-", NO_SUCH + "0", NO_SUCH.upper(), "%20":
            equal(upgrade(r, route % bad)[0], 400, bad)
    equal(upgrade(r, "/v1/capsules/%s/nothing" % i)[0], 404)


@test()
def capsules_that_are_not_there_are_told_in_band(r):
    gone, foreign = create(r), create(r, key=OTHER_KEY)
    expect(r.request("DELETE", "/v1/capsules/" + gone), 204)
    for route in ROUTES:
        for i in NO_SUCH, gone, foreign:
            with open_one(r, i, route) as p:
                p.send(text(HOUR))
                error, code = told(p)
                equal(code, 1000)
                assert "not" in error, error


@test()
def an_upgrade_on_a_used_connection_with_a_message_behind(r):
    i = create(r)
    for unix in False, True:
        with Client(r, unix=unix) as c:
            expect(c.request("GET", "/v1/capsules/" + i), 200)
            with Peer(c.socket, ROUTES[0] % i, [("X-API-Key", KEY)], behind=text(HOUR) + frame(PING, b"early")) as p:
                got = {p.next()[0], p.next()[0]}
                equal(got, {PONG, TEXT})
                is_alive(p)
                p.end()


@test()
def a_key_that_has_to_be_asked_about(r):
    i = create(r)
    r.control.AddKey("wrn_late", "key-late", "default", "")
    with open_one(r, i, key="wrn_late", behind=frame(PING, b"early")) as p:
        p.expect((PONG, b"early"))
        p.end()
    # and while wrennd is away
    r.control.Absent(True)
    try:
        waiting = [r.connect() for _ in range(3)]
        for s in waiting:
            head = "GET %s HTTP/1.1\r\n" % (ROUTES[2] % i) + "".join("%s: %s\r\n" % x for x in SAMPLE.items()) + "\r\n"
            s.sendall(head.encode() + frame(PING, b"early"))
        waiting.pop().close()
    finally:
        r.control.Absent(False)
    for s in waiting:
        s.settimeout(PATIENCE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n\x8a\x05early"):
            part = s.recv(4096)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        s.close()


@test(arguments=["--websockets-per-capsule=3"])
def quota_of_a_capsule(r):
    i, other = create(r), create(r)
    peers = [open_one(r, i, PATIENT[n % 2]) for n in range(3)]
    with open_one(r, i) as p:
        error, code = told(p)
        equal((error, code), ("This capsule has 3 WebSockets already; close one.", 1013))
    for p in peers[1:]:
        is_alive(p)
    with open_one(r, other) as p:
        is_alive(p)
    peers.pop(0).socket.close()     # abruptly
    peers.append(wait_for_place(r, i))
    is_alive(peers[-1])
    for p in peers:
        p.socket.close()


def wait_for_place(r, i):
    """A WebSocket of a capsule whose quota is about to have room again."""
    found = []

    def attempt():
        p = open_one(r, i)
        p.send(frame(PING, b"in?"))
        if p.next() == (PONG, b"in?"):
            found.append(p)
        else:
            p.socket.close()
        return found
    r.wait(attempt, PATIENCE)
    return found[0]


@test()
def quota_of_a_capsule_by_default(r):
    i = create(r)
    peers = [open_one(r, i) for _ in range(32)]
    with open_one(r, i) as p:
        equal(told(p)[1], 1013)
    for p in peers:
        is_alive(p)
        p.socket.close()


@test(arguments=["--connections-per-key=4"])
def quota_of_a_key(r):
    i = create(r)
    r.control.AddKey("wrn_crowd", "key-crowd", "default", "")
    peers = [open_one(r, i, key="wrn_crowd") for _ in range(4)]
    equal(upgrade(r, ROUTES[0] % i, X_API_Key="wrn_crowd")[0], 429)
    expect(r.request("GET", "/v1/capsules/" + i, key="wrn_crowd"), 429, "quota_exceeded")
    expect(r.request("GET", "/v1/capsules/" + i), 200)
    peers.pop().end()
    r.wait(lambda: r.request("GET", "/v1/capsules/" + i, key="wrn_crowd")[0] == 200, PATIENCE)
    for p in peers:
        is_alive(p)
        p.socket.close()


@test()
def a_revoked_key_ends_its_websockets(r):
    i = create(r)
    r.control.AddKey("wrn_short", "key-short", "default", "")
    with open_one(r, i, key="wrn_short") as p, open_one(r, i, ROUTES[2], key="wrn_short") as q, open_one(r, i) as other:
        for each in p, q, other:
            is_alive(each)
        r.control.RevokeKey("key-short")
        for each in p, q:
            each.expect((CLOSE, 1008))
        is_alive(other)


@test()
def a_capsule_that_ends_takes_its_websockets(r):
    i, other = create(r), create(r)
    peers = [open_one(r, i, route) for route in PATIENT]
    with open_one(r, other) as stays:
        for p in peers:
            is_alive(p)
        expect(r.request("DELETE", "/v1/capsules/" + i), 204)
        for p in peers:
            while (got := p.next())[0] == TEXT:
                pass
            assert got in ((CLOSE, 1000), (CLOSE, 1001)), got
            p.send(close(got[1]))
            p.expect(None)
            p.socket.close()
        is_alive(stays)


@test()
def a_lost_wrennd_is_not_noticed(r):
    i = create(r)
    with open_one(r, i) as p:
        is_alive(p)
        r.control.Absent(True)
        is_alive(p)
        r.control.Absent(False)
        expect(r.request("GET", "/v1/capsules/" + i), 200)
        is_alive(p)


@test()
def a_stopping_service_says_goodbye(r):
    i = create(r)
    peers = [open_one(r, i, route) for route in PATIENT]
    for p in peers:
        is_alive(p)
    r.restd.terminate()
    for p in peers:
        p.expect((CLOSE, 1001))
        p.send(close(1001))
    equal(r.restd.wait(PATIENCE), 0)
    r.start()
    expect(r.request("GET", "/v1/capsules/" + i), 200)
    for p in peers:
        p.socket.close()


@test()
def a_stopping_service_waits_for_nobody_long(r):
    i = create(r)
    with open_one(r, i) as p:
        is_alive(p)
        r.restd.terminate()
        equal(r.restd.wait(PATIENCE), 0)
        p.expect((CLOSE, 1001), None)
    r.start()


def rss(r):
    with open("/proc/%d/smaps_rollup" % r.restd.pid, encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Rss:"))


def is_sanitized(r):
    with open(r.binary, "rb") as f:
        return b"__asan_init" in f.read()


@test(arguments=["--connections-per-key=2000", "--websockets-per-capsule=2000"])
def a_storm_leaves_others_alone(r):
    """threats.md K7: pings, fragments of a byte, messages of nothing, unread answers; and half of them vanish."""
    i, j = create(r), create(r)
    storms = (frame(PING, b"x" * 125) * 500, (frame(TEXT, b"", fin=0) + frame(0, b"x", fin=0) * 60 + frame(0, b"x")) * 50,
              frame(BINARY) * 5000, frame(PING) * 500 + frame(PONG, b"?") * 500)
    with Client(r) as c:
        expect(c.request("GET", "/v1/capsules/" + j), 200)
        before = rss(r)
        peers = [open_one(r, i, PATIENT[n % 2]) for n in range(200)]
        for p in peers:
            p.socket.setblocking(False)
        pending = {p: storms[n % 4] for n, p in enumerate(peers)}
        for turn in range(50):      # nobody reads a byte of what comes back
            for p in peers:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    pending[p] = pending[p][p.socket.send(pending[p]):] or storms[turn % 4]
            expect(c.request("GET", "/v1/capsules/" + j), 200)
        grown = rss(r) - before
        assert is_sanitized(r) or grown < 200 * 96 * 1024, grown
        for n, p in enumerate(peers):
            if n % 2:
                p.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            p.socket.close()
        with open_one(r, j) as p:
            is_alive(p)
        r.wait(lambda: len(os.listdir("/proc/%d/fd" % r.restd.pid)) < 100, PATIENCE)


@test(arguments=["--connections-per-key=2000", "--websockets-per-capsule=2000"])
def a_thousand_idle_ones(r):
    i = create(r)
    with open_one(r, i) as first:
        is_alive(first)
        before = rss(r)
        peers = [open_one(r, i, PATIENT[n % 2]) for n in range(1000)]
        for p in peers:
            is_alive(p)
        each = (rss(r) - before) / 1000
        print("# an idle WebSocket costs %.1f KiB in wrenn-restd" % (each / 1024))
        assert is_sanitized(r) or each <= 32 * 1024, each
        expect(r.request("GET", "/v1/capsules/" + i), 200)
        for p in peers[:500]:
            p.end()
        for p in peers:
            p.socket.close()
        is_alive(first)
        r.wait(lambda: len(os.listdir("/proc/%d/fd" % r.restd.pid)) < 100, PATIENCE)


if __name__ == "__main__":
    sys.exit(run_tests())
