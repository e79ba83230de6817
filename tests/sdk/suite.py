# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every public method of the SDK, sync and async, against a running service (tests/sdk/run starts it in every version)."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import stat
import threading
import time

import httpx
import pytest
import wrenn
from wrenn import exceptions
from wrenn.exceptions import WrennError
from wrenn.pty import PtyEventType

# 0.1.0 and 0.1.1 raise httpx's error from some calls (api.md §0.1).
HTTP_ERRORS = (WrennError, httpx.HTTPStatusError)


class Flavor:
    """The same steps with the blocking and the asynchronous classes."""

    def __init__(self, name):
        self.Capsule = wrenn.AsyncCapsule if name == "async" else wrenn.Capsule
        self.loop = self.thread = None
        if name == "async":
            ready = threading.Event()
            self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
            self.thread.start()
            ready.wait()

    async def _serve(self, ready):
        """Awaits what comes, one after the other in one task: what a task has entered it must leave itself."""
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()
        ready.set()
        while True:
            awaitable, future = await self.queue.get()
            if future is None:
                return
            try:
                future.set_result(await awaitable)
            except BaseException as e:  # it belongs to the test
                future.set_exception(e)

    def _put(self, awaitable, future):
        self.loop.call_soon_threadsafe(self.queue.put_nowait, (awaitable, future))

    def close(self):
        if self.thread:
            self._put(None, None)
            self.thread.join()

    def call(self, value):
        if not inspect.isawaitable(value):
            return value
        future = concurrent.futures.Future()
        self._put(value, future)
        return future.result()

    def items(self, iterable, until=None):
        """All items of an iterator of either kind, or those up to the first for which until() is true."""
        found = []
        if not self.loop:
            for item in iterable:
                found.append(item)
                if until and until(item):
                    break
            return found

        async def collect():
            async for item in iterable:
                found.append(item)
                if until and until(item):
                    break

        self.call(collect())
        return found

    @contextlib.contextmanager
    def entered(self, manager):
        if not self.loop:
            with manager as value:
                yield value
            return
        value = self.call(manager.__aenter__())
        try:
            yield value
        except BaseException as e:
            self.call(manager.__aexit__(type(e), e, e.__traceback__))
            raise
        self.call(manager.__aexit__(None, None, None))

    def chunks(self, *pieces):
        if not self.loop:
            return iter(pieces)

        async def generate():
            for piece in pieces:
                yield piece

        return generate()

    def create(self, **options):
        return self.call(self.Capsule.create(**options))


@pytest.fixture(scope="module", params=["sync", "async"])
def flavor(request):
    f = Flavor(request.param)
    yield f
    f.close()


@pytest.fixture(scope="module")
def capsule(flavor):
    c = flavor.create()
    flavor.call(c.wait_ready())
    yield c
    flavor.call(c.destroy())


@pytest.fixture
def run(flavor, capsule):
    return lambda line, **options: flavor.call(capsule.commands.run(line, **options))


@pytest.fixture
def files(flavor, capsule):
    class Files:
        def __getattr__(self, name):
            return lambda *a, **k: flavor.call(getattr(capsule.files, name)(*a, **k))

    return Files()


@pytest.fixture
def git(flavor, capsule):
    class Git:
        def __getattr__(self, name):
            return lambda *a, **k: flavor.call(getattr(capsule.git, name)(*a, **k))

    return Git()


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.05)


# Capsules


def test_life_of_a_capsule(flavor):
    c = flavor.create(vcpus=1, memory_mb=256, timeout=600)
    identifier = c.capsule_id
    try:
        flavor.call(c.wait_ready())
        info = flavor.call(c.get_info())
        assert (info.id, info.vcpus, info.memory_mb, info.timeout_sec) == (identifier, 1, 256, 600)
        assert info.created_at.tzinfo is not None
        assert flavor.call(c.is_running())
        flavor.call(c.ping())
        assert identifier in [x.id for x in flavor.call(flavor.Capsule.list())]
        again = flavor.call(flavor.Capsule.connect(identifier))
        assert again.capsule_id == identifier
        assert identifier in c.get_url(3000) and "3000" in c.get_url(3000)
    finally:
        flavor.call(c.destroy())
    flavor.call(flavor.Capsule.destroy(identifier))  # once more is no error
    info = flavor.call(flavor.Capsule.get_info(identifier))
    assert info.status == "stopped"
    with pytest.raises(exceptions.WrennConflictError):
        flavor.call(c.commands.run("true"))


