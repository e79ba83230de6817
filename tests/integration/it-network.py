#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network of real capsules: what it-network-policy.py proves of slots, seen from inside a guest."""

import json
import os
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
from wrenntest import Skip, check, equal, main, rest, run, test, wait_for  # noqa: E402

MIRROR = "http://deb.debian.org/debian/dists/bookworm/Release"


def host_addresses():
    """All IPv4 addresses of the host but its loopback's."""
    links = json.loads(run("ip", "-j", "-4", "addr").stdout)
    return [a["local"] for link in links for a in link["addr_info"] if not a["local"].startswith("127.")]


def counters():
    found = json.loads(run("nft", "-j", "list", "counters").stdout)["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in found if "counter" in c}


def open_ports(api, capsule, targets):
    """Which of "address port" answer to a TCP connection from inside; all are tried at once."""
    script = 'for t; do (set -- $t; timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "$1 $2") & done; wait'
    answer = api.exec(capsule["id"], "bash", ["-c", script, "bash", *targets], timeout_sec=60)
    return answer["stdout"].split("\n")[:-1]


@test
def capsule_reaches_the_internet_by_name():
    """a capsule reaches the internet, by name, over NAT and the host's resolver"""
    try:
        with urllib.request.urlopen(MIRROR, timeout=20) as answer:
            expected = answer.status
    except (OSError, urllib.error.URLError) as e:
        raise Skip(f"the host itself does not reach {MIRROR}: {e}") from e
    api = rest()
    capsule = api.create(template="minimal")
    answer = api.exec(capsule["id"], "curl", ["-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", MIRROR])
    equal((answer["exit_code"], answer["stdout"]), (0, str(expected)), answer["stderr"])
    equal(api.exec(capsule["id"], "cat", ["/etc/resolv.conf"])["stdout"].split(), ["nameserver", "169.254.0.22"])
    answer = api.exec(capsule["id"], "ip", ["-o", "addr", "show", "dev", "eth0"])["stdout"]
    check("169.254.0.21/30" in answer and "inet6 2" not in answer, answer)


@test
def capsule_reaches_nothing_of_the_host():
    """a capsule reaches no metadata service, no address of the host, no private network, no neighbour"""
    api = rest()
    capsule, neighbour = api.create(template="minimal"), api.create(template="minimal")
    api.expect(202, "POST", f"/v1/capsules/{neighbour['id']}/exec",
               {"cmd": "bash", "args": ["-c", "while :; do sleep 1; done"], "background": True})
    before = counters()
    targets = [f"{a} {port}" for a in host_addresses() for port in (22, 53, 8080)]
    targets += [f"{a} {port}" for a in ("169.254.169.254", "168.63.129.16", "169.254.0.22", "10.0.2.2", "10.0.2.3")
                for port in (22, 53, 80, 8080)]
    targets.remove("169.254.0.22 53")       # the resolver, the one thing that is allowed
    own = [a for a in host_addresses() if a.startswith("10.11.")]
    targets += [".".join(a.split(".")[:3] + [str(int(a.split(".")[3]) + 1)]) + " 80" for a in own if a != "10.11.0.1"]
    equal(open_ports(api, capsule, targets), [], "open from inside")
    equal(open_ports(api, capsule, ["169.254.0.22 53"]), ["169.254.0.22 53"], "the resolver")
    public = [a for a in host_addresses() if not a.startswith(("10.", "169.254."))]
    if public:
        wait_for(lambda: counters()["host"] > before["host"], what="the drop counter of the host")


@test
def resolver_survives_a_restart_of_wrennd():
    """names resolve in a running capsule while wrennd restarts, and after"""
    api = rest()
    capsule = api.create(template="minimal")
    lookup = ["-c", "exec 3<>/dev/tcp/169.254.0.22/53"]
    equal(api.exec(capsule["id"], "bash", lookup)["exit_code"], 0)
    pid = run("systemctl", "show", "-P", "MainPID", "wrenn-dns.service").stdout.strip()
    run("systemctl", "restart", "wrennd.service")
    wait_for(lambda: api.exec(capsule["id"], "bash", lookup)["exit_code"] == 0, what="the resolver after the restart")
    equal(run("systemctl", "show", "-P", "MainPID", "wrenn-dns.service").stdout.strip(), pid, "PID of the resolver")


if __name__ == "__main__":
    main()
