# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's root: an overlay of the machine's own root and the installed service; runs inside the new namespaces."""

import glob
import os
import shutil
import stat
import subprocess
import uuid

from . import kernel

# What a container has no use for, and what would touch the machine itself.
MASKED_UNITS = """
    apt-daily.service apt-daily.timer apt-daily-upgrade.service apt-daily-upgrade.timer console-getty.service
    dev-hugepages.mount dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty-static.service
    getty.target kmod-static-nodes.service logrotate.timer man-db.timer modprobe@.service
    packagekit-offline-update.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-binfmt.service
    systemd-boot-system-token.service systemd-firstboot.service systemd-hwdb-update.service systemd-initctl.socket
    systemd-journal-flush.service systemd-journald-audit.socket systemd-machine-id-commit.service
    systemd-modules-load.service systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pstore.service systemd-random-seed.service
    systemd-repart.service systemd-resolved.service systemd-rfkill.socket systemd-timesyncd.service
    systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev.service systemd-udev-settle.service
    systemd-udev-trigger.service systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
    systemd-update-utmp.service systemd-update-utmp-runlevel.service
""".split()

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "kvm", "net/tun", "loop-control", "vhost-net",
           "vhost-vsock")

FORWARD_SOCKET = """[Unit]
Description=Way from the machine to the API of the test host
[Socket]
ListenStream=10.0.2.100:8080
FreeBind=yes
"""
FORWARD_SERVICE = """[Unit]
Description=Way from the machine to the API of the test host
Requires=wrenn-test-forward.socket
[Service]
ExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:8080
"""


class Spec:
    """What the root is made of."""

    def __init__(self, state, repo, lib_seed, hierarchies, overrides):
        self.state = state              # directory on a real file system
        self.repo = repo                # the checkout, shown read-only at its own path
        self.lib_seed = lib_seed        # directory that becomes /var/lib/wrenn, or None
        self.hierarchies = hierarchies
        self.overrides = overrides      # path in the host -> text, written last


def _write(root, path, text):
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(target):
        os.unlink(target)
    with open(target, "w", encoding="utf-8") as f:
        f.write(text)


def _mask(root, path):
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    os.symlink("/dev/null", target)


def _file_system_of(path):
    best, kind = "", ""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            left, right = line.split(" - ", 1)
            mount_point = left.split()[4]
            inside = path == mount_point or path.startswith(mount_point.rstrip("/") + "/")
            if inside and len(mount_point) >= len(best):
                best, kind = mount_point, right.split()[0]
    return kind


