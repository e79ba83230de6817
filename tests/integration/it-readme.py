#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The README's examples, word for word, each in a directory and with a key of its own."""

import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import REPO, check, cleanup, equal, fresh_key, main, rest, run, test, wait_for  # noqa: E402

with open(os.path.join(REPO, "README.md"), encoding="utf-8") as readme:
    TEXT = readme.read()
HELLO = r"hello from (cl-)?[0-9a-z]+"


def blocks(heading):
    """[(language, text)] of the fenced blocks below a heading."""
    section = re.search(rf"^### {heading}\n(.*?)(?=^##|\Z)", TEXT, re.S | re.M)
    check(section, f"no heading '{heading}'")
    return re.findall(r"^```(\w+)\n(.*?)^```$", section.group(1), re.S | re.M)


def run_section(heading):
    """Runs the blocks one after the other as a person would paste them. Returns what they printed."""
    directory = tempfile.mkdtemp(prefix="readme-")
    cleanup(shutil.rmtree, directory)
    env = {"WRENN_API_KEY": fresh_key()[1], "WRENN_BASE_URL": "http://127.0.0.1:8080"}
    printed = ""
    for language, text in blocks(heading):
        path = os.path.join(directory, "block")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"cd {directory}\n" + text if language == "sh" else text)
        program = ("bash", "-euo", "pipefail") if language == "sh" else (os.path.join(directory, "sdk/bin/python"),)
        printed += run(*program, path, env=env, timeout=300).stdout
    wait_for(lambda: rest().expect(200, "GET", "/v1/capsules").json == [], 10, f"the end of the capsules of {heading}")
    return printed


def lines_at_most(heading, n):
    for _, text in blocks(heading):
        check(len([line for line in text.splitlines() if line.strip()]) <= n, f"{heading}: more than {n} lines")


@test
def the_two_commands_at_the_top_can_be_typed():
    first = [line.partition("    #")[0].strip() for line in re.search(r"\n\n((?:    .*\n)+)", TEXT).group(1).splitlines()]
    equal(first, ["packaging/quickstart", "tests/run"])
    for command in first:
        check(os.access(os.path.join(REPO, command), os.X_OK), f"{command} cannot be run")
        run("bash", "-n", os.path.join(REPO, command))


@test
def rest_with_curl():
    lines_at_most("REST", 5)
    printed = run_section("REST")
    check(re.search(r'"stdout": ?"' + HELLO, printed) and '"running"' in printed, printed)


@test
def python_sdk():
    lines_at_most("Python", 5)
    check(re.search(HELLO + r"\s+0$", run_section("Python").rstrip()), "no greeting, or not 0")


@test
def wrennctl():
    lines_at_most("wrennctl", 5)
    printed = run_section("wrennctl")
    check(re.search(HELLO, printed) and "running" in printed and re.search(r"^2$", printed, re.M), printed)


@test
def files():
    lines_at_most("Files", 5)
    check(re.search(r"^42$", run_section("Files"), re.M), "no answer")


@test
def busctl():
    lines_at_most("busctl", 5)
    printed = run_section("busctl")
    check('"running"' in printed and ".State" in printed, printed)


@test
def systemctl():
    lines_at_most("systemctl", 5)
    printed = run_section("systemctl")
    check("active (running)" in printed and "MemoryMax=" in printed, printed)


main()
