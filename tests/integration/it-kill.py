#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of each of our programs, and restarts: what dies is told with a reason, what lives goes on."""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (alive, bus_property, capsule_path, check, equal, main, main_pid, rest, run, test, unit_property,  # noqa: E402
                       wait_for)


def pids_of(capsule):
    path = capsule_path(capsule)
    return bus_property(path, "Capsule", "Leader"), bus_property(path, "Capsule", "VMMPID")


def ended(capsule, reasons):
    """Waits for the end; everything of the capsule is gone then, and the reason is one of these."""
    path = capsule_path(capsule)
    wait_for(lambda: bus_property(path, "Capsule", "State") in ("stopped", "error"), 30, "the end of the capsule")
    reason = bus_property(path, "Capsule", "TerminationReason")
    check(reason in reasons, f"reason '{reason}', expected one of {reasons}")
    wait_for(lambda: unit_property(f"wrenn-{capsule}.scope", "ActiveState") in ("inactive", "failed"), 10, "the scope's end")
    status = rest().expect(200, "GET", f"/v1/capsules/{capsule}").json["status"]
    check(status in ("stopped", "error"), f"REST says {status}")


def uptime(capsule):
    return float(rest().exec(capsule, "cat /proc/uptime")["stdout"].split()[0])


def boot_id(capsule):
    return rest().exec(capsule, "cat /proc/sys/kernel/random/boot_id")["stdout"]


def restarted(unit, old_pid):
    return wait_for(lambda: main_pid(unit) not in (0, old_pid) and main_pid(unit), 20, f"{unit} again")


@test
def kill_of_the_vmm():
    capsule = rest().create(memory_mb=256)["id"]
    monitor, vmm = pids_of(capsule)
    os.kill(vmm, signal.SIGKILL)
    ended(capsule, ("vmm-crash",))
    check(not alive(monitor), "the monitor lives on")


@test
def kill_of_the_monitor():
    capsule = rest().create(memory_mb=256)["id"]
    monitor, vmm = pids_of(capsule)
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not alive(vmm), 10, "the VMM's end")
    ended(capsule, ("vmm-crash", "lost"))


@test
def the_guest_powers_off():
    capsule = rest().create(memory_mb=256)["id"]
    rest().request("POST", f"/v1/capsules/{capsule}/exec", {"cmd": "echo o >/proc/sysrq-trigger; sleep 30"})
    ended(capsule, ("guest-exit",))


@test
def kill_of_wrennd_changes_nothing_for_a_capsule():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    before_ids, before_boot, before_uptime = pids_of(capsule), boot_id(capsule), uptime(capsule)
    old = main_pid("wrennd.service")
    os.kill(old, signal.SIGKILL)
    restarted("wrennd.service", old)
    wait_for(lambda: api.request("GET", f"/v1/capsules/{capsule}").status == 200, 20, "wrennd's answer")
    equal(api.expect(200, "GET", f"/v1/capsules/{capsule}").json["status"], "running")
    equal(pids_of(capsule), before_ids, "processes")
    equal(boot_id(capsule), before_boot, "boot id")
    check(uptime(capsule) >= before_uptime, "uptime went back")
    api.destroy(capsule)
    check(not any(alive(p) for p in before_ids), "destroy after an adoption left processes")


@test
def restart_of_wrennd_in_the_middle_of_an_exec():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    with subprocess.Popen(["curl", "-s", "-H", f"X-API-Key: {api.key}", "-d", '{"cmd": "sleep 4; echo through"}',
                           f"http://127.0.0.1:8080/v1/capsules/{capsule}/exec"], stdout=subprocess.PIPE, text=True) as p:
        wait_for(lambda: api.exec(capsule, "ps ax -o args= | grep '[s]leep 4' || true")["stdout"], 20, "the command")
        run("systemctl", "restart", "wrennd.service")
        check('"through\\n"' in p.communicate(timeout=60)[0], "the stream broke")
    equal(api.expect(200, "GET", f"/v1/capsules/{capsule}").json["status"], "running")


@test
def two_restarts_in_a_row_and_a_capsule_of_each_time():
    api = rest()
    capsules = []
    for _ in range(2):
        capsules.append(api.create(memory_mb=256)["id"])
        run("systemctl", "restart", "wrennd.service")
    for capsule in capsules:
        equal(api.exec(capsule, "echo here")["stdout"], "here\n")


@test
def kill_of_wrenn_restd():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    before = pids_of(capsule)
    old = main_pid("wrenn-restd.service")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: not alive(old), 10, "its end")

    def answers():
        try:
            return api.request("GET", f"/v1/capsules/{capsule}", timeout=10).status == 200
        except OSError:
            return False

    wait_for(answers, 20, "an answer from the next one")
    equal(api.exec(capsule, "echo here")["stdout"], "here\n")
    equal(pids_of(capsule), before, "processes")


@test
def kill_of_wrennd_in_the_middle_of_a_create():
    api = rest()
    with subprocess.Popen(["curl", "-s", "-m", "60", "-H", f"X-API-Key: {api.key}", "-d", '{"memory_mb": 256}',
                           "http://127.0.0.1:8080/v1/capsules"], stdout=subprocess.DEVNULL):
        wait_for(lambda: "wrenn-cl" in run("systemctl", "list-units", "--plain", "--no-legend", "wrenn-cl*").stdout, 20, "its scope")
        old = main_pid("wrennd.service")
        os.kill(old, signal.SIGKILL)
        restarted("wrennd.service", old)
    for capsule in wait_for(lambda: api.request("GET", "/v1/capsules").status == 200 and [True], 20, "wrennd") and \
            api.expect(200, "GET", "/v1/capsules").json:
        api.destroy(capsule["id"])


main()
