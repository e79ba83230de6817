# SPDX-License-Identifier: LGPL-2.1-or-later
"""Terminals, and several readers and writers of one process (docs/PROTOCOLS.md §3, api.md §2.15 and §2.16)."""

import hashlib
import json
import re
import time

import guestrig
from suite import equal, test, wait_for


@test("detached", "guest")
def terminal_output_before_exit(t):
    for i in range(20):
        st = t.client.start("/bin/echo", f"hello {i}", pty={})
        t.client.wait(st)
        r = guestrig.Result(st)
        equal((r.pty, r.stdout, r.code, r.exit["reason"]), (b"hello %d\r\n" % i, b"", 0, "exited"))
        assert r.started["tag"].startswith("pty-") and len(r.started["tag"]) == 12 and r.started["pty"] is True, r.started
        equal("".join(k for k, _ in st.frames()).replace("pp", "p"), "spx")
    equal(t.client.run("true", "x").started["pty"], False)


@test("detached", "guest")
def terminal_is_the_controlling_one(t):
    st = t.client.start("sh", "-c", "tty; ls -l /dev/tty >/dev/null && echo opened </dev/tty; stty size; echo $TERM; cat /proc/self/stat; "
                        "test -t 0 && test -t 1 && test -t 2 && echo all", pty={"cols": 101, "rows": 33})
    t.client.wait(st)
    r = guestrig.Result(st)
    lines = r.pty.decode().split("\r\n")
    assert lines[0].startswith("/dev/pts/"), lines
    equal((lines[1], lines[2], lines[3], lines[5], r.code), ("opened", "33 101", "xterm-256color", "all", 0))
    fields = lines[4].rsplit(")", 1)[1].split()
    equal((int(fields[2]), int(fields[3]), int(fields[5])), (r.started["pid"],) * 3)  # group, session, the terminal's group
    for spec, want in (({"pty": {"cols": 0, "rows": 0}}, b"24 80\r\n"), ({"pty": {"cols": 4096, "rows": 4096}}, b"4096 4096\r\n")):
        st = t.client.start("stty", "size", **spec)
        t.client.wait(st)
        equal(guestrig.Result(st).pty, want)
    st = t.client.start("sh", "-c", "echo $TERM", pty={}, env={"TERM": "vt100"})
    t.client.wait(st)
    equal(guestrig.Result(st).pty, b"vt100\r\n")


@test("detached", "guest")
def terminal_bad_specs(t):
    for spec in ({"cmd": "x", "pty": 1}, {"cmd": "x", "pty": {"cols": 4097}}, {"cmd": "x", "pty": {"rows": 4097}}, {"cmd": "x", "pty": {"cols": -1}},
                 {"cmd": "x", "pty": {"cols": "80"}}, {"pty": {}, "args": ["x"]}, {"cmd": ""}):
        st = t.client.request("POST", "/processes", guestrig.frame("j", json.dumps(spec).encode()))
        t.client.wait(st)
        equal((spec, st.status), (spec, 400))


@test("detached", "guest")
def terminal_typing(t):
    c = t.client
    st = c.terminal("sh", env={"PS1": "> "})
    c.wait_output(st, rb"> ")
    c.type(st, b"echo $((20 + 3))\n")
    c.wait_output(st, rb"\r\n23\r\n> ")
    listed = [p for p in c.json("GET", "/processes")[1]["processes"] if p["pty"]]
    equal([(p["cmd"], p["tag"]) for p in listed], [("sh", guestrig.Result(st).started["tag"])])
    c.type(st, b"sleep 9871234\n")
    c.wait_output(st, rb"sleep 9871234\r\n")
    wait_for(lambda: c.run("ps", "-eo", "args").stdout.count(b"sleep 9871234") == 1)
    c.type(st, b"\x03")  # interrupts the foreground job
    c.wait_output(st, rb"sleep 9871234\r\n\^C\r?\n?(\r\n)?> ")
    c.type(st, b"exit 7\n")
    c.wait(st)
    r = guestrig.Result(st)
    equal((r.code, r.pty[-8:]), (7, b"exit 7\r\n"))


