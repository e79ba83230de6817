#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest can reach, and what it cannot: threats.md G10, G11, G12, K12 and appendix A.

Runs as root in network namespaces of its own: a "host" with slots made by the real code (slot-tool), an internet with a
metadata service, a LAN, a neighbour's slot. A guest is either raw frames written to the slot's tap or a namespace with a
network stack of its own behind it. Usage: it-network-policy.py [SLOT-TOOL]; TAP output, exit 1 on failure.
"""
import contextlib
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import fcntl

CLONE_NEWNET, CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x40000000, 0x00020000, 0x4000, 1 << 18
ETH_P_ALL = 3
libc = ctypes.CDLL(None, use_errno=True)

GUEST_MAC, GATEWAY_MAC = "06:00:00:00:00:02", "06:00:00:00:00:01"
GUEST, GATEWAY = "169.254.0.21", "169.254.0.22"
HOST_PUBLIC, HOST_LAN = "198.51.100.2", "192.168.7.1"
INTERNET, PUBLIC, LAN, LAN_ROUTED = "198.51.100.1", "203.0.113.80", "192.168.7.20", "10.44.0.9"
METADATA, METADATA_AZURE = "169.254.169.254", "168.63.129.16"
UPSTREAM, UPSTREAM_PRIVATE = "198.51.100.53", "192.168.7.53"
DNS = "10.11.0.1"


def check(call):
    if call < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Netns:
    """A network namespace held by an fd; `with ns:` is this thread inside it."""

    def __init__(self, fd=None):
        if fd is None:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            check(libc.unshare(CLONE_NEWNET))
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            check(libc.setns(home, CLONE_NEWNET))
            os.close(home)
        self.fd, self.homes = fd, []

    def __enter__(self):
        self.homes.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        check(libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *unused):
        home = self.homes.pop()
        check(libc.setns(home, CLONE_NEWNET))
        os.close(home)

    def run(self, *argv, **kw):
        with self:
            return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, **kw).stdout

    def ip(self, *lines):
        self.run("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def close(self):
        os.close(self.fd)


def nft_counters(ns):
    """{"family table name": packets}"""
    found = json.loads(ns.run("nft", "-j", "list", "counters"))["nftables"]
    return {"{family} {table} {name}".format(**c["counter"]): c["counter"]["packets"] for c in found if "counter" in c}


# frames ------------------------------------------------------------------------------------------------------------------

def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ethernet(payload, kind=0x0800, source=GUEST_MAC, target=GATEWAY_MAC):
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def ipv4(protocol, payload, target, source=GUEST, ttl=64, ident=0):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, 0, ttl, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def with_pseudo(protocol, segment, at, target, source=GUEST):
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, protocol, len(segment))
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment) or 0xffff) + segment[at + 2:]


def udp(target, port, payload, source=GUEST):
    segment = struct.pack("!HHHH", 40000 + random.randrange(20000), port, 8 + len(payload), 0) + payload
    return ipv4(17, with_pseudo(17, segment, 6, target, source), target, source)


def tcp_syn(target, port, payload, source=GUEST):
    segment = struct.pack("!HHIIBBHHH", 40000 + random.randrange(20000), port, random.getrandbits(32), 0, 5 << 4, 2,
                          64000, 0, 0) + payload
    return ipv4(6, with_pseudo(6, segment, 16, target, source), target, source)


def icmp_echo(target, port, payload, source=GUEST):
    message = struct.pack("!BBHHH", 8, 0, 0, random.randrange(65536), 1) + payload
    return ipv4(1, message[:2] + struct.pack("!H", checksum(message)) + message[4:], target, source)


def icmpv6_echo(target, payload, source="fe80::6"):
    message = struct.pack("!BBHHH", 128, 0, 0, 1, 1) + payload
    pseudo = (socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) +
              struct.pack("!II", len(message), 58))
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return (struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + socket.inet_pton(socket.AF_INET6, source) +
            socket.inet_pton(socket.AF_INET6, target) + message)


def arp(operation, sender_mac, sender, target, htype=1):
    return struct.pack("!HHBBH6s4s6s4s", htype, 0x0800, 6, 4, operation, mac(sender_mac), socket.inet_aton(sender),
                       bytes(6), socket.inet_aton(target))


L4 = {"tcp": tcp_syn, "udp": udp, "icmp": icmp_echo}


# the closed world --------------------------------------------------------------------------------------------------------

class Pool:
    """slot-tool in a namespace."""

    def __init__(self, tool, ns, ready=2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ns:
            self.process = subprocess.Popen([tool, str(theirs.fileno()), str(ready)], pass_fds=[theirs.fileno()])
        theirs.close()
        self.socket = ours
        ours.settimeout(20)
        text = ours.recv(64)
        assert text == b"ready", text

    def ask(self, command):
        self.socket.send(command.encode())
        text, fds, _flags, _address = socket.recv_fds(self.socket, 2048, 4)
        words = text.decode().split(None, 2)
        if words[0] != "ok":
            raise OSError(-int(words[1]), text.decode())
        return words[1:], fds

    def claim(self):
        (index, address), (netns, tap) = self.ask("claim")
        return Slot(int(index), address, Netns(netns), tap)

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def close(self, kill=False):
        if kill:
            self.process.kill()
        self.socket.close()
        self.process.wait()


class Slot:
    def __init__(self, index, address, ns, tap):
        self.index, self.address, self.ns, self.tap = index, address, ns, tap

    def send(self, frame):
        os.write(self.tap, bytes(10) + frame)

    def received(self):
        """Frames waiting at the tap."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(os.read(self.tap, 65600)[10:])
        return frames

    def close(self):
        os.close(self.tap)
        self.ns.close()


