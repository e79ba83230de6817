#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes, exec/stream, attach and terminals of real capsules (api.md §2.11 to §2.16). What needs no guest is in it-streams-wire.py."""

import concurrent.futures
import hashlib
import json
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from websocket import WebSocket, shown, typed  # noqa: E402
from wrenntest import API, check, cleanup, equal, main, rest, run, test, wait_for  # noqa: E402


def connect(path):
    w = WebSocket(socket.create_connection(API), path, rest().key)
    cleanup(w.socket.close)
    return w


def stream(capsule, *argv, **more):
    w = connect(f"/v1/capsules/{capsule}/exec/stream")
    w.send({"type": "start", "cmd": argv[0], **({"args": list(argv[1:])} if argv[1:] else {}), **more})
    return w


def attach(capsule, selector):
    return connect(f"/v1/capsules/{capsule}/processes/{selector}/stream")


def pty(capsule, **first):
    w = connect(f"/v1/capsules/{capsule}/pty")
    w.send({"type": "start", **first} if "tag" not in first else {"type": "connect", **first})
    return w


def shell(capsule):
    """A terminal whose shell says '> ', and what 'started' told."""
    w = pty(capsule, cmd="/bin/sh", envs={"PS1": "> "})
    started = w.receive()
    w.send(b"\n")
    w.until(says(b"> "))
    return w, started


def says(text):
    seen = b""

    def wanted(m):
        nonlocal seen
        seen += shown([m])[0]
        return text in seen
    return wanted


def text_of(messages, kind="stdout"):
    return "".join(m["data"] for m in messages if m["type"] == kind)


def processes(capsule):
    return rest().expect(200, "GET", f"/v1/capsules/{capsule}/processes").json["processes"]


def background(capsule, *argv, **more):
    body = {"cmd": argv[0], "args": list(argv[1:]), "background": True, **more}
    return rest().expect(202, "POST", f"/v1/capsules/{capsule}/exec", body).json


def kill(capsule, selector, query=""):
    return rest().request("DELETE", f"/v1/capsules/{capsule}/processes/{selector}{query}")


def create():
    return rest().create(memory_mb=256)["id"]


@test
def processes_are_listed_and_killed_with_their_group():
    capsule = create()
    equal(processes(capsule), [])
    first = background(capsule, "sleep 4001 | sleep 4002 & wait")
    second = background(capsule, "/bin/sleep", "4003", tag="mine")
    equal(sorted((p["pid"], p["tag"], p["cmd"], p.get("args")) for p in processes(capsule)),
          sorted(((first["pid"], first["tag"], "sleep 4001 | sleep 4002 & wait", None), (second["pid"], "mine", "/bin/sleep", ["4003"]))))
    for selector in (first["pid"], "mine"):
        equal(kill(capsule, selector).status, 204)      # the SDK waits 0.5 s, on a quiet machine
        wait_for(lambda s=selector: not [p for p in processes(capsule) if s in (p["pid"], p["tag"])], 5, "a killed process to leave the list")
    equal(processes(capsule), [])
    wait_for(lambda: not rest().exec(capsule, "ps ax -o args= | grep '[s]leep 400' || true")["stdout"], 20, "the end of the groups")
    for selector in (first["pid"], "mine", "nosuch", 1, 4294967295):
        answer = kill(capsule, selector)
        equal((answer.status, answer.code), (404, "not_found"), f"{selector}")
    equal(kill(capsule, "mine", "?signal=NOSUCH").status, 400)


@test
def signals_of_any_name():
    capsule = create()
    tried = background(capsule, "/bin/sh", "-c", "for s in HUP USR1 TERM; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.1; done")
    w = attach(capsule, tried["pid"])
    w.until(lambda m: "ready" in m.get("data", ""))
    for name, number in (("HUP", "HUP"), ("SIGUSR1", "USR1"), ("15", "TERM")):
        equal(kill(capsule, tried["pid"], f"?signal={name}").status, 204)
        w.until(lambda m, n=number: n in m.get("data", ""))
    equal(kill(capsule, tried["tag"], "?signal=KILL").status, 204)
    messages = w.all()
    equal((messages[-1], w.code), ({"type": "exit", "exit_code": -1}, 1000))


@test
def streams_of_commands():
    capsule = create()
    for argv, out, err, code in ((("/bin/sh", "-c", "echo n1; echo e1 >&2; exit 5"), "n1\n", "e1\n", 5), (("echo $((6*7))",), "42\n", "", 0),
                                 (("printf", "%s", "a  €"), "a  €", "", 0), (("kill -9 $$",), "", "", -1)):
        w = stream(capsule, *argv)
        messages = w.all()
        equal((messages[0]["type"], text_of(messages), text_of(messages, "stderr"), messages[-1], w.code),
              ("start", out, err, {"type": "exit", "exit_code": code}, 1000), f"{argv}")
    messages = stream(capsule, "echo $A; pwd; id -un; cat; tty", envs={"A": "ä"}, cwd="/tmp").all()
    equal(text_of(messages), "ä\n/tmp\nroot\nnot a tty\n")
    messages = stream(capsule, "sleep 1000", timeout_sec=1).all()
    equal(messages[-1]["type"], "error")
    equal(stream(capsule, "true", cwd="/nosuch").all()[0]["type"], "error")
    wait_for(lambda: processes(capsule) == [], 20, "an empty list")


