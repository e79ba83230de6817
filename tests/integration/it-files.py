#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of capsules over REST (api.md §2.18 to §2.25, §5.4), in both templates: contents, owners, odd names, full disks, clients that
leave, transfers side by side, archives. The bytes of the protocol are the business of it-files-wire.py."""

import base64
import concurrent.futures
import hashlib
import http.client
import io
import os
import random
import socket
import sys
import tarfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (API, bus_property, capsule_path, check, cleanup, equal, main, main_pid, proc_status, rest, test, wait_for)  # noqa: E402

MIB = 1 << 20
HOMES = {"minimal": ("root", "/root"), "standard": ("wrenn-user", "/home/wrenn-user")}
FORM = {"Content-Type": "multipart/form-data; boundary=b0"}
TIMEOUT = 300


def part(name, more=""):
    return f'--b0\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()


def ends(path):
    """What stands before and behind the contents of a form."""
    name = base64.b64encode(path) if isinstance(path, bytes) else path.encode()
    field = "path_base64" if isinstance(path, bytes) else "path"
    return part(field) + name + b"\r\n" + part("file", '; filename="upload"'), b"\r\n--b0--\r\n"


class Capsule:
    """A capsule and its files; paths of bytes go as path_base64."""

    def __init__(self, template="minimal", **more):
        self.api = rest()
        self.id = self.api.create(template=template, **more)["id"]
        self.base = f"/v1/capsules/{self.id}/files/"

    def post(self, verb, body=None, status=None, headers=None):
        if isinstance(body, dict):
            body = {(k + "_base64" if isinstance(v, bytes) else k): (base64.b64encode(v).decode() if isinstance(v, bytes) else v)
                    for k, v in body.items()}
        answer = self.api.request("POST", self.base + verb, body, headers=headers, timeout=TIMEOUT)
        if status is not None:
            equal((answer.status, answer.code), status if isinstance(status, tuple) else (status, None), f"{verb} {answer.body[:300]!r}")
        return answer

    def write(self, path, data, verb="write", status=204):
        """verb stream/write: in chunks."""
        before, behind = ends(path)
        body = before + data + behind
        if verb == "stream/write":
            pieces = (body[i:i + 50000] for i in range(0, len(body), 50000))
            connection = self.open()
            connection.request("POST", self.base + verb, pieces, {"X-API-Key": self.api.key, **FORM})
            answer = connection.getresponse()
            equal((answer.status, answer.read()), (status, b""))
            connection.close()
            return
        self.post(verb, body, status, FORM)

    def read(self, path, verb="read", **more):
        answer = self.post(verb, {"path": path, **more}, 200)
        equal(answer.headers["Content-Type"], "application/octet-stream")
        return answer.body

    def list(self, path, depth=None):
        body = {"path": path} if depth is None else {"path": path, "depth": depth}
        return {e["name"]: e for e in self.post("list", body, 200).json["entries"]}

    def stat(self, path):
        return self.post("stat", {"path": path}, 200).json["entry"]

    def run(self, script, **more):
        """stdout of a shell script in the guest, which must work."""
        done = self.api.exec(self.id, "/bin/sh", ["-ec", script], **more)
        equal(done["exit_code"], 0, f"{script}: {done['stderr']!r}")
        return done["stdout"]

    def open(self):
        connection = http.client.HTTPConnection(*API, timeout=TIMEOUT)
        cleanup(connection.close)
        return connection

    def send_head(self, verb, *headers):
        """A bare socket with the head of a request."""
        s = socket.create_connection(API, timeout=TIMEOUT)
        cleanup(s.close)
        lines = [f"POST {self.base}{verb} HTTP/1.1", "Host: localhost", f"X-API-Key: {self.api.key}", *headers]
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        return s


def in_both(function):
    def both():
        for template, (user, home) in HOMES.items():
            function(Capsule(template), user, home)
    both.__name__ = function.__name__
    return test(both)


@in_both
def what_is_written_belongs_to_the_user_of_exec(c, user, home):
    equal(c.run("id -un; pwd").split(), [user, home])
    for verb in "write", "stream/write":
        name = verb[0]
        c.write(f"/tmp/{name}/deep/er/f", b"hello\n", verb)
        c.write(f"rel-{name}", b"relative", verb)
        c.write(f"~/tilde-{name}/f", b"", verb)
        equal(c.run(f"cat /tmp/{name}/deep/er/f"), "hello\n")
        equal(c.run(f"stat -c '%U %G %a' /tmp/{name} /tmp/{name}/deep/er /tmp/{name}/deep/er/f {home}/rel-{name} {home}/tilde-{name}/f").splitlines(),
              [f"{user} {user} 755"] * 2 + [f"{user} {user} 644"] * 3)
        c.run(f"chmod 600 /tmp/{name}/deep/er/f; stat -c %i /tmp/{name}/deep/er/f > /tmp/inode")
        c.write(f"/tmp/{name}/deep/er/f", b"he", verb)
        equal(c.run(f"stat -c '%U %a %s' /tmp/{name}/deep/er/f; stat -c %i /tmp/{name}/deep/er/f | diff - /tmp/inode"), f"{user} 600 2\n")
        c.write("/opt/as-root", b"r", verb)
        equal(c.stat("/opt/as-root")["owner"], user)
    made = c.post("mkdir", {"path": "~/a/b"}, 200).json["entry"]
    equal((made["path"], made["owner"], made["group"], made["mode"]), (f"{home}/a/b", user, user, 0o755))
    c.run("git init -q ~ && cd ~ && git status --porcelain > /tmp/status")
    check(b"rel-w" in c.read("/tmp/status"), "git does not see what was written")
    equal(c.stat("/etc/shadow")["owner"], "root")
    check(b"root:" in c.read("/etc/shadow"), "/etc/shadow")


@in_both
def reads_lists_and_removals(c, user, home):
    data = os.urandom(3 * MIB + 1)
    c.write("/tmp/x/data", data)
    for verb in "read", "stream/read":
        equal(c.read("/tmp/x/data", verb), data)
        equal(c.read("/tmp/x/data", verb, offset=3 * MIB, length=5), data[3 * MIB:])
        equal(c.read("/proc/self/status", verb)[:5], b"Name:")
        check(b"MemTotal" in c.read("/proc/meminfo", verb), "/proc/meminfo")
        c.post(verb, {"path": "/tmp/none"}, (404, "not_found"))
        c.post(verb, {"path": "/tmp/x/data/y"}, (404, "not_found"))
        for path in "/tmp", "/dev/zero", "/dev/null", "~other", "":
            c.post(verb, {"path": path}, (400, "invalid_request"))
    c.run("cd /tmp/x; ln -s data link; ln -s none dangling; mkfifo fifo; mkdir -p d/e/f; touch d/e/f/g; ln -s d dirlink; : > empty; chmod 4751 data")
    entries = c.list("/tmp/x")
    equal({k: v["type"] for k, v in entries.items()},
          {"data": "file", "link": "file", "dangling": "symlink", "fifo": "file", "d": "directory", "dirlink": "directory", "empty": "file"})
    data = entries["data"]
    equal((data["size"], data["mode"], data["permissions"], data["owner"], data["path"]), (3 * MIB + 1, 0o4751, "-rwxr-x--x", user, "/tmp/x/data"))
    equal([entries[n]["permissions"][0] for n in ("d", "link", "fifo")], ["d", "L", "p"])
    equal((entries["link"]["symlink_target"], entries["dangling"]["symlink_target"]), ("/tmp/x/data", "/tmp/x/dangling"))
    check(abs(data["modified_at"] - time.time()) < 3600, data)
    equal(sorted(c.list("/tmp/x", 3)), sorted([*entries, "e", "f"]))
    equal(c.list("/tmp/x/dirlink")["e"]["path"], "/tmp/x/dirlink/e")
    equal(list(c.list("/tmp/x/d/e/f/../f")), ["g"])
    c.post("list", {"path": "/tmp/x/empty"}, (400, "invalid_request"))
    c.post("list", {"path": "/tmp/none"}, (404, "not_found"))
    for place in "/", "/dev", "/run", "/proc", "/tmp", home:
        check(all(e["type"] in ("file", "directory", "symlink") for e in c.post("list", {"path": place}, 200).json["entries"]), place)
    c.post("mkdir", {"path": "/tmp/x/d"}, (409, "conflict"))
    c.post("mkdir", {"path": "/tmp/x/data"}, (400, "invalid_request"))
    equal(c.post("rename", {"from": "/tmp/x/data", "to": "/tmp/x/d/moved"}, 200).json["entry"]["path"], "/tmp/x/d/moved")
    c.post("rename", {"from": "/tmp/x/empty", "to": "/tmp/x/d/moved"}, (409, "conflict"))
    c.post("rename", {"from": "/tmp/x/empty", "to": "/tmp/x/d/moved", "overwrite": True}, 200)
    c.post("remove", {"path": "/tmp/x/link"}, 204)
    c.post("remove", {"path": "/tmp/x/dirlink"}, 204)
    equal(c.stat("/tmp/x/d/moved")["size"], 0)
    c.post("remove", {"path": "/tmp/x"}, 204)
    c.post("remove", {"path": "/tmp/x"}, (404, "not_found"))
    c.post("remove", {"path": "/"}, (400, "invalid_request"))


@test
def odd_names():
    c = Capsule()
    names = ["new\nline", "quo\"te'`$(x)", "back\\slash", " blank ", "-rf", "%41?&#+=", "ü\u202e漢", "n" * 255]
    odd = [b"\xff\xfe", b"a\x80\n", b"\xed\xa0\x80"]
    for name in names:
        c.write(f"/tmp/o/{name}", name.encode())
        equal(c.read(f"/tmp/o/{name}"), name.encode())
    for name in odd:
        c.write(b"/tmp/o/" + name, name)
        equal(c.read(b"/tmp/o/" + name), name)
        equal(c.stat(b"/tmp/o/" + name)["path_base64"], base64.b64encode(b"/tmp/o/" + name).decode())
    entries = c.post("list", {"path": "/tmp/o"}, 200).json["entries"]
    equal(sorted(e["name"] for e in entries if "path_base64" not in e), sorted(names))
    equal(sorted(base64.b64decode(e["path_base64"]) for e in entries if "path_base64" in e), sorted(b"/tmp/o/" + n for n in odd))
    found = c.api.exec(c.id, "/bin/sh", ["-c", "cd /tmp/o; find . -type f -print0"])["stdout"]
    equal(sorted(found.split(b"\0"))[1:], sorted(b"./" + n for n in [*odd, *(n.encode() for n in names)]))
    deep = "/tmp/" + "/".join("d" * 250 for _ in range(15))
    c.write(deep + "/f", b"deep")
    equal(c.read(deep + "/f"), b"deep")
    c.post("read", {"path": "/tmp/" + "n" * 256}, (400, "invalid_request"))
    c.post("mkdir", {"path": "/tmp/" + "n/" * 2100}, (400, "invalid_request"))
    for name in names:
        c.post("remove", {"path": f"/tmp/o/{name}"}, 204)
    for name in odd:
        c.post("rename", {"from": b"/tmp/o/" + name, "to": "/tmp/o/plain", "overwrite": True}, 200)
    equal(list(c.list("/tmp/o")), ["plain"])


@test
def files_beyond_four_gibibytes():
    c = Capsule()
    c.run("truncate -s 6G /var/tmp/large; printf end >> /var/tmp/large")
    equal(c.stat("/var/tmp/large")["size"], (6 << 30) + 3)
    equal(c.read("/var/tmp/large", "stream/read", offset=(6 << 30) - 1), b"\0end")
    equal(c.read("/var/tmp/large", offset=5 << 30, length=100000), bytes(100000))


@test(leaks=False)      # an empty disk of the new size is kept ready to be copied
def a_full_disk_is_507_and_the_capsule_goes_on():
    c = Capsule(disk_size_mb=64)
    c.write("/root/kept", b"kept")
    for verb in "write", "stream/write":
        before, behind = ends("/root/big")
        n = 90 * MIB
        s = c.send_head(verb, "Content-Type: " + FORM["Content-Type"], f"Content-Length: {n + len(before) + len(behind)}")
        try:
            s.sendall(before)
            for _ in range(n // MIB):
                s.sendall(bytes(MIB))
            s.sendall(behind)
        except OSError:
            pass
        answer = http.client.HTTPResponse(s)
        answer.begin()
        body = answer.read()
        check(answer.status == 507 and b'"agent_error"' in body, f"{answer.status} {body!r}")
        check("big" not in c.list("/root"), "something stays")
        equal(c.read("/root/kept"), b"kept")
    c.run("dd if=/dev/zero of=/root/fill bs=1M 2>/dev/null || true")
    c.post("remove", {"path": "/root/fill"}, 204)
    c.write("/root/after", b"x" * MIB)
    equal(len(c.read("/root/after")), MIB)


@test
def one_hundred_mebibytes_and_more():
    c = Capsule()
    before, behind = ends("/var/tmp/max")
    data = random.Random(1).randbytes(100 * MIB - len(before) - len(behind))
    c.write("/var/tmp/max", data)
    equal(c.run("sha256sum < /var/tmp/max").split()[0], hashlib.sha256(data).hexdigest())
    c.post("write", before + data + b"x" + behind, (413, "too_large"), FORM)
    equal(hashlib.sha256(c.read("/var/tmp/max")).digest(), hashlib.sha256(data).digest())
    c.write("/var/tmp/more", data + data[:8 * MIB], "stream/write")
    equal(c.stat("/var/tmp/more")["size"], len(data) + 8 * MIB)


@test
def transfers_are_not_kept():
    """256 MiB each way: wrenn-restd grows by no more than 1 MiB"""
    c = Capsule()
    pid, n = main_pid("wrenn-restd.service"), 256 * MIB
    c.write("/var/tmp/warm", bytes(MIB), "stream/write")
    c.run("truncate -s 256M /var/tmp/sparse")
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        sanitized = "libasan" in maps.read()
    with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as peak:
        peak.write("5")
    rss = int(proc_status(pid)["VmRSS"].split()[0])

    began = time.monotonic()
    connection = c.open()
    connection.request("POST", c.base + "stream/read", b'{"path":"/var/tmp/sparse"}', {"X-API-Key": c.api.key})
    answer, got, buffer = connection.getresponse(), 0, bytearray(MIB)
    while k := answer.readinto(buffer):
        got += k
    equal(got, n)
    print(f"# from the guest {n / MIB / (time.monotonic() - began):.0f} MiB/s", flush=True)

    began = time.monotonic()
    before, behind = ends("/var/tmp/up")
    s = c.send_head("stream/write", "Content-Type: " + FORM["Content-Type"], f"Content-Length: {n + len(before) + len(behind)}")
    s.sendall(before)
    for _ in range(n // MIB):
        s.sendall(buffer)
    s.sendall(behind)
    check(s.recv(100).startswith(b"HTTP/1.1 204"), "no 204")
    print(f"# into the guest {n / MIB / (time.monotonic() - began):.0f} MiB/s", flush=True)
    grown = int(proc_status(pid)["VmHWM"].split()[0]) - rss
    print(f"# wrenn-restd grew by {grown} KiB", flush=True)
    check(grown <= 1024 or sanitized, f"wrenn-restd grew by {grown} KiB")


@test
def clients_that_leave():
    c = Capsule()
    c.run("truncate -s 2G /tmp/sparse; mkdir /tmp/up; echo old > /tmp/up/old")
    for verb in "read", "stream/read", "tar/read":
        s = c.send_head(verb, "Content-Length: 22")
        s.sendall(b'{"path":"/tmp/sparse"}')
        check(s.recv(MIB).startswith(b"HTTP/1.1 200"), "no answer")
        s.close()
    for verb in "write", "stream/write":
        for name in "new", "old":
            s = c.send_head(verb, "Content-Type: " + FORM["Content-Type"], "Content-Length: 100000000")
            s.sendall(ends(f"/tmp/up/{name}")[0] + bytes(2 * MIB))
            wait_for(lambda n=name: n == "old" or len(c.list("/tmp/up")) > 1, 60, "the upload has begun")
            s.close()
            wait_for(lambda: list(c.list("/tmp/up")) == ["old"], 60, "nothing of the upload stays")
    c.write("/tmp/up/new", b"whole")
    equal(sorted(c.list("/tmp/up")), ["new", "old"])
    wait_for(lambda: "/tmp/" not in c.run("for p in /proc/[0-9]*; do ls -l $p/fd 2>/dev/null || true; done"), 60, "nobody holds a file")


@test
def a_slow_reader_stops_the_guest():
    c = Capsule()
    c.run("truncate -s 64M /tmp/sparse; printf end >> /tmp/sparse")
    s = c.send_head("stream/read", "Content-Length: 22")
    s.sendall(b'{"path":"/tmp/sparse"}')
    position = ('for p in /proc/[0-9]*; do for f in $p/fd/*; do if [ "$(readlink $f)" = /tmp/sparse ]; then cat $p/fdinfo/${f##*/}; fi; '
                "done; done 2>/dev/null; true")
    before = None
    while before != (before := c.run(position)):
        time.sleep(1)
    check(before, "the guest does not read")
    check(int(before.split()[1]) < 32 * MIB, f"the guest read on: {before}")
    equal(c.read("/tmp/sparse", offset=64 * MIB), b"end")       # others are not stopped
    answer = http.client.HTTPResponse(s)
    answer.begin()
    body = answer.read()
    equal((len(body), body[-3:]), (64 * MIB + 3, b"end"))


@test
def sixteen_transfers_at_a_time():
    c = Capsule()

    def one(i):
        data = random.Random(i).randbytes(2 * MIB + i)
        c.write(f"/tmp/p/{i % 4}/{i}", data, "write" if i % 2 else "stream/write")
        return c.read(f"/tmp/p/{i % 4}/{i}", "read" if i % 3 else "stream/read") == data

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        equal(list(pool.map(one, range(32))), [True] * 32)


@in_both
def archives_in_and_out(c, user, home):
    c.run("mkdir -p ~/t/sub; cd ~/t; echo one > one; ln -s one link; ln one hard; chmod 750 sub; head -c 300000 /dev/urandom > sub/big; : > 'a b'")
    answer = c.post("tar/read", {"path": "~/t"}, 200)
    equal(answer.headers["Content-Type"], "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        names = {os.path.normpath(m.name): m for m in tar.getmembers()}
        equal(sorted(names), sorted([".", "one", "link", "hard", "sub", "sub/big", "a b"]))
        equal((names["link"].linkname, names["sub"].mode), ("one", 0o750))
    c.post("tar/write?path=~/copy%20of", answer.body, 204)
    c.run(f"diff -r ~/t '{home}/copy of'; [ -L '{home}/copy of/link' ]; [ \"$(stat -c %U '{home}/copy of/sub/big')\" = {user} ]")
    with tarfile.open(fileobj=io.BytesIO(c.post("tar/read", {"path": "~/t/one"}, 200).body)) as tar:
        equal([(m.name, tar.extractfile(m).read()) for m in tar.getmembers()], [("one", b"one\n")])

    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    answer = c.post("tar/write?path=/tmp/in", evil.getvalue())
    check(answer.status in (204, 400) and "outside" not in c.list("/tmp"), f"{answer.status} {answer.body!r}")
    c.post("tar/write?path=/tmp/in", b"no archive" * 1000, (400, "invalid_request"))
    c.post("tar/read", {"path": "/tmp/none"}, (404, "not_found"))
    c.post("tar/write", b"", (400, "invalid_request"))


@test
def files_count_as_activity():
    c = Capsule()
    path = capsule_path(c.id)
    for verb, body in (("stat", {"path": "/"}), ("list", {"path": "/tmp"}), ("mkdir", {"path": "/tmp/a"}), ("read", {"path": "/etc/passwd"})):
        before = bus_property(path, "Capsule", "LastActiveTimestamp")
        time.sleep(1.2)                 # it is told at most once a second
        c.post(verb, body, 200)
        wait_for(lambda b=before: bus_property(path, "Capsule", "LastActiveTimestamp") != b, 60, f"{verb} is activity")


@test
def a_capsule_that_does_not_run_is_409():
    c = Capsule()
    c.api.destroy(c.id)
    for verb in "read", "list", "mkdir", "remove", "stat", "rename", "stream/read", "tar/read", "tar/write?path=/tmp":
        c.post(verb, {"path": "/tmp", "from": "/tmp/a", "to": "/tmp/b"}, (409, "invalid_state"))
    for verb in "write", "stream/write":
        c.post(verb, b"".join(ends("/tmp/x")), (409, "invalid_state"), FORM)


main()