@test("detached", "guest")
def terminal_early_input(t):
    """Input and size behind the spec, in the same body."""
    spec = json.dumps({"cmd": "sh", "pty": {}, "on_disconnect": "keep", "env": {"PS1": ""}}).encode()
    body = guestrig.frame("j", spec) + guestrig.frame("w", b"\0\x46\0\x07") + guestrig.frame("i", b"stty size; exit 3\n")
    st = t.client.request("POST", "/processes", body, end=False)
    t.client.wait(st)
    r = guestrig.Result(st)
    equal(r.code, 3)
    assert b"\r\n7 70\r\n" in r.pty, r.pty


@test("detached", "guest")
def terminal_resize(t):
    c = t.client
    st = c.terminal("bash", "-c", "trap 'echo told' WINCH; echo up; while :; do sleep 0.1; stty size; done", tag="winch")
    c.wait_output(st, rb"up")
    c.resize(st, 120, 40)
    c.wait_output(st, rb"told\r\n40 120")
    for cols, rows in ((0, 10), (10, 0), (4097, 10), (10, 4097), (65535, 65535)):
        c.resize(st, cols, rows)  # ignored
    equal(c.json("POST", "/processes/winch/resize?cols=99&rows=4096")[0], 204)
    c.wait_output(st, rb"\r\n4096 99\r\n")
    sizes = set(re.findall(rb"[0-9]+ [0-9]+", guestrig.Result(st).pty))
    assert sizes <= {b"24 80", b"40 120", b"4096 99"}, sizes
    for query in ("", "?cols=80", "?cols=0&rows=1", "?cols=4097&rows=1", "?cols=1&rows=4097", "?cols=x&rows=1", "?cols=-1&rows=1"):
        status, answer = c.json("POST", "/processes/winch/resize" + query)
        equal((query, status, answer["error"]["code"]), (query, 400, "invalid-args"))
        assert "4096" in answer["error"]["message"]
    equal(c.json("POST", "/processes/none/resize?cols=1&rows=1")[0], 404)
    plain = c.start("sleep", "60", tag="plain", end=False)
    c.wait_frame(plain, "s")
    status, answer = c.json("POST", "/processes/plain/resize?cols=1&rows=1")
    equal((status, answer["error"]["code"]), (400, "invalid-args"))
    c.resize(plain, 80, 24)  # no terminal: nothing happens
    equal(c.run("true", "x").code, 0)
    c.cancel(plain)
    equal(c.json("POST", "/processes/winch/signal")[0], 204)
    c.wait(st)
    equal(guestrig.Result(st).exit["signal"], 9)


@test("detached", "guest")
def terminal_detach_and_attach(t):
    c = t.client
    st = c.terminal("sh", tag="t1", env={"PS1": "> "})
    c.wait_output(st, rb"> ")
    c.type(st, b"A=kept\n")
    c.wait_output(st, rb"A=kept\r\n> ")
    c.cancel(st)
    st = c.attach("t1")
    c.wait_output(st, rb"A=kept\r\n> ")  # the tail
    c.type(st, b"echo $A\n")
    c.wait_output(st, rb"\r\nkept\r\n> ")
    c.send(st, b"", end=True)  # no more typing from here, the shell goes on
    late = c.attach("t1", tail=0)
    equal(guestrig.Result(late).pty, b"")
    c.type(late, b"echo $((6*7)); exit 4\n")
    c.wait(st, late)
    equal((guestrig.Result(st).code, guestrig.Result(late).code), (4, 4))
    assert guestrig.Result(st).pty.endswith(b"\r\n42\r\n") and guestrig.Result(late).pty.endswith(b"\r\n42\r\n")
    again = c.attach("t1")  # ended: the tail and the exit
    c.wait(again)
    equal(guestrig.Result(again).code, 4)
    assert guestrig.Result(again).pty.endswith(b"\r\n42\r\n")
    for path in ("/processes/t1/attach?tail=2", "/processes/t1/attach?tail=x"):
        equal(c.json("POST", path)[0], 400)
    equal(c.json("POST", "/processes/none/attach")[0], 404)


