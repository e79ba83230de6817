#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every row of src/basic/limits.def at its ends: what is allowed is taken, what lies beyond is refused with the sentence of the table.

REST is wrenn-restd before tests/fake/fake-wrennd, so that a capsule of 256 GiB costs nothing; D-Bus is the real wrennd, told besides what
it refuses later.
"""
import http.client
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
import limits  # noqa: E402
import restd  # noqa: E402
from wrenntest import BUS_NAME, BUS_PATH, busctl, check, cleanup, equal, main, test  # noqa: E402

ROWS = limits.table()
BODIES = {"POST /v1/capsules": {}, "POST /v1/capsules/{id}/exec": {"cmd": "true"},
          "POST /v1/capsules/{id}/files/list": {"path": "/"}}
NUMBERS = ("number", "size", "time")


def text(n):
    return "a" * n


def entries(row, n, each=1):
    """n entries, of `each` bytes as the limit counts them."""
    if row.member == "args":
        return [text(each)] * n
    names = [f"{i:x}" for i in range(n)]
    return {name: text(each - len(name) - 1) for name in names}


def filled(row):
    """Entries that make the sum of the row, and one byte more."""
    each = row.item or 1 << 16
    count, rest = divmod(row.all, each + 1)
    good = entries(row, count + (rest > 1), each)
    if rest > 1:
        good = (good[:-1] + [text(rest - 1)]) if isinstance(good, list) else {**good, f"{count:x}": text(rest - 2 - len(f"{count:x}"))}
    bad = good + [""] if isinstance(good, list) else {**good, "x" * 2: ""}
    return good, bad


def rest_cases(row):
    """(value, sentence or None)"""
    if row.kind in NUMBERS:
        low, high = -(-row.min // row.unit), row.max // row.unit
        yield from ((low, None), (high, None))
        for wrong in (low - 1, high + 1, (1 << 63) - 1):
            yield wrong, None if wrong == 0 and row.zero else row.refusal(row.member, wrong, row.unit)
        for wrong in ("1", 1.0, True, []):
            yield wrong, row.refusal(row.member, None, row.unit)
        if row.zero:
            yield 0, None
    elif row.kind == "text":
        yield from ((text(row.max), None), (text(row.max + 1), row.refusal(row.member, row.max + 1)))
        if row.min:
            yield from ((text(row.min), None), ("", f"{row.member} is required" if row.member == "path" else row.refusal(row.member, 0)))
        yield from ((wrong, f"{row.member}: expected a string.") for wrong in (1, True, [], {}))
    else:
        each = 1 if row.member == "args" else 8
        yield from ((entries(row, row.max, each), None), (entries(row, row.max + 1, each), row.refusal(row.member, row.max + 1)))
        if row.item:
            yield entries(row, 1, row.item), None
            yield entries(row, 1, row.item + 1), f"{row.member}: expected entries of at most {row.item} bytes, not {row.item + 1}."
        if row.all:
            good, bad = filled(row)
            # a program's name counts with its arguments
            yield (good[1:] if isinstance(good, list) else good), None
            yield bad, f"{row.member}: expected at most {limits.size(row.all)} altogether."
        yield from ((wrong, f"{row.member}: expected an {'array' if row.member == 'args' else 'object'} of strings.")
                    for wrong in (1, "a"))


@test
def rest():
    """every member of a REST body: both ends taken, one beyond each refused with its sentence"""
    with restd.Restd() as r:
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]
        n = 0
        for row in (row for row in ROWS if row.member):
            method, path = row.route.split(" ")
            for value, sentence in rest_cases(row):
                status, _, body = r.request(method, path.replace("{id}", capsule), {**BODIES[row.route], row.member: value})
                where = f"{row.name} {str(value)[:40]}: {status} {str(body)[:300]}"
                if sentence:
                    equal((status, body["error"]["code"], body["error"]["message"]), (400, "invalid_request", sentence), where)
                else:
                    message = body.get("error", {}).get("message", "") if isinstance(body, dict) else ""
                    check(f"{row.member}: expected" not in message, where)
                n += 1
        check(n > 80, f"only {n} cases")


def bus_cases(row):
    """(busctl's arguments of the variant, sentence or None)"""
    kind = {"VCPUs": "u"}.get(row.option, "t")
    if row.kind in NUMBERS:
        step = row.step or 1
        for value in (row.min, row.max, row.min - 1, row.max + 1):
            good = row.min <= value <= row.max or (value == 0 and row.zero)
            if value >= 0:
                yield (kind, value), None if good else row.refusal(row.option, value)
        if step > 1:
            yield (kind, row.min + 1), f"{row.option}: expected a multiple of {row.text(step)}, not {row.min + 1}."
    elif row.kind == "text":
        for n in (row.min, row.max, row.max + 1):
            yield ("s", text(n)), None if n <= row.max else row.refusal(row.option, n)
    else:
        for value, sentence in ((entries(row, row.max, 8), None), (entries(row, row.max + 1, 8), row.refusal(row.option, row.max + 1)),
                                (entries(row, 1, row.item), None),
                                (entries(row, 1, row.item + 1),
                                 f"{row.option}: expected entries of at most {row.item} bytes, not {row.item + 1}.")):
            yield ("a{ss}", len(value), *(x for pair in value.items() for x in pair)), sentence


def call(method, *arguments):
    done = subprocess.run(["busctl", "call", "--", BUS_NAME, BUS_PATH, f"{BUS_NAME}.Manager", method, *map(str, arguments)],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip().removeprefix("Call failed: ")


@test
def bus():
    """every option of CreateCapsule at its ends"""
    n = 0
    last = ("Name", "s", text(65)), ("MemoryBytes", "t", 256 << 30)      # looked at after the others; not there
    for row in (row for row in ROWS if row.method == "CreateCapsule"):
        later = last[row.option == "Name"]
        for variant, sentence in bus_cases(row):
            code, told = call("CreateCapsule", "sa{sv}", "minimal", "2", row.option, *variant, *later)
            check(code != 0, f"{row.name} {variant[:3]} made a capsule")
            where = f"{row.name} {str(variant)[:60]}: {told[:300]}"
            if sentence:
                equal(told, sentence, where)
            else:
                check(told.startswith("Name: expected") if later == last[0] else "expected" not in told, where)
            n += 1
    check(n > 25, f"only {n} cases")


@test
def keys():
    """the name and the team of a key"""
    rows = {row.option: row for row in ROWS if row.method == "CreateKey"}
    for n, good in ((rows["name"].max, True), (rows["name"].max + 1, False)):
        code, told = call("CreateKey", "sa{sv}", text(n), "1", "Team", "s", "NO TEAM")
        equal((code != 0, told.split(":")[0]), (True, "Team" if good else "name"), told)
    for n, good in ((rows["Team"].max, True), (rows["Team"].max + 1, False)):
        code, told = call("CreateKey", "sa{sv}", "x", "2", "Team", "s", text(n), "DefaultTemplate", "s", "nonesuch")
        equal((code != 0, "nonesuch" in told, told.startswith("Team:")), (True, good, not good), told)


@test
def running():
    """what a capsule that runs is asked over D-Bus"""
    capsule, path = busctl(BUS_PATH, "Manager", "CreateCapsule", "sa{sv}", "minimal", "1", "MemoryBytes", "t", 256 << 20)
    cleanup(lambda: busctl(BUS_PATH, "Manager", "DestroyCapsule", "sa{sv}", capsule, "0", ok=False))
    rows = {row.option: row for row in ROWS if row.method in ("Exec", "OpenPTY", "ListDirectory")}

    def refused(name, given, method, *arguments):
        r = busctl(path, "Capsule", method, *arguments, ok=False)
        told = r.stderr.strip().removeprefix("Call failed: ")
        equal((r.returncode != 0, told), (True, rows[name].refusal(name, given)), method)

    n = rows["argv"].max
    refused("argv", n + 1, "Exec", "asa{ss}a{sv}", n + 1, *["a"] * (n + 1), "0", "0")
    n = rows["env"].max
    refused("env", n + 1, "Exec", "asa{ss}a{sv}", "1", "true", n + 1, *(x for i in range(n + 1) for x in (f"E{i}", "")), "0")
    n = rows["Cwd"].max
    refused("Cwd", n + 1, "Exec", "asa{ss}a{sv}", "1", "true", "0", "1", "Cwd", "s", text(n + 1))
    for cols, lines in ((0, 24), (rows["cols"].max + 1, 24), (80, 0), (80, rows["rows"].max + 1)):
        name, given = ("cols", cols) if cols != 80 else ("rows", lines)
        refused(name, given, "OpenPTY", "assa{ss}uu", "0", "", "0", cols, lines)
    refused("depth", rows["depth"].max + 1, "ListDirectory", "su", "/", rows["depth"].max + 1)
    refused("path", rows["path"].max + 1, "ListDirectory", "su", text(rows["path"].max + 1), "1")
    refused("path", 0, "ListDirectory", "su", "", "1")
    for depth in (0, 1, rows["depth"].max):
        busctl(path, "Capsule", "ListDirectory", "su", "/opt", depth)


def raw(r, head, body=b""):
    """The status of a request made by hand."""
    with restd.Client(r) as c:
        c.socket.sendall(head.encode("latin-1") + body)
        answer = http.client.HTTPResponse(c.socket)
        answer.begin()
        data = answer.read()
        return answer.status, json.loads(data) if data else None


@test
def heads_and_bodies():
    """head, target, fields and bodies of a request"""
    rows = {row.name: row for row in ROWS}
    key = f"Host: localhost\r\nX-API-Key: {restd.KEY}\r\n"
    with restd.Restd() as r:
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]

        def expect(name, good, bad):
            status, body = raw(r, *good)
            check(status < 300, f"{name}: what is allowed: {status} {body}")
            status, body = raw(r, *bad)
            wanted = rows[name].answer.split()
            equal([str(status), body["error"]["code"]][:len(wanted)], wanted, f"{name}: {body}")

        def target(n):
            return ("GET /health?" + text(n - len("/health?")) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",)

        def fields(n):
            return ("GET /health HTTP/1.1\r\nHost: localhost\r\n" + "".join(f"X-{i}: 1\r\n" for i in range(n - 1)) + "\r\n",)

        def head(n):
            start = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "
            return (start + text(n - len(start) - 4) + "\r\n\r\n",)

        def body(path, n):
            data = b'{"cmd":"true"}'
            return f"POST {path} HTTP/1.1\r\n{key}Content-Length: {n}\r\n\r\n", data + b" " * (n - len(data))

        for name, make in (("HTTP_URI", target), ("HTTP_HEADERS", fields), ("HTTP_HEAD", head),
                           ("HTTP_BODY", lambda n: body("/v1/capsules", n)),
                           ("HTTP_EXEC_BODY", lambda n: body(f"/v1/capsules/{capsule}/exec", n))):
            expect(name, make(rows[name].max), make(rows[name].max + 1))


main()
