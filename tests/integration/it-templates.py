#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Templates in the real service: build, import, cancel, a daemon that dies in the middle, hostile archives, keys."""

import glob
import hashlib
import io
import json
import os
import re
import select
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (BUS_NAME, BUS_PATH, bus_property, busctl, check, cleanup, ctl, equal, fresh_key, main,  # noqa: E402
                       Rest, rest, run, test, unit_property, wait_for)

TEMPLATES = "/var/lib/wrenn/templates"


class Signals:
    """busctl monitor of wrennd's messages."""

    def __init__(self):
        self.process = subprocess.Popen(["busctl", "--json=short", "monitor", BUS_NAME], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        self.rest = b""
        cleanup(self.close)
        # it has begun when it hears us
        for _ in range(50):
            busctl(BUS_PATH, "Manager", "ListTemplates", "s", "")
            if self.next_line(0.5):
                return
        raise AssertionError("the bus monitor does not begin")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def next_line(self, timeout_sec):
        """A line, or None."""
        deadline = time.monotonic() + timeout_sec
        while b"\n" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            data = os.read(self.process.stdout.fileno(), 65536)
            check(data, "the bus monitor ended")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    def until(self, condition, timeout_sec=300):
        deadline = time.monotonic() + timeout_sec
        while True:
            line = self.next_line(max(0, deadline - time.monotonic()))
            check(line, "no such message in time")
            message = json.loads(line)
            if condition(message):
                return message

    def job_removed(self, job):
        """(result, message) of the job; its progress values are checked on the way."""
        last = 0.0
        while True:
            m = self.until(lambda m: m.get("type") == "signal")
            data = m["payload"]["data"]
            if m["member"] == "PropertiesChanged" and m["path"] == job and "Progress" in data[1]:
                progress = data[1]["Progress"]["data"]
                check(last <= progress <= 1, f"progress went from {last} to {progress}")
                last = progress
            if m["member"] == "JobRemoved" and data[1] == job:
                return data[2], data[3]


def names():
    return {t[0]: t for t in busctl(BUS_PATH, "Manager", "ListTemplates", "s", "")[0]}


def directories():
    return sorted(os.listdir(TEMPLATES))


def job_units():
    return run("systemctl", "list-units", "--all", "--plain", "--no-legend", "wrenn-job-*").stdout.split()


def job_files():
    return [p for p in directories() if p.startswith(".new-")]


def settled():
    """Nothing of any job is left."""
    wait_for(lambda: not job_units() and not job_files(), what="the end of all jobs")
    # PID 1 removes the unit's private /tmp in a thread of its own
    wait_for(lambda: not glob.glob("/var/tmp/systemd-private-*-wrenn-job-*") + glob.glob("/tmp/systemd-private-*-wrenn-job-*"),
             timeout_sec=60, what="the end of the worker's files")


def write_description(name, text):
    path = f"/etc/wrenn/templates.d/{name}.template"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o644)
    cleanup(os.unlink, path)


def remove_template(name):
    busctl(BUS_PATH, "Manager", "RemoveTemplate", "st", name, "0", ok=False)


def make_tar(entries):
    """entries: name, text or a TarInfo maker."""
    f = tempfile.TemporaryFile()
    with tarfile.open(fileobj=f, mode="w") as tar:
        for name, change, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755
            change(info)
            tar.addfile(info, io.BytesIO(data))
    f.seek(0)
    return f


def plain(info):
    del info


def as_type(kind, link=""):
    def change(info):
        info.type = kind
        info.linkname = link
    return change


def import_tar(name, f, *options):
    """Exit code and text of wrennctl import-template with f as its standard input."""
    r = subprocess.run(["wrennctl", "import-template", *options, name, "-"], stdin=f, capture_output=True, text=True,
                       timeout=120, check=False)
    return r.returncode, r.stdout + r.stderr


