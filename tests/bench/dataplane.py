#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""dataplane.py --key KEY --build DIR: commands, files and terminals of one running capsule beside what the guest does by itself.

Runs inside the test host (tests/bench/run starts it). Baselines: tests/bench/guest-baseline in the same guest (spawn, echo), a raw virtio-serial port
of a bare QEMU with the same options (throughput), ssh into the same capsule (exec).
"""

import argparse
import base64
import concurrent.futures
import contextlib
import glob
import hashlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import guestrig  # noqa: E402
import stats  # noqa: E402
from capsules import Rest, anonymous, main_pid  # noqa: E402

STATE = pathlib.Path("/var/lib/wrenn")
BLOCK = 64 << 10
BASELINE = "/usr/local/bin/guest-baseline"


class Raw:
    """HTTP on a socket without a library in between: what is timed is the service."""

    def __init__(self, key, port=8080):
        self.key = key
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def head(self, method, path, *lines):
        return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", f"X-API-Key: {self.key}", *lines, "", "")).encode()

    def post(self, path, body):
        text = json.dumps(body).encode()
        return self.head("POST", path, "Content-Type: application/json", f"Content-Length: {len(text)}") + text

    def answer(self):
        """(status, headers, beginning of the body) of the next answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                raise RuntimeError(f"the connection ended: {data!r}")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, body

    def call(self, request):
        self.sock.sendall(request)
        status, headers, body = self.answer()
        while len(body) < int(headers.get("content-length", 0)):
            body += self.sock.recv(65536)
        if status >= 300:
            raise RuntimeError(f"{status} {body[:300]!r}")
        return body


def multipart(path):
    """What goes before and behind the content."""
    begin = (f'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n{path}\r\n--b\r\n'
             'Content-Disposition: form-data; name="file"; filename="upload.bin"\r\nContent-Type: application/octet-stream\r\n\r\n')
    return begin.encode(), b"\r\n--b--\r\n"


