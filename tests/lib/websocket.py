# SPDX-License-Identifier: LGPL-2.1-or-later
"""A WebSocket client on wsproto, the library of the SDK's httpx-ws: JSON in text frames, bytes in binary ones."""
import base64
import contextlib
import json
import socket
import time

import wsproto
from wsproto.events import (AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, RejectData, Request,
                            TextMessage)


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__("%d %r" % (status, body))
        self.status, self.body = status, body


class WebSocket:
    """A with-block; sock is connected already."""

    def __init__(self, sock, path, key, headers=()):
        self.socket = sock
        self.socket.settimeout(60)
        self.ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.pending, self.unread, self.code, self.refused = [], [], None, None
        self.send_event(Request(host="localhost", target=path, extra_headers=[(b"X-API-Key", key.encode()), *headers]))
        while not self.pending:
            self.read()
        if not isinstance(self.pending.pop(0), AcceptConnection):
            raise AssertionError("no answer to the upgrade")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send_event(self, event):
        self.socket.sendall(self.ws.send(event))

    def send(self, message):
        """A dict goes as JSON, bytes go as they are, a str as text."""
        if isinstance(message, bytes):
            self.send_event(BytesMessage(message))
        else:
            self.send_event(TextMessage(message if isinstance(message, str) else json.dumps(message)))

    def read(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.code = self.code or 1006
            return
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, Ping):
                self.send_event(event.response())
            elif isinstance(event, RejectConnection):
                self.refused = (event.status_code, b"")
                if not event.has_body:
                    raise Refused(*self.refused)
            elif isinstance(event, RejectData):
                self.refused = (self.refused[0], self.refused[1] + event.data)
                if event.body_finished:
                    raise Refused(*self.refused)
            elif isinstance(event, CloseConnection):
                self.code = event.code
                with contextlib.suppress(OSError, wsproto.utilities.LocalProtocolError):
                    self.send_event(event.response())
            else:
                self.pending.append(event)

    def receive(self, seconds=60):
        """The next message: a dict, bytes, or None once it is closed (then .code says how)."""
        if self.unread:
            return self.unread.pop(0)
        end, parts = time.monotonic() + seconds, []
        while True:
            while self.pending:
                event = self.pending.pop(0)
                if not isinstance(event, (TextMessage, BytesMessage)):
                    continue
                parts.append(event.data)
                if event.message_finished:
                    whole = parts[0][:0].join(parts)
                    return json.loads(whole) if isinstance(whole, str) else bytes(whole)
            if self.code is not None:
                return None
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            self.read()

    def quiet(self, seconds):
        """Does nothing come for so long?"""
        try:
            self.unread.append(self.receive(seconds))
        except socket.timeout:
            return True
        return False

    def until(self, wanted, seconds=120):
        """All messages up to the first for which wanted() is true, that one included."""
        messages, end = [], time.monotonic() + seconds
        while not messages or not wanted(messages[-1]):
            messages.append(self.receive(end - time.monotonic()))
            if messages[-1] is None:
                raise AssertionError("closed with %r behind %r" % (self.code, messages[-9:-1]))
        return messages

    def all(self, seconds=120):
        """Everything until the end."""
        messages, end = [], time.monotonic() + seconds
        while True:
            m = self.receive(end - time.monotonic())
            if m is None:
                return messages
            messages.append(m)

    def close(self):
        """In good order."""
        self.send_event(CloseConnection(code=1000))
        self.all()


def typed(text, framing):
    """Terminal input in a dialect."""
    data = text.encode() if isinstance(text, str) else text
    return data if framing == "binary" else {"type": "input", "data": base64.b64encode(data).decode()}


def shown(messages):
    """The bytes of terminal output among messages, and the dialects they came in."""
    data, dialects = b"", set()
    for m in messages:
        if isinstance(m, bytes):
            dialects.add("binary")
            data += m
        elif m["type"] == "output":
            dialects.add("json")
            data += base64.b64decode(m["data"])
    return data, dialects