class Guest:
    """A network stack behind a slot's tap: frames are carried to a tap in a namespace of its own."""

    def __init__(self, slot):
        self.ns = Netns()
        with self.ns:
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.fd, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x0002 | 0x1000 | 0x4000))
        self.ns.ip("link set lo up", "link set eth0 address %s up" % GUEST_MAC, "addr add %s/30 dev eth0" % GUEST,
                   "route add default via %s" % GATEWAY)
        self.slot, self.end = slot, False
        self.thread = threading.Thread(target=self.pump, daemon=True)
        self.thread.start()

    def pump(self):
        other = {self.fd: self.slot.tap, self.slot.tap: self.fd}
        while not self.end:
            for fd in select.select(list(other), [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    os.write(other[fd], os.read(fd, 65600))

    def close(self):
        self.end = True
        self.thread.join()
        os.close(self.fd)
        self.ns.close()


class Sniffer:
    """Everything that passes an interface, in both directions."""

    def __init__(self, ns, interface=None):
        with ns:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)     # SO_RCVBUFFORCE
            if interface:
                self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)

    def frames(self):
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(65600))
        return found


def serve(ns, address, port, log, name):
    """TCP and UDP echo of "who do I see"; what arrives is logged."""
    with ns:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # an answer must come from the address that was asked
        datagrams.bind((PUBLIC if name == "internet" else address, port))

    def stream():
        while True:
            connection, peer = listener.accept()
            log.append((name, "tcp", peer[0]))
            connection.sendall(("you are %s, I am %s\n" % (peer[0], name)).encode())
            connection.close()

    def packets():
        while True:
            _data, peer = datagrams.recvfrom(2048)
            log.append((name, "udp", peer[0]))
            datagrams.sendto(("you are %s, I am %s\n" % (peer[0], name)).encode(), peer)

    threading.Thread(target=stream, daemon=True).start()
    threading.Thread(target=packets, daemon=True).start()


def dns_reply(query, address_of):
    name, at = [], 12
    while query[at]:
        name.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    question = query[12:at + 5]
    kind, = struct.unpack("!H", query[at + 1:at + 3])
    address = address_of(".".join(name), kind)
    head = query[:2] + struct.pack("!HHHHH", 0x8180 if address else 0x8183, 1, 1 if address else 0, 0, 0)
    record = b""
    if address:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        raw = socket.inet_pton(family, address)
        record = struct.pack("!HHHIH", 0xc00c, 28 if len(raw) == 16 else 1, 1, 0, len(raw)) + raw
    return head + question + record


def serve_dns(ns, address, address_of):
    with ns:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((address, 53))
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 53))
        listener.listen(16)

    def packets():
        while True:
            query, peer = datagrams.recvfrom(2048)
            datagrams.sendto(dns_reply(query, address_of), peer)

    def stream():
        while True:
            connection, _peer = listener.accept()
            with contextlib.suppress(OSError, struct.error):
                size, = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                reply = dns_reply(connection.recv(size, socket.MSG_WAITALL), address_of)
                connection.sendall(struct.pack("!H", len(reply)) + reply)
            connection.close()

    threading.Thread(target=packets, daemon=True).start()
    threading.Thread(target=stream, daemon=True).start()


def dns_query(name, kind=1):
    return (struct.pack("!HHHHHH", random.getrandbits(16), 0x0100, 1, 0, 0, 0) +
            b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + struct.pack("!BHH", 0, kind, 1))


