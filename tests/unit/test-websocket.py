#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""RFC 6455 against src/rest/ws.c behind the gate (tests/fake/ws-echo), case by case with the numbers of the Autobahn suite,
whose cases these follow. wsproto shakes hands and judges every byte the service sends; what it would never send is made here.

    test-websocket.py WS-ECHO [NUMBER…]     TAP; a number is a case or the beginning of one: 6, 6.2, 6.2.1
"""
import asyncio
import contextlib
import itertools
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
import traceback

import websockets
from wsproto import events

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from rfc6455 import BINARY, CLOSE, PATIENCE, PING, PONG, TEXT, Peer, chop, close, frame, pieces, text  # noqa: E402

MESSAGE_MAX = 1 << 20   # limits.h
FRAGMENTS_MAX = 64


class Service:
    """ws-echo with these times in milliseconds (0: those of wrenn-restd)."""

    def __init__(self, *times):
        self.process = subprocess.Popen([sys.argv[1], *map(str, times)], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.stdout.close()
        self.process.terminate()
        if self.process.wait(PATIENCE) != 0:
            raise AssertionError("ws-echo ended with %d" % self.process.returncode)

    def peer(self, path="/echo", receive_buffer=None, **more):
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.connect(("127.0.0.1", self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Peer(s, path, **more)

    def memory(self):
        with open("/proc/%d/smaps_rollup" % self.process.pid, encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Rss:"))


CASES = []


def case(number, title, sent, expected=(), closed=None):
    """sent: parts, each a write of its own. expected: what comes back. closed: the service closes with this code; None: the
    client does, and the service agrees."""
    parts = [sent] if isinstance(sent, bytes) else list(sent)

    def run(service):
        with service.peer() as p:
            try:
                p.send(*parts)
            except (BrokenPipeError, ConnectionResetError):
                if closed is None:
                    raise
            p.expect(*expected)
            if closed is None:
                p.end()
            else:
                p.expect((CLOSE, closed), None)

    CASES.append((number, title, run))


def special(number, title):
    """A case that needs code: a function of the service."""
    def register(f):
        CASES.append((number, title, f))
        return f
    return register


# 1 Framing

for i, n in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
    case("1.1.%d" % i, "text of %d bytes" % n, text(b"*" * n), [(TEXT, b"*" * n)])
    case("1.2.%d" % i, "binary of %d bytes" % n, frame(BINARY, b"\xfe" * n), [(BINARY, b"\xfe" * n)])
case("1.1.8", "text of 65536 bytes in pieces of 997", chop(text(b"*" * 65536), 997), [(TEXT, b"*" * 65536)])
case("1.2.8", "binary of 65536 bytes in pieces of 997", chop(frame(BINARY, b"\xfe" * 65536), 997), [(BINARY, b"\xfe" * 65536)])


@special("1.3.1", "a message behind the handshake's head, in the same packet")
def behind_the_head(service):
    with service.peer(behind=text("early") + text("bird")) as p:
        p.expect((TEXT, b"early"), (TEXT, b"bird"))
        p.end()


@special("1.3.2", "messages made by wsproto")
def by_wsproto(service):
    with service.peer() as p:
        for data in "", "ä", "x" * 100000:
            p.send(p.ws.send(events.TextMessage(data=data)))
            p.expect((TEXT, data.encode()))
        p.send(p.ws.send(events.BytesMessage(data=b"1", message_finished=False)),
               p.ws.send(events.Ping(payload=b"?")), p.ws.send(events.BytesMessage(data=b"2")))
        p.expect((PONG, b"?"), (BINARY, b"12"))
        p.send(p.ws.send(events.CloseConnection(code=1000, reason="bye")))
        p.expect((CLOSE, 1000), None)


case("1.4.1", "an unmasked frame", text("x", masked=False), closed=1002)
case("1.4.2", "an unmasked frame behind a good one", [text("x"), text("y", masked=False)], [(TEXT, b"x")], closed=1002)
case("1.4.3", "an unmasked ping", frame(PING, masked=False), closed=1002)
case("1.4.4", "an unmasked frame without payload", frame(BINARY, masked=False), closed=1002)
case("1.5.1", "125 bytes with a length of 16 bits", b"\x82\xfe\0\x7d" + bytes(4 + 125), closed=1002)
case("1.5.2", "65535 bytes with a length of 64 bits", b"\x82\xff" + struct.pack(">Q", 65535) + bytes(4), closed=1002)
case("1.5.3", "the highest bit of a length", b"\x82\xff\x80" + bytes(7 + 4), closed=1002)

# 2 Pings and pongs

case("2.1", "a ping without payload", frame(PING), [(PONG, b"")])
case("2.2", "a ping with text", frame(PING, b"Hello, world!"), [(PONG, b"Hello, world!")])
case("2.3", "a ping with bytes that are no text", frame(PING, b"\0\xff\xfe\xfd\xfc\xfb\0\xff"), [(PONG, b"\0\xff\xfe\xfd\xfc\xfb\0\xff")])
case("2.4", "a ping with 125 bytes", frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)])
case("2.5", "a ping with 126 bytes", frame(PING, b"\xfe" * 126), closed=1002)
case("2.6", "a ping with 125 bytes, octet by octet", chop(frame(PING, b"\xfe" * 125), 1), [(PONG, b"\xfe" * 125)])
case("2.7", "a pong nobody asked for", frame(PONG))
case("2.8", "a pong nobody asked for, with payload", frame(PONG, b"unsolicited pong payload"))
case("2.9", "a pong nobody asked for, then a ping", [frame(PONG, b"unsolicited"), frame(PING, b"ping payload")], [(PONG, b"ping payload")])
case("2.10", "ten pings", [frame(PING, b"payload-%d" % i) for i in range(10)], [(PONG, b"payload-%d" % i) for i in range(10)])
case("2.11", "ten pings, octet by octet", chop(b"".join(frame(PING, b"payload-%d" % i) for i in range(10)), 1),
     [(PONG, b"payload-%d" % i) for i in range(10)])


@special("2.12", "pings while the handler takes nothing")
def ping_while_held(service):
    with service.peer("/hold") as p:
        for i in range(20):
            p.send(text("x" * 10000), frame(PING, b"%d" % i))
            p.expect((PONG, b"%d" % i))


@special("2.13", "pings while output flows")
def ping_while_flooded(service):
    with service.peer("/flood") as p:
        for i in range(5):
            p.send(frame(PING, b"%d" % i))
            got = p.next()
            while got[0] == BINARY:
                got = p.next()
            assert got == (PONG, b"%d" % i), got


@special("2.14", "10000 pings at once: the last one is answered, if not all")
def many_pings(service):
    with service.peer() as p:
        p.send(b"".join(frame(PING, b"%d" % i) for i in range(10000)))
        last = -1
        while last < 9999:
            opcode, payload = p.next()
            assert opcode == PONG and int(payload) > last, payload
            last = int(payload)
        p.end()


# 3 Reserved bits

HELLO = "Hello, world!"
case("3.1", "a text with RSV 1", text(HELLO, rsv=1), closed=1002)
case("3.2", "a good text, one with RSV 2, a ping", text(HELLO) + text(HELLO, rsv=2) + frame(PING), [(TEXT, HELLO.encode())], closed=1002)
case("3.3", "the same with RSV 3, frame by frame", [text(HELLO), text(HELLO, rsv=3), frame(PING)], [(TEXT, HELLO.encode())], closed=1002)
case("3.4", "the same with RSV 4, octet by octet", chop(text(HELLO) + text(HELLO, rsv=4) + frame(PING), 1), [(TEXT, HELLO.encode())],
     closed=1002)
case("3.5", "a binary with RSV 5", frame(BINARY, b"\0\xff", rsv=5), closed=1002)
case("3.6", "a ping with RSV 6", frame(PING, b"x", rsv=6), closed=1002)
case("3.7", "a close with RSV 7", frame(CLOSE, b"\x03\xe8", rsv=7), closed=1002)
case("3.8", "a continuation with RSV 4", [text("x", fin=0), frame(0, b"y", rsv=4)], closed=1002)

# 4 Opcodes

for i, opcode in enumerate((3, 4, 5, 6, 7), 1):
    case("4.1.%d" % i, "opcode %d" % opcode, frame(opcode, b"" if i % 2 else b"reserved"), closed=1002)
    case("4.1.%d" % (i + 5), "opcode %d behind a text, before a ping" % opcode, [text(HELLO), frame(opcode, HELLO.encode()), frame(PING)],
         [(TEXT, HELLO.encode())], closed=1002)
for i, opcode in enumerate((11, 12, 13, 14, 15), 1):
    case("4.2.%d" % i, "opcode %d" % opcode, frame(opcode, b"" if i % 2 else b"reserved"), closed=1002)
    case("4.2.%d" % (i + 5), "opcode %d behind a text, octet by octet" % opcode,
         chop(text(HELLO) + frame(opcode, HELLO.encode()) + frame(PING), 1), [(TEXT, HELLO.encode())], closed=1002)

# 5 Fragmentation

TWO = pieces(TEXT, b"fragment1", b"fragment2")
WHOLE = (TEXT, b"fragment1fragment2")
PINGED = [TWO[0], frame(PING, b"ping payload"), TWO[1]]
LONELY = [frame(0, b"non-continuation payload"), text(HELLO)]
LONELY_OPEN = [frame(0, b"non-continuation payload", fin=0), text(HELLO)]


def three_ways(numbers, title, parts, *more, **kinds):
    case(numbers[0], title, b"".join(parts), *more, **kinds)
    case(numbers[1], title + ", frame by frame", parts, *more, **kinds)
    case(numbers[2], title + ", octet by octet", chop(b"".join(parts), 1), *more, **kinds)


case("5.1", "a ping in two fragments", [frame(PING, b"fragment1", fin=0), frame(0, b"fragment2")], closed=1002)
case("5.2", "a pong in two fragments", [frame(PONG, b"fragment1", fin=0), frame(0, b"fragment2")], closed=1002)
three_ways(("5.3", "5.4", "5.5"), "a text in two fragments", TWO, [WHOLE])
three_ways(("5.6", "5.7", "5.8"), "a ping between two fragments", PINGED, [(PONG, b"ping payload"), WHOLE])
three_ways(("5.9", "5.10", "5.11"), "a last continuation of nothing", LONELY, closed=1002)
three_ways(("5.12", "5.13", "5.14"), "a continuation of nothing", LONELY_OPEN, closed=1002)
case("5.15", "a text in two fragments, a continuation of nothing, a text", TWO + LONELY_OPEN, [WHOLE], closed=1002)
case("5.16", "continuation and text, twice", 2 * [frame(0, b"fragment1", fin=0), frame(TEXT, b"fragment2", fin=0), frame(0, b"fragment3")], closed=1002)
case("5.17", "last continuation and text, twice", 2 * [frame(0, b"fragment1"), frame(TEXT, b"fragment2", fin=0), frame(0, b"fragment3")], closed=1002)
case("5.18", "a text that begins within a text", [text("fragment1", fin=0), text("fragment2")], closed=1002)
FIVE = pieces(TEXT, *[b"fragment%d" % i for i in range(1, 6)])
FIVE_PINGED = [FIVE[0], FIVE[1], frame(PING, b"1"), FIVE[2], FIVE[3], frame(PING, b"2"), FIVE[4]]
FIVE_RESULT = [(PONG, b"1"), (PONG, b"2"), (TEXT, b"fragment1fragment2fragment3fragment4fragment5")]
case("5.19", "five fragments, pings between them", b"".join(FIVE_PINGED), FIVE_RESULT)
case("5.20", "five fragments, pings between them, octet by octet", chop(b"".join(FIVE_PINGED), 1), FIVE_RESULT)
case("5.21", "a binary that begins within a text", [text("fragment1", fin=0), frame(BINARY, b"x")], closed=1002)
case("5.22", "a close in two fragments", [frame(CLOSE, b"\x03\xe8", fin=0), frame(0, b"x")], closed=1002)
case("5.23", "as many fragments as there may be", pieces(BINARY, *[b"x"] * FRAGMENTS_MAX), [(BINARY, b"x" * FRAGMENTS_MAX)])
case("5.24", "one fragment more", pieces(BINARY, *[b"x"] * (FRAGMENTS_MAX + 1)), closed=1009)
case("5.25", "one fragment more, all of them empty", pieces(BINARY, *[b""] * (FRAGMENTS_MAX + 1)), closed=1009)

# 6 UTF-8

KOSME = "κόσμε".encode()
GREETING = "Hello-µ@ßöäüàá-UTF-8!!".encode()
BROKEN = KOSME + b"\xed\xa0\x80" + b"edited"

case("6.1.1", "an empty text", text(""), [(TEXT, b"")])
case("6.1.2", "three empty fragments", pieces(TEXT, b"", b"", b""), [(TEXT, b"")])
case("6.1.3", "three fragments, the outer ones empty", pieces(TEXT, b"", b"middle frame payload", b""), [(TEXT, b"middle frame payload")])
case("6.2.1", "valid, in one frame", text(GREETING), [(TEXT, GREETING)])
case("6.2.2", "valid, cut between characters", pieces(TEXT, GREETING[:12], GREETING[12:]), [(TEXT, GREETING)])
case("6.2.3", "valid, octets as fragments", pieces(TEXT, *chop(GREETING, 1)), [(TEXT, GREETING)])
case("6.2.4", "valid, octets as fragments", pieces(TEXT, *chop(KOSME, 1)), [(TEXT, KOSME)])
case("6.2.5", "valid, octets as fragments, a ping between all",
     itertools.chain.from_iterable((frame(PING, b"p"), f) for f in pieces(TEXT, *chop(KOSME, 1))), [(PONG, b"p")] * len(KOSME) + [(TEXT, KOSME)])
case("6.3.1", "invalid, in one frame", text(BROKEN), closed=1007)
case("6.3.2", "invalid, octets as fragments", pieces(TEXT, *chop(BROKEN, 1)), closed=1007)
# seen at once, while the message goes on
case("6.4.1", "fails fast: in the second of three fragments", [text(KOSME, fin=0), frame(0, b"\xf4\x90\x80\x80", fin=0)], closed=1007)
case("6.4.2", "fails fast: after the first impossible octet", [text(KOSME + b"\xf4", fin=0), frame(0, b"\x90", fin=0)], closed=1007)
case("6.4.3", "fails fast: within a frame", text(KOSME + b"\xf4\x90\x80\x80" + b"edited")[:6 + len(KOSME) + 3], closed=1007)
case("6.4.4", "fails fast: within a frame, at the first impossible octet", text(KOSME + b"\xf4\x90\x80\x80" + b"edited")[:6 + len(KOSME) + 2], closed=1007)

# number: (octets in hex, valid)
UTF8 = {
    "6.5.1": ("ce ba", True), "6.5.2": ("ce ba e1", False), "6.5.3": ("ce ba e1 bd", False), "6.5.4": ("ce ba e1 bd b9", True),
    "6.5.5": ("ce ba e1 bd b9 cf", False), "6.6.1": ("ce", False), "6.6.2": ("ce ba", True), "6.6.3": ("ce ba cf", False),
    "6.6.4": ("ce ba cf 8c", True), "6.6.5": ("ce ba cf 8c cf", False), "6.6.6": ("ce ba cf 8c cf 83", True),
    "6.6.7": ("ce ba cf 8c cf 83 ce", False), "6.6.8": ("ce ba cf 8c cf 83 ce bc", True), "6.6.9": ("ce ba cf 8c cf 83 ce bc ce", False),
    "6.6.10": ("ce ba cf 8c cf 83 ce bc ce b5", True), "6.6.11": ("ce ba e1 bd b9 cf 83 ce bc ce b5", True),
    # first and last of each length
    "6.7.1": ("00", True), "6.7.2": ("c2 80", True), "6.7.3": ("e0 a0 80", True), "6.7.4": ("f0 90 80 80", True),
    "6.8.1": ("f8 88 80 80 80", False), "6.8.2": ("fc 84 80 80 80 80", False),
    "6.9.1": ("7f", True), "6.9.2": ("df bf", True), "6.9.3": ("ef bf bf", True), "6.9.4": ("f4 8f bf bf", True),
    "6.10.1": ("f7 bf bf bf", False), "6.10.2": ("fb bf bf bf bf", False), "6.10.3": ("fd bf bf bf bf bf", False),
    "6.11.1": ("ed 9f bf", True), "6.11.2": ("ee 80 80", True), "6.11.3": ("ef bf bd", True), "6.11.4": ("f4 8f bf bf", True),
    "6.11.5": ("f4 90 80 80", False),
    # continuations of nothing
    "6.12.1": ("80", False), "6.12.2": ("bf", False), "6.12.3": ("80 bf", False), "6.12.4": ("80 bf 80", False),
    "6.12.5": ("80 bf 80 bf", False), "6.12.6": ("80 bf 80 bf 80", False), "6.12.7": ("80 bf 80 bf 80 bf", False),
    "6.12.8": (" ".join("%02x" % i for i in range(0x80, 0xc0)), False),
    # beginnings without an end
    "6.13.1": (" ".join("%02x 20" % i for i in range(0xc0, 0xe0)), False), "6.13.2": (" ".join("%02x 20" % i for i in range(0xe0, 0xf0)), False),
    "6.13.3": (" ".join("%02x 20" % i for i in range(0xf0, 0xf8)), False), "6.13.4": ("f8 20 f9 20 fa 20 fb 20", False),
    "6.13.5": ("fc 20 fd 20", False),
    "6.14.1": ("c0", False), "6.14.2": ("e0 80", False), "6.14.3": ("f0 80 80", False), "6.14.4": ("f8 80 80 80", False),
    "6.14.5": ("fc 80 80 80 80", False), "6.14.6": ("df", False), "6.14.7": ("ef bf", False), "6.14.8": ("f7 bf bf", False),
    "6.14.9": ("fb bf bf bf", False), "6.14.10": ("fd bf bf bf bf", False),
    "6.15.1": ("c0 e0 80 f0 80 80 f8 80 80 80 fc 80 80 80 80 df ef bf f7 bf bf fb bf bf bf fd bf bf bf bf", False),
    "6.16.1": ("fe", False), "6.16.2": ("ff", False), "6.16.3": ("fe fe ff ff", False),
    # overlong forms
    "6.17.1": ("c0 af", False), "6.17.2": ("e0 80 af", False), "6.17.3": ("f0 80 80 af", False), "6.17.4": ("f8 80 80 80 af", False),
    "6.17.5": ("fc 80 80 80 80 af", False), "6.18.1": ("c1 bf", False), "6.18.2": ("e0 9f bf", False), "6.18.3": ("f0 8f bf bf", False),
    "6.18.4": ("f8 87 bf bf bf", False), "6.18.5": ("fc 83 bf bf bf bf", False), "6.19.1": ("c0 80", False), "6.19.2": ("e0 80 80", False),
    "6.19.3": ("f0 80 80 80", False), "6.19.4": ("f8 80 80 80 80", False), "6.19.5": ("fc 80 80 80 80 80", False),
    # surrogates, single and paired
    "6.20.1": ("ed a0 80", False), "6.20.2": ("ed ad bf", False), "6.20.3": ("ed ae 80", False), "6.20.4": ("ed af bf", False),
    "6.20.5": ("ed b0 80", False), "6.20.6": ("ed be 80", False), "6.20.7": ("ed bf bf", False),
    "6.21.1": ("ed a0 80 ed b0 80", False), "6.21.2": ("ed a0 80 ed bf bf", False), "6.21.3": ("ed ad bf ed b0 80", False),
    "6.21.4": ("ed ad bf ed bf bf", False), "6.21.5": ("ed ae 80 ed b0 80", False), "6.21.6": ("ed ae 80 ed bf bf", False),
    "6.21.7": ("ed af bf ed b0 80", False), "6.21.8": ("ed af bf ed bf bf", False),
    # replacement and friends
    "6.23.1": ("ef bf b9", True), "6.23.2": ("ef bf ba", True), "6.23.3": ("ef bf bb", True), "6.23.4": ("ef bf bc", True),
    "6.23.5": ("ef bf bd", True), "6.23.6": ("ef bf be", True), "6.23.7": ("ef bf bf", True),
}
# no characters, but valid: the last two of each plane
for i, plane in enumerate(range(17)):
    UTF8["6.22.%d" % (2 * i + 1)] = (chr(plane << 16 | 0xfffe).encode().hex(" "), True)
    UTF8["6.22.%d" % (2 * i + 2)] = (chr(plane << 16 | 0xffff).encode().hex(" "), True)
for number, (octets, valid) in UTF8.items():
    data = bytes.fromhex(octets)
    try:
        assert valid == (data.decode() is not None)
    except UnicodeDecodeError:
        assert not valid, number
    case(number, ("valid: " if valid else "invalid: ") + (octets if len(octets) < 60 else octets[:57] + "..."), text(data),
         [(TEXT, data)] if valid else [], None if valid else 1007)

# 7 Closing


def closes(number, title, sent, expected, behind=b""):
    """The client closes in its own way; then comes the end."""
    def run(service):
        with service.peer() as p:
            p.send(sent + behind)
            p.expect(*expected, None)
    CASES.append((number, title, run))


closes("7.1.1", "a message, then a close", text(HELLO) + close(), [(TEXT, HELLO.encode()), (CLOSE, 1000)])
closes("7.1.2", "two closes", close() + close(), [(CLOSE, 1000)])
closes("7.1.3", "a ping behind the close", close() + frame(PING), [(CLOSE, 1000)])
closes("7.1.4", "a text behind the close", close() + text(HELLO), [(CLOSE, 1000)])
closes("7.1.5", "a close between two fragments", TWO[0] + close() + TWO[1], [(CLOSE, 1000)])
closes("7.1.6", "256 KiB, a close and a ping", text(b"*" * (256 << 10)) + text(HELLO) + close() + frame(PING),
       [(TEXT, b"*" * (256 << 10)), (TEXT, HELLO.encode()), (CLOSE, 1000)])
closes("7.3.1", "a close without anything", close(None), [(CLOSE, 1005)])
case("7.3.2", "a close of one octet", frame(CLOSE, b"\x03"), closed=1002)
closes("7.3.3", "a close with a code", close(1000), [(CLOSE, 1000)])
closes("7.3.4", "a close with a reason", close(1000, HELLO.encode()), [(CLOSE, 1000)])
closes("7.3.5", "a close with 123 octets of a reason", close(1000, b"*" * 123), [(CLOSE, 1000)])
case("7.3.6", "a close with 124 octets of a reason", close(1000, b"*" * 124), closed=1002)
case("7.5.1", "a reason that is no UTF-8", close(1000, BROKEN), closed=1007)
closes("7.5.2", "a close, octet by octet, with a reason of many bytes each", close(1000, KOSME), [(CLOSE, 1000)])
for i, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999), 1):
    closes("7.7.%d" % i, "a good code: %d" % code, close(code), [(CLOSE, code)])
for i, code in enumerate((0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999), 1):
    case("7.9.%d" % i, "a code that may not be sent: %d" % code, close(code), closed=1002)
case("7.13.1", "a code beyond all: 5000", close(5000), closed=1002)
case("7.13.2", "a code beyond all: 65535", close(65535), closed=1002)


@special("7.14.1", "the service closes; the client answers")
def service_closes(service):
    with service.peer("/close") as p:
        p.send(text("x"), text("y"))
        p.expect((TEXT, b"bye"), (CLOSE, 4001))
        p.send(close(4001))
        p.expect(None)


@special("7.14.2", "the service closes; the client says nothing to it")
def service_closes_alone(unused):
    with Service(100) as service, service.peer("/close") as p:
        p.send(text("x"))
        p.expect((TEXT, b"bye"), (CLOSE, 4001), None)


@special("7.14.3", "the service closes; the client goes on and on")
def service_closes_anyway(unused):
    with Service(100) as service, service.peer("/close") as p:
        with contextlib.suppress(ConnectionError):
            while select.select([p.socket], [], [], 0) == ([], [], []) or not p.eof:
                p.send(text("x" * 1000))
                if select.select([p.socket], [], [], 0)[0]:
                    p.fill()
        assert p.queue[:2] == [(TEXT, b"bye"), (CLOSE, 4001)], p.queue


@special("7.14.4", "the service ends: 1001")
def service_ends(unused):
    with Service() as service:
        with service.peer() as p:
            p.send(text("x"))
            p.expect((TEXT, b"x"))
            service.process.terminate()
            got = p.next()
            assert got in (None, (CLOSE, 1001)), got
            service.process.wait(PATIENCE)


@special("7.15.1", "clients that vanish: reset, half closed, in the middle of a frame")
def vanishing(service):
    for parts in [], [text("x")], [text("x" * 1000)[:500]], [text("x", fin=0)], [b"\x81"], [text("x" * 100000)] * 10:
        for reset in False, True:
            p = service.peer()
            p.send(*parts)
            if reset:
                p.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            p.socket.close()
        p = service.peer()
        p.send(*parts)
        p.socket.shutdown(socket.SHUT_WR)
        while not p.eof:
            p.fill()
        p.socket.close()
    with service.peer() as p:
        p.send(text("alive"))
        p.expect((TEXT, b"alive"))


# 9 Limits

for kind, (opcode, octet) in enumerate(((TEXT, b"*"), (BINARY, b"\xfe")), 1):
    for i, n in enumerate((64 << 10, 256 << 10, MESSAGE_MAX), 1):
        case("9.%d.%d" % (kind, i), "%d bytes" % n, frame(opcode, octet * n), [(opcode, octet * n)])
    for i, n in enumerate((MESSAGE_MAX + 1, 4 << 20, 8 << 20, 16 << 20), 4):
        case("9.%d.%d" % (kind, i), "%d bytes are too many" % n, frame(opcode, octet * n), closed=1009)
    for i, n in enumerate((16 << 10, 64 << 10, 256 << 10, MESSAGE_MAX), 1):
        case("9.%d.%d" % (kind + 2, i), "1 MiB in fragments of %d bytes" % n, pieces(opcode, *chop(octet * MESSAGE_MAX, n)),
             [(opcode, octet * MESSAGE_MAX)])
    case("9.%d.5" % (kind + 2), "4 MiB in fragments of 256 KiB", pieces(opcode, *chop(octet * (4 << 20), 256 << 10)), closed=1009)
    case("9.%d.6" % (kind + 2), "1 MiB in fragments of 64 bytes", pieces(opcode, *chop(octet * MESSAGE_MAX, 64)), closed=1009)
    for i, n in enumerate((64, 128, 256, 512, 1024, 2048), 1):
        case("9.%d.%d" % (kind + 4, i), "256 KiB in writes of %d bytes" % n, chop(frame(opcode, octet * (256 << 10)), n),
             [(opcode, octet * (256 << 10))])
    for i, n in enumerate((0, 16, 64, 256, 1024), 1):
        def many(service, opcode=opcode, data=octet * n):
            with service.peer() as p:
                sent = 0
                for done in range(1000):    # at most 100 under way
                    while sent < min(1000, done + 100):
                        p.send(frame(opcode, data))
                        sent += 1
                    p.expect((opcode, data))
                p.end()
        CASES.append(("9.%d.%d" % (kind + 6, i), "1000 messages of %d bytes" % n, many))
case("9.9.1", "a length of 2^62, announced", b"\x82\xff\x40" + bytes(7) + b"maskx", closed=1009)

# 10 Chopped

case("10.1.1", "a text of 65536 bytes in fragments of 1300", pieces(TEXT, *chop(b"*" * 65536, 1300)), [(TEXT, b"*" * 65536)])
case("10.1.2", "a text of 65536 bytes in 64 fragments, each in two writes",
     itertools.chain.from_iterable(chop(f, 600) for f in pieces(TEXT, *chop(b"*" * 65536, 1024))), [(TEXT, b"*" * 65536)])

# 11 The handshake

HANDSHAKE = {"Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
             "Sec-WebSocket-Version": "13"}


def handshake(number, title, status, line="GET /echo HTTP/1.1", body=b"", **changes):
    """changes: headers with _ for -; None leaves one out."""
    def run(service):
        headers = {**HANDSHAKE, **{k.replace("_", "-"): v for k, v in changes.items()}}
        head = "".join("%s: %s\r\n" % x for x in headers.items() if x[1] is not None)
        with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as s:
            s.sendall(("%s\r\n%s\r\n" % (line, head)).encode() + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = s.recv(65536)
                assert part, answer
                answer += part
            assert int(answer.split()[1]) == status, answer
            if status == 101:
                assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer, answer     # RFC 6455 section 1.3
                assert b"Extensions" not in answer and b"Protocol:" not in answer, answer
            elif status == 426:
                assert b"\r\nUpgrade: websocket\r\n" in answer and b"\r\nSec-WebSocket-Version: 13\r\n" in answer, answer
            else:
                assert b"Content-Type: application/json" in answer, answer
    CASES.append((number, title, run))


handshake("11.1.1", "the example of RFC 6455", 101)
handshake("11.1.2", "other spellings", 101, Connection="keep-alive, uPgRaDe", Upgrade="WebSocket")
handshake("11.1.3", "extensions and protocols are not taken", 101, Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat")
handshake("11.1.4", "the same origin", 101, Origin="http://localhost")
handshake("11.2.1", "no upgrade", 426, Upgrade=None)
handshake("11.2.2", "an upgrade to something else", 426, Upgrade="h2c")
handshake("11.2.3", "Connection does not name it", 426, Connection="keep-alive")
handshake("11.2.4", "no version", 426, Sec_WebSocket_Version=None)
handshake("11.2.5", "version 8", 426, Sec_WebSocket_Version="8")
handshake("11.2.6", "version 14", 426, Sec_WebSocket_Version="14")
handshake("11.3.1", "no key", 400, Sec_WebSocket_Key=None)
handshake("11.3.2", "a short key", 400, Sec_WebSocket_Key="c2hvcnQ=")
handshake("11.3.3", "a key that is no base64", 400, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZ!==")
handshake("11.3.4", "HTTP/1.0", 400, line="GET /echo HTTP/1.0")
handshake("11.3.5", "POST", 400, line="POST /echo HTTP/1.1")
handshake("11.3.6", "a body", 400, Content_Length="1", body=b"x")
handshake("11.3.7", "a chunked body", 400, Transfer_Encoding="chunked", body=b"0\r\n\r\n")
handshake("11.4.1", "another origin", 403, Origin="http://elsewhere.example")
handshake("11.4.2", "an opaque origin", 403, Origin="null")
handshake("11.4.3", "cross-site", 403, Sec_Fetch_Site="cross-site")
handshake("11.4.4", "another host", 421, Host="elsewhere.example")

# 12 Hostile and lazy clients (threats.md K7, N3, N9)


@special("12.1", "nobody reads: the output is bounded, then the connection is dropped")
def unread_output(unused):
    with Service(0, 0, 1000) as service:    # less than a KiB in a second
        peers = [service.peer("/flood", receive_buffer=4096) for _ in range(50)]
        for p in peers:     # the service has reset it, although not a byte was read
            waiter = select.poll()
            waiter.register(p.socket, 0)
            assert waiter.poll(PATIENCE * 1000)
            p.socket.close()
        with service.peer() as p:
            p.send(text("alive"))
            p.expect((TEXT, b"alive"))


@special("12.2", "echo without reading: the client is held back, nothing is lost")
def echo_unread(service):
    with service.peer() as p:
        data, sent, got = b"x" * 10000, 0, 0
        out = frame(BINARY, data) * 2000
        p.socket.setblocking(False)
        while select.select([], [p.socket], [], 2)[1] and sent < len(out):     # until it is held back
            sent += p.socket.send(out[sent:])
        assert sent < len(out), "20 MB were taken"
        while got < 2000:
            readable, writable, _ = select.select([p.socket], [p.socket] if sent < len(out) else [], [], PATIENCE)
            assert readable or writable
            if readable:
                p.fill()
                assert all(e == (BINARY, data) for e in p.queue)
                got += len(p.queue)
                p.queue.clear()
            if writable:
                sent += p.socket.send(out[sent:])
        p.socket.settimeout(PATIENCE)
        p.end()


@special("12.3", "a handler that takes nothing: the client is held back")
def held_back(service):
    before = service.memory()
    peers = [service.peer("/hold") for _ in range(20)]
    out = frame(BINARY, b"x" * 1000) * 1000
    for p in peers:
        sent = 0
        p.socket.setblocking(False)
        while select.select([], [p.socket], [], 0.2)[1]:
            sent += p.socket.send(out[sent % len(out):])
            assert sent < 64 << 20
    grown = service.memory() - before
    for p in peers:
        p.socket.close()
    assert grown < 20 * 2 * MESSAGE_MAX * SANITIZED, grown


@special("12.4", "100000 messages without a byte, and fragments of one byte")
def small_change(service):
    with service.peer("/count") as p:
        empty = frame(BINARY) * 1000
        for _ in range(100):
            p.send(empty)
        ones = b"".join(pieces(BINARY, *[b"x"] * FRAGMENTS_MAX)) * 100
        for _ in range(10):
            p.send(ones)
        p.send(text("?"))
        p.expect((TEXT, b"101000 messages, 64000 bytes"))
        p.end()


@special("12.5", "1000 sockets: idle ones cost little, all are served, memory comes back")
def thousand(service):
    with service.peer() as first:
        first.send(text("x"))
        first.expect((TEXT, b"x"))
        before = service.memory()
        peers = [service.peer() for _ in range(1000)]
        each = (service.memory() - before) / 1000
        for n in 10, 100000:
            for p in peers:
                p.send(text(b"y" * n))
            for p in peers:
                p.expect((TEXT, b"y" * n))
        used = (service.memory() - before) / 1000
        print("# an idle WebSocket costs %.1f KiB of memory, after use %.1f KiB" % (each / 1024, used / 1024))
        for p in peers[:500]:
            p.end()
        for p in peers:
            p.socket.close()
        assert each <= 32 * 1024 * SANITIZED and used <= 32 * 1024 * SANITIZED
        first.send(text("z"))
        first.expect((TEXT, b"z"))


@special("12.6", "messages that are never finished cost what was sent of them, no more")
def unfinished(service):
    before = service.memory()
    peers = [service.peer() for _ in range(200)]
    for p in peers:
        p.send(frame(BINARY, b"x" * 100, announce=MESSAGE_MAX))
        p.send(frame(PING, b"x")[:1])   # part of the payload
    with service.peer() as p:
        p.send(text("alive"))
        p.expect((TEXT, b"alive"))
    grown = service.memory() - before
    for p in peers:
        p.socket.close()
    assert grown < 200 * 32 * 1024 * SANITIZED, grown


@special("12.7", "silent clients are pinged twice, then dropped; one that answers is not")
def silent(unused):
    with Service(0, 1000) as service, service.peer() as good, service.peer() as bad:
        ends = {}
        while bad not in ends:
            for p in good, bad:
                if select.select([p.socket], [], [], 0.1)[0]:
                    p.fill()
            while good.queue:
                assert good.queue.pop(0) == (PING, b"")
                good.send(frame(PONG))
            if bad.eof:
                ends[bad] = True
        assert bad.queue == [(PING, b"")] * 2, bad.queue
        good.send(text("here"))
        while (got := good.next()) == (PING, b""):
            good.send(frame(PONG))
        assert got == (TEXT, b"here"), got


# 13 Another client: websockets


async def with_websockets(port):
    async with websockets.connect("ws://127.0.0.1:%d/echo" % port, max_size=None, compression="deflate") as ws:
        assert not ws.extensions
        for data in "", "ä", "x" * MESSAGE_MAX, b"", bytes(range(256)) * 1000:
            await ws.send(data)
            assert await ws.recv() == data
        await ws.send(["frag", "ments"])
        assert await ws.recv() == "fragments"
        for _ in range(10):
            await asyncio.wait_for(await ws.ping(), PATIENCE)
        for i in range(500):
            await ws.send(str(i))
        assert [await ws.recv() for _ in range(500)] == [str(i) for i in range(500)]
    assert ws.close_code == 1000


async def told_by_websockets(port):
    async with websockets.connect("ws://127.0.0.1:%d/close" % port) as ws:
        await ws.send("x")
        assert await ws.recv() == "bye"
        try:
            await ws.recv()
            raise AssertionError("still open")
        except websockets.ConnectionClosed as e:
            assert (e.rcvd.code, e.rcvd.reason) == (4001, "as asked"), e
    try:
        async with websockets.connect("ws://127.0.0.1:%d/echo" % port) as ws:
            await ws.send("x" * (MESSAGE_MAX + 1))
            await ws.recv()
            raise AssertionError("still open")
    except websockets.ConnectionClosed as e:
        assert e.rcvd is None or e.rcvd.code == 1009, e


@special("13.1", "websockets: messages, fragments, pings, close")
def by_websockets(service):
    asyncio.run(with_websockets(service.port))


@special("13.2", "websockets: is told codes and reasons")
def told(service):
    asyncio.run(told_by_websockets(service.port))


def is_sanitized():
    with open(sys.argv[1], "rb") as f:
        return b"__asan_init" in f.read()


SANITIZED = 1


def main(wanted):
    global SANITIZED
    SANITIZED = 16 if is_sanitized() else 1     # its allocator keeps what is freed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))

    cases = [c for c in CASES if not wanted or any((c[0] + ".").startswith(w + ".") for w in wanted)]
    failed = 0
    print("1..%d" % len(cases))
    with Service() as service:
        for i, (number, title, run) in enumerate(cases, 1):
            begin = time.monotonic()
            try:
                run(service)
                result = "ok"
            except Exception:
                failed += 1
                result = "not ok"
                print("".join("# %s\n" % line for line in traceback.format_exc().splitlines()), end="")
            print("%s %d - %s %s (%d ms)" % (result, i, number, title, (time.monotonic() - begin) * 1000), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