def test_context_manager(flavor):
    c = flavor.create()
    with flavor.entered(c):
        flavor.call(c.wait_ready())
    assert flavor.call(flavor.Capsule.get_info(c.capsule_id)).status == "stopped"


def test_errors_have_their_classes(flavor):
    missing = "cl-" + "0" * 24 + "1"
    with pytest.raises(exceptions.WrennNotFoundError):
        flavor.call(flavor.Capsule.get_info(missing))
    with pytest.raises(exceptions.WrennValidationError):
        flavor.call(flavor.Capsule.get_info("cl-short"))
    with pytest.raises(exceptions.WrennNotFoundError) as caught:
        flavor.create(template="nosuch")
    assert (caught.value.code, caught.value.status_code) == ("not_found", 404) and "nosuch" in caught.value.message
    with pytest.raises(exceptions.WrennValidationError):
        flavor.create(vcpus=1000)
    with pytest.raises(exceptions.WrennAuthenticationError):
        flavor.create(api_key="wrn_" + "0" * 32)


# Commands


def test_foreground(run):
    r = run("echo out; echo err >&2; exit 7")
    assert (r.stdout, r.stderr, r.exit_code) == ("out\n", "err\n", 7)
    assert r.duration_ms is not None and r.duration_ms >= 0


def test_output_of_any_kind(run):
    assert run("printf 'a\\303\\244\\360\\237\\230\\200\\000z'").stdout == "aä😀\0z"
    assert run("printf '\\377\\376'").stdout == "\ufffd\ufffd"
    assert len(run("head -c 3000000 /dev/zero | tr '\\0' x").stdout) == 3000000
    assert run("kill -9 $$").exit_code == -1


def test_environment_and_directory(run):
    r = run('echo "$A|$B|$PWD"', envs={"A": "1 2", "B": "ä'\""}, cwd="/tmp")
    assert r.stdout == "1 2|ä'\"|/tmp\n"
    assert run("echo $HOME; pwd").stdout.split()[0] == run("pwd").stdout.strip()
    with pytest.raises(WrennError):
        run("true", cwd="/no/such/place")


def test_timeout_kills(run):
    with pytest.raises((WrennError, httpx.ReadTimeout)):
        run("sleep 1234 & sleep 1234", timeout=1)
    wait_for(lambda: run("pgrep -fx 'sleep 1234'").exit_code == 1)


def test_background_list_kill(flavor, capsule, run):
    handle = run("sleep 4321 | cat", background=True, tag="mine")
    assert handle.pid > 0 and handle.tag == "mine" and handle.capsule_id == capsule.capsule_id
    assert run("sleep 4321", background=True).tag.startswith("proc-")
    listed = flavor.call(capsule.commands.list())
    mine = next(p for p in listed if p.pid == handle.pid)
    assert (mine.tag, mine.cmd, list(mine.args)) == ("mine", "/bin/sh", ["-c", "sleep 4321 | cat"])
    for p in listed:
        flavor.call(capsule.commands.kill(p.pid))
    wait_for(lambda: not flavor.call(capsule.commands.list()), 10)
    assert run("pgrep -fx 'sleep 4321'").exit_code == 1
    with pytest.raises(exceptions.WrennNotFoundError):
        flavor.call(capsule.commands.kill(handle.pid))


def stream_text(events, kind):
    return "".join(e.data for e in events if e.type == kind)


def test_stream(flavor, capsule):
    events = flavor.items(capsule.commands.stream("for i in 1 2 3; do printf 'ä%s' $i; sleep 0.1; done; echo e >&2; exit 5"))
    assert events[0].type == "start" and events[0].pid > 0
    assert (stream_text(events, "stdout"), stream_text(events, "stderr")) == ("ä1ä2ä3", "e\n")
    assert events[-1].type == "exit" and events[-1].exit_code == 5
    events = flavor.items(capsule.commands.stream("/bin/echo", args=["a b", "*"]))
    assert stream_text(events, "stdout") == "a b *\n"


def test_stream_of_much(flavor, capsule):
    events = flavor.items(capsule.commands.stream("seq 1 200000"))
    assert stream_text(events, "stdout") == "".join(f"{i}\n" for i in range(1, 200001))


def test_attach(flavor, capsule, run):
    handle = run("echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last; exit 9", background=True)
    run("touch /tmp/go")
    events = flavor.items(capsule.commands.connect(handle.pid))
    assert events[0].type == "start" and events[0].pid == handle.pid
    assert stream_text(events, "stdout") == "first\nlast\n"
    assert events[-1].type == "exit" and events[-1].exit_code == 9
    run("rm /tmp/go")
    assert [e.type for e in flavor.items(capsule.commands.connect(4000000))] == ["error"]