class World:
    def __init__(self, tool):
        self.tool, self.log = tool, []
        self.host, self.internet, self.lan = Netns(), Netns(), Netns()
        for ns, name in ((self.internet, "eth0"), (self.lan, "eth1")):
            with self.host:
                subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns",
                                "/proc/self/fd/%d" % ns.fd], check=True, pass_fds=[ns.fd])
        self.host.ip("link set lo up", "link set eth0 up", "link set eth1 up", "addr add %s/24 dev eth0" % HOST_PUBLIC,
                     "addr add %s/24 dev eth1" % HOST_LAN, "route add default via %s" % INTERNET,
                     "route add %s via %s" % (METADATA, INTERNET), "route add 10.44.0.0/16 via %s" % LAN)
        self.internet.ip("link set lo up", "link set eth0 up", *("addr add %s dev eth0" % a for a in (
            INTERNET + "/24", UPSTREAM + "/24", PUBLIC + "/32", METADATA + "/32", METADATA_AZURE + "/32")),
            "route add 10.11.0.0/16 via %s" % HOST_PUBLIC)
        self.lan.ip("link set lo up", "link set eth0 up", *("addr add %s dev eth0" % a for a in (
            LAN + "/24", UPSTREAM_PRIVATE + "/24", LAN_ROUTED + "/32")), "route add default via %s" % HOST_LAN)
        # as 60-wrenn.conf does on a real host
        self.host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for ns, name in ((self.internet, "internet"), (self.lan, "lan"), (self.host, "host")):
            serve(ns, "0.0.0.0", 80, self.log, name)
        self.pool = Pool(tool, self.host)
        self.pool.ask("start")
        self.slot, self.neighbour = self.pool.claim(), self.pool.claim()

    @contextlib.contextmanager
    def fresh_slot(self):
        """For a test that fills the slot's connection table."""
        usual, self.slot = self.slot, self.pool.claim()
        try:
            yield
        finally:
            self.slot.close()
            self.pool.ask("release %d" % self.slot.index)
            self.slot = usual

    def counters(self):
        found = {"host/" + k: v for k, v in nft_counters(self.host).items()}
        found.update({"slot/" + k: v for k, v in nft_counters(self.slot.ns).items()})
        return found


def changed(before, after):
    return {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}


def wait_for(condition, timeout=3.0):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


# tests -------------------------------------------------------------------------------------------------------------------

INGRESS, HOST = "slot/netdev slot ", "host/inet wrenn "


def send_and_count(w, send, expected):
    """Sends once; the counters that moved must be those expected (the "accepted" ones of the layers before may move)."""
    before = w.counters()
    send()
    wait_for(lambda: changed(before, w.counters()).get(expected), 1.0)
    moved = changed(before, w.counters())
    assert moved.get(expected) == 1, "expected %s, moved: %s" % (expected, moved)
    others = set(moved) - {expected, INGRESS + "world", INGRESS + "dns", HOST + "world"}
    assert not others, "also moved: %s" % others


def forbidden_targets(w):
    return [
        ("metadata", METADATA, "metadata"), ("metadata of Azure", METADATA_AZURE, "metadata"),
        ("gateway", GATEWAY, "gateway"), ("host's end of the veth", w.veth_address, "capsules"),
        ("resolver's address", DNS, "capsules"), ("own outer address", w.slot.address, "capsules"),
        ("neighbour", w.neighbour.address, "capsules"), ("neighbour's veth", w.neighbour_veth, "capsules"),
        ("LAN", LAN, "private"), ("host in the LAN", HOST_LAN, "private"), ("LAN behind a router", LAN_ROUTED, "private"),
        ("172.16/12", "172.20.1.1", "private"), ("CGNAT", "100.64.3.4", "private"), ("0/8", "0.0.0.0", "private"),
        ("other link-local", "169.254.7.7", "private"), ("loopback", "127.0.0.1", "loopback"),
        ("resolved's stub", "127.0.0.53", "loopback"), ("multicast", "224.0.0.251", "multicast"),
        ("class E", "240.1.2.3", "multicast"), ("broadcast", "255.255.255.255", "multicast"),
    ]


def reached(w, marker):
    places = [name for name, s in w.sniffers.items() if any(marker in f for f in s.frames())]
    if any(marker in f for f in w.neighbour.received()):
        places.append("neighbour's guest")
    return places


def test_forwarding_is_on(w):
    for ns, link in ((w.slot.ns, "tap0"), (w.slot.ns, "up0"), (w.host, "wv-%d" % w.slot.index)):
        out = ns.run("sh", "-c", "cd /proc/sys/net/ipv4/conf/%s && cat forwarding rp_filter arp_ignore" % link)
        assert out.split() == ["1", "1", "1"], (link, out)
    for ns, link in ((w.slot.ns, "tap0"), (w.slot.ns, "up0"), (w.host, "wv-%d" % w.slot.index), (w.host, "wrenn0")):
        assert "inet6" not in ns.run("ip", "addr", "show", "dev", link), "IPv6 address on " + link


