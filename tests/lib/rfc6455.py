# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of WebSockets for tests: wsproto shakes hands and judges every byte that comes; what goes out is made here, also what
wsproto would never send."""
import os
import socket
import struct

import wsproto
from wsproto import events

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE = 60           # seconds; nothing here depends on less


def mask(data, key):
    n = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes((key * (n // 4 + 1))[:n], "big")).to_bytes(n, "big") if n else b""


def frame(opcode, data=b"", fin=1, rsv=0, masked=True, announce=None):
    """One frame of a client. announce: a length in the header that is not len(data)."""
    n = len(data) if announce is None else announce
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if n < 126:
        head += bytes([bit | n])
    elif n < 1 << 16:
        head += struct.pack(">BH", bit | 126, n)
    else:
        head += struct.pack(">BQ", bit | 127, n)
    if not masked:
        return head + data
    key = os.urandom(4)
    return head + key + mask(data, key)


def text(s, **more):
    return frame(TEXT, s if isinstance(s, bytes) else s.encode(), **more)


def close(code=1000, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def pieces(opcode, *parts):
    """A message in these fragments."""
    last = len(parts) - 1
    return [frame(0 if i else opcode, part, fin=int(i == last)) for i, part in enumerate(parts)]


def chop(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


class Peer:
    """A client on a connected socket. What it sends is bytes; what comes is read by wsproto. behind: sent with the head."""

    def __init__(self, connected, path, headers=(), behind=b""):
        self.socket = connected
        self.socket.settimeout(PATIENCE)
        self.ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.queue, self.partial, self.eof = [], b"", False
        head = self.ws.send(events.Request(host="localhost", target=path, extra_headers=[(k.encode(), v.encode()) for k, v in headers]))
        self.socket.sendall(head + behind)
        first = self.next()
        assert first == ("accept",), first

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send(self, *parts):
        """Each part in a system call of its own."""
        for part in parts:
            self.socket.sendall(part)

    def fill(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.eof = not data
        if self.eof:
            return
        self.ws.receive_data(data)
        for e in self.ws.events():
            if isinstance(e, events.AcceptConnection):
                self.queue.append(("accept",))
            elif isinstance(e, events.Message):
                part = e.data.encode() if isinstance(e, events.TextMessage) else bytes(e.data)
                self.partial += part
                if e.message_finished:
                    self.queue.append((TEXT if isinstance(e, events.TextMessage) else BINARY, self.partial))
                    self.partial = b""
            elif isinstance(e, events.Ping):
                self.queue.append((PING, bytes(e.payload)))
            elif isinstance(e, events.Pong):
                self.queue.append((PONG, bytes(e.payload)))
            elif isinstance(e, events.CloseConnection):
                self.queue.append((CLOSE, e.code))
            else:
                self.queue.append((repr(e),))

    def next(self):
        """(opcode, data), (CLOSE, code) or None at the end."""
        while not self.queue and not self.eof:
            self.fill()
        return self.queue.pop(0) if self.queue else None

    def expect(self, *expected):
        for e in expected:
            got = self.next()
            if got != e:
                raise AssertionError("got %.200r, expected %.200r" % (got, e))

    def end(self, code=1000):
        """The client closes."""
        self.send(close(code))
        self.expect((CLOSE, code if code else 1005), None)
