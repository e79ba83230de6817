#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file routes (api.md §2.18 to §2.25) byte by byte, on a bus of its own with tests/fake/fake-wrennd in wrennd's place and either
the real agent on this machine's files or one that lies. Needs no virtual machine.

    it-files-wire.py [NAME…]     TAP output; names choose tests
"""
import base64
import concurrent.futures
import contextlib
import json
import os
import random
import select
import shutil
import socket
import stat
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from restd import KEY, OTHER_KEY, SOURCE, Client, create, equal, expect, run_tests, test  # noqa: E402

AGENT = os.environ.get("WRENN_AGENT", SOURCE + "/build/src/agent/wrenn-agent-detached")
NO_SUCH = "cl-0000000000000000000000000"
ROUTES = ("read", "list", "mkdir", "remove", "stat", "rename", "stream/read", "tar/read", "write", "stream/write", "tar/write?path=x")
FORM = "Content-Type: multipart/form-data; boundary=b0"
MIB = 1 << 20
ENTRY = {"name": "x", "path": "/x", "type": "file", "size": 5, "mode": 420, "permissions": "-rw-r--r--", "owner": "root", "group": "root",
         "modified_at": 1}


def part(name, data, more=""):
    name = 'Content-Disposition: form-data; name="%s"%s\r\n\r\n' % (name, more)
    return b"--b0\r\n" + name.encode() + (data if isinstance(data, bytes) else data.encode()) + b"\r\n"


def form(path, data, path_first=True):
    parts = part("path", path), part("file", data, '; filename="upload"\r\nContent-Type: application/octet-stream')
    return b"".join(parts if path_first else parts[::-1]) + b"--b0--\r\n"


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Files:
    """A directory of this machine, a capsule whose agent sees it, and a connection."""

    def __init__(self, r, lie=None):
        self.r = r
        self.dir = r.dir + "/files"
        shutil.rmtree(self.dir, ignore_errors=True)
        os.mkdir(self.dir)
        r.set(agent_program="" if lie is not None else AGENT, home=self.dir, file_lie=lie or {}, bytes_taken=0, bytes_sent=0)
        self.id = create(r)
        self.base = "/v1/capsules/%s/files/" % self.id

    def __enter__(self):
        self.client, self.closed = Client(self.r), False
        return self

    def __exit__(self, *unused):
        self.client.socket.close()
        self.r.request("DELETE", "/v1/capsules/" + self.id)

    def lie(self, **lie):
        self.r.set(file_lie=lie)

    def path(self, name):
        return self.dir + "/" + name

    def content(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def post(self, verb, body=None, *headers):
        """An answer; the connection is made anew where it was closed, also because it idled."""
        if self.closed or select.select([self.client.socket], [], [], 0)[0]:
            self.client.socket.close()
            self.client = Client(self.r)
        self.closed = True
        answer = self.client.request("POST", self.base + verb, body, headers)
        self.closed = answer[1].get("connection") == "close"
        return answer

    def write(self, path, data, verb="write", path_first=True):
        return self.post(verb, form(path, data, path_first), FORM)

    def head(self, verb, *headers):
        lines = ["POST %s%s HTTP/1.1" % (self.base, verb), "Host: localhost", "X-API-Key: " + KEY, *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


def resident(pid, field="VmRSS"):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(field + ":"))


def is_sanitized(pid):
    with open("/proc/%d/maps" % pid) as f:
        return "libasan" in f.read()


# What works


@test()
def files_are_written_and_read(r):
    contents = (b"", b"hello world", bytes(range(256)) * 300, b"\r\n--b\r", b"\r\n" * 9 + b"--b", os.urandom(3 * MIB))
    with Files(r) as f:
        for i, data in enumerate(contents):
            for verb in "write", "stream/write":
                name = "new/deep%d/%s" % (i, verb[0])
                status, headers, body = f.write(f.path(name), data, verb)
                equal((status, body), (204, b""))
                assert "content-length" not in headers
                equal(f.content(name), data)
                for read in "read", "stream/read":
                    status, headers, body = f.post(read, {"path": f.path(name)})
                    equal((status, headers["content-type"], body), (200, "application/octet-stream", data))
        os.chmod(f.path("new/deep1/w"), 0o640)
        inode = os.stat(f.path("new/deep1/w")).st_ino
        equal(f.write(f.path("new/deep1/w"), b"less")[0], 204)
        equal(f.content("new/deep1/w"), b"less")
        now = os.stat(f.path("new/deep1/w"))
        equal((now.st_ino, stat.S_IMODE(now.st_mode)), (inode, 0o640))
        equal(stat.S_IMODE(os.stat(f.path("new/deep1/s")).st_mode), 0o644)


@test()
def fields_in_any_order(r):
    big = os.urandom(5 * MIB)
    with Files(r) as f:
        for data in b"", b"late", big:
            equal(f.write(f.path("late"), data, path_first=False)[0], 204)
            equal(f.content("late"), data)
        before = r.get("n_channels")
        expect(f.write(f.path("none"), b"x", "stream/write", path_first=False), 400, "invalid_request")
        extra = part("other", "x" * 70000) + form(f.path("extra"), b"e")
        equal(f.post("write", extra, FORM)[0], 204)
        equal(f.content("extra"), b"e")
        name = os.fsencode(f.path("")) + b"\xff\n\"'\\"
        body = part("path_base64", base64.b64encode(name)) + part("file", b"odd") + b"--b0--"
        for verb in "write", "stream/write":
            equal(f.post(verb, body, FORM)[0], 204)
        equal(open(name, "rb").read(), b"odd")
        equal(f.post("read", {"path_base64": base64.b64encode(name).decode()})[2], b"odd")
        assert not os.path.exists(f.path("none")) and r.get("n_channels") == before
        with open("/proc/%d/status" % r.restd.pid):
            kept = [os.readlink("/proc/%d/fd/%s" % (r.restd.pid, n)) for n in os.listdir("/proc/%d/fd" % r.restd.pid)]
        equal([k for k in kept if k.startswith("/var/tmp")], [])


@test()
def chunks_anywhere(r):
    data = b"x\r\n--b\r\r\n-" * 20
    with Files(r) as f:
        for verb in "write", "stream/write":
            body = form(f.path("c"), data)
            text = f.head(verb, FORM, "Transfer-Encoding: chunked") + b"".join(chunk(body[i:i + 1]) for i in range(len(body))) + chunk(b"")
            with Client(r) as c:
                c.socket.sendall(text)
                equal(c.receive()[0], 204)
            equal(f.content("c"), data)
        with Client(r) as c:        # as the SDK does, with pauses
            c.socket.sendall(f.head("stream/write", FORM, "Transfer-Encoding: chunked"))
            for line in body.splitlines(keepends=True):
                c.socket.sendall(chunk(line))
                time.sleep(0.005)
            c.socket.sendall(chunk(b""))
            equal(c.receive()[0], 204)
            equal(c.request("POST", f.base + "stat", {"path": f.path("c")})[2]["entry"]["size"], len(data))
        with Client(r) as c:
            c.socket.sendall(f.head("write", FORM, "Expect: 100-continue", "Content-Length: %d" % len(body)))
            assert c.socket.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
            c.socket.sendall(body)
            equal(c.receive()[0], 204)


@test()
def parts_of_files(r):
    with Files(r) as f:
        with open(f.path("sparse"), "wb") as sparse:
            sparse.seek(5 << 30)
            sparse.write(b"the end")
        for verb in "read", "stream/read":
            equal(f.post(verb, {"path": f.path("sparse"), "offset": (5 << 30) - 2})[2], b"\0\0the end")
            equal(f.post(verb, {"path": f.path("sparse"), "offset": 5 << 30, "length": 3})[2], b"the")
            equal(f.post(verb, {"path": f.path("sparse"), "offset": 6 << 30})[2], b"")
            equal(f.post(verb, {"path": f.path("sparse"), "length": 0})[2], b"")
            for wrong in {"offset": -1}, {"length": -1}, {"offset": "1"}, {"offset": 1 << 63}:
                expect(f.post(verb, {"path": f.path("sparse"), **wrong}), 400, "invalid_request")
        assert b"Linux version" in f.post("read", {"path": "/proc/version"})[2]
        equal(f.post("stat", {"path": f.path("sparse")})[2]["entry"]["size"], (5 << 30) + 7)


@test()
def directories(r):
    with Files(r) as f:
        equal(f.post("list", {"path": f.dir})[2], {"entries": []})
        made = expect(f.post("mkdir", {"path": f.path("a/b")}), 200)["entry"]
        equal((made["name"], made["path"], made["type"], made["mode"], made["permissions"]), ("b", f.path("a/b"), "directory", 0o755, "drwxr-xr-x"))
        expect(f.post("mkdir", {"path": f.path("a/b")}), 409, "conflict")
        f.write(f.path("a/file"), b"12345")
        expect(f.post("mkdir", {"path": f.path("a/file")}), 400, "invalid_request")
        expect(f.post("mkdir", {"path": f.path("a/file/x")}), 400, "invalid_request")
        os.symlink("file", f.path("a/link"))
        os.symlink("nowhere", f.path("a/dangling"))
        os.mkfifo(f.path("a/fifo"))
        odd = os.fsencode(f.path("a/")) + b"\xff\n"
        open(odd, "wb").close()
        entries = {e["name"]: e for e in expect(f.post("list", {"path": f.path("a"), "depth": 0}), 200)["entries"]}
        equal(sorted(entries), sorted(["b", "file", "link", "dangling", "fifo", "\ufffd\n"]))
        equal({k: v["type"] for k, v in entries.items() if k in ("b", "file", "link", "dangling", "fifo")},
              {"b": "directory", "file": "file", "link": "file", "dangling": "symlink", "fifo": "file"})
        equal(base64.b64decode(entries["\ufffd\n"]["path_base64"]), odd)
        assert "path_base64" not in entries["file"] and entries["link"]["symlink_target"] == f.path("a/file")
        equal((entries["file"]["size"], entries["file"]["owner"], entries["file"]["path"]), (5, "root", f.path("a/file")))
        equal(len(f.post("list", {"path": f.dir, "depth": 64})[2]["entries"]), 7)
        equal(f.post("remove", {"path_base64": base64.b64encode(odd).decode()})[0], 204)

        moved = expect(f.post("rename", {"from": f.path("a/file"), "to": f.path("a/b/moved")}), 200)["entry"]
        equal((moved["name"], moved["size"]), ("moved", 5))
        f.write(f.path("other"), b"o")
        expect(f.post("rename", {"from": f.path("other"), "to": f.path("a/b/moved")}), 409, "conflict")
        expect(f.post("rename", {"from": f.path("other"), "to": f.path("a/b/moved"), "overwrite": True}), 200)
        equal(f.content("a/b/moved"), b"o")
        equal(f.post("remove", {"path": f.path("a")})[0], 204)
        expect(f.post("remove", {"path": f.path("a")}), 404, "not_found")
        equal(os.listdir(f.dir), [])


@test()
def large_listings(r):
    with Files(r) as f:
        for i in range(20000):
            os.close(os.open(f.path("%05d" % i), os.O_CREAT | os.O_WRONLY, 0o600))
        entries = expect(f.post("list", {"path": f.dir}), 200)["entries"]
        equal(sorted(e["name"] for e in entries), ["%05d" % i for i in range(20000)])


@test()
def sixteen_at_a_time(r):
    def one(i):
        data = random.Random(i).randbytes(2 * MIB + i)
        with Client(r) as c:
            c.send("POST", f.base + ("write" if i % 2 else "stream/write"), form(f.path("p%d" % i), data, i % 4 != 1), [FORM])
            if c.receive()[0] != 204:
                return False
            return c.request("POST", f.base + "read", {"path": f.path("p%d" % i)})[2] == data

    with Files(r) as f, concurrent.futures.ThreadPoolExecutor(16) as pool:
        equal(list(pool.map(one, range(32))), [True] * 32)


@test()
def transfers_cost_no_memory(r):
    n = 256 * MIB
    block = bytes(MIB)
    with Files(r) as f:
        pid = r.restd.pid
        f.write(f.path("warm"), block)
        f.post("read", {"path": f.path("warm")})
        os.truncate(f.path("warm"), n)
        with open("/proc/%d/clear_refs" % pid, "w") as peak:
            peak.write("5")
        before = resident(pid)
        with Client(r) as c:
            c.send("POST", f.base + "stream/read", {"path": f.path("warm")})
            got = 0
            while got < n:
                got += len(c.socket.recv(MIB))
        with Client(r) as c:
            body = form(f.path("up"), b"\xff").split(b"\xff")
            c.socket.sendall(f.head("stream/write", FORM, "Content-Length: %d" % (n + sum(map(len, body)))) + body[0])
            for _ in range(n // MIB):
                c.socket.sendall(block)
            c.socket.sendall(body[1])
            equal(c.receive()[0], 204)
        equal(os.path.getsize(f.path("up")), n)
        grown = resident(pid, "VmHWM") - before
        assert grown <= MIB or is_sanitized(pid), grown


# What is refused


@test()
def wrong_requests(r):
    with Files(r) as f:
        for route in ROUTES:
            expect(r.request("POST", "/v1/capsules/x/files/" + route, {}), 400, "invalid_request")
            expect(r.request("POST", "/v1/capsules/%s/files/%s" % (NO_SUCH, route), {}), 404, "not_found")
            expect(r.request("POST", f.base + route, {}, key=OTHER_KEY), 404, "not_found")
            expect(r.request("POST", f.base + route, {}, key=None), 401, "unauthorized")
            equal(r.request("GET", f.base + route.split("?")[0])[1].get("allow"), "POST")
            if not route.startswith(("write", "stream/w", "tar/w")):
                for body in (b"", b"[]", b"{", b'{"path":1}', b"{}", b'{"path":""}', b'{"path":"a\\u0000"}', b'{"path":"\xff"}',
                             b'{"path_base64":"!"}', json.dumps({"path": "x" * 4097}).encode(), b'{"path":"a","path_base64":"YQ=="}'):
                    expect(f.post(route, body), 400, "invalid_request")
                expect(f.post(route, b" " * 65537), 413, "too_large")
        for body in b'{"path":"a","depth":65}', b'{"path":"a","depth":-1}', b'{"path":"a","depth":"1"}':
            expect(f.post("list", body), 400, "invalid_request")
        expect(f.post("rename", {"from": "a"}), 400, "invalid_request")
        expect(f.post("rename", {"from": "\u00e4" * 2000, "to": "\u00e4" * 2000}), 400, "invalid_request")
        for path in "", "path=", "x=/tmp", "path=a&path=b":
            expect(f.post("tar/write?" + path, b""), 400, "invalid_request")
        r.control.SetState(f.id, "paused")
        for route in ROUTES:
            expect(f.post(route, {"path": "x"}), 409, "invalid_state")
        r.control.SetState(f.id, "running")
        equal(f.post("list", {"path": f.dir})[0], 200)


@test()
def wrong_forms(r):
    with Files(r) as f:
        good = form(f.path("x"), b"data")
        for verb in "write", "stream/write":
            for kind in (None, "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b0",
                         "multipart/form-data; boundary=" + "x" * 71, "multipart/form-data; boundary=b1"):
                expect(f.post(verb, good, *(["Content-Type: " + kind] if kind else [])), 400, "invalid_request")
            for body in (b"", b"--b0--", part("path", "x") + b"--b0--", good[:-8], good[:60], good.replace(b"--b0--", b"--b0x"),
                         part("file", b"x") + b"--b0--", part("path", "") + part("file", b"x") + b"--b0--",
                         part("path", b"\xff") + part("file", b"x") + b"--b0--", part("path", b"a\0b") + part("file", b"x") + b"--b0--",
                         part("path", "x" * 4097) + part("file", b"x") + b"--b0--", part("path", "x" * 10000) + part("file", b"") + b"--b0--",
                         part("path", "x") + part("path", "x") + part("file", b"x") + b"--b0--",
                         part("path", "y") + part("path_base64", "eA==") + part("file", b"x") + b"--b0--",
                         part("path", f.path("twice")) + part("file", b"x") + part("file", b"x") + b"--b0--",
                         part("path", f.path("x")) + part("file", b"x") * 17 + b"--b0--",
                         part("path_base64", "?") + part("file", b"x") + b"--b0--"):
                expect(f.post(verb, body, FORM), 400, "invalid_request")
        equal(r.restd.poll(), None)


@test()
def codes_of_the_guest(r):
    with Files(r) as f:
        f.write(f.path("file"), b"x")
        os.mkdir(f.path("dir"))
        for verb in "read", "stream/read":
            expect(f.post(verb, {"path": f.path("none")}), 404, "not_found")
            expect(f.post(verb, {"path": f.path("file/x")}), 404, "not_found")
            expect(f.post(verb, {"path": f.path("dir")}), 400, "invalid_request")
            expect(f.post(verb, {"path": "/dev/zero"}), 400, "invalid_request")
            expect(f.post(verb, {"path": "~other/x"}), 400, "invalid_request")
        expect(f.post("list", {"path": f.path("none")}), 404, "not_found")
        expect(f.post("list", {"path": f.path("file/x")}), 404, "not_found")
        expect(f.post("list", {"path": f.path("file")}), 400, "invalid_request")
        expect(f.post("stat", {"path": f.path("none")}), 404, "not_found")
        expect(f.post("remove", {"path": f.path("none")}), 404, "not_found")
        expect(f.post("remove", {"path": "/"}), 400, "invalid_request")
        expect(f.post("rename", {"from": f.path("none"), "to": f.path("y")}), 404, "not_found")
        for verb in "write", "stream/write":
            expect(f.write(f.path("dir"), b"x", verb), 400, "invalid_request")
            expect(f.write(f.path("file/x"), b"x" * MIB, verb), 400, "invalid_request")
            expect(f.write("/dev/full", b"x", verb), 400, "invalid_request")
            expect(f.write("~other/x", b"x", verb), 400, "invalid_request")
        equal(sorted(os.listdir(f.dir)), ["dir", "file"])


@test()
def one_hundred_mebibytes(r):
    limit = 100 * MIB
    with Files(r) as f:
        ends = form(f.path("max"), b"\xff").split(b"\xff")
        fill = limit - sum(map(len, ends))
        with Client(r) as c:
            c.socket.sendall(f.head("write", FORM, "Content-Length: %d" % limit) + ends[0] + bytes(fill) + ends[1])
            equal(c.receive()[0], 204)
        equal(os.path.getsize(f.path("max")), fill)
        os.unlink(f.path("max"))

        with Client(r) as c:        # by its length, before a byte of it is sent
            c.socket.sendall(f.head("write", FORM, "Content-Length: %d" % (limit + 1)))
            status, headers, body = c.receive()
            equal((status, body["error"]["code"], headers["connection"]), (413, "too_large", "close"))
        with Client(r) as c:        # a client that sends it nevertheless can read why
            c.socket.sendall(f.head("write", FORM, "Content-Length: %d" % (limit + 1)) + bytes(64 * MIB))
            equal(c.receive()[0], 413)
        with Client(r) as c:        # by counting
            block = chunk(bytes(MIB))
            c.socket.sendall(f.head("write", FORM, "Transfer-Encoding: chunked") + chunk(ends[0]))
            with contextlib.suppress(OSError):
                for _ in range(110):
                    c.socket.sendall(block)
            expect(c.receive(), 413, "too_large")
        r.wait(lambda: os.listdir(f.dir) == [])

        body = ends[0] + bytes(101 * MIB) + ends[1]
        with Client(r) as c:        # streams have no limit
            c.socket.sendall(f.head("stream/write", FORM, "Content-Length: %d" % len(body)) + body)
            equal(c.receive()[0], 204)
        equal(os.path.getsize(f.path("max")), 101 * MIB)


@test()
def refused_in_the_middle(r):
    with Files(r, lie={"status": 507, "body": '{"error":{"code":"agent-no-space","message":"No space left."}}', "take": False}) as f:
        for verb in "write", "stream/write", "tar/write?path=/x":
            with Client(r) as c:
                c.socket.sendall(f.head(verb, FORM, "Transfer-Encoding: chunked") + chunk(form("/x", b"\xff").split(b"\xff")[0]))
                body = expect(c.receive(), 507, "agent_error")
                equal(body["error"]["message"], "No space left.")
                with contextlib.suppress(OSError):      # what is on its way does no harm
                    c.socket.sendall(chunk(bytes(8 * MIB)))
        with Client(r) as c:        # a client that looks for its answer only when it has sent all
            c.socket.sendall(f.head("write", FORM, "Content-Length: %d" % (50 * MIB)) + form("/x", bytes(50 * MIB - 300)))
            equal(c.receive()[0], 507)


# Back-pressure and ends


@test()
def kept_forms_are_bounded(r):
    with Files(r) as f, contextlib.ExitStack() as stack:
        for _ in range(5):
            c = stack.enter_context(Client(r))
            c.socket.sendall(f.head("write", FORM, "Content-Length: 104857600") + part("file", bytes(99 * MIB)))
        with Client(r) as last:
            last.socket.sendall(f.head("write", FORM, "Content-Length: 104857600") + part("file", bytes(99 * MIB)))
            body = expect(last.receive(), 503, "host_unavailable")
        assert "send the path first" in body["error"]["message"], body
        c.socket.close()
        r.wait(lambda: f.write(f.path("x"), bytes(32 * MIB), path_first=False)[0] == 204)


@test(arguments=["--head-timeout=1s", "--write-timeout=2s"])
def streams_may_pause(r):
    before, behind = form("/x", b"\xff").split(b"\xff")
    with Files(r, lie={"body": "x" * 16384, "times": 1024}) as f, Client(r) as c, Client(r) as reader:
        c.socket.sendall(f.head("stream/write", FORM, "Transfer-Encoding: chunked") + chunk(before[:20]))
        reader.send("POST", f.base + "stream/read", {"path": "/x"})
        time.sleep(5)               # longer than all that others may
        equal(len(reader.receive()[2]), 16384 * 1024)
        f.lie(status=0)
        c.socket.sendall(chunk(before[20:]))
        r.wait(lambda: r.get("last_file") == ["PUT", "/files?path=%2Fx&mode=0644"])
        time.sleep(3)
        c.socket.sendall(chunk(b"data" * 20000))
        r.wait(lambda: r.get("bytes_taken") > 64000)


@test(arguments=["--stream-timeout=2s"])
def streams_do_not_pause_for_ever(r):
    with Files(r, lie={"body": "x" * 16384, "times": 8192}) as f, Client(r) as c, Client(r) as reader:
        c.socket.sendall(f.head("stream/write", FORM, "Transfer-Encoding: chunked"))
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        reader.send("POST", f.base + "stream/read", {"path": "/x"})
        equal(c.receive()[0], 408)
        r.wait(lambda: r.get("resets") > 0)
        try:
            got = reader.receive()
        except ConnectionResetError:
            got = None
        equal(got, None)


@test()
def slow_agents_stop_the_client(r):
    with Files(r, lie={"status": 0, "take": False}) as f, Client(r) as c:
        c.socket.sendall(f.head("stream/write", FORM, "Transfer-Encoding: chunked") + chunk(form("/x", b"\xff").split(b"\xff")[0]))
        c.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(socket.timeout):
            while sent < 64 * MIB:
                sent += c.socket.send(chunk(bytes(60000)))
        assert MIB // 4 < sent < 32 * MIB, sent
        taken = r.get("bytes_taken")
        assert taken < MIB, taken
        equal(r.request("GET", "/v1/capsules/" + f.id)[0], 200)
        before = r.get("resets")
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.socket.close()            # leaves while it waits; gently it could not be heard
        r.wait(lambda: r.get("resets") == before + 1)


@test()
def slow_clients_stop_the_agent(r):
    with Files(r, lie={"body": "x" * 16384, "times": 8192}) as f, Client(r) as c:
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.send("POST", f.base + "stream/read", {"path": "/x"})
        last = -1
        while last != r.get("bytes_sent"):
            last = r.get("bytes_sent")
            time.sleep(0.5)
        assert MIB // 4 < last < 32 * MIB, last
        status, _, body = c.receive()
        equal((status, len(body)), (200, 16384 * 8192))


@test()
def clients_that_leave_stop_the_agent(r):
    with Files(r, lie={"body": "x" * 16384, "times": 1 << 20}) as f:
        for verb in "read", "stream/read", "tar/read":
            before = r.get("resets")
            with Client(r) as c:
                c.send("POST", f.base + verb, {"path": "/x"})
                c.socket.recv(1 << 16)
            r.wait(lambda b=before: r.get("resets") == b + 1)
        f.lie(status=0)
        for verb in "list", "mkdir", "remove", "stat":
            before = r.get("resets")
            with Client(r) as c:
                c.send("POST", f.base + verb, {"path": "/x"})
                r.wait(lambda v=verb: "/files/" + v in r.get("last_file")[1])
            r.wait(lambda b=before: r.get("resets") == b + 1)


@test()
def uploads_that_break_off(r):
    with Files(r) as f:
        f.write(f.path("old"), b"old")
        for verb in "write", "stream/write":
            for name in "new", "old":
                with Client(r) as c:
                    c.socket.sendall(f.head(verb, FORM, "Content-Length: 100000000") + form(f.path(name), bytes(MIB))[:-100])
                    r.wait(lambda n=name: name == "old" or [e for e in os.listdir(f.dir) if e != "old"])
            r.wait(lambda: os.listdir(f.dir) == ["old"])
            with Client(r) as c:        # the file comes first, so it is kept; then the client leaves
                c.socket.sendall(f.head("write", FORM, "Content-Length: 100000000") + part("file", bytes(MIB)))
        expect(f.write(f.path("new"), b"whole"), 204)


@test()
def answers_that_break_off(r):
    with Files(r, lie={"body": "x" * 16384, "times": 20, "then": "reset"}) as f:
        for verb in "read", "stream/read", "tar/read":
            with Client(r) as c:
                c.send("POST", f.base + verb, {"path": "/x"})
                try:
                    got = c.receive()
                except ConnectionResetError:
                    got = None
                equal(got, None)
        text = f.head("read", "Content-Length: 13").replace(b"HTTP/1.1", b"HTTP/1.0") + b'{"path":"/x"}'
        try:                        # without chunks only a reset tells
            equal(r.raw(text)[:0], None)
        except (ConnectionResetError, AssertionError):
            pass
        f.lie(body="abc")
        answer = r.raw(text)
        assert answer.endswith(b"Connection: close\r\n\r\nabc") and b"chunked" not in answer, answer
        with Client(r) as c:        # the agent dies
            f.lie(body="x" * 16384, times=20, then="nothing")
            c.send("POST", f.base + "read", {"path": "/x"})
            c.socket.recv(65536)
            r.control.CloseChannels()
            try:
                got = c.receive()
            except (ConnectionResetError, IndexError, ValueError):
                got = None
            equal(got, None)
        f.lie(status=0)
        with Client(r) as c:
            c.send("POST", f.base + "stat", {"path": "/x"})
            r.wait(lambda: "/files/stat" in r.get("last_file")[1])
            r.control.CloseChannels()
            expect(c.receive(), 502, "agent_error")


@test()
def agents_that_lie(r):
    entry = json.dumps(ENTRY)
    bad = [json.dumps({**ENTRY, **change}) for change in (
        {"type": "unknown"}, {"name": None}, {"size": -1}, {"mode": 99999}, {"permissions": "x"}, {"owner": 1}, {"modified_at": "1"},
        {"path": "x" * 12289}, {"symlink_target": 1}, {"path_base64": "?"})]
    with Files(r, lie={}) as f:
        f.lie(body=entry + "\n")
        equal(f.post("list", {"path": "/"})[2], {"entries": [ENTRY]})
        f.lie(body=json.dumps({**ENTRY, "more": 1}))
        for verb, body in (("stat", {"path": "/x"}), ("mkdir", {"path": "/x"}), ("rename", {"from": "/x", "to": "/y"})):
            equal(f.post(verb, body)[2], {"entry": ENTRY})
        for text in bad + ["", "{", "[]", "\xff", '{"a":"' + "x" * 200000 + '"}']:
            f.lie(body=text)
            for verb, body in (("stat", {"path": "/x"}), ("mkdir", {"path": "/x"}), ("rename", {"from": "/x", "to": "/y"})):
                expect(f.post(verb, body), 502, "agent_error")
            if text:
                f.lie(body=entry + "\n" + text + "\n")
                expect(f.post("list", {"path": "/"}), 502, "agent_error")
        f.lie(body=entry)           # no end of the line
        expect(f.post("list", {"path": "/"}), 502, "agent_error")
        f.lie(body=entry + "\n" + '{"error":{"code":"too-large","message":"x"}}\n')
        expect(f.post("list", {"path": "/"}), 413, "too_large")
        f.lie(body=entry + "\n", times=300000)
        try:
            got = f.post("list", {"path": "/"})
        except ConnectionResetError:
            got = None
        equal(got, None)
        for code, status, expected in (("unauthorized", 401, 502), ("internal", 500, 502), ("no-kvm", 503, 502), ("not-found", 404, 404),
                                       ("x", 200000, 502), ("agent-no-space", 507, 507)):
            f.lie(status=min(status, 599), body=json.dumps({"error": {"code": code, "message": "\u202e\x1b[31m"}}))
            for verb in "read", "list", "stat", "remove":
                equal(f.post(verb, {"path": "/x"})[0], expected)
        f.lie(status=500, body="x" * 100000)
        expect(f.post("read", {"path": "/x"}), 502, "agent_error")
        f.lie(status=204)           # done before it has the file
        with Client(r) as c:
            c.socket.sendall(f.head("write", FORM, "Content-Length: 100000") + form("/x", bytes(200))[:-10])
            expect(c.receive(), 502, "agent_error")


@test()
def tars_pass_through(r):
    with Files(r, lie={"body": "tar" * 5000}) as f:
        status, headers, body = f.post("tar/read", {"path": "/a b"})
        equal((status, headers["content-type"], body), (200, "application/x-tar", b"tar" * 5000))
        equal(r.get("last_file"), ["GET", "/files/tar?path=%2Fa%20b"])
        f.lie(status=204)
        equal(f.post("tar/write?path=/a%20b%ff+c%2B", b"x" * 3 * MIB)[0], 204)
        equal(r.get("last_file"), ["PUT", "/files/tar?path=%2Fa%20b%FF%20c%2B"])


if __name__ == "__main__":
    sys.exit(run_tests())