def test_matrix_at_the_tap(w):
    """{metadata, host, neighbour, LAN, loopback …} × {TCP, UDP, ICMP}: 0 reach, each with its counter."""
    for name, target, counter in forbidden_targets(w):
        for protocol, build in L4.items():
            marker = os.urandom(12)
            send_and_count(w, lambda: w.slot.send(ethernet(build(target, 80, marker))), INGRESS + counter)
            assert not reached(w, marker), "%s by %s reached %s" % (name, protocol, reached(w, marker))


def test_host_public_address(w):
    """The host's own public address is in no list; only the host knows it."""
    for protocol, build in L4.items():
        marker = os.urandom(12)
        w.slot.received()
        send_and_count(w, lambda: w.slot.send(ethernet(build(HOST_PUBLIC, 80, marker))), HOST + "host")
        time.sleep(0.02)
        assert not any(marker in f for f in w.slot.received()), "an answer came back (%s)" % protocol
    assert not [entry for entry in w.log if entry[0] == "host"], w.log


def test_ipv6(w):
    for target in ("fd00:ec2::254", "::1", "fe80::1", "fc00::1", "2001:4860:4860::8888", "ff02::1", "ff02::2"):
        marker = os.urandom(12)
        send_and_count(w, lambda: w.slot.send(ethernet(icmpv6_echo(target, marker), 0x86dd)), INGRESS + "ipv6")
        assert not reached(w, marker), target


def test_other_protocols(w):
    """SCTP, GRE, IPIP, ESP, raw 253: the address decides, whatever the protocol."""
    for protocol in (132, 47, 4, 50, 253):
        for target, counter in ((METADATA, INGRESS + "metadata"), (LAN, INGRESS + "private"), (HOST_PUBLIC, HOST + "host")):
            if target == HOST_PUBLIC and protocol in (132, 47):
                continue        # connection tracking of the slot finds garbage in these invalid
            marker = os.urandom(24)
            send_and_count(w, lambda: w.slot.send(ethernet(ipv4(protocol, marker, target))), counter)
            assert not reached(w, marker), (protocol, target)


def test_matrix_on_the_host(w):
    """The same without the tap's rules: packets put on the veth inside the slot, as if its rules were gone."""
    with w.slot.ns:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("up0", 0))
    peer = w.host.run("ip", "-j", "link", "show", "dev", "wv-%d" % w.slot.index)
    peer = json.loads(peer)[0]["address"]
    cases = [(METADATA, "metadata"), (METADATA_AZURE, "metadata"), (LAN, "private"), (LAN_ROUTED, "private"),
             (HOST_LAN, "host"), (HOST_PUBLIC, "host"), (w.veth_address, "host"), (w.neighbour_veth, "host"),
             (w.neighbour.address, "capsules"), ("172.20.1.1", "private"), ("100.64.3.4", "private")]
    for target, counter in cases:
        for protocol, build in L4.items():
            marker = os.urandom(12)
            frame = ethernet(build(target, 80, marker, w.slot.address), source="02:00:00:00:00:07", target=peer)
            send_and_count(w, lambda: raw.send(frame), HOST + counter)
            assert not reached(w, marker), "%s by %s: %s" % (target, protocol, reached(w, marker))
    for source in (w.neighbour.address, "198.51.100.77", GUEST):
        frame = ethernet(udp(PUBLIC, 80, b"spoofed-spoofed", source), source="02:00:00:00:00:07", target=peer)
        send_and_count(w, lambda: raw.send(frame), HOST + "source")
    for target in ("127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"):    # the kernel or our rules: nothing arrives
        marker = os.urandom(12)
        raw.send(ethernet(udp(target, 80, marker, w.slot.address), source="02:00:00:00:00:07", target=peer))
        time.sleep(0.02)
        assert not reached(w, marker), target
    frame = ethernet(icmpv6_echo("ff02::1", b"x" * 12), 0x86dd, source="02:00:00:00:00:07", target=peer)
    send_and_count(w, lambda: raw.send(frame), HOST + "ipv6")
    raw.close()
    assert not [entry for entry in w.log if entry[0] in ("host", "lan")], w.log