def upload(key, capsule, path, n, block):
    """Seconds to stream n bytes into a file of the guest."""
    raw = Raw(key)
    before, behind = multipart(path)
    head = raw.head("POST", f"/v1/capsules/{capsule}/files/stream/write", "Content-Type: multipart/form-data; boundary=b",
                    f"Content-Length: {len(before) + n + len(behind)}")
    began = time.perf_counter()
    raw.sock.sendall(head + before)
    for _ in range(n // len(block)):
        raw.sock.sendall(block)
    raw.sock.sendall(behind)
    status, _, body = raw.answer()
    seconds = time.perf_counter() - began
    if status != 204:
        raise RuntimeError(f"upload: {status} {body[:300]!r}")
    raw.sock.close()
    return seconds


def download(key, capsule, path, n):
    raw = Raw(key)
    buffer = bytearray(1 << 20)
    began = time.perf_counter()
    raw.sock.sendall(raw.post(f"/v1/capsules/{capsule}/files/stream/read", {"path": path}))
    status, _, body = raw.answer()
    if status != 200:
        raise RuntimeError(f"download: {status} {body[:300]!r}")
    got = len(body)
    while got < n:      # the chunks' own lines make it a few bytes more
        k = raw.sock.recv_into(buffer)
        if not k:
            raise RuntimeError(f"download: cut after {got} bytes")
        got += k
    raw.sock.close()
    return time.perf_counter() - began


class RawChannel:
    """A bare machine with a second virtio-serial port; QEMU's options are those of a capsule."""

    def __init__(self, build):
        files = argparse.Namespace()
        kernel = STATE / "kernels/current"
        files.kernel, files.initrd, files.vmlinuz = (str(kernel / n) for n in ("vmlinux", "initrd", "vmlinuz"))
        files.rootfs = min(glob.glob(str(STATE / "templates/*/rootfs.erofs")), key=os.path.getsize)
        files.tsc_khz = guestrig.tsc_khz()
        files.make_layer = guestrig.Files.make_layer.__get__(files)
        self.directory = tempfile.TemporaryDirectory(prefix="wrenn-bench-")
        path = os.path.join(self.directory.name, "raw")
        self.guest = guestrig.Guest(files, extra=["-chardev", f"socket,id=raw,path={path},server=on,wait=off",
                                                  "-device", "virtserialport,chardev=raw,name=dev.wrenn.raw"])
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        client = self.guest.client
        client.json("PUT", "/identity", {"id": "cl-" + "0" * 25, "template": "minimal", "hostname": "bench", "default_user": "root",
                                         "realtime_usec": int(time.time() * 1e6), "entropy": base64.b64encode(bytes(64)).decode()})
        with open(os.path.join(build, "tests/bench/guest-baseline"), "rb") as f:
            client.file("PUT", "", f.read(), path=BASELINE, mode="0755")

    def move(self, verb, n, block):
        """Seconds for n bytes in one direction."""
        st = self.guest.client.start(BASELINE, verb, "/dev/vport0p2", str(n))
        self.guest.client.wait_frame(st, "s")
        began = time.perf_counter()
        if verb == "sink":
            for _ in range(n // len(block)):
                self.sock.sendall(block)
            self.sock.recv(1)
        else:
            buffer, got = bytearray(1 << 20), 0
            self.sock.sendall(b"g")
            while got < n:
                got += self.sock.recv_into(buffer)
        seconds = time.perf_counter() - began
        self.guest.client.wait(st)
        return seconds

    def close(self):
        self.sock.close()
        self.guest.close()
        self.directory.cleanup()


def put_baseline(rest, capsule, build):
    with open(os.path.join(build, "tests/bench/guest-baseline"), "rb") as f:
        data = f.read()
    upload(rest.key, capsule, BASELINE, len(data), data)
    rest.call("POST", f"/v1/capsules/{capsule}/exec", {"cmd": f"chmod 755 {BASELINE}"})


def baseline(rest, capsule, *args):
    """What guest-baseline prints, a number of microseconds, as milliseconds."""
    answer = rest.call("POST", f"/v1/capsules/{capsule}/exec", {"cmd": BASELINE, "args": [str(a) for a in args]})
    return float(answer["stdout"]) / 1e3


def bench_exec(rest, capsule, rounds, calls):
    """In turns: a block of execs over REST, a block of spawns timed in the guest."""
    raw = Raw(rest.key)
    request = raw.post(f"/v1/capsules/{capsule}/exec", {"cmd": "/bin/true", "args": ["x"]})
    over_rest, spawn, added = [], [], []
    for _ in range(rounds):
        times = []
        for _ in range(calls):
            began = time.perf_counter()
            raw.call(request)
            times.append((time.perf_counter() - began) * 1e3)
        spawn.append(baseline(rest, capsule, "spawn", calls, "/bin/true"))
        over_rest += times
        added.append(statistics.median(times) - spawn[-1])
    middle, low, high = stats.bootstrap(added)
    stats.absolute("exec of true by REST: added to the guest's spawn", middle, "ms", 0.5,
                   f"[{low:.3f}, {high:.3f}] REST p50 {statistics.median(over_rest):.2f}, p99 {stats.percentile(over_rest, 99):.2f}; "
                   f"spawn p50 {statistics.median(spawn):.2f} ms, n={rounds * calls}", low=low)
    return over_rest


SSHD = """
set -e
mkdir -p /run/sshd /root/.ssh
grep -q ^sshd: /etc/passwd || echo 'sshd:x:74:74::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
chmod 700 /root/.ssh; chmod 600 /root/.ssh/authorized_keys /root/host_key; chown -R root:root /root
"""


def bench_ssh(rest, capsule, over_rest, count):
    """ssh through `wrennctl exec` to an sshd of the same capsule, which is not installed in the template: it is fetched and unpacked there."""
    with tempfile.TemporaryDirectory(prefix="wrenn-bench-") as scratch:
        subprocess.run(["apt-get", "-qq", "download", "openssh-server", "libwrap0", "libnsl2", "libtirpc3"], cwd=scratch, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        root = os.path.join(scratch, "root")
        for package in glob.glob(f"{scratch}/*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        # What lies in /lib goes where the guest's link points.
        subprocess.run(f"cd {root} && if [ -d lib ]; then cp -a lib/. usr/lib/ && rm -r lib; fi", shell=True, check=True)
        os.makedirs(f"{root}/root/.ssh")
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{scratch}/{name}"], check=True)
        os.rename(f"{scratch}/host_key", f"{root}/root/host_key")
        os.link(f"{scratch}/user_key.pub", f"{root}/root/.ssh/authorized_keys")
        subprocess.run(["wrennctl", "--quiet", "copy-to", capsule, *(f"{root}/{n}" for n in os.listdir(root)), "/"], check=True)
        rest.call("POST", f"/v1/capsules/{capsule}/exec", {"cmd": SSHD})
        command = ["ssh", "-F", "none", "-i", f"{scratch}/user_key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                   "-o", "LogLevel=ERROR", "-o", f"ProxyCommand=wrennctl exec --stdin {capsule} -- /usr/sbin/sshd -i -f /dev/null -h /root/host_key",
                   "root@guest", "true"]
        times = []
        for _ in range(count):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            times.append((time.perf_counter() - began) * 1e3)
    stats.row("exec of true by REST against ssh", over_rest[-count:], times, "ms", 1 / 50)


def bench_parallel(rest, capsule, n, size):
    """n execs at once, each with output of its own; every byte is looked at."""
    def one(i):
        answer = Rest(rest.key).call("POST", f"/v1/capsules/{capsule}/exec",
                                     {"cmd": f"for i in 1 2 3 4; do yes line-{i} | head -c {size // 4}; done"})
        expected = (f"line-{i}\n".encode() * size)[:size // 4] * 4
        return answer["exit_code"] == 0 and answer["stdout"].encode() == expected

    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        lost = [i for i, good in enumerate(pool.map(one, range(n))) if not good]
    stats.absolute(f"{n} execs at once, {size >> 10} KiB each: lost", len(lost), "", 0)


def bench_files(rest, capsule, channel, n, pairs):
    block = os.urandom(BLOCK)
    units = ("wrennd.service", "wrenn-restd.service")
    pids = {u: main_pid(u) for u in units}
    upload(rest.key, capsule, "/var/tmp/bench", 16 << 20, block)
    download(rest.key, capsule, "/var/tmp/bench", 16 << 20)
    before = {u: anonymous(p) for u, p in pids.items()}
    grown = dict.fromkeys(units, 0.0)
    ours, raw = {"up": [], "down": []}, {"up": [], "down": []}
    for _ in range(pairs):
        raw["up"].append(channel.move("sink", n, block))
        ours["up"].append(upload(rest.key, capsule, "/var/tmp/bench", n, block))
        raw["down"].append(channel.move("source", n, block))
        ours["down"].append(download(rest.key, capsule, "/var/tmp/bench", n))
        grown = {u: max(grown[u], anonymous(p) - before[u]) for u, p in pids.items()}
    digest = rest.call("POST", f"/v1/capsules/{capsule}/exec", {"cmd": "sha256sum /var/tmp/bench"})["stdout"].split()[0]
    if digest != hashlib.sha256(block * (n // BLOCK)).hexdigest():
        raise RuntimeError("the uploaded file differs")
    for way in ("up", "down"):
        mb = [f"{n / 1e6 / statistics.median(t[way]):.0f}" for t in (ours, raw)]
        stats.row(f"{way}load of {n >> 20} MiB: time against the raw port", ours[way], raw[way], "s", 1 / 0.85)
        print(f"# {way}load: {mb[0]} MB/s, raw {mb[1]} MB/s", flush=True)
    for u in units:
        stats.absolute(f"{u}: memory grown by the transfers", grown[u], "MiB", 1)


def websocket(raw, path):
    raw.sock.sendall(raw.head("GET", path, "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                              "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()))
    status, _, rest_of = raw.answer()
    if status != 101:
        raise RuntimeError(f"upgrade: {status} {rest_of!r}")
    return rest_of


def frame(opcode, payload):
    """A short masked frame; the mask is zero, which is one of the 2^32."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def bench_echo(rest, capsule, keys):
    """One key at a time, typed at a terminal that cat reads; the guest's own time for the echo is taken off."""
    raw = Raw(rest.key)
    websocket(raw, f"/v1/capsules/{capsule}/pty")
    raw.sock.sendall(frame(1, b'{"type":"start","cmd":"/bin/cat"}') + frame(2, b"a"))
    while raw.sock.recv(65536)[-1:] != b"a":
        pass
    times = []
    for i in range(keys):
        key = b"bcdefghi"[i % 8:i % 8 + 1]
        began = time.perf_counter()
        raw.sock.sendall(frame(2, key))
        while raw.sock.recv(4096)[-1:] != key:
            pass
        times.append((time.perf_counter() - began) * 1e3)
        if i % 100 == 99:       # a line is longer only in a terminal that is not one
            raw.sock.sendall(frame(2, b"\x15"))
            time.sleep(0.05)
            raw.sock.setblocking(False)
            try:
                raw.sock.recv(65536)
            except BlockingIOError:
                pass
            raw.sock.setblocking(True)
    raw.sock.close()
    own = baseline(rest, capsule, "echo", 1000)
    middle, low, high = stats.bootstrap([t - own for t in times])
    stats.absolute("echo of a key at a terminal, over the guest's own", middle, "ms", 0.6,
                   f"[{low:.3f}, {high:.3f}] p99 {stats.percentile(times, 99):.2f}, guest {own:.3f} ms, n={keys}", low=low)


DROP_IN = pathlib.Path("/run/systemd/system/wrenn-restd.service.d/bench.conf")


@contextlib.contextmanager
def raised_limits(n):
    """wrenn-restd with room for n WebSockets of one key and capsule."""
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nExecStart=\nExecStart=/usr/lib/wrenn/wrenn-restd --connections-per-key={n} --websockets-per-capsule={n}\n"
                       "LimitNOFILE=65536\n")
    try:
        subprocess.run("systemctl daemon-reload && systemctl restart wrenn-restd.service", shell=True, check=True)
        yield
    finally:
        DROP_IN.unlink()
        subprocess.run("systemctl daemon-reload && systemctl restart wrenn-restd.service", shell=True, check=True)


def bench_idle_sockets(rest, capsule, n):
    """Sockets of terminals that wait for their first message."""
    Rest(rest.key).call("GET", f"/v1/capsules/{capsule}")
    pid = main_pid("wrenn-restd.service")
    sockets = []
    for i in range(n + 20):
        if i == 20:     # tables and pools have their size
            before = anonymous(pid)
        raw = Raw(rest.key)
        websocket(raw, f"/v1/capsules/{capsule}/pty")
        sockets.append(raw)
    grown = (anonymous(pid) - before) * 1024 / n
    for raw in sockets:
        raw.sock.close()
    stats.absolute(f"{n} idle WebSockets, each", grown, "KiB", 32)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()

    rest = Rest(arguments.key)
    stats.header()
    capsule = rest.create()
    try:
        put_baseline(rest, capsule, arguments.build)
        if not arguments.only or "exec" in arguments.only:
            over_rest = bench_exec(rest, capsule, arguments.rounds, arguments.calls)
            bench_ssh(rest, capsule, over_rest, 5)
            bench_parallel(rest, capsule, 64, 64 << 10)
        if not arguments.only or "echo" in arguments.only:
            bench_echo(rest, capsule, 1000)
        if not arguments.only or "files" in arguments.only:
            channel = RawChannel(arguments.build)
            try:
                bench_files(rest, capsule, channel, arguments.megabytes << 20, arguments.pairs)
            finally:
                channel.close()
        if not arguments.only or "idle" in arguments.only:
            with raised_limits(1100):
                bench_idle_sockets(rest, capsule, 1000)
            rest = Rest(arguments.key)
    finally:
        rest.destroy(capsule)
    return 1 if stats.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
