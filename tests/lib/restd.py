# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs wrenn-restd on a private bus with tests/fake/fake-wrennd, for benchmarks and for integration tests of its bytes:

    @test()                     # registers one; options are Restd's, for a server of its own
    def a_name(r): …

    sys.exit(run_tests())       # those of argv or all, as TAP
"""
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import dbus

import websocket

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEY, OTHER_KEY = "wrn_" + "0123456789abcdef" * 2, "wrn_" + "fedcba9876543210" * 2

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/><allow eavesdrop="false"/></policy></busconfig>
"""


def find_binary():
    """The one of $WRENN_RESTD, of this tree's build directory, or the installed one."""
    candidates = [os.environ.get("WRENN_RESTD", ""), SOURCE + "/build/src/rest/wrenn-restd", "/usr/lib/wrenn/wrenn-restd"]
    if os.path.exists("/run/wrenn"):        # in the test host the installed one counts: it may be a sanitized build
        candidates.insert(1, candidates.pop())
    return next(c for c in candidates if c and os.path.exists(c))


class Restd:
    """A with-block: bus, fake wrennd, wrenn-restd on a TCP and a Unix socket."""

    def __init__(self, arguments=(), wrapper=(), daemon=True, limit_nofile=None, binary=None, address="127.0.0.1"):
        self.binary, self.arguments, self.wrapper = binary or find_binary(), list(arguments), list(wrapper)
        self.with_daemon, self.limit_nofile, self.address = daemon, limit_nofile, address
        self.processes = []

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="rest-", dir="/tmp")
        try:
            with open(self.dir + "/bus.conf", "w") as f:
                f.write(BUS_CONFIG % self.dir)
            self.environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=%s/bus" % self.dir}
            self.spawn(["dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file=" + self.dir + "/bus.conf"])
            self.wait(self.connect_bus)
            if self.with_daemon:
                self.start_daemon()
            self.listen()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def connect_bus(self):
        try:
            self.bus = dbus.bus.BusConnection(self.environment["DBUS_SYSTEM_BUS_ADDRESS"])
        except dbus.exceptions.DBusException:
            return False
        return True

    def __exit__(self, *unused):
        for p in reversed(self.processes):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        for s in (getattr(self, "tcp", None), getattr(self, "unix", None)):
            if s:
                s.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def wait(condition, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("condition did not come true")
            time.sleep(0.01)

    def spawn(self, argv, **more):
        p = subprocess.Popen(argv, env=self.environment, **more)
        self.processes.append(p)
        return p

    def start_daemon(self):
        self.daemon = self.spawn(["/usr/bin/python3", "-B", SOURCE + "/tests/fake/fake-wrennd"], stdout=subprocess.PIPE)
        assert self.daemon.stdout.readline() == b"ready\n"
        self.control = dbus.Interface(self.bus.get_object("dev.wrenn.Test", "/dev/wrenn/Test"), "dev.wrenn.Test")
        self.control.AddKey(KEY, "key-1", "default", "")
        self.control.AddKey(OTHER_KEY, "key-2", "other", "standard")

    def set(self, **values):
        for name, value in values.items():
            self.control.Set(name, json.dumps(value))

    def get(self, name):
        return json.loads(self.control.Get(name))

    def listen(self):
        self.tcp = socket.create_server((self.address, 0), backlog=4096)
        self.port = self.tcp.getsockname()[1]
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.dir + "/api.sock")
        self.unix.listen(4096)

    def start(self):
        """Passes the sockets as systemd does."""
        limit = "ulimit -n %d;" % self.limit_nofile if self.limit_nofile else ""
        script = limit + 'exec 3<&%d 4<&%d; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tcp:api exec "$@"'
        a, b = os.dup(self.tcp.fileno()), os.dup(self.unix.fileno())
        for fd in (a, b):
            os.set_inheritable(fd, True)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = self.dir + "/notify"
        if os.path.exists(path):
            os.unlink(path)
        self.notify.bind(path)
        self.notify.settimeout(30)
        p = subprocess.Popen(["/bin/bash", "-c", script % (a, b), "sh", *self.wrapper, self.binary, *self.arguments],
                             env={**self.environment, "NOTIFY_SOCKET": path}, pass_fds=(a, b))
        self.processes.append(p)
        os.close(a)
        os.close(b)
        self.restd = p
        assert b"READY=1" in self.notify.recv(4096)

    def stop(self):
        self.restd.terminate()
        code = self.restd.wait(15)
        self.processes.remove(self.restd)
        return code

    def connect(self, unix=False):
        if unix:
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.dir + "/api.sock")
        else:
            s = socket.create_connection((self.address, self.port))
        s.settimeout(20)
        return s

    def websocket(self, path, key=KEY, headers=()):
        return websocket.WebSocket(self.connect(), path, key, headers)

    def raw(self, data, unix=False, half_close=False):
        """Everything that comes back until the other side closes."""
        with self.connect(unix) as s:
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = b""
            while True:
                try:
                    part = s.recv(65536)
                except ConnectionResetError:
                    break
                if not part:
                    break
                answer += part
            return answer

    def request(self, method, path, body=None, key=KEY, headers=(), unix=False):
        """(status, headers, decoded JSON or bytes)"""
        with Client(self, key, unix) as c:
            return c.request(method, path, body, headers)


