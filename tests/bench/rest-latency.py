#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""rest-latency.py BUILD [N]: GET of one capsule against a bare libmicrohttpd hello, and what an exec costs in wrenn-restd.

Runs on any machine: wrennd and the agent are played by tests/fake/fake-wrennd.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from restd import KEY, Client, Restd  # noqa: E402

import stats  # noqa: E402


def memory(pid):
    rss = private = 0
    with open("/proc/%d/smaps_rollup" % pid) as f:
        for line in f:
            name, value = line.split()[:2]
            if name == "Rss:":
                rss = int(value) / 1024
            elif name.startswith("Private_"):
                private += int(value) / 1024
    return rss, private


def main():
    build = os.path.abspath(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    stats.header()
    with Restd(binary=build + "/src/rest/wrenn-restd") as r, tempfile.TemporaryDirectory(prefix="rest-bench-") as directory:
        time.sleep(0.5)
        rss, private = memory(r.restd.pid)
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]
        path = "/v1/capsules/" + capsule
        with Client(r) as c:
            size = int(c.request("GET", path)[1]["content-length"])
        hello = subprocess.Popen([build + "/tests/bench/mhd-hello", str(size)], stdout=subprocess.PIPE)
        try:
            port = int(hello.stdout.readline())
            request = "%s/request" % directory
            with open(request, "w") as f:
                f.write("GET %s HTTP/1.1\r\nHost: localhost:%d\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
                        "Connection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nX-API-Key: %s\r\n\r\n" % (path, r.port, KEY))
            out = subprocess.run([build + "/tests/bench/http-pairs", str(r.port), request, str(port), request, str(n)],
                                 stdout=subprocess.PIPE, check=True, text=True).stdout
        finally:
            hello.terminate()
            hello.wait()
        pairs = [[float(x) for x in line.split()] for line in out.splitlines()]
        stats.row("GET capsule / bare libmicrohttpd", [p[0] for p in pairs], [p[1] for p in pairs], "us", 2.0)

        r.set(agent_mode="fast")
        with Client(r) as c:
            times = []
            for _ in range(500):
                begin = time.monotonic()
                c.request("POST", path + "/exec", {"cmd": "true"})
                times.append((time.monotonic() - begin) * 1000)
        stats.absolute("exec with an agent that answers at once", statistics.median(times), "ms", 1.0, "Python agent included")
        stats.absolute("wrenn-restd idle, resident", rss, "MiB", 12)
        stats.absolute("wrenn-restd idle, private", private, "MiB", 4)
    return 1 if stats.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