def test_appendix_a(w):
    good, other = ethernet(udp(PUBLIC, 9, b"good")), "06:00:00:00:00:99"
    cases = [
        ("good IP", good, "world"),
        ("good ARP", ethernet(arp(1, GUEST_MAC, GUEST, GATEWAY), 0x0806), "arp_good"),
        ("foreign MAC", ethernet(udp(PUBLIC, 9, b"x"), source=other), "mac"),
        ("foreign source", ethernet(udp(PUBLIC, 9, b"x", "169.254.0.23")), "source"),
        ("metadata", ethernet(tcp_syn(METADATA, 80, b"")), "metadata"),
        ("own gateway", ethernet(tcp_syn(GATEWAY, 22, b"")), "gateway"),
        ("neighbour", ethernet(tcp_syn(w.neighbour.address, 22, b"")), "capsules"),
        ("CGNAT", ethernet(tcp_syn("100.127.0.1", 22, b"")), "private"),
        ("ARP as the gateway", ethernet(arp(2, GUEST_MAC, GATEWAY, GUEST), 0x0806), "arp_bad"),
        ("ARP with foreign hardware address", ethernet(arp(1, other, GUEST, GATEWAY), 0x0806), "arp_bad"),
        ("VLAN", ethernet(struct.pack("!HH", 5, 0x0800) + udp(PUBLIC, 9, b"x"), 0x8100), "tagged"),
        ("QinQ", ethernet(struct.pack("!HHHH", 5, 0x8100, 6, 0x0800) + udp(PUBLIC, 9, b"x"), 0x88a8), "tagged"),
        ("IPv6 router advertisement", ethernet(icmpv6_echo("ff02::1", b"x").replace(b"\x80\x00", b"\x86\x00", 1), 0x86dd),
         "ipv6"),
        ("LLDP", ethernet(bytes(46), 0x88cc, target="01:80:c2:00:00:0e"), "other"),
        ("STP", ethernet(b"\x42\x42\x03" + bytes(43), 38, target="01:80:c2:00:00:00"), "other"),
        ("ARP of another hardware type", ethernet(arp(1, GUEST_MAC, GUEST, GATEWAY, htype=6), 0x0806), "arp_bad"),
        ("DHCP", ethernet(udp("255.255.255.255", 67, bytes(240), "0.0.0.0"), target="ff:ff:ff:ff:ff:ff"), "source"),
        ("loopback pretended", ethernet(udp(PUBLIC, 9, b"x", "127.0.0.1")), "source"),
        ("PPPoE", ethernet(bytes(46), 0x8863), "other"), ("MPLS", ethernet(bytes(46), 0x8847), "other"),
    ]
    for name, frame, counter in cases:
        try:
            send_and_count(w, lambda: w.slot.send(frame), INGRESS + counter)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (name, e)) from e
    try:
        w.slot.send(bytes(13))
    except OSError as e:
        assert e.errno == 22, e
    else:
        raise AssertionError("a runt of 13 bytes was taken")


def passes(frame):
    """Our own reading of the rules: may this frame leave the tap? (DNS and ARP are limited by rate as well.)"""
    if len(frame) < 14 or frame[6:12] != mac(GUEST_MAC):
        return False
    kind, = struct.unpack("!H", frame[12:14])
    body = frame[14:]
    if kind == 0x0806:
        return (len(body) >= 28 and body[:4] == b"\0\1\x08\0" and body[6:8] in (b"\0\1", b"\0\2") and
                body[8:14] == mac(GUEST_MAC) and body[14:18] == socket.inet_aton(GUEST))
    if kind != 0x0800 or len(body) < 20 or body[12:16] != socket.inet_aton(GUEST):
        return False
    target = struct.unpack("!I", body[16:20])[0]
    if body[16:20] == socket.inet_aton(GATEWAY):
        return body[9] in (6, 17)       # port 53 or not: counted apart
    nets = [("0.0.0.0", 8), ("10.0.0.0", 8), ("100.64.0.0", 10), ("127.0.0.0", 8), ("169.254.0.0", 16), ("172.16.0.0", 12),
            ("192.0.0.0", 24), ("192.168.0.0", 16), ("198.18.0.0", 15), ("224.0.0.0", 3), (METADATA_AZURE, 32)]
    return not any(target >> (32 - n) == struct.unpack("!I", socket.inet_aton(a))[0] >> (32 - n) for a, n in nets)


def random_frame(rng, good):
    how = rng.randrange(6)
    if how == 0:
        return rng.randbytes(rng.randrange(14, 1500))
    if how == 1:
        return mac(GATEWAY_MAC) + mac(GUEST_MAC) + rng.randbytes(rng.randrange(2, 1400))
    if how == 2:
        return ethernet(rng.randbytes(rng.randrange(0, 200)), rng.choice((0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8)))
    if how == 3:
        return ethernet(ipv4(rng.randrange(256), rng.randbytes(rng.randrange(0, 100)), socket.inet_ntoa(rng.randbytes(4))))
    frame = bytearray(rng.choice(good))
    for _ in range(rng.randrange(1, 6)):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame[:rng.randrange(14, len(frame) + 1)] if how == 4 else frame)


def test_random_frames(w, n=20000):
    with w.fresh_slot():
        random_frames(w, n)


