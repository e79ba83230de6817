# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The Capsule interface with file descriptors and signals, by GDBus (busctl can pass no descriptors).

    bus = Bus()
    pty, tag, pid = bus.capsule(path, "OpenPTY", "(assa{ss}uu)", (["/bin/sh"], "", {}, 80, 24))
"""

import os
import socket
import time

import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib  # noqa: E402

from wrenntest import BUS_NAME, BUS_PATH, CREATE_TIMEOUT_SEC  # noqa: E402


class BusError(Exception):
    """An error of the service; .name is what stands behind '…Error.'."""

    def __init__(self, error):
        super().__init__(error.message)
        self.name = (Gio.DBusError.get_remote_error(error) or "").rsplit(".", 1)[-1]


def variant(signature, value):
    return GLib.Variant(signature, value)


def _take(value, fds):
    """Replaces what came as an index of a handle."""
    return [fds[v] if kind == "h" else v for v, kind in zip(value.unpack(), value.get_type_string()[1:-1])] \
        if "h" in value.get_type_string() else list(value.unpack())


class Bus:
    """A connection of its own; all signals of the service are kept in .signals as (member, path, arguments)."""

    def __init__(self):
        address = Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, None)
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self.connection = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        self.signals = []
        self.connection.signal_subscribe(BUS_NAME, None, None, None, None, Gio.DBusSignalFlags.NONE,
                                         lambda _c, _s, path, _i, member, args: self.signals.append((member, path, args.unpack())))

    def close(self):
        self.connection.close_sync(None)

    def call(self, path, noun, method, signature="", arguments=(), fds=(), timeout=CREATE_TIMEOUT_SEC):
        """The members of the answer; descriptors are the caller's to close. fds: of the h members, which are their indices."""
        try:
            answer, out = self.connection.call_with_unix_fd_list_sync(
                BUS_NAME, path, f"{BUS_NAME}.{noun}", method, GLib.Variant(signature, arguments) if signature else None, None,
                Gio.DBusCallFlags.NONE, timeout * 1000, Gio.UnixFDList.new_from_array([os.dup(f) for f in fds]), None)
        except GLib.Error as e:
            raise BusError(e) from None
        return _take(answer, out.steal_fds() if out else [])

    def capsule(self, path, method, signature="", arguments=(), **kwargs):
        return self.call(path, "Capsule", method, signature, arguments, **kwargs)

    def manager(self, method, signature="", arguments=(), **kwargs):
        return self.call(BUS_PATH, "Manager", method, signature, arguments, **kwargs)

    def wait_signal(self, member, accept=lambda path, args: True, timeout_sec=60):
        """(path, arguments) of the first signal, past or to come, that is accepted."""
        deadline = time.monotonic() + timeout_sec
        context = GLib.MainContext.default()
        while True:
            while context.iteration(False):
                pass
            for name, path, args in self.signals:
                if name == member and accept(path, args):
                    return path, args
            if time.monotonic() > deadline:
                raise AssertionError(f"no {member} within {timeout_sec} s; seen: {self.signals[-20:]}")
            time.sleep(0.02)

    def wait_exit(self, pid, tag, timeout_sec=60):
        """(code, reason) of ProcessExited."""
        return self.wait_signal("ProcessExited", lambda _p, a: a[0] == pid and a[1] == tag, timeout_sec)[1][2:]


def read_all(fd, timeout_sec=60):
    """Until end of file; closes it."""
    with open(fd, "rb") as f:
        os.set_blocking(fd, False)
        deadline, data = time.monotonic() + timeout_sec, b""
        while time.monotonic() < deadline:
            piece = f.raw.read(65536)
            if piece == b"":
                return data
            if piece is None:
                time.sleep(0.01)
            else:
                data += piece
    raise AssertionError(f"no end of file within {timeout_sec} s after {len(data)} bytes")


class Terminal:
    """The socket of OpenPTY."""

    def __init__(self, fd, tag, pid):
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(60)
        self.tag, self.pid, self.seen = tag, pid, b""

    def send(self, text):
        self.socket.sendall(text.encode())

    def expect(self, text):
        """Reads until the text came; what was read before it is forgotten."""
        while text.encode() not in self.seen:
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError(f"end of file, no {text!r} in {self.seen!r}")
            self.seen += data
        self.seen = self.seen.split(text.encode(), 1)[1]

    def expect_end(self):
        while self.socket.recv(65536):
            pass

    def close(self):
        self.socket.close()
