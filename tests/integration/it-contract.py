#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The REST contract on the wire: where upstream's documents, server and SDK disagree, what we decided, one test a row. The numbers
are the rows of that table; later rows (pause, snapshots, figures, proxy) come with their features."""

import base64
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from websocket import Refused, WebSocket  # noqa: E402
from wrenntest import API, check, equal, fresh_key, main, rest, test, wait_for  # noqa: E402

NOBODY = "cl-" + "0" * 24 + "1"
MESSAGE_TIMEOUT_SEC = 90


def capsule():
    return rest().create(memory_mb=256)["id"]


class Socket:
    """A WebSocket of the API; messages come as objects, binary ones as bytes, the end as the code of the Close."""

    def __init__(self, path, *messages, key=None):
        self.ws = WebSocket(socket.create_connection(API), path, key or rest().key)
        self.send(*messages)

    def send(self, *messages):
        for m in messages:
            self.ws.send(m)

    def next(self):
        message = self.ws.receive(MESSAGE_TIMEOUT_SEC)
        return self.ws.code if message is None else message

    def all(self, until=lambda m: isinstance(m, int)):
        found = []
        while not found or not until(found[-1]):
            found.append(self.next())
        return found

    def close(self):
        self.ws.close()


def files(verb, capsule_id, **body):
    return rest().request("POST", f"/v1/capsules/{capsule_id}/files/{verb}", body)


def write(capsule_id, path, content=b"x"):
    body = b"".join((b"--b\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n", path.encode(),
                     b"\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"upload\"\r\n"
                     b"Content-Type: application/octet-stream\r\n\r\n", content, b"\r\n--b--\r\n"))
    return rest().request("POST", f"/v1/capsules/{capsule_id}/files/write", body, {"Content-Type": "multipart/form-data; boundary=b"})


def background(capsule_id, line, **body):
    request = {"cmd": "/bin/sh", "args": ["-c", line], "background": True, **body}
    return rest().expect(202, "POST", f"/v1/capsules/{capsule_id}/exec", request).json


def processes(capsule_id):
    return rest().expect(200, "GET", f"/v1/capsules/{capsule_id}/processes").json["processes"]


def refused(answer, status, code):
    equal((answer.status, answer.code), (status, code), "status and code")


@test
def rows_1_2_34_39():
    """Rows 1, 2, 34, 39: a create runs, the list has it, a destroyed one is stopped, readable and not listed"""
    created = rest().create(memory_mb=256)
    equal(created["status"], "running", "status")
    check(created["id"] in [c["id"] for c in rest().expect(200, "GET", "/v1/capsules").json], "it is not listed")
    rest().destroy(created["id"])
    equal(rest().expect(200, "GET", f"/v1/capsules/{created['id']}").json["status"], "stopped", "status")
    check(created["id"] not in [c["id"] for c in rest().expect(200, "GET", "/v1/capsules").json], "it is still listed")
    rest().destroy(created["id"])


@test
def rows_7_8_9_10_33():
    """Rows 7 to 10, 33: exec has timeout_sec, which kills; envs and cwd in the foreground; a bad cwd is 400; cmd alone is a shell line"""
    c = capsule()
    answer = rest().request("POST", f"/v1/capsules/{c}/exec", {"cmd": "sleep 5432", "timeout_sec": 1})
    refused(answer, 504, "agent_error")
    check("timed out" in answer.json["error"]["message"], answer.body)
    equal(rest().exec(c, "pgrep", ["-fx", "sleep 5432"])["exit_code"], 1, "the command lives on; pgrep")
    equal(rest().exec(c, "echo $A $PWD", envs={"A": "b c"}, cwd="/tmp")["stdout"], "b c /tmp\n", "stdout")
    refused(rest().request("POST", f"/v1/capsules/{c}/exec", {"cmd": "true", "cwd": "/none"}), 400, "invalid_request")
    equal(rest().exec(c, "echo", ["$HOME"])["stdout"], "$HOME\n", "stdout of an argv")
    for seconds in (0, None):
        body = {} if seconds is None else {"timeout_sec": seconds}
        equal(rest().exec(c, "sleep 1; echo done", **body)["stdout"], "done\n", "stdout without a limit")


@test
def rows_11_12_13_19():
    """Rows 11, 12, 13, 19: what is missing is 404 not_found in read, list, remove and the streaming read"""
    c = capsule()
    for verb in ("read", "list", "remove", "stream/read", "stat"):
        refused(files(verb, c, path="/tmp/none"), 404, "not_found")
        refused(files(verb, c, path="/etc/passwd/below"), 404, "not_found")
    refused(files("list", c, path="/etc/passwd"), 400, "invalid_request")
    refused(files("read", c, path="/etc"), 400, "invalid_request")
    refused(files("remove", c, path="/"), 400, "invalid_request")
    for verb in ("read", "list", "remove", "mkdir", "stream/read"):
        refused(files(verb, c, path=""), 400, "invalid_request")
        refused(files(verb, c), 400, "invalid_request")


@test
def rows_14_15_16_17_18():
    """Rows 14 to 18: depth 0 is 1; parents are made; the default user owns; mkdir of a directory is 409 conflict; types are three"""
    c = capsule()
    equal(write(c, "/tmp/a/b/f").status, 204, "write")
    equal([e["path"] for e in files("list", c, path="/tmp/a", depth=0).json["entries"]], ["/tmp/a/b"], "depth 0")
    equal([e["path"] for e in files("list", c, path="/tmp/a").json["entries"]], ["/tmp/a/b"], "no depth")
    equal(len(files("list", c, path="/tmp/a", depth=2).json["entries"]), 2, "depth 2")
    entry = files("stat", c, path="/tmp/a/b").json["entry"]
    equal((entry["owner"], entry["group"], entry["permissions"]), ("root", "root", "drwxr-xr-x"), "owner")
    equal(files("stat", c, path="/tmp/a/b/f").json["entry"]["mode"], 0o644, "mode")
    refused(files("mkdir", c, path="/tmp/a/b"), 409, "conflict")
    refused(files("mkdir", c, path="/tmp/a/b/f"), 400, "invalid_request")
    refused(files("mkdir", c, path="/tmp/a/b/f/g"), 400, "invalid_request")
    equal(files("mkdir", c, path="/tmp/m/n").json["entry"]["path"], "/tmp/m/n", "path")
    kinds = {e["type"] for d in ("/dev", "/run", "/tmp", "/etc") for e in files("list", c, path=d).json["entries"]}
    check(kinds <= {"file", "directory", "symlink"}, str(kinds))
    refused(write(c, "/tmp/a/b"), 400, "invalid_request")
    refused(write(c, "/tmp/a/b/f/g"), 400, "invalid_request")


@test
def rows_16_standard():
    """Row 16, section 5.4: in `standard` files and commands belong to wrenn-user"""
    c = rest().create(template="standard")["id"]
    equal(write(c, "mine").status, 204, "write")
    entry = files("stat", c, path="~/mine").json["entry"]
    equal((entry["path"], entry["owner"], entry["group"]), ("/home/wrenn-user/mine", "wrenn-user", "wrenn-user"), "entry")
    equal(rest().exec(c, "id -un; pwd; sudo id -un; stat -c %U /tmp/new/dir 2>&1 || true")["stdout"].split("\n")[:3],
          ["wrenn-user", "/home/wrenn-user", "root"], "who runs")
    equal(rest().exec(c, "cd /home/user && pwd -P")["stdout"], "/home/wrenn-user\n", "/home/user")


@test
def rows_20_21():
    """Rows 20, 21: only what the API started is listed, with proc- tags; a kill ends the group"""
    c = capsule()
    equal(processes(c), [], "processes")
    made = background(c, "sleep 7654 | sleep 7654")
    check(made["tag"].startswith("proc-") and len(made["tag"]) == 13, made["tag"])
    equal(processes(c), [{"pid": made["pid"], "tag": made["tag"], "cmd": "/bin/sh", "args": ["-c", "sleep 7654 | sleep 7654"]}], "processes")
    rest().expect(204, "DELETE", f"/v1/capsules/{c}/processes/{made['tag']}?signal=SIGTERM")
    wait_for(lambda: processes(c) == [], 30, "an empty list")
    equal(rest().exec(c, "pgrep", ["-fx", "sleep 7654"])["exit_code"], 1, "pgrep")
    refused(rest().request("DELETE", f"/v1/capsules/{c}/processes/{made['pid']}"), 404, "not_found")


@test
def row_22():
    """Row 22: WebSockets to a capsule that is missing or does not run are told in-band; a bad id and a bad key before the 101"""
    stopped = capsule()
    rest().destroy(stopped)
    first = {"exec/stream": {"type": "start", "cmd": "true"}, "pty": {"type": "start"}, "processes/1/stream": None}
    for route, message in first.items():
        for c in (NOBODY, stopped):
            got = Socket(f"/v1/capsules/{c}/{route}", *([message] if message else [])).all()
            equal((got[0]["type"], got[-1]), ("error", 1000), f"{route} of {c}: {got}")
            check(route != "pty" or got[0].get("fatal") is True, f"not fatal: {got[0]}")
        for path, key, status in ((f"/v1/capsules/cl-short/{route}", None, 400), (f"/v1/capsules/{NOBODY}/{route}", "wrn_" + "0" * 32, 401)):
            try:
                Socket(path, key=key)
            except Refused as e:
                equal(e.status, status, path)
            else:
                raise AssertionError(f"{path}: upgraded")


@test
def row_23():
    """Row 23: `stop` detaches, the process goes on"""
    c = capsule()
    s = Socket(f"/v1/capsules/{c}/exec/stream", {"type": "start", "cmd": "sleep 8765"})
    pid = s.next()["pid"]
    s.send({"type": "stop"})
    equal(s.all()[-1], 1000, "Close")
    equal([p["pid"] for p in processes(c)], [pid], "pids")


@test
def row_24():
    """Row 24: attach to what does not exist ends in good order; to what ended lately tells its tail and code"""
    c = capsule()
    got = Socket(f"/v1/capsules/{c}/processes/4000000/stream").all()
    equal((got[0]["type"], got[-1]), ("error", 1000), str(got))
    made = background(c, "echo late; exit 4")
    wait_for(lambda: processes(c) == [], 30, "its end")
    got = Socket(f"/v1/capsules/{c}/processes/{made['pid']}/stream").all()
    equal(got, [{"type": "start", "pid": made["pid"]}, {"type": "stdout", "data": "late\n"}, {"type": "exit", "exit_code": 4}, 1000], "messages")


@test
def rows_25_26_28():
    """Rows 25, 26, 28: a terminal survives its socket, `user` is accepted, `started` comes after `connect` as well"""
    c = capsule()
    s = Socket(f"/v1/capsules/{c}/pty", {"type": "start", "cmd": "/bin/sh", "user": "root", "cols": 77, "rows": 22}, b"echo begin\n")
    got = s.all(lambda m: isinstance(m, bytes) and b"begin\r\n" in m)
    begun = got[0]
    check(begun["tag"].startswith("pty-") and begun["pid"] > 0, str(begun))
    s.close()
    s = Socket(f"/v1/capsules/{c}/pty", {"type": "connect", "tag": begun["tag"]}, b"stty size; exit 3\n")
    got = s.all()
    equal({k: got[0][k] for k in ("type", "tag", "pid")}, {"type": "started", "tag": begun["tag"], "pid": begun["pid"]}, "started")
    text = b"".join(m for m in got if isinstance(m, bytes))
    check(b"begin" in text and b"22 77" in text, text)
    equal(got[-2:], [{"type": "exit", "exit_code": 3}, 1000], "the end")


def pty_text(messages):
    return b"".join(m if isinstance(m, bytes) else base64.b64decode(m["data"]) for m in messages
                    if isinstance(m, bytes) or isinstance(m, dict) and m["type"] == "output")


@test
def row_27():
    """Row 27: who types JSON reads JSON, who types bytes reads bytes; a key remembers it for terminals that only print"""
    c = capsule()
    typed = {"json": {"type": "input", "data": base64.b64encode(b"echo $((6*7)); exit\n").decode()}, "binary": b"echo $((6*7)); exit\n"}
    for dialect, message in typed.items():
        _, key = fresh_key()
        for cmd, args, first, expected in (("/bin/sh", None, [message], b"42\r\n"), ("/bin/echo", ["only", "printed"], [], b"only printed")):
            start = {"type": "start", "cmd": cmd, **({"args": args} if args else {})}
            got = Socket(f"/v1/capsules/{c}/pty", start, *first, key=key).all()
            check(expected in pty_text(got), f"{dialect}: {got}")
            kinds = {"binary" if isinstance(m, bytes) else "json" for m in got if isinstance(m, bytes) or isinstance(m, dict) and m["type"] == "output"}
            equal(kinds, {dialect}, f"dialect of {cmd}")


@test
def row_30_38():
    """Rows 30, 38: calls of the data plane count as activity, also with timeout 0; a GET does not"""
    c = capsule()

    def active():
        return rest().expect(200, "GET", f"/v1/capsules/{c}").json["last_active_at"]

    calls = (lambda: rest().expect(204, "POST", f"/v1/capsules/{c}/ping"), lambda: rest().exec(c, "true"), lambda: processes(c),
             lambda: files("list", c, path="/tmp"))
    for call in calls:
        before = active()

        def changed(before=before, call=call):
            call()
            return active() != before

        wait_for(changed, 30, "a newer last_active_at", 0.3)


@test
def every_error_is_an_envelope():
    """Checklist 1, 2: unknown routes, methods and keys answer with the JSON envelope, also under /api"""
    for prefix in ("", "/api"):
        refused(rest().request("GET", f"{prefix}/v1/nothing"), 404, "not_found")
        refused(rest().request("PATCH", f"{prefix}/v1/capsules"), 405, "invalid_request")
        answer = rest().request("GET", f"{prefix}/v1/capsules", headers={"X-API-Key": "wrn_" + "f" * 32})
        refused(answer, 401, "unauthorized")


main()