def random_frames(w, n):
    rng = random.Random(20250101)
    good = [ethernet(b(PUBLIC, 80, b"payload-payload")) for b in L4.values()]
    good.append(ethernet(arp(1, GUEST_MAC, GUEST, GATEWAY), 0x0806))
    before, may_pass = w.counters(), 0
    for s in w.sniffers.values():
        s.frames()
    w.neighbour.received()
    for _ in range(n):
        frame = random_frame(rng, good)
        may_pass += passes(frame)
        with contextlib.suppress(OSError):      # the tap itself refuses some
            w.slot.send(frame)
    time.sleep(0.3)
    moved = changed(before, w.counters())
    accepted = sum(moved.get(INGRESS + c, 0) for c in ("world", "dns", "arp_good"))
    assert 0 < accepted <= may_pass, (accepted, may_pass, moved)
    seen = sum(v for k, v in moved.items() if k.startswith(INGRESS))
    assert seen >= 0.9 * n, "only %d of %d frames were counted: %s" % (seen, n, moved)
    allowed = {socket.inet_aton(HOST_PUBLIC), socket.inet_aton(INTERNET)}
    for name, s in w.sniffers.items():
        for frame in s.frames():
            kind = frame[12:14]
            if kind != b"\x08\x00":
                assert kind in (b"\x08\x06", b"\x86\xdd"), (name, frame.hex())
                continue
            assert name == "internet", "IPv4 at %s: %s" % (name, frame.hex())
            source = frame[26:30]
            from_us = source in allowed or frame[30:34] in allowed
            assert from_us, "address of a slot or a guest outside: " + frame.hex()
    assert not w.neighbour.received(), "frames at the neighbour"
    assert not [entry for entry in w.log if entry[0] in ("host", "lan")], w.log


def ask_as(guest, target, port=80, kind="tcp", timeout=1.0):
    with guest.ns:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    with contextlib.closing(s):
        s.settimeout(timeout)
        try:
            s.connect((target, port))
            if kind == "udp":
                s.send(b"who am I")
            return s.recv(200).decode()
        except OSError:
            return None


def ping(guest, target, ttl):
    """(ICMP type, address) of the answer."""
    with guest.ns:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with contextlib.closing(s):
        s.settimeout(3)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        s.sendto(icmp_echo(target, 0, b"ping")[20:], (target, 0))
        reply, peer = s.recvfrom(2048)
        return reply[20], peer[0]


def test_public_is_reached(w):
    with contextlib.closing(Guest(w.slot)) as guest:
        outside = Sniffer(w.host, "wv-%d" % w.slot.index)
        for kind in ("tcp", "udp"):
            answer = ask_as(guest, PUBLIC, 80, kind, 5)
            assert answer and answer.startswith("you are %s, I am internet" % HOST_PUBLIC), (kind, answer)
        assert ping(guest, PUBLIC, 64) == (0, PUBLIC)
        assert ping(guest, PUBLIC, 1) == (11, GATEWAY), "no error from the first hop"    # for traceroute, and path MTU
        sources = {f[26:30] for f in outside.frames() if f[12:14] == b"\x08\x00" and f[30:34] == socket.inet_aton(PUBLIC)}
        assert sources == {socket.inet_aton(w.slot.address)}, sources
        for name, target, _counter in forbidden_targets(w) + [("host's public address", HOST_PUBLIC, "")]:
            for kind in ("tcp", "udp"):
                assert ask_as(guest, target, 80, kind, 0.15) is None, name


def test_nothing_comes_in(w):
    with contextlib.closing(Guest(w.slot)) as guest:
        serve(guest.ns, "0.0.0.0", 8080, w.log, "guest")
        for ns in (w.host, w.lan, w.internet):
            for kind in ("tcp", "udp"):
                assert ask_as(type("Place", (), {"ns": ns}), w.slot.address, 8080, kind, 0.3) is None
    assert changed({}, w.counters()).get(HOST + "inbound"), "routed packets were not counted"
    assert not [entry for entry in w.log if entry[0] == "guest"]


def test_two_guests(w):
    """Both have the same address; outside they are told apart, and they do not see each other."""
    with contextlib.closing(Guest(w.slot)) as a, contextlib.closing(Guest(w.neighbour)) as b:
        serve(b.ns, "0.0.0.0", 8080, w.log, "neighbour")
        out = {g: Sniffer(w.host, "wv-%d" % g.slot.index) for g in (a, b)}
        for g in (a, b):
            assert ask_as(g, PUBLIC, 80, "tcp", 5)
            sources = {f[26:30] for f in out[g].frames() if f[12:14] == b"\x08\x00" and f[30:34] == socket.inet_aton(PUBLIC)}
            assert sources == {socket.inet_aton(g.slot.address)}, sources
        assert ask_as(a, b.slot.address, 8080, "tcp", 0.2) is None
    assert not [entry for entry in w.log if entry[0] == "neighbour"]


