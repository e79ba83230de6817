# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a command inside a running host, with or without a terminal of the host's own."""

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import tty

from . import cgroups, kernel

NAMESPACES = (("cgroup", kernel.CLONE_NEWCGROUP), ("ipc", kernel.CLONE_NEWIPC), ("uts", kernel.CLONE_NEWUTS),
              ("net", kernel.CLONE_NEWNET), ("pid", kernel.CLONE_NEWPID), ("mnt", kernel.CLONE_NEWNS))
DROPPED_ENV = ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID",
               "JOURNAL_STREAM", "INVOCATION_ID")


def enter(leader, cgroup_name):
    """Moves this process into the host; its children will live in the host's pid namespace."""
    fds = [(os.open(f"/proc/{leader}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in NAMESPACES]
    cwd = os.getcwd()
    cgroups.enter(cgroups.hierarchies(cgroup_name), leaf="exec")
    for fd, kind in fds:
        kernel.setns(fd, kind)
        os.close(fd)
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")


def _exec(argv):
    env = {k: v for k, v in os.environ.items() if k not in DROPPED_ENV}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env.setdefault("HOME", "/root")
    env["container"] = "wrenn-test"
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as e:
        sys.stderr.write(f"{argv[0]}: {e.strerror}\n")
        os._exit(127 if e.errno == errno.ENOENT else 126)


def _exit_code(status):
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def run(argv):
    """After enter(): runs argv with our stdin, stdout and stderr. Returns its exit code (128+n: a signal)."""
    child = os.fork()
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL, 0)
        _exec(argv)
    for number in (signal.SIGINT, signal.SIGQUIT):      # the terminal sends these to the command as well
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(child, n))
    return _exit_code(os.waitpid(child, 0)[1])


def run_on_terminal(argv):
    """After enter(): runs argv on a new terminal of the host, ours is its screen. Returns its exit code."""
    child, master = pty.fork()
    if child == 0:
        _exec(argv)

    def resize(*_):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)) if os.isatty(0) else struct.pack("4H", 24, 80, 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    resize()
    signal.signal(signal.SIGWINCH, resize)
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if before:
            tty.setraw(0, termios.TCSADRAIN)
        _relay(master)
    finally:
        if before:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
    return _exit_code(os.waitpid(child, 0)[1])


def _relay(master):
    sources = [master, 0]
    while True:
        for fd in select.select(sources, [], [])[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data and fd == master:
                return
            if not data:
                sources.remove(fd)
            else:
                os.write(1 if fd == master else master, data)