@test("detached", "guest")
def terminal_with_many_readers(t):
    c = t.client
    first = c.terminal("sh", tag="shared", env={"PS1": ""})
    others = [c.attach("shared") for _ in range(4)]
    for i, st in enumerate(others):
        c.type(st, b"echo n$((%d * 11))\n" % i)  # all may type
        for reader in [first, *others]:
            c.wait_output(reader, rb"\r\nn%d\r\n" % (i * 11))
    c.cancel(others.pop())
    c.cancel(first)  # also the one who started it
    c.type(others[0], b"echo left $((1 + 1)); exit\n")
    c.wait(*others)
    for st in others:
        r = guestrig.Result(st)
        assert b"left 2\r\n" in r.pty and r.code == 0


@test("detached", "guest")
def terminal_without_keep_dies_with_its_stream(t):
    c = t.client
    st = c.terminal("sh", "-c", "echo up; sleep 6543219", on_disconnect="kill")
    c.wait_output(st, rb"up")
    c.cancel(st)
    wait_for(lambda: c.run("ps", "-eo", "args").stdout.count(b"sleep 6543219") == 0)


@test("detached", "guest")
def terminal_background_job_is_hung_up(t):
    """The shell's end ends the terminal: nobody waits for a job in the background, also for one that does not mind."""
    c = t.client
    for script, n_left in (("sleep 7418529 & echo gone", 0), ("trap '' HUP; sleep 7418529 & echo gone", 1)):
        st = c.terminal("bash", "-c", script)
        c.wait(st)
        r = guestrig.Result(st)
        equal((r.pty, r.code), (b"gone\r\n", 0))
        wait_for(lambda: c.run("ps", "-eo", "args").stdout.splitlines().count(b"sleep 7418529") == n_left)
    c.run("ps -eo pid,args | grep '[s]leep 7418529' | while read p x; do kill $p; done")


@test("detached", "guest")
def terminal_kill_reaches_the_foreground(t):
    """A job in a group of its own that does not mind the hang-up."""
    c = t.client
    st = c.terminal("bash", "--norc", "-i", tag="killed", env={"PS1": "> "})
    c.wait_output(st, rb"> ")
    c.type(st, b"(trap '' HUP; exec sleep 3216549)\n")
    wait_for(lambda: c.run("ps", "-eo", "args").stdout.splitlines().count(b"sleep 3216549") == 1)
    equal(c.json("POST", "/processes/killed/signal?signal=KILL")[0], 204)
    c.wait(st)
    equal(guestrig.Result(st).exit["signal"], 9)
    equal(c.run("ps", "-eo", "args").stdout.splitlines().count(b"sleep 3216549"), 0)


@test("detached", "guest")
def terminal_nobody_has_open_for_a_moment(t):
    c = t.client
    st = c.terminal("bash", "-c", "T=$(tty); echo before; exec 0<&- 1>&- 2>&-; sleep 0.5; echo after >$T; exit 5")
    c.wait(st)
    equal((guestrig.Result(st).pty, guestrig.Result(st).code), (b"before\r\nafter\r\n", 5))


@test("detached", "guest")
def terminal_is_drained_without_reader(t):
    c = t.client
    st = c.terminal("sh", "-c", "seq 1 400000; echo end", tag="chatty-pty")
    c.cancel(st)
    wait_for(lambda: not c.json("GET", "/processes")[1]["processes"])
    late = c.attach("chatty-pty")
    c.wait(late)
    r = guestrig.Result(late)
    assert r.code == 0 and 40_000 < len(r.pty) <= 65536 and r.pty.endswith(b"\r\n400000\r\nend\r\n"), r.pty[-100:]


@test("detached", "guest")
def terminal_much_output(t):
    c = t.client
    st = c.start("seq", "1", "300000", pty={})
    c.wait(st, timeout=120)
    r = guestrig.Result(st)
    assert r.pty == b"".join(b"%d\r\n" % i for i in range(1, 300001)) and r.code == 0


@test("detached", "guest")
def terminal_much_input(t):
    """Raw bytes through the terminal, both ways at once; more than all buffers hold."""
    c = t.client
    big = bytes(range(256)) * 4096
    st = c.terminal("sh", "-c", f"stty raw -echo; echo ready; head -c {len(big)} | sha256sum; echo over")
    c.wait_output(st, rb"ready")
    c.type(st, big)
    c.wait(st, timeout=120)
    assert hashlib.sha256(big).hexdigest().encode() in guestrig.Result(st).pty


