# SPDX-License-Identifier: LGPL-2.1-or-later
"""Capsules whose agent is tests/fake/hostile-agent: an initrd of its own, used for as long as the create takes."""

import contextlib
import json
import os
import shutil

from wrenntest import REPO, cleanup, equal, rest, run

KERNELS = "/var/lib/wrenn/kernels"
HOSTILE = "/var/lib/wrenn/kernels-hostile"
AGENT = os.path.join(os.environ.get("WRENN_TEST_BUILD") or f"{REPO}/build", "tests/fake/hostile-agent")


def prepare():
    version = os.path.basename(os.readlink(f"{KERNELS}/current"))
    shutil.rmtree(HOSTILE, ignore_errors=True)
    shutil.copytree(f"{KERNELS}/{version}", f"{HOSTILE}/{version}")
    os.symlink(version, f"{HOSTILE}/current")
    request = {"job": "prepare-kernel", "directory": HOSTILE, "agent": AGENT}
    run("/usr/lib/wrenn/wrenn-worker", stdin=json.dumps(request))
    return version


@contextlib.contextmanager
def hostile_kernel():
    version = prepare()
    cleanup(shutil.rmtree, HOSTILE, True)
    try:
        os.unlink(f"{KERNELS}/current")
        os.symlink(f"../kernels-hostile/{version}", f"{KERNELS}/current")
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{KERNELS}/current")
        os.symlink(version, f"{KERNELS}/current")


def hostile_capsule():
    with hostile_kernel():
        capsule = rest().create(memory_mb=256)
    equal(capsule["status"], "running", "status of the hostile capsule")
    return capsule["id"]