# Files


def test_write_and_read(files):
    everything = bytes(range(256)) * 1000
    files.write("/tmp/sdk/deep/binary", everything)
    assert files.read_bytes("/tmp/sdk/deep/binary") == everything
    files.write("/tmp/sdk/text", "Grüße\n")
    assert files.read("/tmp/sdk/text") == "Grüße\n"
    files.write("/tmp/sdk/text", "")
    assert files.read("/tmp/sdk/text") == ""
    assert files.read("/proc/version").startswith("Linux")
    files.write("in-home", "x")
    assert files.read("~/in-home") == "x"
    files.remove("in-home")
    files.remove("/tmp/sdk")


def test_large_write(files, run):
    files.write("/tmp/large", b"0123456789abcdef" * (1 << 20))
    assert run("wc -c < /tmp/large").stdout.strip() == str(16 << 20)
    assert len(files.read_bytes("/tmp/large")) == 16 << 20
    files.remove("/tmp/large")


def test_listing(files, run):
    run("mkdir -p /tmp/list/d/e && cd /tmp/list && echo hi > f && chmod 640 f && ln -s f l && ln -s nowhere dangling && mkfifo p && "
        "touch d/e/deep \"$(printf 'a\\nb\"c')\"")
    entries = {e.path: e for e in files.list("/tmp/list")}
    assert set(entries) == {f"/tmp/list/{n}" for n in ("d", "f", "l", "dangling", "p", 'a\nb"c')}
    kinds = {n: entries[f"/tmp/list/{n}"].type for n in ("d", "f", "l", "dangling", "p")}
    assert kinds == {"d": "directory", "f": "file", "l": "file", "dangling": "symlink", "p": "file"}
    f = entries["/tmp/list/f"]
    assert (f.name, f.size, f.mode, f.permissions) == ("f", 3, stat.S_IMODE(0o640), "-rw-r-----")
    assert entries["/tmp/list/l"].symlink_target == "/tmp/list/f"
    assert "/tmp/list/d/e/deep" in [e.path for e in files.list("/tmp/list", depth=3)]
    assert "/tmp/list/d/e/deep" not in [e.path for e in files.list("/tmp/list", depth=2)]
    for odd in ("/dev", "/run", "/proc/self/fd", "/"):
        assert files.list(odd)
    assert files.exists("/tmp/list/f") and not files.exists("/tmp/list/g") and not files.exists("/no/such/f")
    with pytest.raises(exceptions.WrennNotFoundError):
        files.list("/tmp/list/none")
    files.remove("/tmp/list")
    with pytest.raises(exceptions.WrennNotFoundError):
        files.remove("/tmp/list")


def test_make_dir(files):
    entry = files.make_dir("/tmp/made/below")
    assert (entry.name, entry.path, entry.type) == ("below", "/tmp/made/below", "directory")
    assert files.make_dir("/tmp/made/below").path == "/tmp/made/below"
    files.remove("/tmp/made")


def test_missing_file(files):
    with pytest.raises(HTTP_ERRORS):
        files.read("/tmp/none")
    with pytest.raises(HTTP_ERRORS):
        files.read_bytes("/tmp")


def test_streams(flavor, capsule, files):
    pieces = [bytes([i % 256]) * (i * 37 % 70000) for i in range(200)]
    flavor.call(capsule.files.upload_stream("/tmp/streamed", flavor.chunks(*pieces)))
    assert b"".join(flavor.items(capsule.files.download_stream("/tmp/streamed"))) == b"".join(pieces)
    files.remove("/tmp/streamed")
    with pytest.raises(HTTP_ERRORS):
        flavor.items(capsule.files.download_stream("/tmp/none"))


# Terminals


def pty_text(events):
    return b"".join(e.data or b"" for e in events if e.type == PtyEventType.output)


def read_until(flavor, term, text):
    got = []

    def seen(event):
        got.append(event)
        return text in pty_text(got)

    flavor.items(term, until=seen)
    return pty_text(got)


