# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The process that owns a running host: its namespaces, cgroups, network and files. It ends the host and removes
everything when asked ("down" on its socket), when PID 1 of the host ends, when `up` is interrupted before it
said "ready", and when the shell that called `up` is killed. Should it be killed itself, the kernel ends the
rest (parent-death signals) and the next call of tests/host removes the files.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time

from . import cgroups, kernel, rootfs

READY_TIMEOUT_SEC = 30
BOOT_LOG_MAX = 256 * 1024
REMOVE_TRIES = 40


class HostError(Exception):
    """Something a person can understand and repair."""


class State:
    """Paths and files of one checkout's host."""

    def __init__(self, directory):
        self.directory = directory
        self.control = os.path.join(directory, "control")
        self.info = os.path.join(directory, "info.json")
        self.lock = os.path.join(directory, "lock")
        self.boot_log = os.path.join(directory, "boot.log")

    def read_info(self):
        try:
            with open(self.info, encoding="utf-8") as f:
                return json.load(f)
        except (OSError, ValueError):
            return {}

    def alive(self):
        """The supervisor holds the lock for as long as it lives."""
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def leader(self):
        """Pid of the host's PID 1, or None."""
        info = self.read_info()
        pid = info.get("leader")
        if not pid or kernel.start_time(pid) != info.get("leader_start"):
            return None
        return pid

    def remove(self, cgroup_name):
        """Removes everything but a living supervisor's things. Returns what could not be removed."""
        left = cgroups.remove(cgroups.hierarchies(cgroup_name))
        for path in self.read_info().get("cgroups", []):
            if os.path.isdir(path):
                left += cgroups.remove([cgroups.Hierarchy(path, "cgroup", [], os.path.dirname(path),
                                                          os.path.basename(path))])
        shutil.rmtree(self.directory, ignore_errors=True)
        return left + ([self.directory] if os.path.exists(self.directory) else [])


