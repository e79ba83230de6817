# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system calls Python 3.11 does not offer: namespaces, mounts, parent-death signals, exit status of strangers."""

import ctypes
import fcntl
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PIDFD_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
PIDFD_INFO_EXIT = 1 << 3

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def unshare(flags):
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd, kind=0):
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source, target, fstype=None, flags=0, data=None):
    def encode(text):
        return text.encode() if text is not None else None

    _check(_libc.mount(encode(source), encode(target), encode(fstype), ctypes.c_ulong(flags), encode(data)),
           f"mount {source} on {target}")


def leave_chroot():
    """In a chroot / is no mount point, which both calls below need: climbs to the namespace's own root. An fd of the old /."""
    inside = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.chroot("/usr")
    os.fchdir(inside)
    while not os.path.samestat(os.stat("."), os.stat("..")):
        os.chdir("..")
    os.chroot(".")
    return inside


def make_private():
    """No mount made from now on is seen outside this mount namespace."""
    inside = leave_chroot()
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    os.fchdir(inside)
    os.chroot(".")
    os.close(inside)


def pivot_root(new_root):
    """new_root becomes /; the old one is gone."""
    target = os.open(new_root, os.O_PATH | os.O_DIRECTORY)
    os.close(leave_chroot())
    os.fchdir(target)
    os.close(target)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount of the old root")
    os.chdir("/")


def sethostname(name):
    _check(_libc.sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")


def die_with_parent(signal, parent):
    """signal when the parent ends; at once where it already has."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


def start_time(pid):
    """Field 22 of /proc/<pid>/stat, which tells a process from a later one with the same number; None: no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def wait_status_of(pidfd, pid):
    """Wait status of an ended process that need not be our child; None while or where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        if fields[0] == "Z":
            return int(fields[49])
    except (OSError, IndexError):
        pass
    info = bytearray(struct.pack("<Q", PIDFD_INFO_EXIT) + bytes(56))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("<Q", info)[0] & PIDFD_INFO_EXIT:
        return None
    return struct.unpack_from("<i", info, 60)[0]
