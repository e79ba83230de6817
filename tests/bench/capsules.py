# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Figures of the running service, each beside its baseline from the same run. Runs as root inside the test host
(tests/bench/run starts it). Baselines: a bare QEMU with its own defaults, the spawn time the guest itself measured, a bare libmicrohttpd.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import dbus
import h2.connection
import h2.config
import h2.events

sys.path.insert(0, os.path.dirname(__file__))
import stats  # noqa: E402

BUS_NAME = "dev.wrenn.Capsules1"
BUS_PATH = "/dev/wrenn/Capsules1"
STATE = pathlib.Path("/var/lib/wrenn")
READY_BYTE = 0x16
FRAME_SPEC, FRAME_EXIT = ord("j"), ord("x")


class Rest:
    """One keep-alive connection."""

    def __init__(self, key, host="127.0.0.1", port=8080):
        self.key = key
        self.http = http.client.HTTPConnection(host, port, timeout=60)
        self.http.connect()
        self.http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method, path, body=None, expect=(200, 201, 202, 204)):
        data = json.dumps(body).encode() if body is not None else None
        self.http.request(method, path, data, {"X-API-Key": self.key, "Content-Type": "application/json"})
        answer = self.http.getresponse()
        text = answer.read()
        if answer.status not in expect:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else {}

    def create(self, **options):
        capsule = self.call("POST", "/v1/capsules", options)
        while capsule["status"] != "running":
            if capsule["status"] in ("error", "stopped"):
                raise RuntimeError(f"create ended as {capsule}")
            time.sleep(0.01)
            capsule = self.call("GET", f"/v1/capsules/{capsule['id']}")
        return capsule["id"]

    def exec_true(self, capsule):
        result = self.call("POST", f"/v1/capsules/{capsule}/exec", {"cmd": "/bin/true", "args": ["x"]})
        if result["exit_code"] != 0:
            raise RuntimeError(f"true: {result}")

    def destroy(self, capsule):
        self.call("DELETE", f"/v1/capsules/{capsule}")


class Agent:
    """The agent's HTTP/2 on a connected socket: just enough to run one process at a time."""

    def __init__(self, sock):
        self.sock = sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def request(self, method, path, body=b""):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", method), (":path", path), (":scheme", "http"), (":authority", "agent")],
                             end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        data, status = b"", 0
        while True:
            received = self.sock.recv(65536)
            if not received:
                raise RuntimeError("the agent's stream ended")
            for event in self.h2.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.flush()
                    return status, data
            self.flush()

    def identify(self, identity):
        status, data = self.request("PUT", "/identity", json.dumps(identity).encode())
        if status != 200:
            raise RuntimeError(f"identity: {status} {data!r}")

    def run(self, **spec):
        """Runs a process; what the agent says of its end, with duration_usec."""
        text = json.dumps(spec).encode()
        status, data = self.request("POST", "/processes", bytes([FRAME_SPEC]) + len(text).to_bytes(4, "big") + text)
        if status != 200:
            raise RuntimeError(f"processes: {status} {data!r}")
        while data:
            kind, length = data[0], int.from_bytes(data[1:5], "big")
            if kind == FRAME_EXIT:
                return json.loads(data[5:5 + length])
            data = data[5 + length:]
        raise RuntimeError("no exit frame")


def tsc_khz():
    """The guest's TSC under TCG is the host's."""
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return round(float(line.split(":")[1]) * 1000)
    return 2000000


def newest_kernel():
    kernels = sorted((STATE / "kernels").iterdir(), key=lambda p: p.stat().st_mtime)
    return kernels[-1]