@test
def text_is_whole_and_nothing_is_lost():
    capsule = create()
    text = "aä€😀\n" * 100000
    rest().exec(capsule, "i=0; while [ $i -lt 100000 ]; do printf 'aä€😀\\n'; i=$((i+1)); done >/tmp/text", timeout_sec=120)
    messages = stream(capsule, "cat /tmp/text; cat /tmp/text >&2").all()
    check(text_of(messages) == text and text_of(messages, "stderr") == text, "the text is not what was written")
    for n in range(40):
        messages = stream(capsule, "/bin/echo", str(n)).all()
        equal((text_of(messages), messages[-1]["exit_code"]), (f"{n}\n", 0), "a fast exit")


@test
def sixty_four_at_once():
    capsule = create()
    api = rest()
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: api.exec(capsule, f"seq {n} {n + 5000}", timeout_sec=300), range(64)))
    for n, answer in enumerate(answers):
        check(answer["stdout"] == "".join(f"{k}\n" for k in range(n, n + 5001)), f"output of command {n} is not whole")
    sockets = [stream(capsule, "seq", str(n), str(n + 5000)) for n in range(32)]
    for n, w in enumerate(sockets):
        check(text_of(w.all(300)) == "".join(f"{k}\n" for k in range(n, n + 5001)), f"output of stream {n} is not whole")


@test
def attach_shows_the_tail_and_what_follows():
    capsule = create()
    made = background(capsule, "/bin/sh", "-c", "echo early; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo late; exit 3")
    sockets = [attach(capsule, made["pid"]), attach(capsule, made["tag"])]
    for w in sockets:
        equal(w.receive(), {"type": "start", "pid": made["pid"]})
        equal(w.receive(), {"type": "stdout", "data": "early\n"})
    rest().exec(capsule, "touch /tmp/go")
    for w in sockets:
        messages = w.all()
        equal((text_of(messages), messages[-1], w.code), ("late\n", {"type": "exit", "exit_code": 3}, 1000))
    messages = attach(capsule, made["pid"]).all()
    equal((text_of(messages), messages[-1]), ("early\nlate\n", {"type": "exit", "exit_code": 3}), "an ended one")
    w = attach(capsule, "nosuch")
    equal(([m["type"] for m in w.all()], w.code), (["error"], 1000))


@test
def an_unread_stream_stops_its_process():
    capsule = create()
    w = stream(capsule, "i=0; while :; do i=$((i+1)); echo $i >/tmp/count; yes | head -c 1000000; done")
    w.receive()
    counts = []

    def stands_still():
        counts.append(rest().exec(capsule, "cat /tmp/count")["stdout"])
        time.sleep(1)
        return len(counts) > 1 and counts[-1] == counts[-2]

    wait_for(stands_still, 25, "the process to stop")
    check(int(counts[-1]) < 25, f"{counts[-1]} rounds were taken")
    w.until(lambda m: int(rest().exec(capsule, "cat /tmp/count")["stdout"]) > int(counts[-1]))


@test
def terminals_in_both_dialects():
    capsule = create()
    for framing in ("binary", "json"):
        w = pty(capsule, cmd="/bin/sh", cols=100, rows=30, envs={"PS1": "> ", "X": "ä"}, cwd="/tmp")
        w.send(typed("stty size; echo $TERM $X; pwd; tty\n", framing))  # before 'started'
        seen = w.until(says(b"/dev/pts/"))
        check(re.fullmatch("pty-[0-9a-f]{8}", seen[0]["tag"]) and seen[0]["pid"] > 0, str(seen[0]))
        w.send({"type": "resize", "cols": 132, "rows": 43})
        w.send(typed("stty size; exit 3\n", framing))
        messages = seen + w.all()
        data, dialects = shown(messages)
        equal((dialects, messages[-1], w.code), ({framing}, {"type": "exit", "exit_code": 3}, 1000))
        for line in (b"30 100\r\n", b"xterm-256color \xc3\xa4\r\n/tmp\r\n", b"43 132\r\n"):
            check(line in data, f"{line} is not in {data}")
    for framing in ("binary", "json"):
        w = pty(capsule, cmd="/bin/echo", args=["hello"])
        w.send(typed("", framing))
        messages = w.all()
        equal((shown(messages)[0], messages[-1]), (b"hello\r\n", {"type": "exit", "exit_code": 0}))


