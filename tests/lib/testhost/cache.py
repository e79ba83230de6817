# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernels and built templates kept between hosts, so that a second `up` needs no mmdebstrap.

A saved copy of /var/lib/wrenn (without capsules) is made under a temporary name while wrennd is stopped, and
renamed into place whole. `up` copies it; the host never sees the original. That the initrd in it may hold
another build's agent is wrennd's business: it prepares the kernel anew when it starts.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess

from . import kernel

def directory(build):
    return os.environ.get("WRENN_TEST_CACHE") or os.path.join(build, "host-cache")


@contextlib.contextmanager
def _locked(where, mode):
    fd = os.open(os.path.join(where, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, mode)
        yield
    finally:
        os.close(fd)


def usable(where, state_directory):
    """Copies the saved state beside the host's other files. Returns the copy's path, or None: nothing was saved."""
    saved = os.path.join(where, "lib")
    if not os.path.isdir(saved):
        return None
    seed = os.path.join(state_directory, "seed")
    with _locked(where, fcntl.LOCK_SH):
        me = os.getpid()
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", saved, seed], check=True,
                       preexec_fn=lambda: kernel.die_with_parent(signal.SIGKILL, me))
    return seed


def save(where, in_host):
    """Saves /var/lib/wrenn of the running host; wrennd is stopped meanwhile."""
    os.makedirs(where, exist_ok=True)
    fresh = os.path.join(where, "lib.new")
    with _locked(where, fcntl.LOCK_EX):
        shutil.rmtree(fresh, ignore_errors=True)
        os.makedirs(fresh, mode=0o755)
        in_host(["systemctl", "stop", "wrennd.service"])
        try:
            with subprocess.Popen(["tar", "-C", fresh, "-xpS", "--xattrs"], stdin=subprocess.PIPE) as unpack:
                r = in_host(["tar", "-C", "/var/lib/wrenn", "-cS", "--xattrs", "--exclude=./capsules/*", "."],
                            stdout=unpack.stdin)
                unpack.stdin.close()
            if r.returncode != 0 or unpack.returncode != 0:
                raise OSError("the state of the host could not be copied")
        finally:
            in_host(["systemctl", "start", "wrennd.service"])
        old = os.path.join(where, "lib.old")
        shutil.rmtree(old, ignore_errors=True)
        if os.path.isdir(os.path.join(where, "lib")):
            os.rename(os.path.join(where, "lib"), old)
        os.rename(fresh, os.path.join(where, "lib"))
        shutil.rmtree(old, ignore_errors=True)
