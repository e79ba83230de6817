#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wrennctl: its verbs, tables, JSON and exit codes (host-interface.md §2.8)."""

import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import check, cleanup, ctl, equal, main, test, wait_for  # noqa: E402

UNKNOWN_ID = "cl-" + "0" * 24 + "1"


def create(*options):
    capsule = ctl("create", "minimal", "--memory=256M", *options).stdout.strip()
    cleanup(lambda: ctl("destroy", capsule, ok=False))
    return capsule


def listed():
    return [c["id"] for c in json.loads(ctl("list", "--json=short").stdout)]


@test
def create_list_status_exec_and_destroy():
    capsule = create("--label=who=me")
    check(capsule in listed(), "not listed")
    check(capsule in ctl("list", "--no-legend").stdout, "not in the table")
    status = ctl("status", capsule)
    check(capsule in status.stdout and "running" in status.stdout, status.stdout)
    done = ctl("exec", capsule, "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 3", ok=False)
    equal((done.returncode, done.stdout, done.stderr), (3, "out\n", "err\n"))
    equal(ctl("exec", capsule, "--", "cat", stdin="from outside\n").stdout, "from outside\n")
    ctl("destroy", capsule)
    check(capsule not in listed(), "still listed")
    equal(ctl("status", capsule, ok=False).returncode, 3)
    ctl("destroy", capsule)


@test
def run_streams_and_leaves_nothing():
    before = listed()
    done = ctl("run", "minimal", "--", "sh", "-c", "cat; exit 7", stdin="abc\n", ok=False)
    equal((done.returncode, done.stdout), (7, "abc\n"))
    equal(listed(), before)


@test
def exit_codes():
    capsule = create()
    cases = (
        (("exec", capsule, "--", "no-such-program", "x"), 127), (("exec", capsule, "--", "/etc/passwd", "x"), 126),
        (("exec", capsule, "--", "sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("exec", "--timeout=1s", capsule, "--", "sleep", "30"), 124),
        (("status", UNKNOWN_ID), 4), (("destroy", UNKNOWN_ID), 4), (("revoke-key", "key-nosuch"), 4),
        (("remove-template", "nosuch"), 4),
        (("nosuch-verb",), 2), (("--nosuch-option",), 2), (("destroy",), 2), (("create", "a", "b"), 2),
        (("--json=nosuch", "list"), 2), (("run", "nosuch", "--", "true"), 4), (("exec", UNKNOWN_ID, "--", "true"), 4),
        (("--help",), 0), (("--version",), 0), (("version",), 0),
    )
    for arguments, code in cases:
        r = ctl(*arguments, ok=False)
        equal(r.returncode, code, f"wrennctl {' '.join(arguments)}: {r.stderr}")
        check(code in (0, 128 + signal.SIGTERM) or r.stderr, f"wrennctl {' '.join(arguments)}: not a word")


@test
def interrupted_run_destroys_its_capsule():
    before = listed()
    with subprocess.Popen(["wrennctl", "run", "minimal", "--", "sh", "-c", "echo started; exec sleep 600"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as p:
        equal(p.stdout.readline(), "started\n")
        p.send_signal(signal.SIGINT)
        code = p.wait(60)
    check(code != 0, "exit 0 after an interrupt")
    wait_for(lambda: listed() == before, 10, "its end")


@test
def keys_are_told_once():
    secret = ctl("create-key", "-q", "of-a-test", "--team=testers").stdout.strip()
    check(secret.startswith("wrn_") and len(secret) == 36, secret)
    keys = [k for k in json.loads(ctl("list-keys", "--json=short").stdout) if k["name"] == "of-a-test"]
    equal((len(keys), keys[0]["team"]), (1, "testers"))
    check(secret not in ctl("list-keys", "--json=short").stdout, "the secret is listed")
    ctl("revoke-key", keys[0]["id"])
    check("of-a-test" not in ctl("list-keys").stdout, "still listed")


@test
def tables_and_json_agree():
    for verb in ("list", "list-templates", "list-keys", "list-jobs"):
        rows = json.loads(ctl(verb, "--json=pretty").stdout)
        check(isinstance(rows, list), verb)
        plain = [line for line in ctl(verb, "--no-legend").stdout.splitlines() if line.strip()]
        equal(len(plain), len(rows), verb)
    check("minimal" in ctl("list-templates").stdout, "no template minimal")


@test
def doctor_finds_this_host_fit():
    r = ctl("doctor", ok=False)
    check("polkit" in r.stdout.lower() + r.stderr.lower(), r.stdout)


@test
def import_makes_a_template_of_a_tar():
    """A tar becomes a template, once unless told to replace it"""
    tree = "/tmp/import-tree"
    cleanup(lambda: ctl("remove-template", "imported", ok=False))
    cleanup(lambda: subprocess.run(["rm", "-rf", tree, "/tmp/import.tar"], check=True))
    subprocess.run(["sh", "-ec", f"mkdir -p {tree}/etc {tree}/bin {tree}/root; echo imported >{tree}/etc/marker; "
                    f"chown 12:34 {tree}/etc/marker; chmod 640 {tree}/etc/marker; tar -C {tree} -cf /tmp/import.tar ."], check=True)
    ctl("import-template", "imported", "/tmp/import.tar")
    check("imported" in ctl("list-templates", "--no-legend").stdout, "not listed")
    equal(ctl("import-template", "imported", "/tmp/import.tar", ok=False).returncode, 1, "a second one of that name")
    ctl("import-template", "--force", "imported", "/tmp/import.tar")
    ctl("remove-template", "imported")
    check("imported" not in ctl("list-templates", "--no-legend").stdout, "still listed")


main()
