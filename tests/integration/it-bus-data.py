#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""D-Bus: processes, terminals and files of a capsule, with their descriptors; who may; restarts of wrennd amidst."""

import contextlib
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from guestbus import Bus, BusError, Terminal, read_all, variant  # noqa: E402
from wrenntest import (BUS_NAME, BUS_PATH, bus_property, busctl, capsule_path, check, cleanup, equal, main, main_pid, rest,  # noqa: E402
                       run, test, wait_for)

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def begin():
    """A capsule that is destroyed after the test, and a connection to look at it: (bus, object path)."""
    capsule = rest().create(memory_mb=256)["id"]
    cleanup(rest().destroy, capsule)
    bus = Bus()
    cleanup(bus.close)
    return bus, capsule_path(capsule)


def exec_(bus, path, *argv, **options):
    """Exec without standard input: (pid, tag, stdout's descriptor, stderr's)."""
    pid, tag, stdin, stdout, stderr = bus.capsule(path, "Exec", "(asa{ss}a{sv})", (argv, {}, options))
    os.close(stdin)
    return pid, tag, stdout, stderr


def output(bus, path, *argv):
    """What it writes; it has to succeed."""
    pid, tag, stdout, stderr = exec_(bus, path, *argv)
    text, errors = read_all(stdout), read_all(stderr)
    equal(bus.wait_exit(pid, tag), (0, "exit"), f"{argv}: {errors}")
    return text


def terminal(bus, path, *argv, user="", env=None, size=(80, 24)):
    pty, tag, pid = bus.capsule(path, "OpenPTY", "(assa{ss}uu)", (argv, user, env or {}, *size))
    t = Terminal(pty, tag, pid)
    cleanup(t.close)
    return t


def read_file(bus, path, name, **options):
    return read_all(bus.capsule(path, "OpenFile", "(ssa{sv})", (name, "r", options))[0])


def write_file(bus, path, name, data, **options):
    """What the service says of it: nothing, or an error's text."""
    with socket.socket(fileno=bus.capsule(path, "OpenFile", "(ssa{sv})", (name, "w", options))[0]) as s:
        s.settimeout(60)
        with contextlib.suppress(BrokenPipeError):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        text = b""
        while piece := s.recv(65536):
            text += piece
        return text


def error_of(function, *args, **kwargs):
    try:
        got = function(*args, **kwargs)
    except BusError as e:
        check(str(e), f"{e.name} without a text")
        return e.name
    raise AssertionError(f"{args} succeeded: {got}")


@test
def terminals():
    bus, path = begin()
    t = terminal(bus, path, "/bin/sh", size=(91, 17))
    check(t.tag.startswith("pty-") and t.pid > 1, f"{t.tag}, {t.pid}")
    t.send("stty size; echo TERM=$TERM\n")
    t.expect("17 91")
    t.expect("TERM=xterm-256color")
    bus.capsule(path, "ResizePTY", "(suu)", (t.tag, 100, 30))
    t.send("stty size\n")
    t.expect("30 100")
    listed = bus.capsule(path, "ListProcesses")[0]
    equal([p for p in listed if p[0] == t.pid], [(t.pid, t.tag, "/bin/sh", [])])

    # a second one on the same terminal sees and types as well
    output_fd, errors_fd = bus.capsule(path, "ConnectProcess", "(s)", (t.tag,))
    equal(os.read(errors_fd, 1), b"", "errors of a terminal")
    os.close(errors_fd)
    second = Terminal(output_fd, t.tag, t.pid)
    second.expect("30 100")             # the tail
    second.send("echo both-$((40 + 2))\n")
    second.expect("both-42")
    t.expect("both-42")
    second.close()

    # closing is a detach
    t.close()
    back = bus.capsule(path, "ConnectProcess", "(s)", (str(t.pid),))
    os.close(back[1])
    again = Terminal(back[0], t.tag, t.pid)
    again.send("echo still-$((40 + 3)); exit 7\n")
    again.expect("still-43")
    again.expect_end()
    again.close()
    equal(bus.wait_exit(t.pid, t.tag), (7, "exit"))
    equal([a for m, _, a in bus.signals if m == "ProcessExited" and a[0] == t.pid], [(t.pid, t.tag, 7, "exit")], "told once")

    shell = terminal(bus, path)         # the user's login shell
    shell.send("echo me=$(id -u) $0\n")
    shell.expect("me=0")
    shell.send("exit\n")
    shell.expect_end()
    equal(bus.wait_exit(shell.pid, shell.tag), (0, "exit"))

    quick = terminal(bus, path, "/bin/echo", "hello", "terminal", env={"TERM": "dumb"})
    quick.expect("hello terminal")
    quick.expect_end()


