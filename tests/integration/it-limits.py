#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel holds a capsule to: limits of its scope, the jail of a live VMM, and neighbours of a wild guest."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import (alive, bus_property, capsule_path, cgroup_value, check, ctl, equal, main, main_pid, proc_status, rest,  # noqa: E402
                       test, unit_property, wait_for)

UID_FIRST, UID_LAST = 1900000000, 1900065535
MIB = 1 << 20


def pids_of(capsule):
    path = capsule_path(capsule)
    return bus_property(path, "Capsule", "Leader"), bus_property(path, "Capsule", "VMMPID")


def v1(controller):
    return os.path.isdir(f"/sys/fs/cgroup/{controller}")


@test
def the_scope_has_the_limits_and_the_kernel_too():
    capsule = rest().create(vcpus=2, memory_mb=256)["id"]
    unit = f"wrenn-{capsule}.scope"
    equal(unit_property(unit, "ActiveState"), "active")
    equal(unit_property(unit, "Slice"), "wrenn-default.slice")
    memory_max = int(unit_property(unit, "MemoryMax"))
    check(256 * MIB < memory_max < 1024 * MIB, f"MemoryMax={memory_max}")
    kernel = cgroup_value(unit, "memory", "memory.limit_in_bytes" if v1("memory") else "memory.max")
    equal(int(kernel), memory_max, "memory limit in the kernel")

    per_sec = unit_property(unit, "CPUQuotaPerSecUSec")
    check(per_sec != "infinity", "no CPUQuota")
    if v1("cpu"):
        quota, period = (int(cgroup_value(unit, "cpu", f"cpu.cfs_{n}_us")) for n in ("quota", "period"))
    else:
        quota, period = map(int, cgroup_value(unit, "cpu", "cpu.max").split())
    check(quota >= 2 * period, f"quota {quota} of {period}: less than the two processors it was sold")

    tasks = int(unit_property(unit, "TasksMax"))
    equal(int(cgroup_value(unit, "pids", "pids.max")), tasks, "task limit in the kernel")
    equal(unit_property(unit, "DevicePolicy"), "closed")
    for pid in pids_of(capsule):
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
            check(f"wrenn-default.slice/{unit}" in f.read(), f"process {pid} is not in the scope")


@test
def set_property_works_on_the_scope():
    capsule = rest().create(memory_mb=256)["id"]
    unit = f"wrenn-{capsule}.scope"

    subprocess.run(["systemctl", "set-property", "--runtime", unit, "TasksMax=77"], check=True)
    equal(int(cgroup_value(unit, "pids", "pids.max")), 77)


@test
def a_live_vmm_is_jailed():
    capsule = rest().create(memory_mb=256)["id"]
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "ipc", "pid", "uts", "cgroup")}
    uids = set()
    for pid in pids_of(capsule):
        status = proc_status(pid)
        ids = status["Uid"].split() + status["Gid"].split()
        check(all(UID_FIRST <= int(i) <= UID_LAST for i in ids), f"{pid}: ids {ids}")
        uids.add(ids[0])
        equal(status["Groups"].strip(), "", f"{pid}: groups")
        for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            equal(int(status[caps], 16), 0, f"{pid}: {caps}")
        equal(status["NoNewPrivs"], "1", f"{pid}: no_new_privs")
        for name in ("mnt", "net"):
            check(os.readlink(f"/proc/{pid}/ns/{name}") != ours[name], f"{pid}: lives in our {name} namespace")
        equal(sorted(set(os.listdir(f"/proc/{pid}/root")) & {"home", "root", "var", "proc", "sys", "etc", "run", "tmp"}), [],
              f"{pid}: what it sees of the host")
    equal(len(uids), 1, "one uid for monitor and VMM")
    monitor, vmm = pids_of(capsule)
    equal(proc_status(vmm)["Seccomp"], "2", "seccomp filter of the VMM")
    equal(int(proc_status(vmm)["PPid"]), monitor, "parent of the VMM")


@test
def two_capsules_share_no_uid_and_no_namespace():
    api = rest()
    pairs = [pids_of(api.create(memory_mb=256)["id"]) for _ in range(2)]
    seen = [(proc_status(v)["Uid"].split()[0], os.readlink(f"/proc/{v}/ns/net"), os.readlink(f"/proc/{v}/ns/mnt")) for _, v in pairs]
    for what, a, b in zip(("uid", "network namespace", "mount namespace"), *seen):
        check(a != b, f"the same {what}: {a}")


def answers_within(api, capsule, seconds, times=5):
    for _ in range(times):
        began = time.monotonic()
        equal(api.exec(capsule, "echo alive")["stdout"], "alive\n")
        check(time.monotonic() - began < seconds, f"a neighbour waited {time.monotonic() - began:.1f} s")


@test
def a_guest_that_forks_without_end_hurts_nobody_else():
    api = rest()
    wild, calm = api.create(memory_mb=256)["id"], api.create(memory_mb=256)["id"]
    daemons = [main_pid(u) for u in ("wrennd.service", "wrenn-restd.service")]
    api.expect(202, "POST", f"/v1/capsules/{wild}/exec", {"cmd": "b() { b | b & }; b; sleep 100", "background": True})
    answers_within(api, calm, 10)
    equal([main_pid(u) for u in ("wrennd.service", "wrenn-restd.service")], daemons, "daemons that lived on")
    tasks = int(cgroup_value(f"wrenn-{wild}.scope", "pids", "pids.current"))
    check(tasks < 128, f"{tasks} tasks on the host")
    api.destroy(wild)
    answers_within(api, calm, 5)


@test
def a_guest_that_eats_memory_hurts_nobody_else():
    api = rest()
    wild, calm = api.create(memory_mb=256)["id"], api.create(memory_mb=256)["id"]
    api.expect(202, "POST", f"/v1/capsules/{wild}/exec",
               {"cmd": "mkdir -p /tmp/m && mount -t tmpfs -o size=100% m /tmp/m; cat /dev/zero >/tmp/m/x; "
                       "tail -c 2000000000 /dev/zero", "background": True})
    answers_within(api, calm, 10)
    unit = f"wrenn-{wild}.scope"
    limit = int(unit_property(unit, "MemoryMax") or 0)
    if limit:
        used = int(cgroup_value(unit, "memory", "memory.usage_in_bytes" if v1("memory") else "memory.current"))
        check(used <= limit, f"{used} of {limit} bytes")
    api.destroy(wild)


@test
def the_end_of_a_scope_is_told_with_a_reason():
    api = rest()
    capsule = api.create(memory_mb=256)["id"]
    monitor, vmm = pids_of(capsule)

    subprocess.run(["systemctl", "stop", f"wrenn-{capsule}.scope"], check=True)
    path = capsule_path(capsule)
    wait_for(lambda: bus_property(path, "Capsule", "State") in ("stopped", "error"), 40, "the end")
    check(bus_property(path, "Capsule", "TerminationReason"), "no reason")
    check(not alive(monitor) and not alive(vmm), "processes left")
    ctl("destroy", capsule)


main()
