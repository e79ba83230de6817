# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Helpers of the integration tests, which run as root inside the test host.

    from wrenntest import Rest, busctl, test, main

    @test
    def capsule_is_created_by_rest(): …

    main()

Each test is one TAP line; its doc string or its name with blanks is the description. Around each test leakcheck
takes its picture, and a difference is a failure of that test (leaks=False: not asked).
"""

import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import leakcheck  # noqa: E402

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BUS_NAME = "dev.wrenn.Capsules1"
BUS_PATH = "/dev/wrenn/Capsules1"
API = ("127.0.0.1", 8080)
# An emulated machine on two busy cores boots in seconds, on a bad day in many.
CREATE_TIMEOUT_SEC = 120

_tests = []
_cleanups = []


class Skip(Exception):
    """Raised by a test that cannot run here; the text is the reason."""


def test(function=None, *, leaks=True):
    """Registers a test."""
    def register(f):
        _tests.append((f, leaks))
        return f
    return register(function) if function else register


def cleanup(function, *args):
    """Calls function(*args) after the running test, in whatever way it ends; last registered first."""
    _cleanups.append((function, args))


def run_cleanups():
    while _cleanups:
        function, args = _cleanups.pop()
        try:
            function(*args)
        except Exception as e:          # pylint: disable=broad-except  # the next cleanups have to run
            print(f"# cleanup: {e}", flush=True)


def _describe(f):
    return (f.__doc__ or f.__name__.replace("_", " ")).strip().splitlines()[0].rstrip(".")


def _run_one(f, leaks):
    """Returns (ok, reason to skip or lines of explanation)."""
    try:
        before = leakcheck.take() if leaks else None
        try:
            f()
        finally:
            run_cleanups()
        lines = leakcheck.settle(before) if leaks else []
        return (not lines), lines
    except Skip as e:
        return True, str(e)
    except Exception:                   # pylint: disable=broad-except  # a test may fail in any way
        return False, traceback.format_exc().splitlines()


def _warm_up():
    """Both daemons run before the first picture is taken; the second one is started by its first request."""
    with contextlib.suppress(OSError):
        Rest().request("GET", "/health", timeout=10)
    run("busctl", "get-property", BUS_NAME, BUS_PATH, f"{BUS_NAME}.Manager", "Version", ok=False)


def main():
    """Runs the registered tests (those whose name contains the first argument, if there is one) and exits."""
    chosen = [(f, leaks) for f, leaks in _tests if len(sys.argv) < 2 or sys.argv[1] in f.__name__]
    print(f"1..{len(chosen)}", flush=True)
    _warm_up()
    failed = 0
    for number, (f, leaks) in enumerate(chosen, 1):
        began = time.monotonic()
        ok, why = _run_one(f, leaks)
        if ok and isinstance(why, str):
            print(f"ok {number} - {_describe(f)} # SKIP {why}", flush=True)
            continue
        print(f"{'ok' if ok else 'not ok'} {number} - {_describe(f)}", flush=True)
        print(f"# {time.monotonic() - began:.1f} s", flush=True)
        for line in why if not ok else []:
            print(f"# {line}", flush=True)
        failed += not ok
    sys.exit(1 if failed else 0)


def check(condition, text):
    """An assertion that stays when Python optimises."""
    if not condition:
        raise AssertionError(text)


def equal(got, expected, what="value"):
    check(got == expected, f"{what}: expected {expected!r}, got {got!r}")


def wait_for(condition, timeout_sec=20, what="the condition", step_sec=0.05):
    """Polls what has no event to wait for. Returns the first true value."""
    deadline = time.monotonic() + timeout_sec
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_sec} s")
        time.sleep(step_sec)


# -- programs ---------------------------------------------------------------------------------------------------


def run(*argv, stdin=None, timeout=CREATE_TIMEOUT_SEC, ok=True, env=None):
    """Runs a command. Returns the CompletedProcess with text output; ok: it has to exit 0."""
    r = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
                       stdin=subprocess.DEVNULL if stdin is None else None,
                       env={**os.environ, **env} if env else None)
    if ok and r.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: exit {r.returncode}\n{r.stdout}{r.stderr}")
    return r


def ctl(*argv, **kwargs):
    """wrennctl."""
    return run("wrennctl", *argv, **kwargs)


def busctl(path, interface, method, signature="", *arguments, timeout=CREATE_TIMEOUT_SEC, ok=True):
    """Calls a method of wrennd. Returns the decoded data of the answer (ok) or the CompletedProcess."""
    r = run("busctl", "--json=short", f"--timeout={timeout}", "call", "--", BUS_NAME, path, f"{BUS_NAME}.{interface}", method,
            *([signature, *map(str, arguments)] if signature else []), ok=ok, timeout=timeout + 5)
    if not ok:
        return r
    return json.loads(r.stdout)["data"] if r.stdout.strip() else []


def bus_property(path, interface, name):
    r = run("busctl", "--json=short", "get-property", BUS_NAME, path, f"{BUS_NAME}.{interface}", name)
    return json.loads(r.stdout)["data"]


def capsule_path(capsule_id):
    """The object path of a capsule: sd_bus_path_encode() of its id."""
    return f"{BUS_PATH}/capsule/" + re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m.group()):02x}", capsule_id)


def unit_property(unit, name):
    return run("systemctl", "show", "-P", name, unit).stdout.strip()


def main_pid(unit):
    return int(unit_property(unit, "MainPID") or 0)


# -- REST -------------------------------------------------------------------------------------------------------


class Answer:
    """Status, headers and body of one response."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """error.code of the envelope, or None."""
        try:
            return self.json["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class Rest:
    """The API as one key sees it."""

    def __init__(self, key=None, address=API):
        self.key = key
        self.address = address

    def request(self, method, path, body=None, headers=None, timeout=CREATE_TIMEOUT_SEC):
        """body: an object (sent as JSON), bytes (as they are) or None."""
        all_headers = {"X-API-Key": self.key} if self.key else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            all_headers["Content-Type"] = "application/json"
        all_headers.update(headers or {})
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=all_headers)
            return Answer(connection.getresponse())

    def expect(self, status, method, path, body=None, **kwargs):
        answer = self.request(method, path, body, **kwargs)
        check(answer.status == status, f"{method} {path}: expected {status}, got {answer.status} {answer.body[:500]!r}")
        return answer

    def create(self, **body):
        """A running capsule that is destroyed after the test."""
        capsule = self.expect(201, "POST", "/v1/capsules", body).json
        cleanup(self.request, "DELETE", f"/v1/capsules/{capsule['id']}")
        deadline = time.monotonic() + CREATE_TIMEOUT_SEC
        while capsule["status"] in ("pending", "starting") and time.monotonic() < deadline:
            time.sleep(0.05)            # what takes more than four seconds is finished in the background
            capsule = self.expect(200, "GET", f"/v1/capsules/{capsule['id']}").json
        return capsule

    def destroy(self, capsule_id):
        self.expect(204, "DELETE", f"/v1/capsules/{capsule_id}")

    def exec(self, capsule_id, cmd, args=None, **body):
        """Foreground exec; the answer with stdout and stderr decoded."""
        request = {"cmd": cmd, **({"args": args} if args is not None else {}), **body}
        answer = self.expect(200, "POST", f"/v1/capsules/{capsule_id}/exec", request).json
        if answer["encoding"] == "base64":
            for name in ("stdout", "stderr"):
                answer[name] = base64.b64decode(answer[name])
        return answer


_key = None


def fresh_key(*options):
    """(id, secret) of a new key, revoked after the test."""
    name = f"test-{os.urandom(4).hex()}"
    data = busctl(BUS_PATH, "Manager", "CreateKey", "sa{sv}", name, *(options or ("0",)))
    cleanup(lambda: busctl(BUS_PATH, "Manager", "RevokeKey", "s", data[0], ok=False))
    return data[0], data[1]


def rest():
    """The API with a key of the team `default` that lives as long as the test file."""
    global _key                         # pylint: disable=global-statement
    if not _key:
        _key = busctl(BUS_PATH, "Manager", "CreateKey", "sa{sv}", f"test-{os.urandom(4).hex()}", "0")[1]
    return Rest(_key)


# -- the kernel -------------------------------------------------------------------------------------------------


def cgroup_value(unit, controller, name):
    """A file of the unit's cgroup: version 1 by controller, version 2 by the same call with its own name."""
    path = unit_property(unit, "ControlGroup")
    for base in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        with contextlib.suppress(OSError):
            with open(f"{base}{path}/{name}", encoding="utf-8") as f:
                return f.read().strip()
    raise AssertionError(f"{unit}: no {name} in the cgroup {path} of {controller}")


def proc_status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def alive(pid):
    return os.path.exists(f"/proc/{pid}") and proc_status(pid)["State"][0] != "Z"