def _mount_overlay(spec, root):
    data = os.path.join(spec.state, "data")
    if _file_system_of(os.path.realpath(data)) not in ("ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "bcachefs"):
        kernel.mount("wrenn-data", data, "tmpfs", 0, "mode=0755")
    for name in ("upper", "work", "cache"):
        os.makedirs(os.path.join(data, name), exist_ok=True)
    if spec.lib_seed:
        shutil.move(spec.lib_seed, os.path.join(data, "lib"))
    else:
        os.makedirs(os.path.join(data, "lib"), exist_ok=True)
    kernel.mount("wrenn-host", root, "overlay", 0,
                 f"lowerdir=/,upperdir={data}/upper,workdir={data}/work,index=off,metacopy=off,xino=off")
    subprocess.run(["cp", "-a", f"{spec.state}/install/.", root], check=True)
    for name, target in (("lib", "/var/lib/wrenn"), ("cache", "/var/cache/wrenn")):
        os.makedirs(root + target, exist_ok=True)
        kernel.mount(os.path.join(data, name), root + target, None, kernel.MS_BIND)


def _mount_devices(root, console):
    dev = root + "/dev"
    kernel.mount("wrenn-dev", dev, "tmpfs", kernel.MS_NOSUID, "mode=0755,size=4m")
    for name in DEVICES:
        try:
            st = os.stat("/dev/" + name)
        except OSError:
            continue
        os.makedirs(os.path.dirname(f"{dev}/{name}"), exist_ok=True)
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o600, st.st_rdev)
        os.chmod(f"{dev}/{name}", stat.S_IMODE(st.st_mode))
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
                         ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")):
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm", "mqueue", "hugepages"):
        os.makedirs(f"{dev}/{name}")
    kernel.mount("devpts", f"{dev}/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC,
                 "newinstance,ptmxmode=0666,mode=0620,gid=5")
    kernel.mount("shm", f"{dev}/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    with open(f"{dev}/console", "w", encoding="utf-8"):
        pass
    kernel.mount(console, f"{dev}/console", None, kernel.MS_BIND)


def _mount_cgroups(spec, root):
    base = root + "/sys/fs/cgroup"
    if len(spec.hierarchies) == 1 and spec.hierarchies[0].is_v2():
        kernel.mount("cgroup2", base, "cgroup2")
        return
    kernel.mount("cgroups", base, "tmpfs", 0, "mode=0755")
    for h in spec.hierarchies:
        target = os.path.join(base, os.path.basename(h.mount_point))
        os.makedirs(target)
        if h.is_v2():
            kernel.mount("cgroup2", target, "cgroup2")
            continue
        names = [o for o in h.options if not o.startswith("release_agent")]
        if any(o.startswith("name=") for o in names):
            names.insert(0, "none")
        kernel.mount("cgroup", target, "cgroup", 0, ",".join(names))
        controllers = [o for o in names if "=" not in o and o not in ("none", "xattr", "clone_children")]
        for controller in controllers if len(controllers) > 1 else []:
            os.symlink(os.path.basename(target), os.path.join(base, controller))


def _mount_rest(spec, root, console):
    kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("sysfs", root + "/sys", "sysfs",
                 kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    _mount_cgroups(spec, root)
    _mount_devices(root, console)
    kernel.mount("run", root + "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    kernel.mount("tmp", root + "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    for path in (spec.state, spec.repo):
        os.makedirs(root + path, exist_ok=True)
    kernel.mount("hidden", root + spec.state, "tmpfs", 0, "mode=0700,size=4k")
    kernel.mount(spec.repo, root + spec.repo, None, kernel.MS_BIND)
    kernel.mount(None, root + spec.repo, None, kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)


def _configure(root):
    """The machine's own services stay out; what Debian's packages and ours bring by themselves comes up."""
    units = root + "/etc/systemd/system"
    shutil.rmtree(units, ignore_errors=True)
    os.makedirs(units)
    for unit in MASKED_UNITS:
        _mask(root, f"/etc/systemd/system/{unit}")
    for directory in ("/lib/systemd/system-generators", "/etc/systemd/system-generators"):
        for generator in os.listdir(root + directory) if os.path.isdir(root + directory) else []:
            if not generator.startswith("wrenn"):
                _mask(root, f"/etc/systemd/system-generators/{generator}")
    _mask(root, "/etc/tmpfiles.d/tmp.conf")
    os.symlink("/lib/systemd/system/multi-user.target", units + "/default.target")
    _write(root, "/etc/systemd/system/systemd-sysctl.service.d/50-test-host.conf",
           "[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-sysctl --prefix=/net\n")
    _write(root, "/etc/systemd/journald.conf.d/50-test-host.conf",
           "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\n")
    _write(root, "/etc/systemd/system/wrenn-test-forward.socket", FORWARD_SOCKET)
    _write(root, "/etc/systemd/system/wrenn-test-forward.service", FORWARD_SERVICE)
    wants = units + "/multi-user.target.wants"
    os.makedirs(wants)
    os.symlink("/lib/systemd/system/polkit.service", wants + "/polkit.service")
    os.makedirs(units + "/sockets.target.wants")
    os.symlink("/etc/systemd/system/wrenn-test-forward.socket",
               units + "/sockets.target.wants/wrenn-test-forward.socket")
    _write(root, "/etc/machine-id", uuid.uuid4().hex + "\n")
    _write(root, "/etc/hostname", "wrenn-test\n")
    _write(root, "/etc/hosts", "127.0.0.1 localhost wrenn-test\n::1 localhost\n")
    _write(root, "/etc/resolv.conf", "nameserver 10.0.2.3\n")
    _write(root, "/etc/fstab", "")


def _enable_service(spec, root):
    """What a package's maintainer scripts do after unpacking."""
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, stdout=subprocess.DEVNULL)
    names = [os.path.basename(p) for kind in ("service", "socket", "timer", "path")
             for p in glob.glob(f"{spec.state}/install/usr/lib/systemd/system/*.{kind}")]
    names = [n for n in names if "@" not in n and not os.path.islink(f"{spec.state}/install/usr/lib/systemd/system/{n}")]
    if names:
        subprocess.run(["systemctl", f"--root={root}", "--quiet", "preset", *sorted(names)], check=True)


def build(spec, console):
    """Builds the root and makes it /. The caller is PID 1 of fresh namespaces; console is a terminal to show as one."""
    root = os.path.join(spec.state, "root")
    os.makedirs(root, exist_ok=True)
    _mount_overlay(spec, root)
    _configure(root)
    _enable_service(spec, root)
    for path, text in spec.overrides.items():
        _write(root, path, text)
    _mount_rest(spec, root, console)
    kernel.sethostname("wrenn-test")
    kernel.pivot_root(root)
