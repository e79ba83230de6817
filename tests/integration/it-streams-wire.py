#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The WebSockets of capsules message by message (api.md §2.14 to §2.16), on a bus of its own with tests/fake/fake-wrennd in
wrennd's place and processes of this machine. Needs no virtual machine.

    it-streams-wire.py [NAME…]     TAP output; names choose tests
"""
import base64
import hashlib
import os
import re
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from restd import KEY, OTHER_KEY, create, equal, run_tests, test  # noqa: E402
from websocket import Refused, shown, typed  # noqa: E402

NO_SUCH = "cl-0000000000000000000000000"
FIRST = "first message must be type 'start' with a 'cmd' field"
PTY_FIRST = "first message must be type 'start' or 'connect'"
SHELL = {"type": "start", "cmd": "/bin/sh"}


def stream(r, i, key=KEY):
    return r.websocket("/v1/capsules/%s/exec/stream" % i, key)


def attach(r, i, selector, key=KEY):
    return r.websocket("/v1/capsules/%s/processes/%s/stream" % (i, selector), key)


def pty(r, i, key=KEY):
    return r.websocket("/api/v1/capsules/%s/pty" % i, key)


def start(cmd, *args, **more):
    return {"type": "start", "cmd": cmd, **({"args": list(args)} if args else {}), **more}


def text_of(messages, kind="stdout"):
    return "".join(m["data"] for m in messages if m["type"] == kind)


def processes(r, i):
    return r.request("GET", "/v1/capsules/%s/processes" % i)[2]["processes"]


def kill_all(r, i):
    for p in processes(r, i):
        r.request("DELETE", "/v1/capsules/%s/processes/%d" % (i, p["pid"]))
    r.wait(lambda: not processes(r, i))


def is_type(*types):
    return lambda m: isinstance(m, dict) and m["type"] in types


def says(text):
    """True once the terminal has shown this; for WebSocket.until()."""
    seen = b""

    def wanted(m):
        nonlocal seen
        seen += shown([m])[0]
        return text in seen
    return wanted


# exec/stream


@test()
def stream_of_a_command(r):
    i = create(r)
    with stream(r, i) as w:
        w.send(start("/bin/sh", "-c", "echo n1; echo e1 >&2; exit 5"))
        messages = w.all()
        equal(w.code, 1000)
        assert messages[0] == {"type": "start", "pid": messages[0]["pid"]} and messages[0]["pid"] > 0, messages
        equal((text_of(messages), text_of(messages, "stderr")), ("n1\n", "e1\n"))
        equal(messages[-1], {"type": "exit", "exit_code": 5})
    for cmd, args, out, code in (("echo $((6*7))", [], "42\n", 0), ("printf", ["%s", "a  b"], "a  b", 0), ("exit 0", [], "", 0),
                                 ("kill -9 $$", [], "", -1), ("nosuchprogram", ["x"], "", 127), ("", [], None, None)):
        with stream(r, i) as w:
            w.send(start(cmd, *args))
            messages = w.all()
            if out is None:
                equal(messages, [{"type": "error", "data": "cmd is required", "fatal": True}])
                continue
            equal((text_of(messages), messages[-1]["exit_code"]), (out, code), cmd)


@test()
def stream_honours_environment_directory_and_time(r):
    i = create(r)
    with stream(r, i) as w:
        w.send(start("echo $A; pwd; test -t 0; cat", envs={"A": "ä"}, cwd="/", tag="streamed", unknown=1))
        equal(text_of(w.all()), "ä\n/\n")
        spec = r.get("last_spec")
        equal((spec["tag"], spec["on_disconnect"], spec["stdin"], spec["timeout_usec"]), ("streamed", "keep", False, 0))
    with stream(r, i) as w:
        w.send(start("sleep", "1000", timeout_sec=1))
        messages = w.all()
        equal((messages[-1]["type"], w.code), ("error", 1000))
        assert "timed out" in messages[-1]["data"], messages
    with stream(r, i) as w:
        w.send(start("true", cwd="/nosuch"))
        messages = w.all()
        equal([m["type"] for m in messages], ["error"])
        assert "/nosuch" in messages[0]["data"], messages


@test()
def wrong_first_messages_of_a_stream(r):
    i = create(r)
    for first in ("", "{", "[]", "1", {"type": "stop"}, {"type": "start"}, {"cmd": "true"}, {"type": "start", "cmd": None},
                  {"type": "start", "cmd": ["true"]}, {"type": "Start", "cmd": "true"}, b'{"type":"start","cmd":"true"}',
                  '{"type":"start","type":"start","cmd":"true"}', "[" * 10000):
        with stream(r, i) as w:
            w.send(first)
            messages = w.all()
            equal((messages, w.code), ([{"type": "error", "data": FIRST, "fatal": True}], 1000), first)
    for wrong in ({"args": "x"}, {"args": [1]}, {"envs": []}, {"envs": {"A": 1}}, {"cwd": 1}, {"timeout_sec": -1}, {"timeout_sec": "1"},
                  {"args": ["x"] * 1024}, {"args": ["x" * 65536] * 2}, {"tag": "x" * 65}):
        with stream(r, i) as w:
            w.send(start("true", **wrong))
            messages = w.all()
            equal(([m["type"] for m in messages], w.code), (["error"], 1000), wrong)
            assert messages[0]["data"].startswith(list(wrong)[0]) or "cmd, args" in messages[0]["data"], messages


@test()
def streams_of_capsules_that_are_not_there(r):
    i = create(r)
    for path in "/v1/capsules/%s/exec/stream", "/v1/capsules/%s/processes/1/stream", "/v1/capsules/%s/pty":
        for bad in "x", "cl-", i + "0":
            try:
                r.websocket(path % bad)
                raise AssertionError("upgraded")
            except Refused as e:
                equal(e.status, 400)
        for key, status in (("wrn_" + "0" * 32, 401),):
            try:
                r.websocket(path % i, key)
                raise AssertionError("upgraded")
            except Refused as e:
                equal(e.status, status)
        for ident, key in ((NO_SUCH, KEY), (i, OTHER_KEY)):
            with r.websocket(path % ident, key) as w:
                if "processes" not in path:
                    w.send(start("true"))
                messages = w.all()
                equal((messages, w.code), ([{"type": "error", "data": "capsule not found", "fatal": True}], 1000), path)
    r.control.SetState(i, "stopped")
    for path in "/v1/capsules/%s/exec/stream", "/v1/capsules/%s/processes/1/stream", "/v1/capsules/%s/pty":
        with r.websocket(path % i) as w:
            if "processes" not in path:
                w.send(start("true"))
            equal(w.all(), [{"type": "error", "data": "capsule is not running (status: stopped)", "fatal": True}])


@test()
def characters_are_never_cut(r):
    i = create(r)
    text = "aä€😀" * 20000
    with open(r.dir + "/text", "w", encoding="utf-8") as f:
        f.write(text)
    with stream(r, i) as w:
        w.send(start("cat %s/text; dd if=%s/text bs=7 2>/dev/null" % (r.dir, r.dir)))
        equal(text_of(w.all()) == text + text, True)
    for data, expected in ((b"\xe2\x82", "\ufffd"), (b"a\xffb", "a\ufffdb"), (b"\xf0\x9f\x98", "\ufffd"), (b"\xe2\x82A", "\ufffdA"),
                           (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"), (b"\xc0\xaf", "\ufffd\ufffd"), (b"a\0b", "a\0b")):
        slowly = "".join("printf '\\%03o'; sleep 0.05;" % b for b in data)
        with stream(r, i) as w:
            w.send(start(slowly))
            equal(text_of(w.all()), expected, data)
        with stream(r, i) as w:
            w.send(start(slowly.replace(";", ">&2;")))
            equal(text_of(w.all(), "stderr"), expected, data)


@test()
def fast_exits_lose_nothing(r):
    i = create(r)
    for n in range(50):
        with stream(r, i) as w:
            w.send(start("/bin/echo", str(n)))
            messages = w.all()
            equal((text_of(messages), messages[-1]), ("%d\n" % n, {"type": "exit", "exit_code": 0}))


@test()
def stop_and_lost_clients_detach(r):
    i = create(r)
    with stream(r, i) as w:
        w.send(start("sleep", "1001"))
        pid = w.receive()["pid"]
        for ignored in "{", {"type": "start", "cmd": "echo twice"}, {"type": "what"}, b"\0":
            w.send(ignored)
        w.send({"type": "stop"})
        equal((w.all(), w.code), ([], 1000))
    equal([p["pid"] for p in processes(r, i)], [pid])
    w = stream(r, i)
    w.send(start("sleep", "1002"))
    other = w.receive()["pid"]
    w.socket.close()
    w = stream(r, i)
    w.send(start("while :; do echo x; sleep 0.01; done"))
    loud = w.receive()["pid"]
    w.close()
    time.sleep(0.2)
    equal([p["pid"] for p in processes(r, i)], [pid, other, loud])
    kill_all(r, i)


@test()
def a_capsule_that_ends_takes_its_streams(r):
    i = create(r)
    with stream(r, i) as w, pty(r, i) as t, stream(r, i) as undecided:
        w.send(start("sleep", "1000"))
        w.receive()
        t.send(SHELL)
        t.receive()
        r.control.SetState(i, "stopped")
        for x in w, t:
            messages = x.all()
            equal((messages[-1]["type"], x.code), ("error", 1000), messages)
        equal((undecided.all(), undecided.code), ([], 1001))


@test()
def agents_that_lie_to_streams(r):
    i = create(r)
    for mode in "close", "garbage", "end":
        r.set(agent_mode=mode)
        for begin in stream, pty:
            with begin(r, i) as w:
                w.send(start("true"))
                messages = w.all()
                equal(([m["type"] for m in messages], w.code), (["error"], 1000), mode)
    r.set(agent_mode="run")
    with stream(r, i) as w:
        w.send(start("echo on"))
        equal(text_of(w.all()), "on\n")


@test()
def slow_readers_stop_the_process(r):
    i = create(r)
    before = r.get("bytes_sent")
    memory = rss(r)
    with stream(r, i) as w:
        w.send(start("yes"))
        w.receive()
        r.wait(lambda: settled(r), 30)
        taken = r.get("bytes_sent") - before
        assert taken < 4 << 20, "%d bytes were taken from the agent" % taken
        grew_less(r, memory, 4 << 20)
        with stream(r, i) as other:     # nobody else waits
            other.send(start("head -c 3000000 /dev/zero | tr '\\0' a"))
            equal(len(text_of(other.all())), 3000000)
        equal(text_of(w.until(lambda m: r.get("bytes_sent") - before > 8 << 20)).strip("y\n"), "")
    kill_all(r, i)


def rss(r):
    with open("/proc/%d/status" % r.restd.pid, encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024


def grew_less(r, before, limit):
    grown = rss(r) - before
    with open("/proc/%d/maps" % r.restd.pid, encoding="ascii") as f:
        assert grown < limit or "libasan" in f.read(), "memory grew by %d" % grown      # a sanitizer keeps what is freed


def settled(r):
    before = r.get("bytes_sent")
    time.sleep(0.5)
    return r.get("bytes_sent") == before


# attach


@test()
def attach_to_processes(r):
    i = create(r)
    made = r.request("POST", "/v1/capsules/%s/exec" % i,
                     {"cmd": "echo early; while ! test -e %s/go; do sleep 0.02; done; echo late; exit 3" % r.dir, "background": True})[2]
    time.sleep(0.2)
    with attach(r, i, made["pid"]) as a, attach(r, i, made["tag"]) as b:
        for w in a, b:
            equal(w.receive(), {"type": "start", "pid": made["pid"]})
            equal(w.receive(), {"type": "stdout", "data": "early\n"})
            w.send({"type": "stop"})
            w.send(b"anything")
        with open(r.dir + "/go", "w", encoding="ascii"):
            pass
        for w in a, b:
            messages = w.all()
            equal((text_of(messages), messages[-1], w.code), ("late\n", {"type": "exit", "exit_code": 3}, 1000))
    with attach(r, i, made["pid"]) as w:    # it has ended lately
        messages = w.all()
        equal((messages[0]["type"], text_of(messages), messages[-1]), ("start", "early\nlate\n", {"type": "exit", "exit_code": 3}))
    for nobody in "nosuch", "4294967295", "%20":
        with attach(r, i, nobody) as w:
            messages = w.all()
            equal(([m["type"] for m in messages], w.code), (["error"], 1000))
            assert "rocess" in messages[0]["data"], messages


@test()
def attach_to_a_terminal_shows_its_output(r):
    i = create(r)
    with pty(r, i) as w:
        w.send(SHELL)
        started = w.receive()
        with attach(r, i, started["tag"]) as a:
            equal(a.receive()["pid"], started["pid"])
            w.send(b"echo $((6*7))\n")
            a.until(lambda m: "42" in m.get("data", ""))
            w.send(b"exit 4\n")
            equal(a.all()[-1], {"type": "exit", "exit_code": 4})


# Terminals


@test()
def terminal_in_both_dialects(r):
    i = create(r)
    for framing in "binary", "json":
        with pty(r, i) as w:
            w.send(start("/bin/sh", cols=100, rows=30, envs={"PS1": "> ", "X": "ä"}, cwd="/"))
            started = w.receive()
            equal((started["type"], bool(re.fullmatch("pty-[0-9a-f]{8}", started["tag"])), started["pid"] > 0), ("started", True, True))
            w.send(typed("stty size; echo $TERM $X; pwd; tty\n", framing))
            seen = w.until(says(b"/dev/pts/"))
            w.send({"type": "resize", "cols": 132, "rows": 43})
            w.send(typed("stty size; exit 3\n", framing))
            messages = seen + w.all()
            data, dialects = shown(messages)
            equal((dialects, messages[-1], w.code), ({framing}, {"type": "exit", "exit_code": 3}, 1000))
            for line in b"30 100\r\n", "xterm-256color ä\r\n/\r\n".encode(), b"\r\n43 132\r\n":
                assert line in data, (line, data)


@test()
def terminal_defaults(r):
    i = create(r)
    with pty(r, i) as w:
        w.send({"type": "start", "cols": 0, "rows": 0, "user": ""})
        w.receive()
        spec = r.get("last_spec")
        equal((spec["cmd"], spec["args"], spec["pty"], spec["on_disconnect"]), ("/bin/bash", [], {"cols": 0, "rows": 0}, "keep"))
        assert "user" not in spec and "tag" not in spec
        w.send({"type": "kill"})
        equal(w.all()[-1], {"type": "exit", "exit_code": -1})
    with pty(r, i) as w:
        w.send(start("/bin/echo", "hello", user="root"))
        messages = w.all()
        equal((shown(messages)[0], messages[-1]), (b"hello\r\n", {"type": "exit", "exit_code": 0}))
        equal(r.get("last_spec")["user"], "root")


@test()
def terminal_wrong_first_messages(r):
    i = create(r)
    for first, text in (("", PTY_FIRST), ("{", PTY_FIRST), ({"type": "input", "data": ""}, PTY_FIRST), (b"x", PTY_FIRST),
                        ({"type": "pong"}, PTY_FIRST), ({}, PTY_FIRST), ({"type": "connect"}, "connect requires a 'tag' field"),
                        ({"type": "connect", "tag": ""}, "connect requires a 'tag' field"),
                        ({"type": "connect", "tag": 1}, "connect requires a 'tag' field"),
                        ({"type": "start", "cols": -1}, "cols:"), ({"type": "start", "rows": 4097}, "rows:"),
                        ({"type": "start", "envs": {"A": 1}}, "envs:"), ({"type": "start", "cwd": "/nosuch"}, "cwd"),
                        ({"type": "connect", "tag": "pty-00000000"}, "No process")):
        with pty(r, i) as w:
            w.send(first)
            messages = w.all()
            equal((len(messages), messages[0]["type"], messages[0]["fatal"], w.code), (1, "error", True, 1000), first)
            assert messages[0]["data"].startswith(text), (first, messages)
    made = r.request("POST", "/v1/capsules/%s/exec" % i, {"cmd": "sleep 1000", "background": True})[2]
    with pty(r, i) as w:
        w.send({"type": "connect", "tag": made["tag"]})
        equal(w.all(), [{"type": "error", "data": "The process has no terminal.", "fatal": True}])
    kill_all(r, i)


@test()
def early_input_is_kept(r):
    i = create(r)
    r.set(agent_mode="late")
    with pty(r, i) as w:
        w.send(SHELL)
        w.send({"type": "resize", "cols": 90, "rows": 20})
        w.send(typed("stty size\n", "json"))
        w.send({"type": "pong"})
        for n in range(50):
            w.send(typed("echo $((%d*1000))\n" % n, "json"))
        w.send({"type": "resize", "cols": 91, "rows": 20})
        w.send(typed("exit 7\n", "json"))
        r.wait(lambda: r.get("n_late") == 1)
        r.set(agent_mode="run")
        r.control.StartLate()
        messages = w.all()
        equal(messages[-1], {"type": "exit", "exit_code": 7})
        data, dialects = shown(messages)
        equal(dialects, {"json"})
        for line in (b"20 9", *(b" %d000\r" % n for n in range(1, 50))):
            assert line in data, (line, data)


@test()
def early_input_is_bounded(r):
    i = create(r)
    r.set(agent_mode="late")
    memory = rss(r)
    with pty(r, i) as w:
        w.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        w.send(start("head -c 16000000 | md5sum", envs={"RAW": "1"}))
        r.wait(lambda: r.get("n_late") == 1)
        data, pause = os.urandom(16000) * 1000, threading.Event()
        thread = threading.Thread(target=lambda: ([w.send(data[at:at + 100000]) for at in range(0, len(data), 100000)], pause.set()))
        thread.start()
        assert not pause.wait(2), "all of it was taken"
        grew_less(r, memory, 4 << 20)
        r.set(agent_mode="run")
        r.control.StartLate()
        assert pause.wait(60), "it is not taken"
        assert hashlib.md5(data).hexdigest().encode() in shown(w.all())[0]
        thread.join()


@test()
def input_is_held_while_the_process_reads_nothing(r):
    i = create(r)
    memory = rss(r)
    with pty(r, i) as w:
        w.send(start("sleep", "1000", envs={"RAW": "1"}))
        w.receive()
        w.socket.settimeout(3)
        sent = 0
        try:
            while sent < 64 << 20:
                w.send(b"x" * 65536)
                sent += 65536
        except TimeoutError:
            pass
        assert sent < 32 << 20, "%d bytes were taken" % sent
        grew_less(r, memory, 8 << 20)
        with stream(r, i) as other:
            other.send(start("echo on"))
            equal(text_of(other.all()), "on\n")
    kill_all(r, i)


@test()
def all_of_a_large_paste_arrives(r):
    i = create(r)
    for framing in "binary", "json":
        with pty(r, i) as w:
            w.send(start("head -c 4000000 | md5sum", envs={"RAW": "1"}))
            data = os.urandom(500000) * 8
            for at in range(0, len(data), 700000):
                w.send(typed(data[at:at + 700000], framing))
            assert hashlib.md5(data).hexdigest().encode() in shown(w.all())[0]


@test()
def dialect_rule(r):
    """Held back until an input decides; the default else; switching; what is remembered."""
    i = create(r)
    r.control.AddKey("wrn_" + "1" * 32, "key-d", "default", "")
    key = "wrn_" + "1" * 32

    def first_output(w):
        return shown(w.until(lambda m: shown([m])[1]))[1]

    with pty(r, i, key) as w:       # nothing known: the configured default after a while
        w.send(start("echo out; cat"))
        begin = w.until(is_type("started")) and time.monotonic()
        equal(first_output(w), {"binary"})
        assert time.monotonic() - begin > 0.15, "not held back"
        equal(r.get("framings").get("key-d"), None, "a default is remembered")
        w.send({"type": "kill"})
        w.all()
    with pty(r, i, key) as w:       # resize, pong and kill decide nothing, an input does, at once
        w.send(start("stty -echo; echo out; read x; echo got $x; read x; echo got $x; cat"))
        w.send({"type": "resize", "cols": 80, "rows": 25})
        w.send({"type": "pong"})
        w.send(typed("one\n", "json"))
        data, dialects = shown(w.until(says(b"got one")))
        equal(dialects, {"json"})
        r.wait(lambda: r.get("framings").get("key-d") == "json")
        w.send(typed("two\n", "binary"))        # switched
        seen = w.until(says(b"got two"))
        assert isinstance(seen[-1], bytes), seen
        w.send({"type": "kill"})
        w.all()
    with pty(r, i, key) as w:       # now the key is known by its last input
        w.send(start("echo out; cat"))
        w.until(is_type("started"))
        equal(first_output(w), {"binary"})
        w.send(typed("x", "json"))
        w.until(lambda m: shown([m])[1] == {"json"})
        w.send({"type": "kill"})
        w.all()
    with pty(r, i, key) as w:       # a process that ends at once: what was sent before still decides
        w.send(start("/bin/echo", "out"))
        w.send(typed("x", "binary"))
        equal(shown(w.all())[1], {"binary"})
    with pty(r, i, key) as w:
        w.send(start("/bin/echo", "out"))
        equal(shown(w.all())[1], {"binary"})


@test()
def dialect_of_a_tag(r):
    i = create(r)
    other = "wrn_" + "2" * 32
    r.control.AddKey(other, "key-t", "default", "")
    with pty(r, i) as w:
        w.send(SHELL)
        tag = w.receive()["tag"]
        w.send(typed("echo $((1+1))\n", "json"))
        w.until(says(b"2\r\n"))
    with pty(r, i) as w:            # the key shows the other one elsewhere
        w.send(SHELL)
        w.receive()
        w.send(typed("exit\n", "binary"))
        w.all()
    with pty(r, i, other) as w:
        w.send({"type": "connect", "tag": tag})
        equal(w.receive()["tag"], tag)
        data, dialects = shown(w.until(says(b"2")))
        equal(dialects, {"json"}, "scrollback")
        w.send({"type": "kill"})
        w.all()


@test()
def dialect_from_the_daemon(r):
    i = create(r)
    secret = "wrn_" + "3" * 32
    r.set(framings={"key-k": "json"}, default_framing="binary")
    r.control.AddKey(secret, "key-k", "default", "")
    with pty(r, i, secret) as w:
        w.send(start("/bin/echo", "out"))
        equal(shown(w.all())[1], {"json"})
    secret = "wrn_" + "4" * 32
    r.set(framings={}, default_framing="json")
    r.control.AddKey(secret, "key-l", "default", "")
    with pty(r, i, secret) as w:
        w.send(start("/bin/echo", "out"))
        equal(shown(w.all())[1], {"json"})
    r.set(default_framing="binary")


@test()
def notes_of_keys_are_few(r):
    i = create(r)
    before = r.get("n_notes")
    with pty(r, i) as w:
        w.send(start("cat"))
        w.receive()
        for n in range(200):
            w.send(typed("x", ("json", "binary")[n % 2]))
        w.send({"type": "kill"})
        w.all()
    assert r.get("n_notes") - before <= 2, r.get("n_notes") - before


@test()
def several_clients_on_one_terminal(r):
    i = create(r)
    with pty(r, i) as a, pty(r, i) as b, pty(r, i) as c:
        a.send(start("/bin/sh", envs={"PS1": "> "}))
        started = a.receive()
        a.send(b"echo $((1+1))\n")
        a.until(says(b"2\r\n"))
        for w, framing in (b, "json"), (c, "binary"):
            w.send({"type": "connect", "tag": started["tag"]})
            equal(w.receive(), started)
            w.send(typed("echo $((6*7))\n" if w is b else "echo $((11*11))\n", framing))
        for w in a, b, c:
            w.until(says(b"121"))
        b.socket.close()
        c.send(typed("exit 9\n", "binary"))
        for w in a, c:
            equal((w.all()[-1], w.code), ({"type": "exit", "exit_code": 9}, 1000))
    with pty(r, i) as w:            # it has ended lately
        w.send({"type": "connect", "tag": started["tag"]})
        messages = w.all()
        equal((messages[0], messages[-1]), (started, {"type": "exit", "exit_code": 9}))
        assert b"121" in shown(messages)[0]


@test()
def a_lost_client_leaves_its_terminal(r):
    i = create(r)
    w = pty(r, i)
    w.send(SHELL)
    tag = w.receive()["tag"]
    w.send(b"X=kept\n")
    w.socket.close()                # right behind its input
    with pty(r, i) as w:
        w.send({"type": "connect", "tag": tag})
        w.send(b"echo a${X}b\n")
        w.until(says(b"akeptb"))
        w.send({"type": "kill"})
        w.close()                   # right behind its kill
    r.wait(lambda: not processes(r, i))


@test()
def sessions_survive_a_new_restd_and_a_lost_wrennd(r):
    i = create(r)
    with pty(r, i) as w, stream(r, i) as s:
        w.send(SHELL)
        w.receive()
        s.send(start("while :; do echo tick; sleep 0.05; done"))
        s.receive()
        r.control.Absent(True)
        w.send(b"echo $((6*7))\n")
        w.until(says(b"42"))
        s.until(is_type("stdout"))
        r.control.Absent(False)
        equal(r.request("GET", "/v1/capsules/" + i)[0], 200)
        w.send(b"echo $((7*7))\n")
        w.until(says(b"49"))
        s.until(is_type("stdout"))
    kill_all(r, i)


@test()
def a_stopping_restd_closes_and_the_terminal_lives(r):
    i = create(r)
    with pty(r, i) as w:
        w.send(SHELL)
        started = w.receive()
        w.send(typed("echo $((6*7))\n", "json"))
        w.until(says(b"42"))
        r.restd.terminate()
        w.all()
        equal(w.code, 1001)
    equal(r.stop(), 0)
    r.start()
    with pty(r, i) as w:
        w.send({"type": "connect", "tag": started["tag"]})
        equal(w.receive(), started)
        data, dialects = shown(w.until(says(b"42")))
        equal(dialects, {"json"}, "kept with the key")
        w.send({"type": "kill"})
        equal(w.all()[-1]["type"], "exit")


@test()
def ping_within_thirty_seconds(r):
    i = create(r)
    with pty(r, i) as w:
        w.send(start("cat"))
        w.receive()
        equal(w.receive(31), {"type": "ping"})
        w.send({"type": "pong"})
        w.send({"type": "nonsense"})
        w.send("{")
        w.send({"type": "input", "data": "%%%"})
        w.send({"type": "resize", "cols": 0, "rows": 10})
        w.send({"type": "resize", "cols": 70000, "rows": 10})
        w.send({"type": "start", "cmd": "again"})
        w.send(typed("on\n", "json"))
        equal(base64.b64decode(w.until(is_type("output"))[-1]["data"])[:2], b"on")
        w.send({"type": "kill"})
        equal(w.all()[-1], {"type": "exit", "exit_code": -1})


@test()
def first_messages_have_a_deadline(r):
    i = create(r)
    with pty(r, i) as w, stream(r, i) as s:
        begin = time.monotonic()
        equal((w.all(), w.code), ([{"type": "error", "data": PTY_FIRST, "fatal": True}], 1000))
        equal((s.all(), s.code), ([{"type": "error", "data": FIRST, "fatal": True}], 1000))
        assert 28 < time.monotonic() - begin < 50


if __name__ == "__main__":
    sys.exit(run_tests())