@test("detached", "guest")
def typing_to_a_sleeper_is_held_back(t):
    c = t.client
    st = c.terminal("sh", "-c", "stty raw -echo; echo ready; sleep 60", tag="deaf")
    c.wait_output(st, rb"ready")
    other = c.attach("deaf")
    for stream in (st, other):
        sent = 0
        while True:
            room = min(c.h2.local_flow_control_window(stream.id), 16384)
            if room < 6:
                if not c.pump(0.5):
                    break
                continue
            c.send(stream, guestrig.frame("i", b"x" * (room - 5)))
            sent += room
        assert sent < 1 << 20, sent
    c.cancel(other)
    equal(c.json("POST", "/processes/deaf/signal")[0], 204)
    c.wait(st)
    equal(c.run("true", "x").code, 0)


@test("guest")
def login_shell(t):
    c = t.client
    for user, shell, name in (("root", "/bin/sh", b"-sh"), ("user", "/bin/bash", b"-bash"), ("noshell", "/no/shell", b"-shell")):
        st = c.start("", end=False, pty={}, user=user, tag=f"login-{user}")
        c.wait_frame(st, "s")
        equal([p["cmd"] for p in c.json("GET", "/processes")[1]["processes"]], [shell])
        c.type(st, b"echo =$0=; pwd; stat -c %U $(tty); exit\n")
        c.wait(st)
        r = guestrig.Result(st)
        equal(r.code, 0)
        assert b"=" + name + b"=\r\n" in r.pty and user.encode() + b"\r\n" in r.pty, r.pty


@test("detached", "guest")
def attach_to_a_plain_process(t):
    c = t.client
    st = c.start("cat", end=False, stdin=True, shell_fallback=False, tag="cat", on_disconnect="keep")
    c.wait_frame(st, "s")
    other = c.attach("cat")
    c.send(other, guestrig.frame("i", b"from the other\n"))
    equal((c.wait_frame(st, "o"), c.wait_frame(other, "o")), (b"from the other\n",) * 2)
    c.send(other, b"", end=True)  # leaves the input open
    c.send(st, guestrig.frame("i", b"more\n"))
    third = c.attach("cat", tail=0)
    c.send(third, guestrig.frame("I", b""))
    c.wait(st, other, third)
    for stream in (st, other):
        r = guestrig.Result(stream)
        equal((r.stdout, r.code), (b"from the other\nmore\n", 0))
    equal(guestrig.Result(third).code, 0)
    for body in (guestrig.frame("j", b"{}"), b"w\0\0\0\3abc", b"i\xff\xff\xff\xff"):
        st = c.start("sleep", "60", tag="sleeper", on_disconnect="keep")
        c.wait_frame(st, "s")
        bad = c.request("POST", "/processes/sleeper/attach", body)
        c.wait(bad)
        assert bad.reset is not None, body
        equal(c.json("POST", "/processes/sleeper/signal")[0], 204)
        c.wait(st)


@test("detached")
def dead_reader_is_dropped_for_the_others(t):
    """READER_STALL_USEC: only who takes nothing, and only where others wait for it."""
    c = t.client
    n = 4 << 20
    dead = c.start("sh", "-c", f"read x; head -c {n} /dev/zero", end=False, stdin=True, tag="paced", on_disconnect="keep")
    c.wait_frame(dead, "s")
    slow, live = c.attach("paced"), c.attach("paced")
    alone = c.start("head", "-c", str(n), "/dev/zero")
    dead.hold = slow.hold = alone.hold = True
    c.send(live, guestrig.frame("i", b"go\n"))
    while c.pump(1):
        pass
    assert 0 < len(live.data) < 1 << 20, len(live.data)
    began = time.monotonic()
    while not dead.ended:
        c.release(slow, 2000)
        c.pump(1)
        assert time.monotonic() - began < 120
    equal((dead.reset, slow.ended, alone.ended), (11, False, False))
    slow.hold = alone.hold = False
    c.release(slow)
    c.release(alone)
    c.wait(slow, live, alone, timeout=120)
    for st in (slow, live, alone):
        r = guestrig.Result(st)
        equal((len(r.stdout), r.code), (n, 0))