@test(leaks=False)
def build_minimal():
    """build-template minimal works, tells monotonic progress and leaves a template that says what is in it"""
    signals = Signals()
    job = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "minimal", "0")[0]
    check(re.fullmatch(f"{BUS_PATH}/job/_3[0-9][0-9_]*|{BUS_PATH}/job/.*", job), f"odd path {job}")
    equal(bus_property(job, "Job", "Kind"), "build-template")
    equal(bus_property(job, "Job", "Target"), "minimal")
    unit = bus_property(job, "Job", "Unit")
    wait_for(lambda: unit_property(unit, "ActiveState") == "active", timeout_sec=60, what="the worker's unit")
    pid = int(unit_property(unit, "MainPID"))
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        check(unit in f.read(), "the worker is not in its unit")
    equal(signals.job_removed(job), ("done", ""))
    settled()

    t = names()["minimal"]
    equal(t[1], "base", "type")
    path = t[5]
    equal(bus_property(path, "Template", "Platform"), True)
    equal(bus_property(path, "Template", "DefaultUser"), "root")
    digest = bus_property(path, "Template", "Digest")
    found = [d for d in directories() if os.path.exists(f"{TEMPLATES}/{d}/rootfs.erofs")]
    digests = {}
    for d in found:
        image = f"{TEMPLATES}/{d}/rootfs.erofs"
        with open(image, "rb") as f:
            digests[hashlib.file_digest(f, "sha256").hexdigest()] = image
    check(digest in digests, "no image has the digest that the template tells")
    equal(os.stat(digests[digest]).st_uid, 0, "owner of the image")
    equal(os.stat(digests[digest]).st_size, t[2], "size")
    log = run("journalctl", "--no-pager", "-q", "-u", unit).stdout
    check("Setting up git" in log, "the journal of the unit has no log of the build")


@test
def import_list_remove():
    """import-template takes a tar from a pipe; names are guarded; remove hides at once"""
    cleanup(remove_template, "imported")
    with make_tar([("usr", as_type(tarfile.DIRTYPE), b""), ("usr/x", plain, b"hello")]) as f:
        code, text = import_tar("imported", f)
        equal(code, 0, text)
        check("imported" in names(), "not listed")
        equal(bus_property(names()["imported"][5], "Template", "Platform"), False)
        f.seek(0)
        code, text = import_tar("imported", f)
        check(code != 0 and "already" in text, f"a second one: {code} {text}")
        f.seek(0)
        code, text = import_tar("imported", f, "--force")
        equal(code, 0, text)
        f.seek(0)
        code, text = import_tar("../imported", f)
        check(code != 0, "a name with ../ was taken")
    busctl(BUS_PATH, "Manager", "RemoveTemplate", "st", "imported", "0")
    check("imported" not in names(), "still listed")
    r = busctl(BUS_PATH, "Manager", "RemoveTemplate", "st", "imported", "0", ok=False)
    check(r.returncode != 0 and "No template" in r.stderr, r.stderr)
    settled()


def image_of(digest):
    """Path of the image with that digest, told by its template.json."""
    for d in directories():
        with open(f"{TEMPLATES}/{d}/template.json", encoding="utf-8") as f:
            if json.load(f)["digest"] == digest:
                return f"{TEMPLATES}/{d}/rootfs.erofs"
    raise AssertionError(f"no image {digest}")


@test
def imported_root_runs():
    """a whole Debian imported as a tar boots; removed while in use it stays for its capsule and goes with it"""
    check("minimal" in names(), "no template 'minimal' to take from")
    image = image_of(bus_property(names()["minimal"][5], "Template", "Digest"))
    cleanup(remove_template, "copy")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tree:
        run("fsck.erofs", f"--extract={tree}/root", image)
        tar = subprocess.Popen(["tar", "-C", f"{tree}/root", "--zstd", "-cf", "-", "."], stdout=subprocess.PIPE)
        code, text = import_tar("copy", tar.stdout)
        tar.stdout.close()
        equal(tar.wait(), 0, "tar")
    equal(code, 0, text)
    copy = image_of(bus_property(names()["copy"][5], "Template", "Digest"))

    capsule = rest().create(template="copy")
    equal(rest().exec(capsule["id"], "id", ["-un"])["stdout"], "root\n")
    busctl(BUS_PATH, "Manager", "RemoveTemplate", "st", "copy", "0")
    check("copy" not in names(), "still listed")
    check(os.path.exists(copy), "its image went while a capsule uses it")
    equal(rest().exec(capsule["id"], "git", ["--version"])["exit_code"], 0)
    rest().expect(404, "POST", "/v1/capsules", {"template": "copy"})
    rest().destroy(capsule["id"])
    wait_for(lambda: not os.path.exists(copy), what="the end of the image with its last user")


@test
def only_administrators():
    """others may look at templates and keys of nobody, and change nothing"""
    def call(method, *arguments):
        return run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "busctl", "call", BUS_NAME, BUS_PATH,
                   f"{BUS_NAME}.Manager", method, *arguments, ok=False)

    equal(call("ListTemplates", "s", "").returncode, 0, "ListTemplates")
    for arguments in (("BuildTemplate", "sa{sv}", "minimal", "0"), ("RemoveTemplate", "st", "minimal", "0"),
                      ("CreateKey", "sa{sv}", "x", "0"), ("ListKeys",), ("RevokeKey", "s", "key-x")):
        r = call(*arguments)
        check(r.returncode != 0 and ("denied" in r.stderr.lower() or "authentication" in r.stderr.lower()),
              f"{arguments[0]}: {r.returncode} {r.stderr}")
    check("minimal" in names(), "it was removed")


