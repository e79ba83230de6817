#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""D-Bus: processes, terminals and files of a capsule, with their descriptors; who may; restarts of wrennd amidst."""

import contextlib
import io
import os
import signal
import socket
import sys
import tarfile
import tempfile
import threading
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



# -- copies -----------------------------------------------------------------------------------------------------


def tar_of(names):
    """A tar with files of these contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return out.getvalue()


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        return {m.name: t.extractfile(m).read() if m.isfile() else None for m in t.getmembers()}


def job_end(bus, job):
    """(result, message) of JobRemoved."""
    return bus.wait_signal("JobRemoved", lambda _p, a: a[1] == job)[1][2:]


def copy_to(bus, path, fd, where):
    job = bus.capsule(path, "CopyTo", "(hst)", (0, where, 0), fds=[fd])[0]
    os.close(fd)
    return job


def copy_from(bus, path, where, fd):
    job = bus.capsule(path, "CopyFrom", "(sht)", (where, 0, 0), fds=[fd])[0]
    os.close(fd)
    return job


def pipe():
    ends = os.pipe()
    os.set_inheritable(ends[0], False)
    return ends


def feed(fd, data):
    """Writes all of it from a thread, and closes; whoever reads may leave."""
    def run_():
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), open(fd, "wb", buffering=0) as f:
            view = memoryview(data)
            while view:
                view = view[f.write(view):]
    thread = threading.Thread(target=run_)
    thread.start()
    return thread


@test
def copies_through_pipes_sockets_and_files():
    bus, path = begin()
    content = {"a": b"x" * 3000000, "d/b": b"", "d/c": b"see"}
    reading, writing = pipe()
    thread = feed(writing, tar_of(content))
    job = copy_to(bus, path, reading, "/root/in")
    equal(job_end(bus, job), ("done", ""))
    thread.join()
    told = [a[1]["Bytes"] for m, p, a in bus.signals if m == "PropertiesChanged" and p == job and "Bytes" in a[1]]
    check(told and told == sorted(told) and told[-1] >= 3000000, f"Bytes: {told}")
    check(any(m == "JobNew" and a[1] == job for m, _, a in bus.signals), "no JobNew")
    equal(read_file(bus, path, "/root/in/d/c"), b"see")

    reading, writing = pipe()
    job = copy_from(bus, path, "/root/in", writing)
    got = members(read_all(reading))
    equal({n[2:]: d for n, d in got.items() if d is not None}, content)
    check("." in got, str(sorted(got)))
    equal(job_end(bus, job)[0], "done")

    # the same by a plain file and a socket
    with tempfile.TemporaryFile() as f:
        job = copy_from(bus, path, "/root/in/d/c", os.dup(f.fileno()))
        equal(job_end(bus, job)[0], "done")
        f.seek(0)
        equal(members(f.read()), {"c": b"see"})
        f.seek(0)
        equal(job_end(bus, copy_to(bus, path, os.dup(f.fileno()), "/root/again"))[0], "done")
    equal(read_file(bus, path, "/root/again/c"), b"see")
    ours, theirs = socket.socketpair()
    job = copy_from(bus, path, "/root/in", os.dup(theirs.fileno()))
    theirs.close()
    equal(len(members(read_all(ours.detach()))), len(got))
    equal(job_end(bus, job)[0], "done")


@test
def copies_that_fail():
    bus, path = begin()
    reading, writing = pipe()
    feed(writing, b"this is no tar" * 1000).join()
    result, message = job_end(bus, copy_to(bus, path, reading, "/root/x"))
    check(result == "failed" and message, f"{result}: {message}")

    reading, writing = pipe()
    result, message = job_end(bus, copy_from(bus, path, "/nonesuch", writing))
    check(result == "failed" and "nonesuch" in message, f"{result}: {message}")
    equal(read_all(reading), b"")

    # a reader who leaves
    output(bus, path, "/bin/sh", "-c", "head -c 20000000 /dev/zero > /root/big")
    reading, writing = pipe()
    job = copy_from(bus, path, "/root/big", writing)
    check(os.read(reading, 100), "nothing came")
    os.close(reading)
    result, message = job_end(bus, job)
    equal(result, "failed", message)

    # one who neither reads nor leaves holds nothing up, and is cancelled; O_NONBLOCK of his end is his own
    reading, writing = pipe()
    kept = os.dup(writing)
    job = copy_from(bus, path, "/root/big", writing)
    check(os.read(reading, 100), "nothing came")
    equal(bus_property(job, "Job", "State"), "running")
    equal((bus_property(job, "Job", "Kind"), bus_property(job, "Job", "Target")), ("copy-from", bus_property(path, "Capsule", "Id")))
    equal(os.get_blocking(kept), True)
    equal(output(bus, path, "/bin/echo", "meanwhile"), b"meanwhile\n")
    bus.call(job, "Job", "Cancel")
    result, message = job_end(bus, job)
    equal(result, "canceled", message)
    os.close(kept)
    read_all(reading)

    # a writer who does not write
    reading, writing = pipe()
    job = copy_to(bus, path, reading, "/root/y")
    bus.call(job, "Job", "Cancel")
    equal(job_end(bus, job)[0], "canceled")
    os.close(writing)

    for fd in (os.open("/dev/null", os.O_RDWR), os.open("/", os.O_RDONLY), os.open("/etc/passwd", os.O_PATH)):
        equal(error_of(bus.capsule, path, "CopyTo", "(hst)", (0, "/root/z", 0), fds=[fd]), "InvalidArgs")
        os.close(fd)
    reading, writing = pipe()
    equal(error_of(bus.capsule, path, "CopyTo", "(hst)", (0, "/root/z", 0), fds=[writing]), "InvalidArgs")
    equal(error_of(bus.capsule, path, "CopyFrom", "(sht)", ("/root", 0, 0), fds=[reading]), "InvalidArgs")
    equal(error_of(bus.capsule, path, "CopyFrom", "(sht)", ("/root", 0, 1), fds=[writing]), "InvalidArgs")
    os.close(reading)
    os.close(writing)



# -- bounds, rights, restarts -----------------------------------------------------------------------------------


@test
def exec_takes_what_its_limits_promise():
    bus, path = begin()
    argv = ["/bin/sh", "-c", 'printf "%s" "$1$A" | wc -c', "sh"]
    argv.append("\\" * (131072 - sum(len(a) + 1 for a in argv) - 1))
    env = {name: "x" * 4000 for name in ("A", *(f"N{i}" for i in range(30)))}
    pid, tag, stdin, stdout, stderr = bus.capsule(path, "Exec", "(asa{ss}a{sv})", (argv, env, {}))
    os.close(stdin)
    equal((read_all(stdout), read_all(stderr)), (b"%d\n" % (len(argv[-1]) + 4000), b""))
    equal(bus.wait_exit(pid, tag), (0, "exit"))
    argv[-1] += "x"
    equal(error_of(bus.capsule, path, "Exec", "(asa{ss}a{sv})", (argv, env, {})), "InvalidArgs")


@test
def large_directories():
    bus, path = begin()
    output(bus, path, "/bin/sh", "-c", "mkdir /root/many && cd /root/many && seq 1 10000 | xargs touch")
    listed = bus.capsule(path, "ListDirectory", "(su)", ("/root/many", 1))[0]
    equal(len(listed), 10000)
    equal(len({e["Name"] for e in listed}), 10000)
    output(bus, path, "/bin/touch", "/root/many/one-more")
    equal(error_of(bus.capsule, path, "ListDirectory", "(su)", ("/root/many", 1)), "TooLarge")


@test
def who_does_not_read_holds_nobody_up():
    bus, path = begin()
    output(bus, path, "/usr/bin/truncate", "-s", "100G", "/root/zeros")
    kept = [bus.capsule(path, "OpenFile", "(ssa{sv})", ("/root/zeros", "r", {}))[0] for _ in range(24)]
    flood = terminal(bus, path, "/bin/sh", "-c", "yes")
    started = exec_(bus, path, "/bin/sh", "-c", "yes")
    equal(output(bus, path, "/bin/echo", "still here"), b"still here\n")
    equal(len(os.read(kept[0], 1000)), 1000)
    for fd in kept:
        os.close(fd)
    for fd in started[2:]:
        os.close(fd)
    equal(bus.wait_exit(started[0], started[1])[1], "lost")
    bus.capsule(path, "SignalProcess", "(si)", (flood.tag, signal.SIGKILL))
    flood.close()
    equal(bus.wait_exit(flood.pid, flood.tag), (-9, "signal"))


@test
def open_files_are_bounded():
    bus, path = begin()
    kept = []
    try:
        while len(kept) < 100:
            kept += bus.capsule(path, "OpenFile", "(ssa{sv})", (f"/root/{len(kept)}", "w", {}))
        raise AssertionError("no bound")
    except BusError as e:
        equal(e.name, "QuotaExceeded")
    equal(len(kept), 32)
    equal(error_of(bus.capsule, path, "StatPath", "(s)", ("/",)), "QuotaExceeded")
    for fd in kept:
        os.close(fd)
    wait_for(lambda: works(bus, path), 60, "an answer again")


def works(bus, path):
    try:
        return bus.capsule(path, "StatPath", "(s)", ("/",))
    except BusError:
        return None


WRONG_CALLS = (
    ("OpenPTY", "(assa{ss}uu)", (["/bin/sh"], "", {}, 0, 24), "InvalidArgs"),
    ("OpenPTY", "(assa{ss}uu)", (["/bin/sh"], "", {}, 80, 4097), "InvalidArgs"),
    ("OpenPTY", "(assa{ss}uu)", ([""], "", {}, 80, 24), "InvalidArgs"),
    ("OpenPTY", "(assa{ss}uu)", ([], "no-such-user", {}, 80, 24), "InvalidArgs"),
    ("OpenPTY", "(assa{ss}uu)", ([], "", {"": "x"}, 80, 24), "InvalidArgs"),
    ("Exec", "(asa{ss}a{sv})", ([], {}, {}), "InvalidArgs"),
    ("ResizePTY", "(suu)", ("pty-nonesuch", 80, 24), "NotFound"),
    ("ResizePTY", "(suu)", ("x", 0, 24), "InvalidArgs"),
    ("ResizePTY", "(suu)", ("a/b", 80, 24), "InvalidArgs"),
    ("ConnectProcess", "(s)", ("nonesuch",), "NotFound"),
    ("ConnectProcess", "(s)", ("",), "InvalidArgs"),
    ("SignalProcess", "(si)", ("nonesuch", 15), "NotFound"),
    ("SignalProcess", "(si)", ("nonesuch", 0), "InvalidArgs"),
    ("SignalProcess", "(si)", ("nonesuch", 65), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("/etc/passwd", "rw", {}), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("", "r", {}), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("/" + "x" * 4096, "r", {}), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("/root/x", "w", {"Mode": variant("u", 0o10000)}), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("/root/x", "w", {"Offset": variant("t", 1)}), "InvalidArgs"),
    ("OpenFile", "(ssa{sv})", ("/root/x", "r", {"Offset": variant("s", "1")}), "InvalidArgs"),
    ("ListDirectory", "(su)", ("/", 65), "InvalidArgs"),
    ("ListDirectory", "(su)", ("/etc/passwd", 1), "InvalidArgs"),
    ("ListDirectory", "(su)", ("/nonesuch", 1), "NotFound"),
    ("StatPath", "(s)", ("~other/x",), "InvalidArgs"),
    ("MakeDirectory", "(s)", ("",), "InvalidArgs"),
    ("RemovePath", "(st)", ("/", 0), "InvalidArgs"),
    ("RemovePath", "(st)", ("/nonesuch", 0), "NotFound"),
    ("RemovePath", "(st)", ("/nonesuch", 1), "InvalidArgs"),
    ("RenamePath", "(sst)", ("/nonesuch", "/root/x", 0), "NotFound"),
    ("RenamePath", "(sst)", ("/etc/passwd", "/root/x", 2), "InvalidArgs"),
    ("RenamePath", "(sst)", ("ä" * 2000, "ö" * 2000, 0), "TooLarge"),
)


@test
def wrong_calls_are_refused():
    bus, path = begin()
    for method, signature, arguments, error in WRONG_CALLS:
        equal(error_of(bus.capsule, path, method, signature, arguments), error, f"{method}{str(arguments)[:100]}")
    busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", bus_property(path, "Capsule", "Id"), 0)
    for method, signature, arguments in (("ListProcesses", "", ()), ("StatPath", "(s)", ("/",)), ("SignalProcess", "(si)", ("x", 15)),
                                         ("OpenPTY", "(assa{ss}uu)", ([], "", {}, 80, 24)), ("ConnectProcess", "(s)", ("x",)),
                                         ("OpenFile", "(ssa{sv})", ("/x", "r", {})), ("MakeDirectory", "(s)", ("/x",))):
        equal(error_of(bus.capsule, path, method, signature, arguments), "InvalidState", method)


STRANGE_CALLS = (
    ("OpenPTY", "assa{ss}uu", "0", "", "0", "80", "24"),
    ("ResizePTY", "suu", "x", "80", "24"),
    ("ConnectProcess", "s", "x"),
    ("ConnectProcess", "s", "pty-x"),
    ("ListProcesses",),
    ("SignalProcess", "si", "x", "15"),
    ("OpenFile", "ssa{sv}", "/etc/passwd", "r", "0"),
    ("OpenFile", "ssa{sv}", "/root/x", "w", "0"),
    ("ListDirectory", "su", "/", "1"),
    ("StatPath", "s", "/"),
    ("MakeDirectory", "s", "/root/x"),
    ("RemovePath", "st", "/root", "0"),
    ("RenamePath", "sst", "/root", "/x", "0"),
)


@test
def a_stranger_is_denied():
    bus, path = begin()
    for method, *arguments in STRANGE_CALLS:
        r = run(*NOBODY, "busctl", "call", "--", BUS_NAME, path, f"{BUS_NAME}.Capsule", method, *arguments, ok=False)
        check(r.returncode != 0 and ("denied" in r.stderr.lower() or "authentication" in r.stderr.lower() or "permitted" in r.stderr.lower()),
              f"{method}: {r.returncode} {r.stderr}")
    reading, writing = pipe()
    job = copy_to(bus, path, reading, "/root/y")
    r = run(*NOBODY, "busctl", "call", "--", BUS_NAME, job, f"{BUS_NAME}.Job", "Cancel", ok=False)
    check(r.returncode != 0, "Cancel was allowed to nobody")
    bus.call(job, "Job", "Cancel")
    equal(job_end(bus, job)[0], "canceled")
    os.close(writing)
    equal(error_of(bus.capsule, path, "StatPath", "(s)", ("/root/x",)), "NotFound", "what he may not make")


RULE = """polkit.addRule(function(action, subject) {
    if (action.id === "dev.wrenn.capsules1.%s" && subject.user === "nobody" && action.lookup("capsule") === "%s")
        return polkit.Result.YES;
    return polkit.Result.NOT_HANDLED;
});
"""


@test
def each_right_opens_its_own_methods():
    """Rights given by a polkit rule: read-files, write-files, exec, shell (which implies exec)."""
    _, path = begin()
    capsule = bus_property(path, "Capsule", "Id")
    rule = "/etc/polkit-1/rules.d/00-test-wrenn.rules"
    cleanup(lambda: os.path.exists(rule) and os.unlink(rule))

    def allowed():
        got = set()
        for name, *call in (("read", "StatPath", "s", "/"), ("write", "MakeDirectory", "s", f"/tmp/{os.urandom(4).hex()}"),
                            ("exec", "ListProcesses"), ("shell", "ResizePTY", "suu", "pty-nonesuch", "80", "24")):
            r = run(*NOBODY, "busctl", "call", "--", BUS_NAME, path, f"{BUS_NAME}.Capsule", *call, ok=False)
            if r.returncode == 0 or "no process" in r.stderr.lower() or "nonesuch" in r.stderr:
                got.add(name)
        return got

    for right, methods in (("read-files", {"read"}), ("write-files", {"write"}), ("exec", {"exec"}), ("shell", {"exec", "shell"})):
        with open(rule, "w", encoding="utf-8") as f:
            f.write(RULE % (right, capsule))
        os.chmod(rule, 0o644)
        wait_for(lambda m=methods: allowed() == m, 60, f"{right}: {methods}, got {allowed()}", step_sec=0.5)


@test
def restart_of_wrennd():
    bus, path = begin()
    t = terminal(bus, path, "/bin/sh")
    t.send("echo before-$((40 + 1))\n")
    t.expect("before-41")
    opened = bus.capsule(path, "OpenFile", "(ssa{sv})", ("/root/written", "w", {}))[0]
    reading, writing = pipe()
    into = copy_to(bus, path, reading, "/root/copied")
    out, end = pipe()
    output(bus, path, "/bin/sh", "-c", "head -c 20000000 /dev/zero > /root/big")
    from_ = copy_from(bus, path, "/root/big", end)
    check(os.read(out, 100), "nothing came")

    run("systemctl", "restart", "wrennd.service")
    for job in (into, from_):
        result, message = job_end(bus, job)
        check(result == "failed" and "stopped" in message, f"{result}: {message}")
    check(len(read_all(out)) < 20000000, "the whole tar came")
    with contextlib.suppress(BrokenPipeError):
        while True:
            os.write(writing, bytes(65536))
    os.close(writing)
    managed = run("busctl", "--json=short", "call", BUS_NAME, BUS_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").stdout
    check(into not in managed and from_ not in managed, "a job object is left")

    # what belongs to the monitor goes on; what begins to end now is told by the new wrennd
    t.send("echo after-$((40 + 2))\n")
    t.expect("after-42")
    with socket.socket(fileno=opened) as s:
        s.sendall(b"over the restart")
        s.shutdown(socket.SHUT_WR)
        equal(s.recv(1000), b"")
    equal(read_file(bus, path, "/root/written"), b"over the restart")
    bus.capsule(path, "ResizePTY", "(suu)", (t.tag, 111, 22))
    t.send("stty size; exit 9\n")
    t.expect("22 111")
    t.expect_end()
    equal(bus.wait_exit(t.pid, t.tag), (9, "exit"))


@test
def crash_of_wrennd_amidst():
    bus, path = begin()
    t = terminal(bus, path, "/bin/sh")
    reading, writing = pipe()
    copy_to(bus, path, reading, "/root/copied")
    old = main_pid("wrennd.service")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: main_pid("wrennd.service") not in (0, old), 60, "another wrennd")
    t.send("echo after-$((40 + 2)); exit 3\n")
    t.expect("after-42")
    t.expect_end()
    equal(bus.wait_exit(t.pid, t.tag), (3, "exit"))
    with contextlib.suppress(BrokenPipeError):
        while True:
            os.write(writing, bytes(65536))
    os.close(writing)
    equal(output(bus, path, "/bin/echo", "well"), b"well\n")

    # an end that nobody was there to hear of
    t = terminal(bus, path, "/bin/sh")
    run("systemctl", "stop", "wrennd.service")
    t.send("exit 4\n")
    t.expect_end()
    run("systemctl", "start", "wrennd.service")
    equal(bus.wait_exit(t.pid, t.tag), (4, "exit"))


main()
