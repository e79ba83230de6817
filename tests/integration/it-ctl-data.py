#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wrennctl inside a capsule: streams, terminals of a real terminal, processes, files, copies, the console."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import check, cleanup, ctl, equal, main, run, test, wait_for  # noqa: E402

TIMEOUT_SEC = 180
ESCAPE = b"\x1d"


def create(*options):
    capsule = ctl("create", "minimal", "--memory=256M", *options).stdout.strip()
    cleanup(lambda: ctl("destroy", capsule, ok=False))
    return capsule


def shell(command, **kwargs):
    """A pipeline of the host: (exit statuses, output)."""
    done = subprocess.run(["bash", "-c", f"{command}; echo ${{PIPESTATUS[*]}} >&2"], capture_output=True, timeout=TIMEOUT_SEC,
                          check=False, **kwargs)
    *said, statuses, _ = done.stderr.decode(errors="replace").split("\n")
    for line in said:
        print(f"# {line}", flush=True)
    return [int(n) for n in statuses.split()], done.stdout


def processes(capsule):
    return json.loads(ctl("ps", "--json=short", capsule).stdout)


class Terminal:
    """wrennctl on a terminal of its own."""

    def __init__(self, *argv, cols=80, rows=24, env=None):
        self.master, slave = pty.openpty()
        self.resize(cols, rows)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(["wrennctl", *argv], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**(env or os.environ), "TERM": "xterm"})
        self.slave = slave              # kept, so that the modes can be seen afterwards
        self.seen = b""
        cleanup(self.close)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_SEC)
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def resize(self, cols, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def read(self, timeout_sec):
        if select.select([self.master], [], [], timeout_sec)[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.master, 65536)

    def expect(self, text):
        """Reads on until text has come; what came before it is forgotten."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while text not in self.seen:
            check(time.monotonic() < deadline, f"no {text!r} in {self.seen[-2000:]!r}")
            check(self.process.poll() is None or select.select([self.master], [], [], 0)[0],
                  f"exit {self.process.returncode} without {text!r} in {self.seen[-2000:]!r}")
            self.read(1)
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, data):
        while data:
            data = data[os.write(self.master, data):]

    def wait(self):
        """The exit status; the terminal has to be as it was."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while self.process.poll() is None:
            check(time.monotonic() < deadline, f"still runs; {self.seen[-2000:]!r}")
            self.read(0.1)
        self.read(0)
        equal(termios.tcgetattr(self.slave), self.before, "modes of the terminal")
        return self.process.returncode

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON


def shell_terminal(capsule, *argv):
    t = Terminal("shell", *argv, capsule)
    t.expect(b"Connected to ")
    return t


# -- exec -------------------------------------------------------------------------------------------------------


@test
def exec_passes_bytes_both_ways():
    """64 MiB of any bytes go in and come out of exec unchanged"""
    capsule = create()
    path = "/tmp/ctl-data"
    cleanup(os.unlink, path)
    block = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for i in range(64):
            f.write(bytes([i]) + block[1:])
    with open(path, "rb") as f:
        expected = hashlib.sha256(f.read()).hexdigest()
    status, output = shell(f"wrennctl exec {capsule} -- sha256sum <{path}")
    equal((status, output.split()[0].decode()), ([0], expected), "in by a file")
    status, output = shell(f"cat {path} | wrennctl exec {capsule} -- cat | sha256sum")
    equal((status, output.split()[0].decode()), ([0, 0, 0], expected), "in and out by pipes")


@test
def exec_ends_as_pipes_end():
    capsule = create()
    cases = (
        (f"wrennctl exec {capsule} -- yes | head -1", [141, 0], b"y\n"),
        (f"yes | wrennctl exec {capsule} -- head -2", [141, 0], b"y\ny\n"),
        (f"yes | wrennctl exec {capsule} -- true", [141, 0], b""),
        (f"sleep 60 | (wrennctl exec {capsule} -- sh -c 'echo x; exit 5'; echo $?; kill $(ps -o pid= --ppid $$ -C sleep))", None, b"x\n5\n"),
        (f"printf 'a\\nb' | wrennctl exec {capsule} -- cat", [0, 0], b"a\nb"),
        (f"wrennctl exec {capsule} -- cat </dev/null", [0], b""),
        (f"wrennctl exec {capsule} -- wc -c <&-", [0], b"0\n"),
        (f"wrennctl exec --no-stdin {capsule} -- wc -c </dev/zero", [0], b"0\n"),
        (f"wrennctl exec {capsule} -- sh -c 'echo x; echo y >&2' 2>&1 >/dev/null", [0], b"y\n"),
        (f"wrennctl exec {capsule} -- sh -c 'head -c 1000000 /dev/zero' | (sleep 2; wc -c)", [0, 0], b"1000000\n"),
        (f"wrennctl exec {capsule} -- echo x >/dev/full", [125], b""),
        (f"wrennctl exec {capsule} -- cat >/dev/null </proc/self/mem", [0], b""),
    )
    for command, statuses, output in cases:
        got = shell(command)
        equal(got[1], output, command)
        if statuses:
            equal(got[0], statuses, command)


@test
def exec_is_interrupted_while_it_cannot_write():
    """Ctrl-C ends exec although neither its input nor its output moves, and the command with it"""
    capsule = create()
    zero = os.open("/dev/zero", os.O_RDONLY)
    reader, writer = os.pipe()
    with subprocess.Popen(["wrennctl", "exec", "-i", capsule, "--", "sh", "-c", "yes & sleep 600"], stdin=zero, stdout=writer) as p:
        os.close(zero)
        os.close(writer)
        equal(os.read(reader, 2), b"y\n")
        wait_for(lambda: processes(capsule), TIMEOUT_SEC, "a process")
        p.send_signal(signal.SIGINT)
        equal(p.wait(TIMEOUT_SEC), 128 + signal.SIGINT)
    os.close(reader)
    wait_for(lambda: not processes(capsule), TIMEOUT_SEC, "the end of the command")


@test
def capsule_that_ends_ends_exec():
    capsule = create()
    with subprocess.Popen(["wrennctl", "exec", capsule, "--", "sh", "-c", "echo up; sleep 600"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        equal(p.stdout.readline(), "up\n")
        ctl("destroy", capsule)
        equal(p.wait(TIMEOUT_SEC), 125)
        check("ended" in p.stderr.read(), "no word about it")


# -- terminals --------------------------------------------------------------------------------------------------


@test
def shell_on_a_terminal():
    """A shell has our size and TERM, follows a resize in the middle, gets Ctrl-C and Ctrl-D, its exit status is ours"""
    capsule = create()
    t = Terminal("shell", f"root@{capsule}", "--", "/bin/sh", cols=101, rows=33)
    t.expect(b"Connected to ")
    t.type(b"tty; stty size; echo $TERM $(id -u)\n")
    t.expect(b"/dev/pts/")
    t.expect(b"\r\n33 101\r\nxterm 0\r\n")
    check(t.is_raw(), "the terminal is not raw")
    t.type(b"""sh -c 'trap "stty size; exit" WINCH; echo tr""apped; while :; do sleep 1; done'\n""")
    t.expect(b"trapped\r\n")
    t.resize(90, 20)
    t.expect(b"20 90\r\n")
    t.type(b"echo be''gun; sleep 600\n")
    t.expect(b"begun\r\n")
    t.type(b"\x03")
    t.type(b"echo rc=$?\n")
    t.expect(b"rc=130\r\n")
    t.type(b"(exit 7)\n\x04")
    equal(t.wait(), 7)


@test
def shell_is_left_and_found_again():
    """Three times ^] leaves a shell running, attach comes back to it with what was there, size and all"""
    capsule = create()
    t = shell_terminal(capsule)
    t.type(b"X=kept; echo mar''ker\n")
    t.expect(b"marker\r\n")
    tag = processes(capsule)[0]["tag"]
    t.type(ESCAPE * 3)
    equal(t.wait(), 0)
    check(f"wrennctl attach {capsule} {tag}".encode() in t.seen, t.seen)

    t = Terminal("attach", capsule, tag, cols=77, rows=11)
    t.expect(b"marker\r\n")
    t.type(b"echo $X; stty size\n")
    t.expect(b"kept\r\n11 77\r\n")
    t.type(ESCAPE + b"x" + ESCAPE)      # not the escape
    t.type(b"\x15exit 3\n")
    equal(t.wait(), 3)
    equal(processes(capsule), [])


@test
def killed_wrennctl_leaves_the_shell():
    capsule = create()
    for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        t = shell_terminal(capsule)
        t.type(b"echo li''ves\n")
        t.expect(b"lives\r\n")
        t.process.send_signal(sig)
        if sig == signal.SIGKILL:
            t.process.wait(TIMEOUT_SEC)
        else:
            equal(t.wait(), 128 + sig)
    equal(len(processes(capsule)), 3)
    tag = processes(capsule)[0]["tag"]
    t = Terminal("attach", capsule, tag)
    t.expect(b"lives\r\n")
    t.type(b"exit\n")
    equal(t.wait(), 0)


@test
def crash_restores_the_terminal():
    capsule = create()
    for sig in (signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT):
        t = shell_terminal(capsule)
        wait_for(t.is_raw, TIMEOUT_SEC, "a raw terminal")
        t.process.send_signal(sig)
        equal(t.wait(), -sig)


@test
def stop_gives_the_terminal_back():
    """A stopped shell has a usable terminal, a continued one is raw again and has the size of now"""
    capsule = create()
    t = shell_terminal(capsule)
    wait_for(t.is_raw, TIMEOUT_SEC, "a raw terminal")
    t.process.send_signal(signal.SIGTSTP)
    wait_for(lambda: not t.is_raw(), TIMEOUT_SEC, "a usable terminal")
    t.process.send_signal(signal.SIGCONT)
    wait_for(t.is_raw, TIMEOUT_SEC, "a raw terminal")
    t.type(b"exit 4\n")
    equal(t.wait(), 4)


@test
def hung_up_terminal_is_a_detach():
    capsule = create()
    t = shell_terminal(capsule)
    t.type(b"echo he''re\n")
    t.expect(b"here\r\n")
    os.close(t.master)
    t.master = os.open("/dev/null", os.O_RDWR)
    t.process.wait(TIMEOUT_SEC)
    equal(len(processes(capsule)), 1)


@test
def exec_on_a_terminal():
    """exec -t runs a command on a terminal; a flood of output ends with Ctrl-C"""
    capsule = create()
    t = Terminal("exec", "-qt", capsule, "--", "sh", "-c", "test -t 0 && test -t 1 && echo te''rm; exit 9")
    t.expect(b"term\r\n")
    equal(t.wait(), 9)
    t = Terminal("exec", "-qt", capsule, "--", "yes")
    t.expect(b"y\r\ny\r\n")
    t.type(b"\x03")
    equal(t.wait(), 130)
    done = ctl("exec", "-t", capsule, "--", "true", ok=False)
    equal(done.returncode, 2)
    check("terminal" in done.stderr, done.stderr)
    equal(ctl("shell", capsule, ok=False).returncode, 2)
    equal(Terminal("exec", "-qt", "--cwd=/", capsule, "--", "true").wait(), 2)


@test
def capsule_that_ends_restores_the_terminal():
    capsule = create()
    t = shell_terminal(capsule)
    wait_for(t.is_raw, TIMEOUT_SEC, "a raw terminal")
    ctl("destroy", capsule)
    equal(t.wait(), 125)


# -- processes --------------------------------------------------------------------------------------------------


@test
def processes_are_listed_attached_and_signalled():
    capsule = create()
    with subprocess.Popen(["wrennctl", "exec", capsule, "--", "sh", "-c", "echo one; read x; echo $x; sleep 600", "a\x1bb"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        equal(p.stdout.readline(), b"one\n")
        listed = processes(capsule)
        equal((len(listed), listed[0]["command"], listed[0]["arguments"][-1]), (1, "sh", "a\x1bb"))
        table = ctl("ps", capsule).stdout
        check(listed[0]["tag"] in table and "a\\x1bb" in table and "1 process listed." in table, table)
        for selector in (listed[0]["tag"], str(listed[0]["pid"])):
            with subprocess.Popen(["wrennctl", "attach", capsule, selector], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as a:
                equal(a.stdout.readline(), b"one\n")
                a.send_signal(signal.SIGINT)
                equal(a.wait(TIMEOUT_SEC), 130)
        with subprocess.Popen(["wrennctl", "attach", capsule, listed[0]["tag"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as a:
            equal(a.stdout.readline(), b"one\n")
            p.stdin.write(b"two\n")
            p.stdin.flush()
            equal(a.stdout.readline(), b"two\n")
            equal(ctl("signal", capsule, listed[0]["tag"], "NOSUCH", ok=False).returncode, 2)
            ctl("signal", capsule, listed[0]["tag"])
            equal(a.wait(TIMEOUT_SEC), 128 + signal.SIGTERM)
        equal(p.wait(TIMEOUT_SEC), 128 + signal.SIGTERM)
    equal(ctl("signal", capsule, listed[0]["tag"], "9", ok=False).returncode, 4)
    equal(ctl("attach", capsule, "no-such-tag", ok=False).returncode, 4)
    equal(ctl("ps", "cl-" + "0" * 24 + "1", ok=False).returncode, 4)


# -- files ------------------------------------------------------------------------------------------------------


@test
def files_are_listed_and_printed():
    capsule = create()
    ctl("exec", capsule, "--", "mkdir -p /d/sub && cd /d && printf 'a\\0b' >bin && ln -s bin link && printf 'x\\033[2Jy\\n' >$(printf 'odd\\033\\377')")
    rows = {r["name"]: r for r in json.loads(ctl("ls", "--json=short", capsule, "/d").stdout)}
    equal(len(rows), 4, str(rows))
    equal((rows["bin"]["size"], rows["bin"]["type"], rows["link"]["symlink_target"], rows["sub"]["type"]),
          (3, "file", "/d/bin", "directory"))
    check(abs(rows["bin"]["modified_at"] / 1e6 - time.time()) < 3600, "the time is no microseconds")
    check([r for r in rows.values() if r["path_base64"]], "no real bytes of the odd name")
    table = ctl("ls", capsule, "/d").stdout
    check("link -> /d/bin" in table and "odd\\x1b" in table and "\x1b" not in table, table)
    equal(json.loads(ctl("ls", "--json=short", capsule, "/d/bin").stdout)[0]["name"], "bin")
    check(ctl("ls", capsule).returncode == 0, "no home")
    done = subprocess.run(["wrennctl", "cat", capsule, "/d/bin", "/d/bin"], capture_output=True, timeout=TIMEOUT_SEC, check=True)
    equal(done.stdout, b"a\0ba\0b")
    status, output = shell(f"wrennctl cat {capsule} /dev/null /d/link | od -An -c")
    check(status[1:] == [0] and b"a  \\0   b" in output, output)
    done = ctl("cat", capsule, "/d/nosuch", "/d/link", ok=False)
    equal((done.returncode, done.stdout), (4, "a\0b"))
    check("nosuch" in done.stderr, done.stderr)
    equal(ctl("ls", capsule, "/nosuch", ok=False).returncode, 4)
    check(ctl("cat", capsule, "/d", ok=False).returncode != 0, "a directory was printed")


@test
def what_a_guest_says_does_nothing_to_a_terminal():
    capsule = create()
    ctl("exec", capsule, "--", "printf 'x\\033[2Jy\\n\\tback\\\\slash\\n' >/f; printf 'evil\\033]0;x\\007\\n' >/dev/console")
    t = Terminal("cat", capsule, "/f")
    t.expect(b"x\\x1b[2Jy\r\n")
    t.expect(b"back\\slash\r\n")
    equal(t.wait(), 0)
    t = Terminal("logs", capsule)
    t.expect(b"evil\\x1b]0;x\\a\r\n")
    equal(t.wait(), 0)
    check(b"\x1b" not in t.seen, t.seen)


@test
def console_is_shown_and_followed():
    capsule = create()
    ctl("exec", capsule, "--", "for i in 1 2 3; do echo line $i; done >/dev/console")
    lines = ctl("logs", capsule).stdout.replace("\r", "").splitlines()
    equal(lines[-3:], ["line 1", "line 2", "line 3"])
    equal(ctl("logs", "-n", "2", capsule).stdout.replace("\r", ""), "line 2\nline 3\n")
    with subprocess.Popen(["wrennctl", "logs", "-f", "--lines=1", capsule], stdout=subprocess.PIPE, text=True) as p:
        equal(p.stdout.readline().strip(), "line 3")
        ctl("exec", capsule, "--", "echo line 4 >/dev/console")
        equal(p.stdout.readline().strip(), "line 4")
        ctl("destroy", capsule)
        p.stdout.read()
        equal(p.wait(TIMEOUT_SEC), 0)
    equal(ctl("logs", capsule, ok=False).returncode, 3)


# -- copies -----------------------------------------------------------------------------------------------------


def tree_of(top):
    """What makes a tree what it is: path, kind, mode, time, contents, by bytes."""
    top = os.fsencode(top)
    found = {}
    for directory, names, files in os.walk(top):
        for name in [b"."] + names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            what = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    what = hashlib.sha256(f.read()).digest()
            mode = 0 if stat.S_ISLNK(st.st_mode) else st.st_mode
            found[os.path.relpath(path, top)] = (stat.S_IFMT(st.st_mode), mode, int(st.st_mtime) if what is not None else 0, what)
    return found


def make_tree(top):
    os.makedirs(f"{top}/sub/deep")
    for name, data, mode in (("empty", b"", 0o644), ("script", b"#!/bin/sh\necho hi\n", 0o755), ("secret", b"x" * 100000, 0o600),
                             ("sub/deep/big", os.urandom(3 << 20), 0o640), ("odd\n\x1b[2J'\" name", b"odd", 0o444),
                             ("l" * 200, b"long", 0o644)):
        with open(f"{top}/{name}", "wb") as f:
            f.write(data)
        os.chmod(f"{top}/{name}", mode)
        os.utime(f"{top}/{name}", (1600000000, 1600000000))
    with open(os.fsencode(top) + b"/no\xff\xfeutf8", "wb") as f:
        f.write(b"bytes")
    os.symlink("script", f"{top}/link")
    os.symlink("/etc/passwd", f"{top}/sub/absolute")
    os.symlink("../nowhere", f"{top}/sub/dangling")
    os.link(f"{top}/secret", f"{top}/sub/hard")
    os.mkdir(f"{top}/closed", 0o700)


def work_directory():
    path = tempfile.mkdtemp(prefix="ctl-copy-")
    cleanup(shutil.rmtree, path)
    return path


@test
def tree_goes_there_and_back():
    """A tree with links, modes, times and odd names comes back from a capsule as it went"""
    capsule = create()
    here = work_directory()
    make_tree(f"{here}/tree")
    ctl("copy-to", capsule, f"{here}/tree", "/root/copy")
    done = ctl("copy-from", capsule, "/root/copy", f"{here}/back")
    equal(done.stderr, "", "nothing is said into a pipe")
    equal(tree_of(f"{here}/back"), tree_of(f"{here}/tree"))
    inside = ctl("exec", capsule, "--", "cd /root/copy && stat -c '%n %a' script secret closed sub/deep/big && readlink link").stdout
    equal(inside, "script 755\nsecret 600\nclosed 700\nsub/deep/big 640\nscript\n")


@test
def copies_are_named_as_by_cp():
    capsule = create()
    here = work_directory()
    make_tree(f"{here}/tree")
    with open(f"{here}/file", "w", encoding="utf-8") as f:
        f.write("data\n")

    def inside(command):
        return ctl("exec", capsule, "--", command).stdout

    ctl("exec", capsule, "--", "mkdir /d && ln -s /d /dlink")
    ctl("copy-to", capsule, f"{here}/file", "/d/renamed")
    ctl("copy-to", capsule, f"{here}/file", "/d")
    ctl("copy-to", capsule, f"{here}/file", f"{here}/tree/script", "/new/")
    ctl("copy-to", capsule, f"{here}/file", "relative")
    ctl("copy-to", capsule, f"{here}/tree/", "/dlink")
    ctl("copy-to", capsule, f"{here}/tree/.", "/contents")
    equal(inside("cat /d/renamed /d/file /new/file ~/relative; ls -A /new; ls -A /d; test -e /contents/script && echo c"),
          "data\n" * 4 + "file\nscript\nfile\nrenamed\ntree\nc\n")

    os.mkdir(f"{here}/into")
    ctl("copy-from", capsule, "/d/renamed", f"{here}/got")
    ctl("copy-from", capsule, "/d/renamed", "/d/tree/sub", "/d/file", f"{here}/into")
    ctl("copy-from", capsule, "/d/file", f"{here}/into/renamed")
    ctl("copy-from", capsule, "/dlink", f"{here}/dlink")
    equal(sorted(os.listdir(f"{here}/into")), ["file", "renamed", "sub"])
    equal(sorted(os.listdir(f"{here}/dlink")), ["file", "renamed", "tree"])
    with open(f"{here}/got", encoding="utf-8") as f:
        equal(f.read(), "data\n")
    cases = ((("copy-to", capsule, f"{here}/nosuch", "/d"), 1), (("copy-from", capsule, "/nosuch", here), 4),
             (("copy-from", capsule, "/d", "/d/file", f"{here}/nosuch"), 1), (("copy-from", capsule, "/d", f"{here}/no/such"), 1),
             (("copy-from", capsule, "/d", "~"), 1), (("copy-from", capsule, "/d/file/.", f"{here}/x"), 4),
             (("copy-to", capsule, f"{here}/file", "/d/file/x"), 1), (("copy-to", capsule, "-", f"{here}/file", "/d"), 2),
             (("-H", "nowhere", "copy-to", capsule, f"{here}/file", "/d"), 2))
    for arguments, code in cases:
        done = ctl(*arguments, ok=False)
        equal(done.returncode, code, f"{' '.join(arguments)}: {done.stderr}")
        check(done.stderr, f"{' '.join(arguments)}: not a word")


@test
def archives_go_through_pipes():
    capsule = create()
    here = work_directory()
    make_tree(f"{here}/tree")
    equal(shell(f"tar -C {here} -c tree | wrennctl copy-to {capsule} - /tmp/x")[0], [0, 0])
    os.mkdir(f"{here}/back")
    equal(shell(f"wrennctl copy-from {capsule} /tmp/x/tree - | tar -C {here}/back -xp")[0], [0, 0])
    equal(tree_of(f"{here}/back"), tree_of(f"{here}/tree"))
    done = subprocess.run(["wrennctl", "copy-to", capsule, "-", "/tmp/y"], input=b"no archive" * 100, capture_output=True,
                          timeout=TIMEOUT_SEC, check=False)
    equal(done.returncode, 1)
    check(b"Failed to copy '-'" in done.stderr, done.stderr)


@test
def copy_shows_how_far_it_is():
    capsule = create()
    here = work_directory()
    subprocess.run(["truncate", "-s", "20M", f"{here}/zeros"], check=True)
    with open(f"{here}/data", "wb") as f:
        f.write(os.urandom(8 << 20))
    t = Terminal("copy-to", capsule, f"{here}/data", "/root/data")
    t.expect(b"data ")
    t.expect(b"%")
    t.expect(b"/s")
    equal(t.wait(), 0)
    t = Terminal("copy-from", capsule, "/root/data", f"{here}/back")
    t.expect(b"/s")
    equal(t.wait(), 0)
    check(b"%" not in t.seen, "a bar without an end")
    t = Terminal("-q", "copy-from", capsule, "/root/data", f"{here}/back")
    equal((t.wait(), t.seen), (0, b""))
    equal(run("cmp", f"{here}/data", f"{here}/back").returncode, 0)


@test
def interrupted_copy_is_cancelled():
    """Ctrl-C cancels the job and leaves neither it nor a temporary directory"""
    capsule = create()
    here = work_directory()
    ctl("exec", capsule, "--", "mkfifo /root/fifo; head -c 200M /dev/zero >/root/zeros")
    t = Terminal("copy-from", capsule, "/root/zeros", f"{here}/zeros")
    t.expect(b"M ")
    t.type(b"\x03")
    equal(t.wait(), 130)
    check(b"Canceled." in t.seen, t.seen)
    equal(os.listdir(here), [])
    with subprocess.Popen(["wrennctl", "copy-to", capsule, "-", "/root/x"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        wait_for(lambda: json.loads(ctl("list-jobs", "--json=short").stdout), TIMEOUT_SEC, "a job")
        p.send_signal(signal.SIGINT)
        equal(p.wait(TIMEOUT_SEC), 130)
    wait_for(lambda: not json.loads(ctl("list-jobs", "--json=short").stdout), TIMEOUT_SEC, "the end of the job")


@test
def set_id_bits_and_owners_stay_there():
    capsule = create()
    here = work_directory()
    ctl("exec", capsule, "--", "mkdir /d && cd /d && cp /bin/true suid && chown 12:34 suid && chmod 6755 suid && mkfifo fifo && "
        "mknod device c 1 3 && mkdir sticky && chmod 1777 sticky")
    ctl("copy-from", capsule, "/d", f"{here}/plain")
    st = os.stat(f"{here}/plain/suid")
    equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (0, 0, 0o755))
    equal(sorted(os.listdir(f"{here}/plain")), ["sticky", "suid"])
    ctl("copy-from", "--preserve", capsule, "/d", f"{here}/kept")
    st = os.stat(f"{here}/kept/suid")
    equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (12, 34, 0o6755))
    check(not os.path.lexists(f"{here}/kept/device"), "a device came out")


@test
def verbs_reach_another_host():
    """-H passes words, streams, exit statuses, terminals and archives through ssh"""
    capsule = create()
    here = work_directory()
    with open(f"{here}/ssh", "w", encoding="utf-8") as f:      # what sshd does with a command line
        f.write("#!/bin/sh\nshift 3\nexec sh -c \"$*\"\n")
    os.chmod(f"{here}/ssh", 0o755)
    env = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}
    make_tree(f"{here}/tree")
    equal(shell(f"echo data | wrennctl -H there exec {capsule} -- sh -c 'cat; echo \"a  b\"; exit 3'", env=env),
          ([0, 3], b"data\na  b\n"))
    equal(shell(f"tar -C {here}/tree -c . | wrennctl -H there copy-to {capsule} - /x", env=env)[0], [0, 0])
    equal(shell(f"wrennctl -H there cat {capsule} /x/script | cmp - {here}/tree/script", env=env)[0], [0, 0])
    done = run("wrennctl", "-H", "there", "copy-to", capsule, f"{here}/tree", "/y", ok=False, env=env)
    equal(done.returncode, 2)
    check("tar" in done.stderr, done.stderr)
    t = Terminal("-H", "there", "shell", "-q", capsule, env=env)
    t.type(b"exit 6\n")
    equal(t.wait(), 6)


main()