def bare_qemu(kernel, rootfs, layer, memory_mb, timeout=60):
    """Boots a bare microvm with QEMU's own defaults and runs true in it; the seconds from exec to the result."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="wrenn-bench-") as scratch:
        disk = os.path.join(scratch, "layer")
        subprocess.run(["cp", "--sparse=always", str(layer), disk], check=True)
        os.set_inheritable(theirs.fileno(), True)
        command = ["qemu-system-x86_64", "-M", "microvm", "-m", str(memory_mb), "-nodefaults", "-no-user-config",
                   "-display", "none", "-no-reboot", "-serial", "null",
                   "-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initrd"),
                   "-append", f"console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz={tsc_khz()}",
                   "-drive", f"id=d0,file={rootfs},format=raw,if=none,readonly=on,file.locking=off",
                   "-device", "virtio-blk-device,drive=d0,serial=base",
                   "-drive", f"id=d1,file={disk},format=raw,if=none", "-device", "virtio-blk-device,drive=d1,serial=layer",
                   "-device", "virtio-serial-device", "-chardev", f"socket,id=c0,fd={theirs.fileno()}",
                   "-device", "virtserialport,chardev=c0,name=dev.wrenn.agent"]
        begin = time.perf_counter()
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        theirs.close()
        try:
            ours.settimeout(timeout)
            while ours.recv(1) != bytes([READY_BYTE]):
                pass
            agent = Agent(ours)
            agent.identify({"id": "cl-" + "0" * 25, "template": "minimal", "hostname": "bench",
                            "realtime_usec": int(time.time() * 1e6), "entropy": "A" * 86 + "==", "env": {}, "default_user": "root"})
            if agent.run(cmd="/bin/true", args=["x"])["exit_code"] != 0:
                raise RuntimeError("true failed in the bare machine")
            return time.perf_counter() - begin
        finally:
            process.kill()
            process.wait()
            ours.close()


def bench_create(rest, pairs, memory_mb):
    ours, bare = [], []
    kernel = newest_kernel()
    rootfs = sorted(STATE.glob("templates/*/rootfs.erofs"))[0]
    layer = None

    def one():
        nonlocal layer
        begin = time.perf_counter()
        capsule = rest.create(memory_mb=memory_mb)
        rest.exec_true(capsule)
        ours.append(time.perf_counter() - begin)
        if layer is None:
            layer = tempfile.NamedTemporaryFile(prefix="wrenn-bench-layer-")
            shutil.copyfile(STATE / "capsules" / capsule / "layer.ext4", layer.name)
        rest.destroy(capsule)

    one()
    ours.clear()
    bare_qemu(kernel, rootfs, layer.name, memory_mb)
    for i in range(pairs):
        first, second = (one, lambda: bare.append(bare_qemu(kernel, rootfs, layer.name, memory_mb)))[::1 if i % 2 == 0 else -1]
        first()
        second()
    stats.row("cold create by REST to first exec result", ours, bare, "ms", 0.85, 1e3)


def bench_boots(rest, count, memory_mb):
    """No hang in COUNT boots: every create reaches its first exec result within 30 s."""
    slowest = 0.0
    for _ in range(count):
        begin = time.perf_counter()
        capsule = rest.create(memory_mb=memory_mb)
        rest.exec_true(capsule)
        slowest = max(slowest, time.perf_counter() - begin)
        rest.destroy(capsule)
    stats.absolute(f"slowest of {count} boots (a hang: > 30 s)", slowest, "s", 30)


def bench_exec(rest, calls):
    capsule = rest.create()
    bus = dbus.SystemBus()
    path = bus.get_object(BUS_NAME, BUS_PATH).GetCapsule(capsule, dbus_interface=BUS_NAME + ".Manager")
    fd = bus.get_object(BUS_NAME, path).OpenChannel(dbus.Dictionary({}, signature="sv"), dbus_interface=BUS_NAME + ".Capsule").take()
    channel = socket.socket(fileno=fd)
    channel.setblocking(True)
    agent = Agent(channel)
    for _ in range(20):
        rest.exec_true(capsule)
        agent.run(cmd="/bin/true", args=["x"])
    over_rest, in_guest = [], []
    for _ in range(calls):
        begin = time.perf_counter()
        rest.exec_true(capsule)
        over_rest.append((time.perf_counter() - begin) * 1e3)
        in_guest.append(agent.run(cmd="/bin/true", args=["x"])["duration_usec"] / 1e3)
    rest.destroy(capsule)
    added, low, high = stats.bootstrap([a - b for a, b in zip(over_rest, in_guest)])
    stats.absolute("REST exec of true: added to the guest's spawn", added, "ms", 1.0,
                   f"[{low:.3f}, {high:.3f}] REST p50 {statistics.median(over_rest):.2f}, p99 {stats.percentile(over_rest, 99):.2f}; "
                   f"guest p50 {statistics.median(in_guest):.2f} ms, n={calls}", low=low)


def memory(pid):
    """(resident, private) MiB."""
    resident = private = 0
    for line in open(f"/proc/{pid}/smaps_rollup"):
        name, _, rest_of_line = line.partition(":")
        if name == "Rss":
            resident = int(rest_of_line.split()[0])
        elif name in ("Private_Dirty", "Private_Clean"):
            private += int(rest_of_line.split()[0])
    return resident / 1024, private / 1024


def anonymous(pid):
    """MiB of memory nobody shares: dirty private pages."""
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) / 1024
    return 0.0


def main_pid(unit):
    return int(subprocess.run(["systemctl", "show", "-P", "MainPID", unit], check=True, capture_output=True, text=True).stdout)


def bench_memory(rest):
    for unit in ("wrennd.service", "wrenn-restd.service"):
        pid = main_pid(unit)
        resident, _ = memory(pid)
        stats.absolute(f"{unit}: resident, idle", resident, "MiB", 12)
        stats.absolute(f"{unit}: private, idle", anonymous(pid), "MiB", 4)
    capsule = rest.create()
    bus = dbus.SystemBus()
    path = bus.get_object(BUS_NAME, BUS_PATH).GetCapsule(capsule, dbus_interface=BUS_NAME + ".Manager")
    leader = int(bus.get_object(BUS_NAME, path).Get(BUS_NAME + ".Capsule", "Leader", dbus_interface="org.freedesktop.DBus.Properties"))
    stats.absolute("wrenn-monitor: private", anonymous(leader), "MiB", 4)
    rest.destroy(capsule)


def bench_get(rest, build, calls):
    """GET of one capsule against a bare libmicrohttpd hello with the same flags and size; both over keep-alive, in turns."""
    capsule = rest.create()
    path = f"/v1/capsules/{capsule}"
    size = len(json.dumps(rest.call("GET", path), separators=(",", ":")))
    hello = subprocess.Popen([f"{build}/tests/bench/mhd-hello", str(size)], stdout=subprocess.PIPE, text=True)
    try:
        port = hello.stdout.readline().strip()
        with tempfile.NamedTemporaryFile("w", prefix="wrenn-bench-") as request:
            request.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {rest.key}\r\n\r\n")
            request.flush()
            pairs = subprocess.run([f"{build}/tests/bench/http-pairs", "8080", request.name, port, request.name, str(calls)],
                                   check=True, capture_output=True, text=True).stdout.split()
    finally:
        hello.kill()
        hello.wait()
        rest.destroy(capsule)
    values = [float(v) for v in pairs]
    stats.row("GET of one capsule against libmicrohttpd hello", values[0::2], values[1::2], "us", 2.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", required=True)
    parser.add_argument("--build", required=True, help="build directory, for the baseline programs")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--boots", type=int, default=50)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--memory-mb", type=int, default=512)
    arguments = parser.parse_args()

    rest = Rest(arguments.key)
    stats.header()
    bench_memory(rest)
    bench_get(rest, arguments.build, arguments.calls * 3)
    bench_exec(rest, arguments.calls)
    bench_create(rest, arguments.pairs, arguments.memory_mb)
    if arguments.boots:
        bench_boots(rest, arguments.boots, arguments.memory_mb)
    print(f"1..{len(stats.RESULTS)}")
    return 1 if stats.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