@contextlib.contextmanager
def resolver(w, resolv_conf):
    with w.host:
        dnsmasq = subprocess.Popen(["/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=" + w.dnsmasq_conf,
                                    "--resolv-file=" + resolv_conf, "--user=nobody"], stderr=subprocess.DEVNULL)
    try:
        yield dnsmasq
    finally:
        dnsmasq.terminate()
        dnsmasq.wait()


def resolve(guest, name, kind=1, tcp=False, timeout=2.0):
    """Address, None when there is none (NXDOMAIN), or "silence"."""
    query = dns_query(name, kind)
    with guest.ns:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with contextlib.closing(s):
        s.settimeout(timeout)
        try:
            s.connect((GATEWAY, 53))
            s.sendall(struct.pack("!H", len(query)) * tcp + query)
            reply = s.recv(4096)[2 * tcp:]
        except OSError:
            return "silence"
    n_answers, = struct.unpack("!H", reply[6:8])
    if not n_answers:
        return None
    return socket.inet_ntop(socket.AF_INET6 if kind == 28 else socket.AF_INET, reply[-(16 if kind == 28 else 4):])


def test_dns(w):
    flips = [0]

    def public(name, kind):
        if name == "flip.example":
            flips[0] += 1
            return ("10.0.0.5", PUBLIC)[flips[0] % 2] if kind == 1 else None
        table = {"good.example": PUBLIC, "private.example": "10.0.0.5", "metadata.example": METADATA,
                 "local.example": "127.0.0.1", "zero.example": "0.0.0.0", "docs.example": "192.0.2.7"}
        six = {"ula.example": "fd00::5", "mapped.example": "::ffff:10.0.0.5", "six.example": "2001:db8::5"}
        return six.get(name) if kind == 28 else table.get(name)

    serve_dns(w.internet, UPSTREAM, public)
    serve_dns(w.lan, UPSTREAM_PRIVATE, lambda name, kind: "203.0.113.99" if kind == 1 else None)
    with tempfile.TemporaryDirectory(prefix="net-dns-") as folder, contextlib.closing(Guest(w.slot)) as guest:
        os.chmod(folder, 0o755)
        resolv_conf = folder + "/resolv.conf"
        with open(resolv_conf, "w") as f:
            f.write("nameserver %s\n" % UPSTREAM)
        with resolver(w, resolv_conf):
            assert wait_for(lambda: resolve(guest, "good.example", timeout=0.3) == PUBLIC, 5), "no answer over UDP"
            assert resolve(guest, "good.example", tcp=True) == PUBLIC, "no answer over TCP"
            assert resolve(guest, "docs.example") == "192.0.2.7"
            assert resolve(guest, "six.example", kind=28) == "2001:db8::5"
            for name in ("private.example", "metadata.example", "local.example", "zero.example"):
                assert resolve(guest, name) is None, name
            for name in ("ula.example", "mapped.example"):
                assert resolve(guest, name, kind=28) is None, name
            assert resolve(guest, "5.0.0.10.in-addr.arpa", kind=12) is None
            leaks = [a for a in (resolve(guest, "flip.example") for _ in range(100)) if a == "10.0.0.5"]
            assert not leaks, "%d private answers of a flipping name" % len(leaks)
            # only the gateway resolves, not the address behind it, and only on port 53
            assert ask_as(guest, DNS, 53, "udp", 0.2) is None
            assert ask_as(guest, GATEWAY, 54, "udp", 0.2) is None
            # the host's resolver changes: a private one now
            with open(folder + "/new", "w") as f:
                f.write("nameserver %s\n" % UPSTREAM_PRIVATE)
            os.rename(folder + "/new", resolv_conf)
            assert wait_for(lambda: resolve(guest, "fresh-%d.example" % random.getrandbits(30), timeout=0.3) ==
                            "203.0.113.99", 5), "the change of resolv.conf was not followed"
            # neither the internet nor the LAN may use it
            place = type("Place", (), {"ns": w.internet})
            assert ask_as(place, HOST_PUBLIC, 53, "udp", 0.2) is None


def test_dns_rate(w):
    """A flood of queries ends at the tap, before the resolver that all share."""
    before = w.counters()
    for _ in range(2000):
        w.slot.send(ethernet(udp(GATEWAY, 53, dns_query("x.example"))))
    time.sleep(0.1)
    moved = changed(before, w.counters())
    assert moved.get(INGRESS + "dns_rate", 0) > 1000, moved
    assert 100 <= moved.get(INGRESS + "dns", 0) <= 900, moved
    assert moved.get(HOST + "dns", 0) <= moved[INGRESS + "dns"], moved


def tracked(w):
    return int(w.host.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))


def test_connections_are_bounded_and_forgotten(w):
    """One guest has 2,500 connections at most, and the host forgets them with the slot."""
    before = tracked(w)
    with contextlib.closing(Guest(w.slot)) as guest, guest.ns:
        survivor = socket.create_connection((PUBLIC, 80))       # of another capsule: it must stay
    with w.fresh_slot():
        connections_are_bounded(w)
    assert wait_for(lambda: tracked(w) <= before + 5, 5), "%d connections before, %d after" % (before, tracked(w))
    assert tracked(w) >= 1
    survivor.close()


