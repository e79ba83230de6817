# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What a capsule may leave behind, as one comparable picture (threats.md §2.6): take() before, take() after, compare().

Runs as root in the namespaces of the service. Slots and ids are handed out anew, so numbers, ids and inodes are
blanked and things of one kind are counted: one thing more is a leak, whatever its name.
Also a program: leakcheck.py save FILE; leakcheck.py compare FILE.
"""

import collections
import glob
import json
import os
import re
import subprocess
import sys
import time

UID_FIRST, UID_LAST = 1900000000, 1900065535
DAEMONS = ("wrennd", "wrenn-restd")
STATE_DIRS = ("/run/wrenn", "/var/lib/wrenn", "/var/cache/wrenn", "/dev/shm")
# What changes by itself: the database's companions, kernels' and templates' access, fds that systemd hands out.
IGNORED_FILES = re.compile(r"/wrenn\.db(-wal|-shm|-journal)?$")
SETTLE_SEC = 15


def _run(*argv):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return r.stdout


def _blank(text):
    text = re.sub(r"cl[-_][0-9a-z_]{25,}", "CAPSULE", text)
    text = re.sub(r"[0-9a-f]{8,}", "HEX", text)
    return re.sub(r"\d+", "N", text)


def _status(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            return dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    except OSError:
        return {}


def _pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


def _processes():
    found = []
    for pid in _pids():
        status = _status(pid)
        uid = int(status.get("Uid", "0").split()[0])
        name = status.get("Name", "")
        ours = UID_FIRST <= uid <= UID_LAST or name in ("wrenn-monitor", "wrenn-launch", "wrenn-worker")
        if ours or name.startswith("qemu-system"):
            found.append(name)
    return found


def _net_namespaces():
    """Distinct namespaces that a process lives in or holds by an fd."""
    inodes = set()
    for pid in _pids():
        for link in [f"/proc/{pid}/ns/net"] + glob.glob(f"/proc/{pid}/fd/*"):
            try:
                target = os.readlink(link)
                if target.startswith("net:["):
                    inodes.add(target)
                elif link.startswith(f"/proc/{pid}/fd/") and target.startswith("/run/netns/"):
                    inodes.add(target)
            except OSError:
                continue
    return ["namespace"] * len(inodes)


def _main_pid(daemon):
    return _run("systemctl", "show", "-P", "MainPID", f"{daemon}.service").strip()


def _fds():
    found = []
    for daemon in DAEMONS:
        pid = _main_pid(daemon)
        for fd in glob.glob(f"/proc/{pid}/fd/*") if pid not in ("", "0") else []:
            try:
                found.append(f"{daemon} {_blank(os.readlink(fd))}")
            except OSError:
                continue
    return found


def _mounts():
    found = []
    for pid in ["self"] + [p for p in map(_main_pid, DAEMONS) if p not in ("", "0")]:
        try:
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as f:
                found += [_blank(line.split()[4]) for line in f]
        except OSError:
            continue
    return found


def _cgroups():
    """Of capsules and jobs; the slices above them are units that stay, the services' cgroups as well."""
    return [_blank(path.replace("\\x2d", "-")) for path, _, _ in os.walk("/sys/fs/cgroup")
            if "wrenn" in os.path.basename(path) and not path.endswith((".service", ".slice", ".socket"))]


def _files():
    found = []
    for top in STATE_DIRS:
        for directory, dirs, files in os.walk(top):
            found += [_blank(os.path.join(directory, n)) for n in dirs + files
                      if not IGNORED_FILES.search("/" + n)]
    return found


def _lines(*argv):
    return [_blank(line.strip()) for line in _run(*argv).splitlines() if line.strip()]


def take():
    """Everything that counts, by category: {category: {thing: count}}."""
    picture = {
        "processes": _processes(),
        "units": [_blank(line.split()[0]) for line in _run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "wrenn-cl*", "wrenn-job*").splitlines()],
        "cgroups": _cgroups(),
        "network namespaces": _net_namespaces(),
        "links": [_blank(line.split(":")[1].strip()) for line in _run("ip", "-o", "link").splitlines()],
        "addresses": _lines("ip", "-o", "-4", "addr"),
        # the host's own link-local addresses come when duplicate address detection ends, some time after the boot
        "routes": [r for r in _lines("ip", "route", "show", "table", "all") if not r.startswith("local fe")],
        "nft ruleset": _lines("nft", "-s", "list", "ruleset"),
        "mounts": _mounts(),
        "loop devices": _lines("losetup", "-l", "-n", "-O", "NAME"),
        "fds of the daemons": _fds(),
        "fd store": [_run("systemctl", "show", "-P", "NFileDescriptorStore", "wrennd.service").strip()],
        "files": _files(),
    }
    return {category: dict(collections.Counter(things)) for category, things in picture.items()}


def compare(before, after):
    """Differences as lines for people; none: nothing leaked."""
    lines = []
    for category, things in before.items():
        now = after.get(category, {})
        for thing in sorted(set(things) | set(now)):
            if things.get(thing, 0) != now.get(thing, 0):
                lines.append(f"{category}: '{thing}' was there {things.get(thing, 0)} times, now {now.get(thing, 0)}")
    return lines


def settle(before, timeout_sec=SETTLE_SEC):
    """Compares until nothing differs or the time is over: slots and units are freed behind the answer."""
    deadline = time.monotonic() + timeout_sec
    while True:
        lines = compare(before, take())
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.2)


def main(argv):
    if len(argv) != 3 or argv[1] not in ("save", "compare"):
        print("Usage: leakcheck.py save|compare FILE", file=sys.stderr)
        return 2
    if argv[1] == "save":
        with open(argv[2], "w", encoding="utf-8") as f:
            json.dump(take(), f)
        return 0
    with open(argv[2], encoding="utf-8") as f:
        lines = settle(json.load(f))
    print("\n".join(lines) or "Nothing leaked.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