def test_terminal(flavor, capsule):
    with flavor.entered(capsule.pty(cmd="/bin/bash", cols=90, rows=30, envs={"PS1": "$ "}, cwd="/tmp")) as term:
        flavor.call(term.write(b"stty size; echo $TERM:$PWD:$((6*7))\n"))
        text = read_until(flavor, term, b":42\r\n")
        assert b"30 90" in text and b"xterm-256color:/tmp:42" in text
        assert term.tag.startswith("pty-") and term.pid > 0
        flavor.call(term.resize(100, 40))
        flavor.call(term.write("stty size; echo grün-$((6*8))\n".encode()))
        text = read_until(flavor, term, "grün-48\r\n".encode())
        assert b"40 100" in text
        flavor.call(term.write(b"exit 3\n"))
        events = flavor.items(term)
        assert [e.exit_code for e in events if e.type == PtyEventType.exit] in ([3], [])  # 0.1.0 and 0.1.1 do not yield it


def test_terminal_is_left_and_found_again(flavor, capsule, run):
    with flavor.entered(capsule.pty(cmd="/bin/bash")) as term:
        flavor.call(term.write(b"value=here; echo begin-$value\n"))
        read_until(flavor, term, b"begin-here\r\n")
        tag = term.tag
    with flavor.entered(capsule.pty_connect(tag)) as term:
        flavor.call(term.write(b"echo still-$value\n"))
        text = read_until(flavor, term, b"still-here\r\n")
        assert b"begin-here" in text  # what was on the screen comes again
        flavor.call(term.kill())
        flavor.items(term)
    assert tag not in [p.tag for p in flavor.call(capsule.commands.list())]
    with flavor.entered(capsule.pty_connect("pty-00000000")) as term:
        events = flavor.items(term)
        assert [e.fatal for e in events if e.type == PtyEventType.error] == [True]


# git


def test_git(git, files, run):
    git.init("repo", initial_branch="main")
    repo = run("cd repo && pwd").stdout.strip()  # set_config() gives it to git -C as well
    git.set_config("user.name", "A", cwd=repo)
    git.set_config("user.email", "a@example.org", cwd=repo)
    assert git.get_config("user.name", cwd=repo) == "A" and git.get_config("no.such", cwd=repo) is None
    files.write("repo/f", "1\n")
    assert git.status(cwd=repo).has_untracked
    git.add(all=True, cwd=repo)
    git.commit("first", cwd=repo)
    status = git.status(cwd=repo)
    assert status.is_clean and status.branch == "main"
    git.create_branch("topic", cwd=repo)
    assert {b.name for b in git.branches(cwd=repo)} == {"main", "topic"}
    git.checkout_branch("main", cwd=repo)
    git.delete_branch("topic", cwd=repo)
    files.write("repo/f", "2\n")
    git.restore(["f"], worktree=True, cwd=repo)
    assert files.read("repo/f") == "1\n"
    files.write("repo/f", "3\n")
    git.add(["f"], cwd=repo)
    git.reset(mode="hard", cwd=repo)
    assert files.read("repo/f") == "1\n"
    git.init("bare", bare=True)
    where = run("cd bare && pwd").stdout.strip()
    git.remote_add("origin", where, cwd=repo)
    assert git.remote_get(cwd=repo) == where and git.remote_get("none", cwd=repo) is None
    git.push("origin", "main", set_upstream=True, cwd=repo)
    git.clone(where, "clone", branch="main")
    assert files.read("clone/f") == "1\n"
    git.pull(cwd="clone")
    git.configure_user("B", "b@example.org")
    assert git.get_config("user.name", scope="global") == "B"
    git.dangerously_authenticate("u", "p", host="example.org")
    run("rm -rf repo bare clone ~/.git-credentials ~/.gitconfig")


def test_git_errors(git):
    with pytest.raises(Exception) as caught:
        git.status(cwd="/tmp")
    assert type(caught.value).__name__ == "GitCommandError" and not isinstance(caught.value, WrennError)


# The rest of the client


def test_client(flavor):
    client = wrenn.AsyncWrennClient() if flavor.loop else wrenn.WrennClient()
    with flavor.entered(client):
        made = flavor.call(client.capsules.create(memory_mb=256))
        wait_for(lambda: flavor.call(client.capsules.get(made.id)).status == "running")
        flavor.call(client.capsules.ping(made.id))
        assert made.id in [c.id for c in flavor.call(client.capsules.list())]
        flavor.call(client.capsules.destroy(made.id))
        assert flavor.call(client.capsules.get(made.id)).status == "stopped"


def test_old_names_still_work():
    with pytest.warns((DeprecationWarning, FutureWarning)):
        sandbox = wrenn.Sandbox
    assert issubclass(sandbox, wrenn.Capsule)