@test
def hostile_archives():
    """archives that reach out of their tree are refused, with a sentence, and nothing is left"""
    victim = "/var/tmp/wrenn-victim"
    with open(victim, "w", encoding="utf-8") as f:
        f.write("safe")
    cleanup(os.unlink, victim)
    cases = [
        ([("../../wrenn-victim", plain, b"bad")], "not a path below"),
        ([("/var/tmp/wrenn-victim", plain, b"bad")], "not a path below"),
        ([("usr", as_type(tarfile.SYMTYPE, "/var/tmp"), b""), ("usr/wrenn-victim", plain, b"bad")], "symbolic link"),
        ([("usr/x", as_type(tarfile.LNKTYPE, "../../wrenn-victim"), b"")], "hard link out"),
        ([("usr/x", as_type(tarfile.LNKTYPE, "/etc/shadow"), b"")], "hard link out"),
        ([("readme", plain, b"x")], "no root file system"),
    ]
    for entries, expected in cases:
        with make_tar(entries) as f:
            code, text = import_tar("hostile", f)
        check(code != 0 and expected in text, f"{entries}: {code} {text}")
        check("hostile" not in names(), "it became a template")
    with open(victim, encoding="utf-8") as f:
        equal(f.read(), "safe")
    with tempfile.TemporaryFile() as f:
        f.write(os.urandom(100000))
        f.seek(0)
        code, text = import_tar("hostile", f)
    check(code != 0 and "no tar archive" in text, f"random bytes: {code} {text}")
    settled()


@test
def cancel_build():
    """Cancel in the middle kills the worker and removes what it made"""
    write_description("cancelled", "[Packages]\nPackages=git\n")
    signals = Signals()
    job = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "cancelled", "0")[0]
    wait_for(lambda: bus_property(job, "Job", "Progress") > 0.2, timeout_sec=120, what="some progress")
    r = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "cancelled", "0", ok=False)
    check(r.returncode != 0 and "already" in r.stderr, "a second job for that template")
    busctl(job, "Job", "Cancel")
    equal(signals.job_removed(job)[0], "canceled")
    settled()
    check("cancelled" not in names(), "it became a template")


@test(leaks=False)
def daemon_dies():
    """kill -9 of wrennd in the middle of a build: the unit ends, nothing is left, the next build works"""
    write_description("orphan", "[Packages]\nPackages=git\n")
    job = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "orphan", "0")[0]
    wait_for(lambda: bus_property(job, "Job", "Progress") > 0.2, timeout_sec=120, what="some progress")
    before = unit_property("wrennd.service", "MainPID")
    run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "wrennd.service")
    wait_for(lambda: unit_property("wrennd.service", "MainPID") not in ("0", before), what="the next wrennd")
    busctl(BUS_PATH, "Manager", "ListTemplates", "s", "")
    settled()
    check("orphan" not in names(), "it became a template")


@test
def wrong_descriptions():
    """a description that is missing or not understood is told with file and line"""
    r = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "nonesuch", "0", ok=False)
    check(r.returncode != 0 and "nonesuch.template" in r.stderr, r.stderr)
    write_description("wrong", "[Packages]\nPackges=git\n")
    r = busctl(BUS_PATH, "Manager", "BuildTemplate", "sa{sv}", "wrong", "0", ok=False)
    check("wrong.template:2: There is no key Packges=" in r.stderr, r.stderr)
    write_description("missing", "[Packages]\nSuite=nonesuch\n")
    r = ctl("build-template", "missing", ok=False)
    check(r.returncode == 1 and "mmdebstrap failed: " in r.stderr and "nonesuch" in r.stderr, f"{r.returncode} {r.stderr}")
    settled()


