# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sub-cgroups of our own in every hierarchy of the machine, version 1, version 2 or both; nothing else is touched."""

import contextlib
import os
import signal
import time


class Hierarchy:
    """One mounted hierarchy: where it is, what it is mounted with, and our sub-cgroup in it."""

    def __init__(self, mount_point, fstype, options, parent, name):
        self.mount_point = mount_point
        self.fstype = fstype
        self.options = options
        self.path = os.path.join(parent, name)

    def is_v2(self):
        return self.fstype == "cgroup2"


def _own_paths():
    """Our cgroup by controller list as /proc/self/cgroup has it ("" for version 2)."""
    paths = {}
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        for line in f:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            paths[frozenset(filter(None, controllers.split(",")))] = path
    return paths


def hierarchies(name):
    own = _own_paths()
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            left, right = line.rstrip("\n").split(" - ", 1)
            fstype, _, super_options = right.split(" ", 2)
            if fstype not in ("cgroup", "cgroup2"):
                continue
            fields = left.split()
            root, mount_point = fields[3], fields[4]
            options = [o for o in super_options.split(",") if o not in ("rw", "ro")]
            controllers = frozenset(o for o in options if o.startswith("name=") or "=" not in o)
            path = own.get(frozenset()) if fstype == "cgroup2" else next(
                (p for c, p in own.items() if c and c <= controllers), None)
            if path is None or mount_point in (h.mount_point for h in found.values()):
                continue
            inside = os.path.relpath(path, root) if path.startswith(root) else "."
            parent = os.path.normpath(os.path.join(mount_point, inside))
            found.setdefault(controllers or frozenset(["v2"]),
                             Hierarchy(mount_point, fstype, options, parent, name))
    return list(found.values())


def _write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def _read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except OSError:
        return ""


def make(all_hierarchies):
    """Makes the sub-cgroups. On a machine with version 2 alone all controllers are handed down."""
    only_v2 = len(all_hierarchies) == 1 and all_hierarchies[0].is_v2()
    for h in all_hierarchies:
        if only_v2:
            # Processes may not live beside a delegating cgroup, so ours hangs below the root of what is visible.
            h.path = os.path.join(h.mount_point, os.path.basename(h.path))
            for controller in _read(os.path.join(h.mount_point, "cgroup.controllers")).split():
                try:
                    _write(os.path.join(h.mount_point, "cgroup.subtree_control"), f"+{controller}")
                except OSError:
                    continue
        os.makedirs(h.path, exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            here = os.path.join(h.path, name)
            if not h.is_v2() and os.path.exists(here) and not _read(here):
                _write(here, _read(os.path.join(os.path.dirname(h.path), name)))


def enter(all_hierarchies, leaf=None):
    """Moves the calling process into the sub-cgroups, or into a leaf below them (made when missing)."""
    for h in all_hierarchies:
        path = os.path.join(h.path, leaf) if leaf else h.path
        os.makedirs(path, exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            here = os.path.join(path, name)
            if leaf and not h.is_v2() and os.path.exists(here) and not _read(here):
                _write(here, _read(os.path.join(h.path, name)))
        _write(os.path.join(path, "cgroup.procs"), "0")


def leave(all_hierarchies):
    """Moves the calling process to the parents of the sub-cgroups, where these take processes."""
    for h in all_hierarchies:
        with contextlib.suppress(OSError):
            _write(os.path.join(os.path.dirname(h.path), "cgroup.procs"), "0")


def processes(all_hierarchies):
    """Every process in or below the sub-cgroups."""
    pids = set()
    for h in all_hierarchies:
        for directory, _, _ in os.walk(h.path):
            pids.update(int(p) for p in _read(os.path.join(directory, "cgroup.procs")).split() if int(p) > 0)
    return pids


def remove(all_hierarchies, timeout_sec=10):
    """Kills what is left in the sub-cgroups and removes them. Returns the paths that resisted."""
    deadline = time.monotonic() + timeout_sec
    while True:
        for pid in processes(all_hierarchies):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for h in all_hierarchies:
            for directory, _, _ in os.walk(h.path, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    pass
        left = [h.path for h in all_hierarchies if os.path.exists(h.path)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)
