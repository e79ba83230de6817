# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Talks to wrenn-agent without the rest of the service: Guest boots it in a QEMU microvm under TCG, Detached runs it as an
ordinary process on a socket. Client is an HTTP/2 client with as much control over the stream as the tests need.
"""

import ctypes
import hashlib
import inspect
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
READY = b"\x16"
PORT_NAME = "dev.wrenn.agent"


class Stream:
    def __init__(self, stream_id):
        self.id = stream_id
        self.headers = {}
        self.data = bytearray()
        self.ended = False
        self.reset = None
        self.hold = False       # give no credit back: a slow reader
        self.held = 0
        self.taken = 0          # bytes of data the frames of which were parsed

    @property
    def status(self):
        return int(self.headers.get(b":status", b"0"))

    def frames(self):
        """The complete frames so far: [(type, payload)]."""
        found, at = [], 0
        while at + 5 <= len(self.data):
            kind, n = struct.unpack_from(">cI", self.data, at)
            if at + 5 + n > len(self.data):
                break
            found.append((kind.decode(), bytes(self.data[at + 5 : at + 5 + n])))
            at += 5 + n
        return found


class Result:
    """What one process did."""

    def __init__(self, stream):
        self.stream = stream
        self.stdout = self.stderr = self.pty = b""
        self.started = self.exit = None
        for kind, payload in stream.frames() if stream.status == 200 else []:
            if kind == "o":
                self.stdout += payload
            elif kind == "e":
                self.stderr += payload
            elif kind == "p":
                self.pty += payload
            elif kind == "s":
                self.started = json.loads(payload)
            elif kind == "x":
                self.exit = json.loads(payload)
        self.error = json.loads(stream.data)["error"] if stream.status >= 400 else None

    @property
    def code(self):
        return self.exit["exit_code"] if self.exit else None


def frame(kind, payload):
    return struct.pack(">cI", kind.encode(), len(payload)) + payload


def file_path(verb, **query):
    """from_ stands for "from"."""
    values = "&".join(f"{k.rstrip('_')}={quote(v if isinstance(v, (str, bytes)) else str(v), safe='/')}" for k, v in query.items())
    return f"/files{verb}?{values}"


class Client:
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(10)
        self.streams = {}
        self.h2 = None
        self.closed = False

    def wait_ready(self, timeout=30, nudge=False):
        self.sock.settimeout(timeout)
        if nudge:
            self.sock.sendall(READY * 16)
        while (byte := self.sock.recv(1)) != READY:
            if not byte:
                raise EOFError("the peer is gone")

    def begin(self):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(16 << 20)  # one slow stream must not hold up the others
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def request(self, method, path, body=b"", end=True):
        st = Stream(self.h2.get_next_available_stream_id())
        self.streams[st.id] = st
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "guest")]
        self.h2.send_headers(st.id, head, end_stream=end and not body)
        if body:
            self.send(st, body, end)
        self.flush()
        return st

    def send(self, st, body, end=False):
        while body:
            room = min(self.h2.local_flow_control_window(st.id), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.flush()
                self.pump()
                continue
            self.h2.send_data(st.id, body[:room], end_stream=end and room >= len(body))
            body = body[room:]
        self.flush()

    def _event(self, event):
        st = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            st.headers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            st.data += event.data
            if st.hold:
                st.held += event.flow_controlled_length
            elif event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, st.id)
        elif isinstance(event, h2.events.StreamEnded):
            st.ended = True
        elif isinstance(event, h2.events.StreamReset):
            st.ended, st.reset = True, event.error_code

    def release(self, st, n=None):
        """Gives credit of a held stream back."""
        n = st.held if n is None else min(n, st.held)
        st.held -= n
        if n:
            self.h2.acknowledge_received_data(n, st.id)
            self.flush()

    def pump(self, timeout=10.0):
        """Receives once. False: nothing came in time."""
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(1 << 18)
        except (TimeoutError, socket.timeout):
            return False
        if not data:
            self.closed = True
            raise EOFError("the peer is gone")
        for event in self.h2.receive_data(data):
            self._event(event)
        self.flush()
        return True

    def wait(self, *streams, timeout=20.0):
        until = time.monotonic() + timeout
        for st in streams:
            while not st.ended:
                left = until - time.monotonic()
                if left <= 0 or not self.pump(left):
                    raise TimeoutError(f"stream {st.id}: no end after {timeout} s, got {bytes(st.data[-200:])!r}")

    def wait_frame(self, st, kind, timeout=10.0):
        until = time.monotonic() + timeout
        while True:
            found = [payload for k, payload in st.frames() if k == kind]
            if found:
                return found[0]
            left = until - time.monotonic()
            if left <= 0 or not self.pump(left):
                raise TimeoutError(f"no frame '{kind}', got {bytes(st.data[-200:])!r}")

    def wait_output(self, st, pattern, timeout=30.0):
        """Until what the terminal of st wrote matches pattern (bytes); the match."""
        until = time.monotonic() + timeout
        while not (found := re.search(pattern, Result(st).pty)):
            left = until - time.monotonic()
            if st.ended or left <= 0 or not self.pump(left):
                raise TimeoutError(f"no {pattern!r} in {Result(st).pty[-500:]!r}")
        return found

    def type(self, st, text):
        """Types text on the terminal that st is attached to."""
        for i in range(0, len(text), 60_000):
            self.send(st, frame("i", text[i : i + 60_000]))

    def resize(self, st, cols, rows):
        self.send(st, frame("w", struct.pack(">HH", cols, rows)))

    def cancel(self, st):
        self.h2.reset_stream(st.id, h2.errors.ErrorCodes.CANCEL)
        st.ended = True
        self.flush()

    def json(self, method, path, body=None, timeout=20.0):
        st = self.request(method, path, b"" if body is None else json.dumps(body).encode())
        self.wait(st, timeout=timeout)
        return st.status, json.loads(st.data) if st.data else None

    def file(self, method, verb, body=b"", timeout=20.0, **query):
        """One request of /files: verb behind it ("/list"), query values are text or bytes. The stream, ended."""
        st = self.request(method, file_path(verb, **query), body)
        self.wait(st, timeout=timeout)
        return st

    def start(self, cmd, *args, end=True, **spec):
        spec = {"cmd": cmd, **({"args": list(args)} if args else {}), **spec}
        return self.request("POST", "/processes", frame("j", json.dumps(spec).encode()), end)

    def terminal(self, cmd, *args, cols=80, rows=24, **spec):
        """A terminal that stays when its stream goes, already attached."""
        st = self.start(cmd, *args, end=False, **{"pty": {"cols": cols, "rows": rows}, "on_disconnect": "keep", **spec})
        self.wait_frame(st, "s")
        return st

    def attach(self, selector, tail=1, end=False):
        st = self.request("POST", f"/processes/{selector}/attach?tail={tail}", end=end)
        self.wait_frame(st, "s")
        return st

    def run(self, cmd, *args, timeout=20.0, **spec):
        st = self.start(cmd, *args, **spec)
        self.wait(st, timeout=timeout)
        return Result(st)

    def close(self):
        self.sock.close()


class Detached:
    """The agent as a child of ours; names, clock and files of this machine are left alone."""

    def __init__(self, agent):
        self.scratch = tempfile.mkdtemp(prefix="guest-rig-")  # a directory the agent may fill
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self.process = subprocess.Popen([agent, f"--fd={theirs.fileno()}"], pass_fds=[theirs.fileno()])
        theirs.close()
        self.client = Client(ours)
        self.client.wait_ready()

    def close(self):
        self.client.close()
        try:
            return self.process.wait(20)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)


def tsc_khz():
    """The rate of this machine's time stamp counter, by rdtsc against the clock; None where that is not x86."""
    if os.uname().machine != "x86_64":
        return None
    code = bytes([0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x48, 0x09, 0xD0, 0xC3])  # rdtsc; shl rdx,32; or rax,rdx; ret
    import mmap

    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    rates = []
    for _ in range(5):
        t0, c0 = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), rdtsc()
        time.sleep(0.05)
        t1, c1 = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), rdtsc()
        rates.append((c1 - c0) * 1_000_000 // (t1 - t0))
    return sorted(rates)[2]


PROGRAMS = """sh bash true false echo cat id env sleep seq head tail wc dd yes kill pwd ls mkdir touch stat sync hostname
    mount mv rm setsid sort tr grep sha256sum readlink ps ip df date nproc od test base64
    ln chown chmod mkfifo mknod truncate tar find cmp stty tty umount fallocate""".split()


def make_root(directory):
    """A small root file system of this machine's own programs and the libraries they load."""
    files = set()
    for name in PROGRAMS:
        path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        if path:
            files.add(path)
            out = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
            files.update(w for w in out.stdout.split() if w.startswith("/"))
    for path in files:
        to = os.path.join(directory, "usr", path.lstrip("/").removeprefix("usr/"))
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copy(os.path.realpath(path), to)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(os.path.join(directory, "usr", name), exist_ok=True)
        os.symlink("usr/" + name, os.path.join(directory, name))
    for name in ("etc", "root", "home/user", "opt", "var/tmp"):
        os.makedirs(os.path.join(directory, name))
    os.chown(os.path.join(directory, "home/user"), 1000, 1000)
    os.makedirs(os.path.join(directory, "opt/lower", *map(str, range(1, 40))))
    texts = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/bash\nlost:x:1001:1001::/nowhere:/bin/sh\n"
        "noshell:x:1002:1002::/tmp:/no/shell\n",
        "etc/group": "root:x:0:\nuser:x:1000:\naudio:x:29:user\nlost:x:1001:\nvideo:x:44:root,user\n",
        "usr/bin/noshebang": "echo from a script\n",
        "usr/bin/notexec": "echo never\n",
        "opt/lower/1/2/3/file": "x",
        "opt/with space": "#!/bin/sh\necho spaced\n",
    }
    for path, text in texts.items():
        path = os.path.join(directory, path)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    for path in ("usr/bin/noshebang", "opt/with space"):
        os.chmod(os.path.join(directory, path), 0o755)


