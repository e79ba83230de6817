# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes of tests/fake/fake-wrennd's agent, run on this machine: what docs/PROTOCOLS.md §3 says of /processes."""
import contextlib
import fcntl
import json
import os
import queue
import random
import signal
import struct
import subprocess
import termios
import threading
import tty
import urllib.parse

RING_BYTES = 65536
running = set()     # process groups


def kill_all():
    """None outlives the agent that is played."""
    for group in list(running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


class Process:
    """One process with its readers: pairs of a connection and a stream of it."""

    def __init__(self, table, spec):
        self.table, self.spec, self.pty = table, spec, spec.get("pty")
        self.keep = spec.get("on_disconnect") == "keep"
        self.tag = spec.get("tag") or "%s-%08x" % ("pty" if self.pty else "proc", random.getrandbits(32))
        self.lock, self.readers, self.ring, self.end = threading.Lock(), [], [], None
        self.input = queue.Queue()
        argv = [spec["cmd"]] + (spec.get("args") or [])
        if len(argv) == 1 and not ("/" in argv[0] and os.access(argv[0], os.X_OK)):
            argv = ["/bin/sh", "-c", argv[0]]
        env = {"PATH": os.environ["PATH"], "HOME": "/tmp", **({"TERM": "xterm-256color"} if self.pty else {}), **spec.get("env", {})}
        try:
            self.spawn(argv, env)
        except FileNotFoundError:
            self.spawn(["/bin/sh", "-c", 'echo "sh: $1: not found" >&2; exit 127', "sh", spec["cmd"]], env)
        self.pid = self.popen.pid
        running.add(self.pid)

    def spawn(self, argv, env):
        cwd = self.spec.get("cwd") or "/tmp"
        if not self.pty:
            self.popen = subprocess.Popen(argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                          stdin=subprocess.PIPE if self.spec.get("stdin") else subprocess.DEVNULL)
            self.outputs = [(b"o", self.popen.stdout.fileno()), (b"e", self.popen.stderr.fileno())]
            self.input_fd = self.popen.stdin.fileno() if self.popen.stdin else None
            return
        self.input_fd, slave = os.openpty()
        self.resize(self.pty["cols"], self.pty["rows"])
        if env.get("RAW"):
            tty.setraw(slave)
        try:
            self.popen = subprocess.Popen(argv, env=env, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        finally:
            os.close(slave)
        self.outputs = [(b"p", self.input_fd)]

    def resize(self, cols, rows):
        fcntl.ioctl(self.input_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def attach(self, connection, stream):
        """Tells what is known, then follows; connection.lock is held."""
        text = json.dumps({"pid": self.pid, "tag": self.tag, "pty": bool(self.pty)}).encode()
        with self.lock:
            backlog, end = [(b"s", text)] + self.ring + ([(b"x", self.end)] if self.end else []), self.end
            outbox = queue.Queue(64)
            threading.Thread(target=self.follow, args=(connection, stream, backlog, outbox), daemon=True).start()
            if not end:
                self.readers.append((connection, stream, outbox))

    def follow(self, connection, stream, backlog, outbox):
        for kind, data in backlog:
            connection.send(stream, kind, data, end=kind == b"x")
            if kind == b"x":
                return
        while True:
            kind, data = outbox.get()
            if kind is None:
                return
            connection.send(stream, kind, data, end=kind == b"x")
            if kind == b"x":
                return

    def detach(self, connection, stream):
        with self.lock:
            gone = [r for r in self.readers if r[:2] == (connection, stream)]
            self.readers = [r for r in self.readers if r not in gone]
        for r in gone:
            while not r[2].empty():
                r[2].get()
            r[2].put((None, None))

    def tell(self, kind, data):
        with self.lock:
            readers = list(self.readers)
            if kind == b"x":
                self.end, self.readers = data, []
            else:
                self.ring.append((kind, data))
                while sum(len(d) for _, d in self.ring) > RING_BYTES:
                    self.ring.pop(0)
        for r in readers:
            if r in self.readers or kind == b"x":
                r[2].put((kind, data))

    def run(self):
        def copy(kind, fd):
            while True:
                try:
                    data = os.read(fd, 16384)
                except OSError:
                    return
                if not data:
                    return
                self.tell(kind, data)

        def feed():
            while True:
                data, done = self.input.get()
                try:
                    if data is None:
                        if self.popen.stdin:
                            self.popen.stdin.close()
                        return
                    while data:
                        data = data[os.write(self.input_fd, data):]
                except OSError:
                    pass
                done()

        copies = [threading.Thread(target=copy, args=a, daemon=True) for a in self.outputs]
        for t in copies:
            t.start()
        threading.Thread(target=feed, daemon=True).start()
        reason, timeout_usec = "exited", self.spec.get("timeout_usec", 0)
        try:
            code = self.popen.wait(timeout_usec / 1e6 if timeout_usec else None)
        except subprocess.TimeoutExpired:
            reason = "timeout"
            self.kill(signal.SIGKILL)
            code = self.popen.wait()
        running.discard(self.pid)
        self.table.alive.pop(self.pid, None)
        self.table.ended[self.pid] = self
        for t in copies:
            t.join(1)
        if code < 0 and reason == "exited":
            reason = "signaled"
        self.tell(b"x", json.dumps({"exit_code": max(code, -1), "signal": max(-code, 0), "reason": reason, "duration_usec": 1}).encode())
        self.input.put((None, None))

    def kill(self, number):
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass


class Table:  # of all processes
    def __init__(self):
        self.alive, self.ended = {}, {}

    def find(self, selector, ended=False):
        for p in list(self.alive.values()) + (list(self.ended.values()) if ended else []):
            if selector == (str(p.pid) if selector.isdigit() else p.tag):
                return p
        return None

    def start(self, spec):
        p = Process(self, spec)
        self.alive[p.pid] = p
        threading.Thread(target=p.run, daemon=True).start()
        return p

    def as_json(self):
        return {"processes": [{"pid": p.pid, "tag": p.tag, "cmd": p.spec["cmd"], "args": p.spec.get("args") or [], "pty": bool(p.pty)}
                              for p in self.alive.values()]}


class Stream:
    """A request to /processes on one HTTP/2 stream of a connection (fake-wrennd's Agent)."""

    def __init__(self, connection, stream, method, path):
        self.connection, self.id, self.world = connection, stream, connection.world
        self.table, self.buffer, self.process, self.over = connection.world.table, b"", None, False
        self.late = None        # what comes while the start is put off: bytes and their credits
        self.path, _, query = path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.parts = [urllib.parse.unquote(p) for p in self.path.split("/")[2:]]
        self.starts = method == "POST" and not self.parts
        if not self.starts:
            self.answer(method)

    def error(self, status, code, message):
        self.over = True
        self.connection.answer(self.id, status, {"error": {"code": code, "message": message}})

    def answer(self, method):
        if not self.parts:
            lie = self.world.process_list
            self.connection.answer(self.id, 200, self.table.as_json() if lie is None else lie)
            return
        verb = self.parts[1] if len(self.parts) > 1 else ""
        p = self.table.find(self.parts[0], ended=verb in ("", "attach"))
        if not p:
            self.error(404, "not-found", "No process '%s'." % self.parts[0])
        elif verb == "signal":
            p.kill(int(self.query["signal"]))
            self.connection.answer(self.id, 204)
        elif verb == "" or (verb == "attach" and method == "POST"):
            self.process = p
            self.connection.head(self.id)
            p.attach(self.connection, self.id)
        else:
            self.error(404, "not-found", "?")

    def data(self, data, credit):
        """credit: to be called when the bytes are used up."""
        if self.late is not None:
            self.late.append((data, credit))
            return
        self.buffer += data
        typed = None
        while len(self.buffer) >= 5:
            n = struct.unpack(">I", self.buffer[1:5])[0]
            if len(self.buffer) < 5 + n:
                break
            kind, payload, self.buffer = self.buffer[:1], self.buffer[5:5 + n], self.buffer[5 + n:]
            if kind == b"j" and self.starts and not self.process and not self.over:
                self.start(json.loads(payload))
            elif kind == b"i" and self.process:
                typed = (typed or b"") + payload
            elif kind == b"I" and self.process:
                self.process.input.put((typed or b"", credit))
                self.process.input.put((None, None))
                return
            elif kind == b"w" and self.process and self.process.pty:
                self.process.resize(*struct.unpack(">HH", payload))
        if typed:
            self.process.input.put((typed, credit))
        else:
            credit()

    def start_late(self, spec):
        late, self.late = self.late, None
        self.start(spec)
        for data, credit in late:
            self.data(data, credit)

    def start(self, spec):
        if self.connection.odd_start(self.id, spec):
            self.over = True
        elif spec.get("cwd") and not os.path.isdir(spec["cwd"]):
            self.error(400, "invalid-args", "cwd '%s': No such file or directory" % spec["cwd"])
        else:
            self.process = self.table.start(spec)
            self.connection.head(self.id)
            self.process.attach(self.connection, self.id)

    def closed(self):
        if self.process:
            self.process.detach(self.connection, self.id)
            if self.starts and not self.process.keep:
                self.process.kill(signal.SIGKILL)