@test
def control_c_kill_and_the_default_shell():
    capsule = create()
    w = pty(capsule)
    w.receive()
    w.send(b"echo $0; sleep 4100\n")
    w.until(says(b"bash\r\n"))
    wait_for(lambda: rest().exec(capsule, "pgrep -f 'sleep 410[0]' || true")["stdout"], 20, "sleep")
    w.send(b"\x03")
    w.send(b"echo st$((7*7))opped\n")
    w.until(says(b"st49opped"))
    w.send(b"sleep 4101\n")
    wait_for(lambda: rest().exec(capsule, "pgrep -f 'sleep 410[1]' || true")["stdout"], 20, "sleep")
    w.send({"type": "kill"})
    equal(w.all()[-1], {"type": "exit", "exit_code": -1})
    equal(processes(capsule), [])


@test
def a_large_paste_arrives_whole():
    capsule = create()
    for framing in ("binary", "json"):
        w = pty(capsule, cmd="/bin/sh", args=["-c", "stty raw -echo; echo ready; head -c 1000000 | md5sum"])
        w.until(says(b"ready"))
        data = os.urandom(250000) * 4
        for at in range(0, len(data), 400000):
            w.send(typed(data[at:at + 400000], framing))
        check(hashlib.md5(data).hexdigest().encode() in shown(w.all(120))[0], "the paste is not what was sent")


@test
def a_lost_client_leaves_its_terminal():
    capsule = create()
    w, started = shell(capsule)
    w.send(b"X=kept\n")
    w.socket.close()
    w = pty(capsule, tag=started["tag"])
    equal(w.receive()["pid"], started["pid"])
    w.send(b"echo a${X}b\n")
    w.until(says(b"akeptb"))
    w.send({"type": "kill"})
    w.close()
    wait_for(lambda: processes(capsule) == [], 20, "the end of a killed terminal")


@test
def several_clients_on_one_terminal():
    capsule = create()
    a, started = shell(capsule)
    b, c = (pty(capsule, tag=started["tag"]) for _ in "bc")
    for w, framing, line in ((b, "json", "echo $((6*7))\n"), (c, "binary", "echo $((11*11))\n")):
        equal(w.receive()["tag"], started["tag"])
        w.send(typed(line, framing))
    for w in (a, b, c):
        w.until(says(b"121\r\n"))
    b.socket.close()
    c.send(b"exit 9\n")
    for w in (a, c):
        equal((w.all()[-1], w.code), ({"type": "exit", "exit_code": 9}, 1000))
    messages = pty(capsule, tag=started["tag"]).all()
    equal((messages[0]["type"], messages[-1]), ("started", {"type": "exit", "exit_code": 9}), "it has ended lately")


@test
def sessions_survive_a_restart_of_wrennd():
    capsule = create()
    w, _ = shell(capsule)
    s = stream(capsule, "while :; do echo tick; sleep 0.2; done")
    run("systemctl", "restart", "wrennd.service")
    w.send(b"echo $((6*7))\n")
    w.until(says(b"42\r\n"))
    s.until(lambda m: m["type"] == "stdout")
    wait_for(lambda: rest().request("GET", f"/v1/capsules/{capsule}").status == 200, 60, "the daemon")
    w.send(b"echo $((7*7))\n")
    w.until(says(b"49\r\n"))
    rest().destroy(capsule)
    for x in (w, s):
        check(x.all()[-1:] != [] and x.code in (1000, 1001), f"Close {x.code}")


@test
def sessions_survive_a_restart_of_wrenn_restd():
    capsule = create()
    w, started = shell(capsule)
    s = stream(capsule, "while :; do echo tick; sleep 0.2; done")
    pid = s.receive()["pid"]
    w.send(b"X=kept\n")
    w.until(says(b"> "))
    run("systemctl", "restart", "wrenn-restd.service")
    for x in (w, s):
        x.all()
        equal(x.code, 1001)
    w = pty(capsule, tag=started["tag"])
    equal(w.receive()["pid"], started["pid"])
    w.send(b"echo a${X}b\n")
    w.until(says(b"akeptb"))
    attach(capsule, pid).until(lambda m: m["type"] == "stdout")
    equal(sorted(p["pid"] for p in processes(capsule)), sorted((pid, started["pid"])))


@test
def an_open_stream_is_activity():
    capsule = create()
    w, _ = shell(capsule)

    def last():
        return rest().expect(200, "GET", f"/v1/capsules/{capsule}").json["last_active_at"]

    before = last()
    wait_for(lambda: last() > before, 60, "activity of an idle terminal")
    w.close()


@test
def a_capsule_that_ends_closes_its_streams():
    capsule = create()
    w, _ = shell(capsule)
    s = stream(capsule, "sleep", "1000")
    s.receive()
    rest().destroy(capsule)
    for x in (w, s):
        messages = x.all()
        equal((messages[-1]["type"], x.code), ("error", 1000), json.dumps(str(messages)))


if __name__ == "__main__":
    sys.exit(main())