@test
def processes_are_listed_signalled_and_attached_to():
    bus, path = begin()
    pid, tag, stdout, stderr = exec_(bus, path, "/bin/sh", "-c", "echo begin; echo oops >&2; read x; sleep 1000", Tag=variant("s", "mine"))
    equal(tag, "mine")
    equal(os.read(stdout, 100), b"begin\n")
    equal(bus.capsule(path, "ListProcesses")[0], [(pid, "mine", "/bin/sh", ["-c", "echo begin; echo oops >&2; read x; sleep 1000"])])
    out, errors = bus.capsule(path, "ConnectProcess", "(s)", ("mine",))
    equal(os.read(out, 100), b"begin\n", "tail")
    equal(os.read(errors, 100), b"oops\n", "tail of errors")
    bus.capsule(path, "SignalProcess", "(si)", (str(pid), signal.SIGTERM))
    equal(bus.wait_exit(pid, "mine"), (-15, "signal"))
    equal((read_all(out), read_all(errors), read_all(stdout), read_all(stderr)), (b"", b"", b"", b"oops\n"))
    equal(bus.capsule(path, "ListProcesses")[0], [])
    equal(error_of(bus.capsule, path, "SignalProcess", "(si)", ("mine", 15)), "NotFound")


@test
def files():
    bus, path = begin()
    where = "/root/data/äb c.txt"
    bus.capsule(path, "MakeDirectory", "(s)", ("data/sub",))
    equal(error_of(bus.capsule, path, "MakeDirectory", "(s)", ("/root/data",)), "AlreadyExists")
    equal(write_file(bus, path, where, b"one\ntwo\n" * 100000, Mode=variant("u", 0o640)), b"")
    equal(read_file(bus, path, "~/data/äb c.txt"), b"one\ntwo\n" * 100000)
    equal(read_file(bus, path, where, Offset=variant("t", 4), Length=variant("t", 3)), b"two")

    entry = bus.capsule(path, "StatPath", "(s)", (where,))[0]
    check(abs(entry.pop("ModifiedAt") - time.time()) < 3600, "ModifiedAt")
    equal(entry, {"Name": "äb c.txt", "Path": where, "Type": "file", "Size": 800000, "Mode": 0o640, "Permissions": entry["Permissions"],
                  "Owner": "root", "Group": "root"})
    check("rw-r-----" in entry["Permissions"], entry["Permissions"])
    output(bus, path, "/bin/sh", "-c", "ln -s nowhere /root/data/link; touch \"$(printf '/root/data/sub/\\377')\"")
    listed = {e["Path"]: e for e in bus.capsule(path, "ListDirectory", "(su)", ("/root/data", 1))[0]}
    equal(sorted(listed), ["/root/data/link", "/root/data/sub", where])
    equal((listed["/root/data/link"]["Type"], listed["/root/data/link"]["SymlinkTarget"]), ("symlink", "/root/data/link"))
    deep = bus.capsule(path, "ListDirectory", "(su)", ("/root/data", 2))[0]
    equal([bytes(e["PathBytes"]) for e in deep if "PathBytes" in e], [b"/root/data/sub/\xff"])
    equal([e["Name"] for e in deep if "PathBytes" in e], ["\ufffd"])

    bus.capsule(path, "RenamePath", "(sst)", (where, "/root/data/sub/x", 0))
    equal(write_file(bus, path, where, b""), b"")
    equal(error_of(bus.capsule, path, "RenamePath", "(sst)", (where, "/root/data/sub/x", 0)), "AlreadyExists")
    bus.capsule(path, "RenamePath", "(sst)", (where, "/root/data/sub/x", 1))
    equal(read_file(bus, path, "/root/data/sub/x"), b"")
    bus.capsule(path, "RemovePath", "(st)", ("/root/data", 0))
    equal(error_of(bus.capsule, path, "StatPath", "(s)", ("/root/data",)), "NotFound")

    # what goes wrong while writing is told at the end
    bus.capsule(path, "MakeDirectory", "(s)", ("/root/d",))
    check(b"directory" in write_file(bus, path, "/root/d", b"x"), "no text of the error")
    equal(error_of(bus.capsule, path, "OpenFile", "(ssa{sv})", ("/root/d", "r", {})), "InvalidArgs")
    equal(error_of(bus.capsule, path, "OpenFile", "(ssa{sv})", ("/nonesuch", "r", {})), "NotFound")


main()