@test(leaks=False)
def standard():
    """template standard and its alias: the user, sudo, the tools and paths that SDK 0.1.5 and later expect, for a key with that default"""
    began = int(time.time())
    if "standard" not in names():
        ctl("build-template", "standard")
    equal(bus_property(names()["standard"][5], "Template", "Aliases"), ["minimal-ubuntu"])
    equal(busctl(BUS_PATH, "Manager", "GetTemplate", "s", "minimal-ubuntu")[0], names()["standard"][5])
    r = busctl(BUS_PATH, "Manager", "RemoveTemplate", "st", "minimal-ubuntu", "0", ok=False)
    check("alias of template 'standard'" in r.stderr, r.stderr)

    secret = ctl("create-key", "-q", "of-today", "--default-template=minimal-ubuntu").stdout
    check(re.fullmatch("wrn_[0-9a-f]{32}\n", secret), "create-key -q prints the key alone")
    listed = [k for k in json.loads(ctl("list-keys", "--json=short").stdout) if k["name"] == "of-today"]
    equal(listed[0]["default_template"], "minimal-ubuntu")
    cleanup(ctl, "revoke-key", listed[0]["id"])
    api = Rest(secret.strip())
    capsule = api.create(memory_mb=512)
    equal(capsule["template"], "minimal-ubuntu", "the name given at create")

    def shell(line, code=0):
        r = api.exec(capsule["id"], line)
        equal(r["exit_code"], code, f"{line}: {r['stderr']}")
        return r["stdout"].strip()

    equal(shell("id -un; pwd; echo $HOME"), "wrenn-user\n/home/wrenn-user\n/home/wrenn-user")
    equal(shell("getent passwd wrenn-user").split(":")[6], "/bin/bash")
    equal(shell("sudo -n id -u 2>&1"), "0", "sudo asks nothing and can resolve the host name")
    check(shell("sudo cat /etc/shadow").startswith("root:"), "/etc/shadow by sudo")
    equal(shell("sudo touch /opt/x && ls /opt"), "x")
    equal(shell("cd /home/user && pwd -P && touch there && ls ~/there"), "/home/wrenn-user\n/home/wrenn-user/there")
    check("/usr/bin" in shell("echo $PATH").split(":"), "PATH")
    equal(shell("echo ${LANG-none} ${LC_ALL-none}"), "none none")
    shell("which sh bash git sleep ps seq apt-get sudo which /bin/bash /bin/echo /usr/games/cowsay")
    shell("/usr/games/cowsay moo")
    version = re.search(r"(\d+)\.(\d+)", shell("git --version"))
    check((int(version[1]), int(version[2])) >= (2, 28), version[0])
    shell("git init --initial-branch=main . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git status")
    check(int(shell("stat -c %Y /etc/passwd")) < began, "a time stamp of the build is in the image")


@test
def keys():
    """a key is told once, found by its hash, listed by its prefix, gone when revoked"""
    key_id, secret = fresh_key("1", "Team", "s", "red")
    check(re.fullmatch("wrn_[0-9a-f]{32}", secret), "format of the key")
    digest = hashlib.sha256(secret.encode()).digest()

    def authenticate():
        return busctl(BUS_PATH, "Manager", "AuthenticateKey", "ay", "32", *digest, ok=False)

    r = authenticate()
    equal(json.loads(r.stdout)["data"][:2], [key_id, "red"])
    listed = [k for k in busctl(BUS_PATH, "Manager", "ListKeys")[0] if k["Id"]["data"] == key_id]
    equal(listed[0]["Prefix"]["data"], secret[:10])
    check(secret not in run("journalctl", "--no-pager", "-q").stdout, "the journal knows the secret")
    check(run("grep", "-rqaF", secret[10:], "/var/lib/wrenn/wrenn.db", "/var/lib/wrenn/wrenn.db-wal", ok=False).returncode != 0,
          "the database knows the secret")
    for team, template in (("red", "nonesuch"), ("red", "-")):
        r = ctl("create-key", "other", f"--team={team}", f"--default-template={template}", ok=False)
        check(r.returncode != 0 and not r.stdout, f"{template}: {r.stdout}")
        check("wrennctl build-template" in r.stderr or "the name of a template" in r.stderr, r.stderr)

    noted = {"PtyFraming": ""}
    for framing in ("json", "binary", "json"):
        options = json.loads(authenticate().stdout)["data"][2]
        equal((options["PtyFraming"]["data"], options["DefaultPtyFraming"]["data"]), (noted["PtyFraming"], "binary"))
        busctl(BUS_PATH, "Manager", "NoteKey", "sa{sv}", key_id, "1", "PtyFraming", "s", framing)
        noted = {"PtyFraming": framing}
    run("systemctl", "restart", "wrennd.service")
    equal(json.loads(authenticate().stdout)["data"][2]["PtyFraming"]["data"], "json", "after a restart")
    r = busctl(BUS_PATH, "Manager", "NoteKey", "sa{sv}", key_id, "1", "PtyFraming", "s", "utf-9", ok=False)
    check("expected 'json' or 'binary'" in r.stderr, r.stderr)
    busctl(BUS_PATH, "Manager", "RevokeKey", "s", key_id)
    check("No such key" in authenticate().stderr, "a revoked key is still good")
    r = run("setpriv", "--reuid=65534", "--clear-groups", "busctl", "call", BUS_NAME, BUS_PATH, f"{BUS_NAME}.Manager", "AuthenticateKey",
            "ay", "32", *map(str, digest), ok=False)
    check(r.returncode != 0, "nobody may ask for keys")


main()