class Client:
    """A keep-alive connection, with as little between the test and the bytes as possible."""

    def __init__(self, restd, key=KEY, unix=False):
        self.socket = restd.connect(unix)
        self.key, self.buffer = key, b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send(self, method, path, body=None, headers=()):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: localhost"]
        if self.key:
            lines.append("X-API-Key: " + self.key)
        if body is not None:
            lines.append("Content-Length: %d" % len(body))
        lines += headers
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def fill(self):
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionResetError("closed")
        self.buffer += part

    def receive(self, head_only=False):
        while True:
            while b"\r\n\r\n" not in self.buffer:
                self.fill()
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            status = int(lines[0].split()[1])
            if status != 100:
                break
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, self.decode(headers, self.receive_chunks())
        n = 0 if head_only else int(headers.get("content-length", 0))
        parts, have = [self.buffer], len(self.buffer)
        while have < n:
            part = self.socket.recv(1 << 20)
            if not part:
                raise ConnectionResetError("closed")
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        body, self.buffer = data[:n], data[n:]
        return status, headers, self.decode(headers, body)

    @staticmethod
    def decode(headers, body):
        return json.loads(body) if headers.get("content-type") == "application/json" and body else body

    def take(self, n):
        while len(self.buffer) < n:
            self.fill()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def receive_chunks(self):
        """The whole of a chunked body; ConnectionResetError when it breaks off."""
        parts = []
        while True:
            while b"\r\n" not in self.buffer:
                self.fill()
            size, self.buffer = self.buffer.split(b"\r\n", 1)
            part = self.take(int(size, 16) + 2)
            assert part.endswith(b"\r\n"), part[-10:]
            if len(part) == 2:
                return b"".join(parts)
            parts.append(part[:-2])

    def request(self, method, path, body=None, headers=()):
        self.send(method, path, body, headers)
        return self.receive(head_only=method == "HEAD")


_tests = []


def test(**options):
    def register(f):
        _tests.append((f, options))
        return f
    return register


def equal(is_, expected, what=""):
    if is_ != expected:
        raise AssertionError("%s: is %r, expected %r" % (what, is_, expected))


def create(r, key=KEY, **body):
    """The id of a new capsule."""
    status, _, capsule = r.request("POST", "/v1/capsules", body, key=key)
    equal(status, 201, capsule)
    return capsule["id"]


def expect(answer, status, code=None):
    """The body of an answer with this status and code."""
    equal(answer[0], status, answer[2])
    if code:
        equal(answer[2]["error"]["code"], code)
        assert answer[2]["error"]["message"]
    return answer[2]


def run_tests(**shared_options):
    """Runs the registered tests, those named by the arguments or all, most on one server with these options. The exit status."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY and hard < 16384 else 16384, hard))
    chosen = [(f, o) for f, o in _tests if not sys.argv[1:] or f.__name__ in sys.argv[1:]]
    print("1..%d" % len(chosen), flush=True)
    failed = 0
    shared = None
    for n, (function, options) in enumerate(chosen, 1):
        name = function.__name__.replace("_", " ")
        try:
            if options:
                with Restd(**options) as r:
                    function(r)
            else:
                if shared is None:
                    shared = Restd(**shared_options).__enter__()
                function(shared)
                assert shared.restd.poll() is None, "wrenn-restd ended"
            print("ok %d - %s" % (n, name), flush=True)
        except Exception:  # every failure is a TAP line
            failed += 1
            print("not ok %d - %s" % (n, name))
            print("# " + traceback.format_exc().replace("\n", "\n# "), flush=True)
            if shared and shared.restd.poll() is not None:
                shared.__exit__()
                shared = None
    if shared:
        try:
            if shared.stop() != 0:
                failed += 1
                print("# wrenn-restd ended with %r" % shared.restd.returncode)
        finally:
            shared.__exit__()
    return 1 if failed else 0
