#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""D-Bus: the same life of a capsule by busctl, introspection against dbus/*.xml, what a stranger may not do."""

import glob
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (BUS_NAME, BUS_PATH, REPO, Rest, bus_property, busctl, capsule_path, check, cleanup, equal, main,  # noqa: E402
                       rest, run, test, wait_for)


def create(*options):
    """A capsule of 256 MiB that is destroyed after the test: (id, object path)."""
    given = options or ("1", "MemoryBytes", "t", 256 << 20)
    capsule, path = busctl(BUS_PATH, "Manager", "CreateCapsule", "sa{sv}", "minimal", *given)
    cleanup(lambda: busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, 0, ok=False))
    return capsule, path


@test
def create_look_ping_exec_and_destroy():
    capsule, path = create()
    equal(path, capsule_path(capsule))
    equal(busctl(BUS_PATH, "Manager", "GetCapsule", "s", capsule), [path])
    listed = busctl(BUS_PATH, "Manager", "ListCapsules", "a{ss}t", 0, 0)[0]
    equal([(e[0], e[2], e[3], e[4]) for e in listed if e[0] == capsule], [(capsule, "running", "minimal", path)])
    equal(bus_property(path, "Capsule", "Unit"), f"wrenn-{capsule}.scope")
    equal(bus_property(path, "Capsule", "State"), "running")
    equal(bus_property(path, "Capsule", "TerminationReason"), "")
    equal(bus_property(path, "Capsule", "MemoryBytes"), 256 << 20)
    check(bus_property(path, "Capsule", "Isolation") in ("hardware", "emulated"), "Isolation")
    busctl(BUS_PATH, "Manager", "PingCapsule", "sa{sv}", capsule, 0)

    pid, tag = busctl(path, "Capsule", "Exec", "asa{ss}a{sv}", 3, "/bin/sh", "-c", "exit 3", 0, 0)[:2]
    check(pid > 1 and tag, f"pid {pid}, tag '{tag}'")

    busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, 0)
    equal(bus_property(path, "Capsule", "State"), "stopped")
    equal(bus_property(path, "Capsule", "TerminationReason"), "user")
    busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, 0)


@test
def signals_tell_of_coming_and_going():
    with open("/tmp/monitor.json", "w", encoding="utf-8") as out:
        import subprocess               # pylint: disable=import-outside-toplevel
        monitor = subprocess.Popen(["busctl", "--json=short", "monitor", BUS_NAME], stdout=out, stderr=subprocess.PIPE)
    try:
        monitor.stderr.readline()       # "Monitoring bus message stream."
        capsule, path = create()
        busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, 0)

        def seen():
            with open("/tmp/monitor.json", encoding="utf-8") as f:
                lines = [json.loads(line) for line in f if line.endswith("\n")]
            return [(m.get("member"), m.get("path"), m["payload"]["data"]) for m in lines if m.get("type") == "signal"]

        wait_for(lambda: any(m == "CapsuleRemoved" for m, _, _ in seen()), 10, "CapsuleRemoved")
        equal([d for m, _, d in seen() if m == "CapsuleNew"], [[capsule, path]])
        equal([d for m, _, d in seen() if m == "CapsuleRemoved"], [[capsule, path, "user"]])
        states = [d[1]["State"]["data"] for m, p, d in seen() if m == "PropertiesChanged" and p == path and "State" in d[1]]
        check("running" in states and states[-1] == "stopped", f"states told: {states}")
    finally:
        monitor.terminate()
        monitor.wait()
        os.unlink("/tmp/monitor.json")


@test
def labels_filter_the_list():
    capsule, _ = create("2", "MemoryBytes", "t", 256 << 20, "Labels", "a{ss}", 1, "who", "me")
    other, _ = create()
    equal([e[0] for e in busctl(BUS_PATH, "Manager", "ListCapsules", "a{ss}t", 1, "who", "me", 0)[0]], [capsule])
    check({capsule, other} <= {e[0] for e in busctl(BUS_PATH, "Manager", "ListCapsules", "a{ss}t", 0, 0)[0]}, "all")