def connections_are_bounded(w):
    before, tracked_before = w.counters(), tracked(w)
    for n in range(4000):
        frame = ipv4(17, with_pseudo(17, struct.pack("!HHHH", 1024 + n, 9, 12, 0) + b"many", 6, PUBLIC), PUBLIC)
        w.slot.send(ethernet(frame))
    time.sleep(0.2)
    moved = changed(before, w.counters())
    assert moved.get("slot/inet slot connections", 0) >= 4000 - 2500, moved
    assert 2000 <= tracked(w) - tracked_before <= 2500, tracked(w)


def test_host_rules_do_not_grow(w):
    def size():
        return len(w.host.run("nft", "list", "ruleset").splitlines())
    before, slots = size(), [w.pool.claim() for _ in range(10)]
    assert size() == before
    for s in slots:
        s.close()
        w.pool.ask("release %d" % s.index)


def test_restart_and_adoption(w):
    """kill -9 of the owner: slots of the living go on, are adopted; links of others are removed; rules are replaced."""
    orphan = w.pool.claim()
    w.pool.close(kill=True)
    with contextlib.closing(Guest(w.slot)) as guest:
        assert ask_as(guest, PUBLIC, 80, "tcp", 5), "the capsule lost its network with its manager"
        w.pool = Pool(w.tool, w.host)
        for s in (w.slot, w.neighbour):
            (index, address), _fds = w.pool.ask("adopt %d" % s.index)
            assert (int(index), address) == (s.index, s.address)
        for index, code in ((w.slot.index, 17), (99999, 22), (0, 22)):
            try:
                w.pool.ask("adopt %d" % index)
            except OSError as e:
                assert e.errno == code, e
            else:
                raise AssertionError("adopted %d" % index)
        w.pool.ask("start")
        assert ask_as(guest, PUBLIC, 80, "tcp", 5), "no network after adoption"
        gone = wait_for(lambda: "wv-%d@" % orphan.index not in w.host.run("ip", "link"), 5)
        assert gone, "the link of a slot nobody owns stayed"
        assert w.host.run("nft", "list", "tables").split() == ["table", "inet", "wrenn"]
    orphan.close()


def test_nothing_is_left(w, n=200):
    def links():
        return sorted(l["ifname"] for l in json.loads(w.host.run("ip", "-j", "link")))

    def steady():
        (ready, _used), _fds = w.pool.ask("count")
        return int(ready) == 2

    assert wait_for(steady, 5)
    before = len(links()), w.pool.fds(), len(w.host.run("nft", "list", "ruleset").splitlines())
    seen = set()
    for _ in range(n):
        s = w.pool.claim()
        assert s.index not in seen, "index %d came back within its quarantine" % s.index
        seen.add(s.index)
        s.close()
        w.pool.ask("release %d" % s.index)
    assert wait_for(steady, 5)
    after = None

    def equal():
        nonlocal after
        after = len(links()), w.pool.fds(), len(w.host.run("nft", "list", "ruleset").splitlines())
        return after == before
    assert wait_for(equal, 20), "links, fds, rules: %s before, %s after" % (before, after)


def test_end_leaves_only_the_resolver(w):
    w.pool.close()
    w.slot.close()
    w.neighbour.close()
    assert wait_for(lambda: "wv-" not in w.host.run("ip", "link"), 20), w.host.run("ip", "link")


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    tool = sys.argv[1] if len(sys.argv) > 1 else root + "/build/tests/lib/slot-tool"
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        return 77
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    w = World(tool)
    w.dnsmasq_conf = root + "/units/dnsmasq.conf"
    base = struct.unpack("!I", socket.inet_aton(w.slot.address))[0]
    w.veth_address = socket.inet_ntoa(struct.pack("!I", base - 1))
    w.neighbour_veth = socket.inet_ntoa(struct.pack("!I", struct.unpack("!I", socket.inet_aton(w.neighbour.address))[0] - 1))
    w.sniffers = {"internet": Sniffer(w.internet, "eth0"), "lan": Sniffer(w.lan, "eth0"),
                  "neighbour": Sniffer(w.host, "wv-%d" % w.neighbour.index)}
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    failed = 0
    print("1..%d" % len(tests), flush=True)
    for i, f in enumerate(tests, 1):
        try:
            f(w)
            print("ok %d - %s" % (i, f.__name__), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s" % (i, f.__name__))
            print("".join("# " + line for line in traceback.format_exc().splitlines(True)), flush=True)
    with contextlib.suppress(Exception):
        w.pool.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