class Supervisor:
    """Runs in a session of its own; pipe is the line to `up`, owner_pid the shell to outlive no longer (0: none)."""

    def __init__(self, state, cgroup_name, pipe, owner_pid):
        self.state = state
        self.cgroup_name = cgroup_name
        self.options = {}               # told by `up` once the service is installed
        self.pipe = pipe
        self.owner_pid = owner_pid
        self.owner_pidfd = -1
        self.hierarchies = []
        self.keeper = 0                 # outer process of the namespaces
        self.keeper_pidfd = -1
        self.slirp = None
        self.console = -1
        self.listener = None
        self.lock_fd = -1

    # -- starting -------------------------------------------------------------------------------------------

    def start(self):
        self.lock_fd = os.open(self.state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.makedirs(os.path.join(self.state.directory, "data"), mode=0o700)
        if self.owner_pid:
            self.owner_pidfd = os.pidfd_open(self.owner_pid)
        self.tell("here")
        self.options = self._read_options()
        self.hierarchies = cgroups.hierarchies(self.cgroup_name)
        self._save({"cgroups": [h.path for h in self.hierarchies]})
        cgroups.make(self.hierarchies)
        leader, go = self._spawn()
        self._network(leader)
        self._save({"cgroups": [h.path for h in self.hierarchies], "leader": leader,
                    "leader_start": kernel.start_time(leader), "port": self.options["port"],
                    "owner": self.owner_pid, "build": self.options["build"], "started": time.time()})
        os.write(go, b"g")
        os.close(go)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.state.control)
        self.listener.listen(8)
        self.tell("booted")

    def _read_options(self):
        """One line of JSON; `up` that goes away before it has said it ends us."""
        data = b""
        while not data.endswith(b"\n"):
            chunk = os.read(self.pipe.fileno(), 65536)
            if not chunk:
                raise HostError("interrupted")
            data += chunk
        return json.loads(data)

    def _save(self, info):
        temporary = self.state.info + ".new"
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(info, f)
        os.rename(temporary, self.state.info)

    def tell(self, text):
        try:
            os.write(self.pipe.fileno(), (text + "\n").encode())
        except (OSError, ValueError):
            pass

    def console_tail(self):
        """What the host printed last, for an error message on one line."""
        if self.console < 0:
            return ""
        text = b""
        try:
            with open(self.state.boot_log, "rb") as f:
                text = f.read()
        except OSError:
            pass
        try:
            while select.select([self.console], [], [], 0.2)[0]:
                text += os.read(self.console, 65536)
        except OSError:
            pass
        lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()][-5:]
        return "; it said: " + " / ".join(lines) if lines else ""

    def _spawn(self):
        """The keeper makes the namespaces, its child becomes PID 1. Returns the leader's pid and the go pipe."""
        tell_read, tell_write = os.pipe()
        go_read, go_write = os.pipe()
        self.console, console_slave = os.openpty()
        me = os.getpid()
        self.keeper = os.fork()
        if self.keeper == 0:
            code = 1
            try:
                os.close(self.lock_fd)
                os.close(go_write)
                self.pipe.close()
                kernel.die_with_parent(signal.SIGKILL, me)
                code = self._keep(tell_write, go_read, console_slave)
            except Exception as e:      # pylint: disable=broad-except  # its only way to tell
                os.write(tell_write, f"failed {e}\n".encode())
            finally:
                os._exit(code)
        self.keeper_pidfd = os.pidfd_open(self.keeper)
        os.close(tell_write)
        os.close(go_read)
        os.close(console_slave)
        with os.fdopen(tell_read) as f:
            line = f.readline().strip()
        if not line.startswith("leader "):
            raise HostError(line.removeprefix("failed ") or "the namespaces could not be made")
        return int(line.split()[1]), go_write

    def _keep(self, tell, go, console):
        cgroups.enter(self.hierarchies)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET |
                       kernel.CLONE_NEWPID | kernel.CLONE_NEWCGROUP)
        leader = os.fork()
        if leader == 0:
            try:
                # In the new pid namespace the parent's number reads as 0.
                kernel.die_with_parent(signal.SIGKILL, 0)
                self._become_init(go, console)
            except Exception as e:      # pylint: disable=broad-except
                os.write(console, f"test host: {e}\n".encode())
            finally:
                os._exit(1)
        cgroups.leave(self.hierarchies)         # PID 1 stumbles over a process it cannot see in its root cgroup
        os.close(go)
        os.close(console)
        os.write(tell, f"leader {leader}\n".encode())
        os.close(tell)
        return os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]) & 0x7F

    def _become_init(self, go, console):
        if os.read(go, 1) != b"g":
            return
        o = self.options
        slave = os.ttyname(console)
        spec = rootfs.Spec(self.state.directory, o["repo"], o["seed"], self.hierarchies, o["overrides"])
        console_path = os.path.join(self.state.directory, "console")
        with open(console_path, "w", encoding="utf-8"):
            pass
        kernel.make_private()
        kernel.mount(slave, console_path, None, kernel.MS_BIND)
        rootfs.build(spec, console_path)
        os.setsid()
        os.dup2(console, 1)
        os.dup2(console, 2)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.closerange(3, 1024)
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve("/lib/systemd/systemd", ["/lib/systemd/systemd", "--show-status=no", "--log-level=notice"],
                  {"container": "wrenn-test", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "TERM": "dumb", "LANG": "C.UTF-8"})

    def _network(self, leader):
        """slirp4netns joins the host to the machine; its API forwards the machine's loopback port."""
        ready_read, ready_write = os.pipe()
        api = os.path.join(self.state.directory, "slirp")
        me = os.getpid()
        with open(os.path.join(self.state.directory, "slirp.log"), "w", encoding="utf-8") as log:
            self.slirp = subprocess.Popen(
                ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={ready_write}",
                 f"--api-socket={api}", "--netns-type=path", f"/proc/{leader}/ns/net", "tap0"],
                pass_fds=(ready_write,), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=lambda: kernel.die_with_parent(signal.SIGKILL, me))
        os.close(ready_write)
        ready = select.select([ready_read], [], [], READY_TIMEOUT_SEC)[0] and os.read(ready_read, 1)
        os.close(ready_read)
        if not ready:
            with open(os.path.join(self.state.directory, "slirp.log"), encoding="utf-8") as f:
                raise HostError("slirp4netns does not start: " + f.read().strip())
        request = {"execute": "add_hostfwd", "arguments": {
            "proto": "tcp", "host_addr": "127.0.0.1", "host_port": self.options["port"], "guest_port": 8080}}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(api)
            s.sendall(json.dumps(request).encode())
            s.shutdown(socket.SHUT_WR)
            answer = json.loads(s.recv(4096) or b"{}")
        if "error" in answer:
            raise HostError(f"Port {self.options['port']} of 127.0.0.1 cannot be forwarded "
                            f"({answer['error'].get('desc')}): is it in use? Set WRENN_TEST_PORT to another one.")

    # -- running --------------------------------------------------------------------------------------------

    def run(self):
        """Returns when the host has to end; the second value is a client waiting for the end, or None."""
        poll = select.poll()
        poll.register(self.keeper_pidfd, select.POLLIN)
        poll.register(self.listener, select.POLLIN)
        poll.register(self.pipe, select.POLLIN)
        poll.register(self.console, select.POLLIN)
        if self.owner_pidfd >= 0:
            poll.register(self.owner_pidfd, select.POLLIN)
        ready = False
        log = open(self.state.boot_log, "ab", buffering=0)
        while True:
            for fd, _ in poll.poll():
                if fd == self.keeper_pidfd:
                    return "PID 1 of the host ended", None
                if fd == self.console:
                    self._drain_console(poll, log)
                elif fd == self.pipe.fileno():
                    if not ready and not self._says_ready():
                        return "interrupted", None
                    ready = True
                    poll.unregister(fd)
                    self.pipe.close()
                elif fd == self.owner_pidfd:
                    if self._owner_was_killed():
                        return f"the shell {self.owner_pid} that called was killed", None
                    poll.unregister(fd)
                elif fd == self.listener.fileno():
                    client, _ = self.listener.accept()
                    client.settimeout(1)
                    try:
                        if client.recv(16).strip() == b"down":
                            return "asked", client
                    except OSError:
                        pass
                    client.close()

    def _says_ready(self):
        try:
            return b"ready" in os.read(self.pipe.fileno(), 64)
        except OSError:
            return False

    def _drain_console(self, poll, log):
        try:
            data = os.read(self.console, 65536)
        except OSError:
            poll.unregister(self.console)
            return
        if log.tell() < BOOT_LOG_MAX:
            log.write(data)

    def _owner_was_killed(self):
        """Tells a killed shell from one that ended by itself; where the kernel does not tell, it was killed."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            status = kernel.wait_status_of(self.owner_pidfd, self.owner_pid)
            if status is not None:
                return os.WIFSIGNALED(status)
            if kernel.start_time(self.owner_pid) is None and status is None:
                time.sleep(0.1)
                status = kernel.wait_status_of(self.owner_pidfd, self.owner_pid)
                return status is None or os.WIFSIGNALED(status)
            time.sleep(0.01)
        return True

    # -- ending ---------------------------------------------------------------------------------------------

    def stop(self):
        """Ends every process of the host, then removes what is left of it. Returns what resisted."""
        leader = self.state.leader()
        for pid in (leader, self.keeper):
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if self.keeper:
            os.waitpid(self.keeper, 0)
        if self.slirp:
            self.slirp.kill()
            self.slirp.wait()
        left = cgroups.remove(self.hierarchies)
        # A killed `up` may have a helper that writes for a moment longer than we hear of it.
        for _ in range(REMOVE_TRIES):
            shutil.rmtree(self.state.directory, ignore_errors=True)
            time.sleep(0.05)
            if not os.path.exists(self.state.directory):
                break
        return left + ([self.state.directory] if os.path.exists(self.state.directory) else [])


def launch(state, cgroup_name, owner_pid):
    """
    Starts a supervisor, which makes the state directory. Returns the socket to it. From there come the lines "here", and after
    the options (one line of JSON) "booted"; or "failed …". "ready" sent there lets it live without `up`.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child:
        theirs.close()
        os.waitpid(child, 0)
        return ours
    try:
        ours.close()
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        theirs_fd = os.dup2(theirs.fileno(), 3)
        theirs.detach()
        os.closerange(4, 1024)
        os.chdir("/")
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        os.set_inheritable(theirs_fd, False)
        _main(state, cgroup_name, socket.socket(fileno=theirs_fd), owner_pid)
    finally:
        os._exit(1)


def _main(state, cgroup_name, pipe, owner_pid):
    os.makedirs(state.directory, mode=0o700, exist_ok=True)
    supervisor = Supervisor(state, cgroup_name, pipe, owner_pid)

    def on_term(*_):
        raise HostError("terminated")

    signal.signal(signal.SIGTERM, on_term)
    client = None
    try:
        supervisor.start()
        reason, client = supervisor.run()
        supervisor.tell(f"failed {reason}{supervisor.console_tail()}")
    except Exception as e:              # pylint: disable=broad-except  # whatever it is, the cleaning comes next
        supervisor.tell(f"failed {e}{supervisor.console_tail()}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    left = supervisor.stop()
    if client:
        try:
            client.sendall(("left " + " ".join(left) if left else "gone").encode())
        except OSError:
            pass
    os._exit(1 if left else 0)