def members(xml, interface):
    """Sorted names of methods, signals and properties with their types, of one interface of an introspection text."""
    body = re.search(rf'<interface name="{re.escape(interface)}">(.*?)</interface>', xml, re.S)
    check(body, f"no {interface}")
    found = []
    for kind, name, rest_of_tag, content in re.findall(
            r'<(method|signal|property) name="(\w+)"([^>]*?)(?:/>|>(.*?)</\1>)', body.group(1), re.S):
        types = re.findall(r'<arg\b[^>]*?type="([^"]+)"', content) if kind != "property" else \
            re.findall(r'type="([^"]+)"', rest_of_tag)
        found.append((kind, name, tuple(types)))
    return sorted(found)


@test
def introspection_is_what_the_xml_promises():
    capsule, path = create()
    paths = {"Manager": BUS_PATH, "Capsule": path, "Template": f"{BUS_PATH}/template/minimal"}
    for file in glob.glob(f"{REPO}/dbus/{BUS_NAME}.*.xml"):
        noun = file.rsplit(".", 2)[1]
        if noun not in paths:
            continue
        with open(file, encoding="utf-8") as f:
            promised = members(re.sub(r"<!--.*?-->", "", f.read(), flags=re.S), f"{BUS_NAME}.{noun}")
        live = run("busctl", "introspect", "--xml-interface", BUS_NAME, paths[noun]).stdout
        equal(members(live, f"{BUS_NAME}.{noun}"), promised, f"{noun} of {capsule}")
    managed = json.loads(run("busctl", "--json=short", "call", BUS_NAME, BUS_PATH, "org.freedesktop.DBus.ObjectManager",
                             "GetManagedObjects").stdout)["data"][0]
    check(path in managed and f"{BUS_PATH}/template/minimal" in managed, str(sorted(managed)))


WRONG_CALLS = (
    ("GetCapsule", ("s", "cl-" + "0" * 24 + "1")),
    ("DestroyCapsule", ("sa{sv}", "cl-" + "0" * 24 + "1", 0)),
    ("PingCapsule", ("sa{sv}", "cl-" + "0" * 24 + "1", 0)),
    ("CreateCapsule", ("sa{sv}", "nosuch", 0)),
    ("CreateCapsule", ("sa{sv}", "minimal", 1, "VCPUs", "u", 0xffffffff)),
    ("CreateCapsule", ("sa{sv}", "minimal", 1, "NoSuchOption", "u", 1)),
    ("CreateCapsule", ("sa{sv}", "minimal", 1, "VCPUs", "s", "two")),
    ("GetTemplate", ("s", "nosuch")),
    ("BuildTemplate", ("sa{sv}", "nosuch", 0)),
    ("RemoveTemplate", ("st", "nosuch", 0)),
    ("RevokeKey", ("s", "key-nosuch")),
    ("CreateKey", ("sa{sv}", "k", 1, "Team", "s", "Bad-Team")),
)


@test
def wrong_calls_get_an_error_of_ours():
    for method, arguments in WRONG_CALLS:
        r = run("busctl", "--json=short", "call", "--", BUS_NAME, BUS_PATH, f"{BUS_NAME}.Manager", method, *map(str, arguments), ok=False)
        check(r.returncode != 0, f"{method}{arguments} succeeded: {r.stdout}")
        check(len(r.stderr.strip()) > len("Call failed: "), f"{method}: no text, {r.stderr}")
    for method, text, error in (("GetCapsule", "cl-" + "0" * 25, "NotFound"), ("GetTemplate", "nosuch", "NotFound"),
                                ("RevokeKey", "key-nosuch", "NotFound")):
        r = run("dbus-send", "--system", "--print-reply", f"--dest={BUS_NAME}", BUS_PATH, f"{BUS_NAME}.Manager.{method}",
                f"string:{text}", ok=False)
        check(f"{BUS_NAME}.Error.{error}" in r.stderr, f"{method}: {r.stderr}")


