# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts a capsule's processes the way wrennd does, outside systemd: the real launcher, monitor and VMM in a network namespace of
their own. For tests/security and for measurements by hand."""

import array
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('WRENN_BUILD', os.path.join(REPO, 'build'))
QEMU = '/usr/bin/qemu-system-x86_64'
UID = 1879048192 + 77


def tsc_khz():
    for line in open('/proc/cpuinfo'):
        if line.startswith('cpu MHz'):
            return int(float(line.split(':')[1]) * 1000)
    return 0


class Control:
    """control.sock as wrennd sees it."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self.buffer = b''
        self.events = []
        self.fds = []
        self.next_id = 0

    def read(self, timeout):
        deadline = time.monotonic() + timeout
        while b'\n' not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError('nothing on control.sock')
            data, anc, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(32))
            for level, kind, payload in anc:
                if kind == socket.SCM_RIGHTS:
                    fds = array.array('i')
                    fds.frombytes(payload)
                    self.fds += fds
            if not data:
                raise EOFError('control.sock ended')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return json.loads(line)

    def send(self, verb, fds=(), **members):
        self.next_id += 1
        line = json.dumps({'id': self.next_id, 'verb': verb, **members}).encode() + b'\n'
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
        self.sock.sendmsg([line], anc)
        return self.next_id

    def call(self, verb, fds=(), timeout=60, **members):
        wanted = self.send(verb, fds, **members)
        while True:
            message = self.read(timeout)
            if message.get('id') == wanted:
                return message
            self.events.append(message)

    def event(self, name, timeout=120):
        deadline = time.monotonic() + timeout
        while True:
            for i, message in enumerate(self.events):
                if message.get('event') == name:
                    return self.events.pop(i)
            self.events.append(self.read(deadline - time.monotonic()))

    def take_fds(self):
        fds, self.fds = self.fds, []
        return fds


def files_of(*programs):
    """The launcher arguments for programs and what they load, at their own paths."""
    r = subprocess.run([f'{BUILD}/tests/security/vmm-files', 'tcg', *programs], capture_output=True, text=True, check=True)
    return r.stdout.split('\n')[:-1]


class Jailed:
    """What one launcher started. args: of the launcher, from --uid on; program: what is to run in the jail."""

    def __init__(self, args, program, launcher=None, fds=(), netns=None, fsize=1 << 30, env=None, wrapper=(), uid=UID, leak_fds=()):
        launcher = launcher or f'{BUILD}/src/launch/wrenn-launch'
        wait_r, self.wait_w = os.pipe()
        passed = [*fds, wait_r, *leak_fds]
        command = [*wrapper, launcher, f'--wait-fd={wait_r}', f'--uid={uid}', f'--gid={uid}', f'--fsize={fsize}', '--memory-lock=0', '--dev=null']
        if fds:
            command.append('--keep-fd=' + ','.join(map(str, fds)))
        if netns is not None:
            command.append(f'--netns-fd={netns}')
            passed.append(netns)
        self.command = [*command, *args, '--', *program]
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, pass_fds=passed, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
        os.close(wait_r)

    def go(self):
        """The byte: the scope is ready."""
        os.write(self.wait_w, b'x')

    def wait(self, timeout=30):
        _, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, err.decode(errors='replace')

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        os.close(self.wait_w)


class Capsule:
    """Launcher, monitor and VMM of one capsule. vmm: the program in the VMM's place (default QEMU); files: HOST:JAIL to bind read-only;
    layer: an image, else an empty one is made."""

    def __init__(self, vmm=QEMU, files=(), layer=None, layer_bytes=256 << 20, memory_bytes=256 << 20, uid=UID, **jail):
        self.dir = tempfile.mkdtemp(prefix='monitor-rig-')
        os.chmod(self.dir, 0o755)
        self.vmm = vmm if vmm == QEMU else '/usr/bin/vmm'
        self.memory_bytes = memory_bytes
        self.jail_paths = [f.split(':')[1] for f in files]
        self.listeners = {}
        for name in ('control', 'data'):
            s = socket.socket(socket.AF_UNIX)
            s.bind(f'{self.dir}/{name}.sock')
            s.listen(16)
            self.listeners[name] = s
        self.console = os.open(f'{self.dir}/console', os.O_RDWR | os.O_CREAT, 0o600)
        self.exit = os.open(f'{self.dir}/exit', os.O_RDWR | os.O_CREAT, 0o600)
        self.layer = layer or f'{self.dir}/layer'
        if not layer:
            with open(self.layer, 'wb') as f:
                f.truncate(layer_bytes)
        os.chown(self.layer, uid, uid)
        os.chmod(self.layer, 0o600)
        self.fsize = os.stat(self.layer).st_size
        monitor = f'{BUILD}/src/monitor/wrenn-monitor'
        args = [a.replace(f':{monitor}', ':/usr/lib/wrenn/wrenn-monitor').replace(f':{vmm}', f':{self.vmm}') for a in files_of(vmm, monitor)]
        args += [f'--bind-ro={f}' for f in files] + [f'--bind={self.layer}:/layer']
        fds = [self.listeners['control'].fileno(), self.listeners['data'].fileno(), self.console, self.exit]
        program = ['/usr/lib/wrenn/wrenn-monitor', '--id=cl-0000000000000000000000000', f'--control-fd={fds[0]}', f'--data-fd={fds[1]}',
                   f'--console-fd={fds[2]}', f'--exit-fd={fds[3]}']
        self.jailed = Jailed(args, program, fds=fds, fsize=self.fsize, uid=uid, **jail)
        self.pid = self.jailed.process.pid
        self.control = None

    def release(self):
        self.jailed.go()
        self.control = Control(f'{self.dir}/control.sock')
        return self.control

    def config(self, **changes):
        disks = [{'path': '/rootfs', 'read_only': True}] if '/rootfs' in self.jail_paths else []
        disks.append({'path': '/layer', 'read_only': False})
        return {'backend': 'qemu', 'accelerator': 'tcg', 'vcpus': 1, 'memory_bytes': self.memory_bytes, 'vmm': self.vmm, 'kernel': '/kernel',
                'initrd': '/initrd', 'disks': disks, 'mac': None, 'tsc_khz': tsc_khz(),
                'identity': {'id': 'cl-0000000000000000000000000', 'template': 'minimal', 'hostname': 'capsule', 'env': {}, 'default_user': 'root'},
                **changes}

    def console_text(self):
        return os.pread(self.console, 1 << 20, 0).decode(errors='replace')

    def exit_record(self):
        text = os.pread(self.exit, 65536, 0)
        return json.loads(text) if text else None

    def wait(self, timeout=30):
        return self.jailed.wait(timeout)

    def close(self):
        self.jailed.close()
        for fd in (self.console, self.exit):
            os.close(fd)
        for s in self.listeners.values():
            s.close()
        if self.control:
            self.control.sock.close()
            for fd in self.control.take_fds():
                os.close(fd)
        shutil.rmtree(self.dir)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