class Files:
    """Kernel, initrd and root file system for Guest; made once below the build directory."""

    def __init__(self, build):
        self.cache = os.path.join(build, "guest-cache")
        os.makedirs(self.cache, mode=0o700, exist_ok=True)
        request = {
            "job": "prepare-kernel",
            "directory": os.path.join(self.cache, "kernels"),
            "agent": os.path.join(build, "src/agent/wrenn-agent"),
        }
        out = subprocess.run(
            [os.path.join(build, "src/worker/wrenn-worker")],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        ).stdout
        last = json.loads(out.splitlines()[-1])
        if "result" not in last:
            raise RuntimeError(f"prepare-kernel: {last}")
        self.kernel, self.initrd = last["result"]["kernel"], last["result"]["initrd"]
        self.vmlinuz = os.path.join(last["result"]["path"], "vmlinuz")

        made_of = inspect.getsource(make_root) + " ".join(PROGRAMS)
        self.rootfs = os.path.join(self.cache, f"rootfs-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.erofs")
        if not os.path.exists(self.rootfs):
            with tempfile.TemporaryDirectory(dir=self.cache) as tmp:
                tree = os.path.join(tmp, "root")
                make_root(tree)
                image = os.path.join(tmp, "image")
                subprocess.run(["mkfs.erofs", "--quiet", image, tree], check=True, stdout=subprocess.DEVNULL)
                os.rename(image, self.rootfs)
        self.tsc_khz = tsc_khz()

    def make_layer(self, path):
        with open(path, "wb") as f:
            f.truncate(1 << 30)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard,lazy_itable_init=1", path], check=True)


KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=0 panic=-1 reboot=t 8250.nr_uarts=1 random.trust_cpu=on "
    "cryptomgr.notests rcupdate.rcu_expedited=1 no_timer_check mitigations=off nokaslr"
)


class Guest:
    """A microvm with the agent as PID 1."""

    scratch = "/var/tmp"

    def __init__(self, files, serials=True, extra=(), kernel_line=KERNEL_LINE, stock=False, network=False, boots=True):
        self.directory = tempfile.mkdtemp(prefix="guest-rig-")
        self.console = os.path.join(self.directory, "console")
        self.socket_path = os.path.join(self.directory, "port")
        layer = os.path.join(self.directory, "layer")
        files.make_layer(layer)
        argv = ["qemu-system-x86_64", "-display", "none", "-no-reboot", "-smp", "1", "-m", "512M"]
        if stock:
            argv += ["-M", "microvm", "-accel", "tcg", "-monitor", "none", "-kernel", files.vmlinuz]
            kernel_line = "console=ttyS0"
        else:
            argv += ["-nodefaults", "-no-user-config", "-accel", "tcg,tb-size=64", "-cpu", "qemu64,+arat"]
            argv += ["-M", "microvm,acpi=on,x-option-roms=off,pit=off,pic=off", "-kernel", files.kernel]
        argv += ["-initrd", files.initrd, "-append", f"{kernel_line} tsc_early_khz={files.tsc_khz}"]
        argv += ["-serial", f"file:{self.console}", "-device", "virtio-serial-device"]
        argv += ["-chardev", f"socket,id=port,path={self.socket_path},server=on,wait=off"]
        argv += ["-device", f"virtserialport,chardev=port,name={PORT_NAME}"]
        for name, path, mode in (("base", files.rootfs, "on"), ("layer", layer, "off")):
            argv += ["-drive", f"id={name},file={path},format=raw,if=none,read-only={mode}"]
            argv += ["-device", f"virtio-blk-device,drive={name}" + (f",serial={name}" if serials else "")]
        if network:
            argv += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-device,netdev=net,mac=06:00:00:00:00:02"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(argv + list(extra), stdin=subprocess.DEVNULL)
        if not boots:
            return
        try:
            self.client = self.connect()
            self.client.wait_ready(60)
        except BaseException:
            self.close()
            raise
        self.boot_sec = time.monotonic() - self.started
        self.client.begin()

    def connect(self):
        for _ in range(5000):
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self.socket_path)
                return Client(sock)
            except OSError:
                sock.close()
                time.sleep(0.002)
        raise TimeoutError("QEMU does not listen")

    def reconnect(self):
        """A new peer on the port, after the old one has gone."""
        self.client.close()
        self.client = self.connect()
        self.client.wait_ready(nudge=True)
        # Ready bytes may have come twice, for the closed port and for the nudge.
        time.sleep(0.2)
        self.client.sock.setblocking(False)
        try:
            self.client.sock.recv(64)
        except BlockingIOError:
            pass
        self.client.begin()

    def console_text(self):
        try:
            with open(self.console, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