@test
def a_stranger_may_look_but_not_touch():
    capsule, path = create()
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    looks = (("Manager", BUS_PATH, ("ListCapsules", "a{ss}t", "0", "0")), ("Manager", BUS_PATH, ("ListTemplates", "s", "")))
    for noun, where, call in looks:
        run(*nobody, "busctl", "call", "--", BUS_NAME, where, f"{BUS_NAME}.{noun}", *call)
    touches = (("Manager", BUS_PATH, ("CreateCapsule", "sa{sv}", "minimal", "0")),
               ("Manager", BUS_PATH, ("DestroyCapsule", "sa{sv}", capsule, "0")),
               ("Manager", BUS_PATH, ("PingCapsule", "sa{sv}", capsule, "0")),
               ("Manager", BUS_PATH, ("CreateKey", "sa{sv}", "mine", "0")),
               ("Manager", BUS_PATH, ("ListKeys",)),
               ("Manager", BUS_PATH, ("AuthenticateKey", "ay", "0")),
               ("Manager", BUS_PATH, ("NoteKey", "sa{sv}", "key-x", "0")),
               ("Manager", BUS_PATH, ("BuildTemplate", "sa{sv}", "minimal", "0")),
               ("Manager", BUS_PATH, ("RemoveTemplate", "st", "minimal", "0")),
               ("Capsule", path, ("OpenChannel", "a{sv}", "0")),
               ("Capsule", path, ("OpenConsole",)),
               ("Capsule", path, ("Exec", "asa{ss}a{sv}", "1", "true", "0", "0")),
               ("Capsule", path, ("Destroy", "a{sv}", "0")))
    for noun, where, call in touches:
        r = run(*nobody, "busctl", "call", "--", BUS_NAME, where, f"{BUS_NAME}.{noun}", *call, ok=False)
        check(r.returncode != 0, f"{call[0]} was allowed to nobody")
    equal(bus_property(path, "Capsule", "State"), "running")
    equal(Rest(rest().key).exec(capsule, "echo here")["stdout"], "here\n")
    wait_for(lambda: journal(DENIED, WRENN_UID="65534"), what="a line that tells of it")


CREATED, RUNNING, ENDED = "a7a385afcc6d4133a4b5dfd8c2f4cdaa", "9d762d29ba88410195911ae8ea359662", "17a43622bb6a4724818adb0171b6c490"
DENIED = "8472e9cf8fad423c9c357b4f04863700"


def journal(message, **fields):
    """Entries with that MESSAGE_ID and those fields."""
    r = run("journalctl", "-q", "-o", "json", f"MESSAGE_ID={message}", *(f"{k}={v}" for k, v in fields.items()), ok=False)
    return [json.loads(line) for line in r.stdout.splitlines()]


@test
def the_journal_tells_of_a_life():
    """created, running, ended: each with its id, its fields, and an entry of the catalog"""
    capsule, _ = create("1", "Labels", "a{ss}", 1, "who", "me")
    busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, "0")
    for message, reason in ((CREATED, ""), (RUNNING, ""), (ENDED, "user")):
        wait_for(lambda: journal(message, WRENN_CAPSULE_ID=capsule), what=f"the line {message}")  # pylint: disable=cell-var-from-loop
        entry = journal(message, WRENN_CAPSULE_ID=capsule)[0]
        equal((entry["WRENN_TEAM"], entry["WRENN_TEMPLATE"], entry.get("WRENN_REASON") or ""), ("default", "minimal", reason))
    run("journalctl", "--update-catalog")
    for message in (CREATED, RUNNING, ENDED, DENIED):
        check("Defined-By: wrenn" in run("journalctl", "--dump-catalog", message).stdout, f"{message} is not in the catalog")


main()
