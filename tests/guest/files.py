# SPDX-License-Identifier: LGPL-2.1-or-later
"""/files of the agent (docs/PROTOCOLS.md §3, api.md §2.18-2.25)."""

import base64
import io
import json
import os
import tarfile

import guestrig
from suite import equal, test, wait_for


def fresh(t):
    """A new empty directory."""
    t.n_directories = getattr(t, "n_directories", 0) + 1
    path = f"{t.scratch}/files-{t.n_directories}"
    equal(t.client.file("POST", "/mkdir", path=path).status, 200)
    return path


def shell(t, script, **spec):
    r = t.client.run("sh", "-c", script, timeout=120, **spec)
    assert r.code == 0, (script, r.code, r.stderr)
    return r.stdout


def put(t, path, body=b"", **query):
    return answer(t.client.file("PUT", "", body, path=path, **query))


def get(t, path, timeout=60, **query):
    return answer(t.client.file("GET", "", path=path, timeout=timeout, **query))


def post(t, verb, **query):
    return answer(t.client.file("POST", verb, timeout=120, **query))


def answer(st):
    """(status, body): the code for an error, the object or bytes else."""
    data = bytes(st.data)
    if st.status >= 400:
        return st.status, json.loads(data)["error"]["code"]
    if st.headers.get(b"content-type") == b"application/json":
        return st.status, json.loads(data)
    return st.status, data


def listed(t, path, timeout=60, **query):
    st = t.client.file("GET", "/list", path=path, timeout=timeout, **query)
    assert st.status == 200 and not st.reset, (st.status, st.reset, bytes(st.data))
    return [json.loads(line) for line in bytes(st.data).splitlines()]


@test("detached", "guest")
def files_written_and_read(t):
    d = fresh(t)
    equal(put(t, f"{d}/deep/er/file", b"hello\n"), (204, b""))
    equal(get(t, f"{d}/deep/er/file"), (200, b"hello\n"))
    equal(get(t, f"{d}/deep/er/file", offset=1, length=3), (200, b"ell"))
    equal(get(t, f"{d}/deep/er/file", offset=100), (200, b""))
    equal(get(t, f"{d}/deep/er/file", length=0), (200, b""))
    equal(put(t, f"{d}/empty"), (204, b""))
    equal(get(t, f"{d}/empty"), (200, b""))
    body = os.urandom(3_000_001)
    equal(put(t, f"{d}/large", body), (204, b""))
    status, back = get(t, f"{d}/large")
    equal((status, back == body), (200, True))
    equal(get(t, f"{d}/large", offset=2_999_990)[1], body[2_999_990:])
    equal(sorted(e["name"] for e in listed(t, d)), ["deep", "empty", "large"])


@test("detached", "guest")
def files_modes_and_places(t):
    d = fresh(t)
    put(t, f"{d}/new", b"1", mode="0755")
    put(t, f"{d}/plain", b"1")
    equal(shell(t, f"cd {d}; stat -c %a new plain").split(), [b"755", b"644"])
    inode = shell(t, f"chmod 600 {d}/new; stat -c %i {d}/new")
    put(t, f"{d}/new", b"shorter than nothing", mode="0777")
    equal(shell(t, f"cd {d}; stat -c '%i %a' new; cat new"), inode.strip() + b" 600\nshorter than nothing")
    put(t, f"{d}/new", b"x")
    equal(get(t, f"{d}/new"), (200, b"x"))
    # through links, also to what is not there
    shell(t, f"cd {d}; ln -s new link; ln -s gone dangling; ln -s no/where lost; ln -s loop loop; mkdir dir; ln -s dir dirlink")
    equal(put(t, f"{d}/link", b"by link")[0], 204)
    equal(get(t, f"{d}/new"), (200, b"by link"))
    equal(put(t, f"{d}/dangling", b"made")[0], 204)
    equal(get(t, f"{d}/gone"), (200, b"made"))
    equal(put(t, f"{d}/dirlink/x", b"inside")[0], 204)
    equal(get(t, f"{d}/dir/x"), (200, b"inside"))
    equal(shell(t, f"readlink {d}/link {d}/dangling {d}/dirlink").split(), [b"new", b"gone", b"dir"])
    equal(put(t, f"{d}/lost", b"")[0], 404)
    equal(put(t, f"{d}/loop", b""), (400, "invalid-args"))


@test("detached", "guest")
def files_refused(t):
    d = fresh(t)
    put(t, f"{d}/file", b"x")
    shell(t, f"cd {d}; mkdir dir; mkfifo fifo")
    for path in (f"{d}/dir", f"{d}/fifo", "/dev/zero", "/dev/null", "/"):
        equal((path, get(t, path)), (path, (400, "invalid-args")))
        equal((path, put(t, path, b"x")), (path, (400, "invalid-args")))
    for path in (f"{d}/none", f"{d}/none/x", f"{d}/file/x"):
        equal((path, get(t, path)), (path, (404, "not-found")))
        equal((path, answer(t.client.file("GET", "/stat", path=path))), (path, (404, "not-found")))
        equal((path, answer(t.client.file("GET", "/list", path=path))), (path, (404, "not-found")))
        equal((path, post(t, "/remove", path=path)), (path, (404, "not-found")))
        equal((path, post(t, "/rename", from_=path, to=f"{d}/y")), (path, (404, "not-found")))
    equal(put(t, f"{d}/file/x", b"x"), (400, "invalid-args"))
    equal(put(t, f"{d}/newdir/", b"x"), (400, "invalid-args"))
    equal(put(t, f"{d}/{'n' * 256}", b"x"), (400, "invalid-args"))
    equal(answer(t.client.file("GET", "/list", path=f"{d}/file")), (400, "invalid-args"))
    for path in ("", "~other/x", "~~", "/" + "x" * 4096):
        equal((path, get(t, path)), (path, (400, "invalid-args")))
    c = t.client
    for method, path in (("GET", "/files?path=%00"), ("GET", "/files?path=/a%0"), ("GET", "/files?path=%zz"), ("GET", "/files"),
                         ("GET", "/files?path=/etc/passwd&offset=x"), ("GET", "/files?path=/etc/passwd&offset=-1"),
                         ("GET", "/files?path=/etc/passwd&offset=18446744073709551615"), ("PUT", f"/files?path={d}/y&mode=8"),
                         ("PUT", f"/files?path={d}/y&mode=17777"), ("PUT", f"/files?path={d}/y&mode="),
                         ("GET", "/files/list?path=/&depth=65"), ("GET", "/files/list?path=/&depth=x"),
                         ("GET", "/files?path=/etc/passwd&user=no-such-user"), ("POST", "/files/rename?from=/a&to=/b&overwrite=2"),
                         ("POST", "/files/rename?to=/b")):
        equal((path, c.json(method, path)[0]), (path, 400))
    for method, path, status in (("POST", "/files?path=/x", 405), ("GET", "/files/remove?path=/x", 405), ("GET", "/files/other", 404)):
        equal((path, c.json(method, path)[0]), (path, status))
    equal(sorted(e["name"] for e in listed(t, d)), ["dir", "fifo", "file"])


@test("detached", "guest")
def files_entries(t):
    d = fresh(t)
    shell(t, f"""cd {d}; mkdir dir; printf 12345 >file; chmod 4750 file; touch -d @1234567890 file; ln -s file to-file; ln -s dir to-dir
        ln -s gone dangling; touch 'a\nb' '"q"' 'é'; printf x >"$(printf 'bad\\377')" """)
    found = {e["name"]: e for e in listed(t, d)}
    file = found["file"]
    equal((file["path"], file["type"], file["size"], file["mode"], file["permissions"], file["owner"], file["group"], file["modified_at"]),
          (f"{d}/file", "file", 5, 0o4750, "-rwxr-x---", "root", "root", 1234567890))
    assert "symlink_target" not in file and "path_base64" not in file
    link = found["to-file"]
    equal((link["type"], link["mode"], link["permissions"], link["size"], link["symlink_target"]),
          ("file", 0o4750, "Lrwxrwxrwx", 4, f"{d}/file"))
    equal((found["to-dir"]["type"], found["to-dir"]["symlink_target"]), ("directory", f"{d}/dir"))
    equal((found["dangling"]["type"], found["dangling"]["symlink_target"]), ("symlink", f"{d}/dangling"))
    equal((found["dir"]["type"], found["dir"]["permissions"]), ("directory", "drwxr-xr-x"))
    bad = found["bad\ufffd"]
    equal(base64.b64decode(bad["path_base64"]), d.encode() + b"/bad\xff")
    equal(get(t, d.encode() + b"/bad\xff"), (200, b"x"))
    equal(set(found), {"dir", "file", "to-file", "to-dir", "dangling", "a\nb", '"q"', "é", "bad\ufffd"})
    equal(answer(t.client.file("GET", "/stat", path=f"{d}/file"))[1], file)
    equal(answer(t.client.file("GET", "/stat", path="/"))[1]["name"], "/")
    null = answer(t.client.file("GET", "/stat", path="/dev/null"))[1]
    equal((null["type"], null["permissions"][0]), ("file", "c"))
    shell(t, f"chown 54321:54322 {d}/file")
    e = answer(t.client.file("GET", "/stat", path=f"{d}/file"))[1]
    equal((e["owner"], e["group"]), ("54321", "54322"))


@test("detached", "guest")
def files_walks(t):
    d = fresh(t)
    shell(t, f"cd {d}; mkdir -p a/b/c; touch a/1 a/b/2 a/b/c/3; ln -s a link")
    equal(sorted(e["path"] for e in listed(t, d)), [f"{d}/a", f"{d}/link"])
    equal(listed(t, d, depth=0), listed(t, d, depth=1))
    two = [e["path"] for e in listed(t, d, depth=2)]
    equal(sorted(two), [f"{d}/{p}" for p in ("a", "a/1", "a/b", "link")])
    assert two.index(f"{d}/a") < two.index(f"{d}/a/1")  # a directory before what is in it
    equal(sorted(e["path"] for e in listed(t, f"{d}/", depth=64)),
          [f"{d}/{p}" for p in ("a", "a/1", "a/b", "a/b/2", "a/b/c", "a/b/c/3", "link")])
    equal(sorted(e["path"] for e in listed(t, f"{d}/link", depth=2)), [f"{d}/link/{p}" for p in ("1", "b", "b/2", "b/c")])
    equal(listed(t, f"{d}/a/b/c/../c/../../b/c")[0]["path"], f"{d}/a/b/c/../c/../../b/c/3")
    shell(t, f"mkdir {d}/void")
    equal(listed(t, f"{d}/void"), [])
    equal([e["path"] for e in listed(t, "/") if e["name"] == "etc"], ["/etc"])


@test("detached", "guest")
def files_made_moved_removed(t):
    d = fresh(t)
    status, e = post(t, "/mkdir", path=f"{d}/x/y/z")
    equal((status, e["name"], e["type"], e["path"], e["mode"]), (200, "z", "directory", f"{d}/x/y/z", 0o755))
    equal(post(t, "/mkdir", path=f"{d}/x/y"), (409, "already-exists"))
    equal(post(t, "/mkdir", path="/"), (409, "already-exists"))
    put(t, f"{d}/file", b"1")
    equal(post(t, "/mkdir", path=f"{d}/file"), (400, "invalid-args"))
    equal(post(t, "/mkdir", path=f"{d}/file/x"), (400, "invalid-args"))
    shell(t, f"ln -s nowhere {d}/dangling; ln -s x {d}/link; ln -s / {d}/root")
    equal(post(t, "/mkdir", path=f"{d}/dangling"), (400, "invalid-args"))
    equal(post(t, "/mkdir", path=f"{d}/link"), (409, "already-exists"))

    equal(post(t, "/rename", from_=f"{d}/file", to=f"{d}/moved")[1]["path"], f"{d}/moved")
    put(t, f"{d}/other", b"2")
    equal(post(t, "/rename", from_=f"{d}/moved", to=f"{d}/other"), (409, "already-exists"))
    equal(post(t, "/rename", from_=f"{d}/moved", to=f"{d}/other", overwrite=1)[0], 200)
    equal(get(t, f"{d}/other"), (200, b"1"))
    equal(post(t, "/rename", from_=f"{d}/x", to=f"{d}/x/y/in")[0], 400)
    equal(post(t, "/rename", from_=f"{d}/other", to=f"{d}/x", overwrite=1), (400, "invalid-args"))
    equal(post(t, "/rename", from_=f"{d}/other", to=f"{d}/none/x"), (404, "not-found"))
    equal(post(t, "/rename", from_=f"{d}/other", to="/proc/x")[0], 400)

    for path in ("/", "//", "/.", f"{d}/..", f"{d}/."):
        equal((path, post(t, "/remove", path=path)), (path, (400, "invalid-args")))
    equal(post(t, "/remove", path=f"{d}/root/"), (204, b""))  # the link, not what it points at
    equal(post(t, "/remove", path=f"{d}/link"), (204, b""))
    equal(post(t, "/remove", path=f"{d}/dangling"), (204, b""))
    equal(sorted(e["name"] for e in listed(t, d)), ["other", "x"])
    shell(t, f"cd {d}/x; p=.; for i in $(seq 60); do p=$p/d; done; mkdir -p $p; ln -s {d}/other $p/link; touch $p/file")
    equal(post(t, "/remove", path=f"{d}/x"), (204, b""))
    equal([e["name"] for e in listed(t, d)], ["other"])


@test("detached", "guest")
def files_of_the_kernel(t):
    """They have no size; reading ends at their end."""
    status, text = get(t, "/proc/self/status")
    assert status == 200 and text.startswith(b"Name:\t"), text[:40]
    assert b"root:" in get(t, "/etc/passwd")[1]
    assert len(get(t, "/proc/kallsyms")[1]) > 100_000
    equal(get(t, "/proc/sys/kernel/ostype"), (200, b"Linux\n"))
    equal(get(t, "/proc/sys/kernel/ostype", offset=2), (200, b"nux\n"))


@test("detached", "guest")
def half_an_upload(t):
    """Of a new file nothing stays; a file that was there holds what has come."""
    d, c = fresh(t), t.client
    put(t, f"{d}/old", b"before")
    for name in ("new", "old"):
        st = c.request("PUT", guestrig.file_path("", path=f"{d}/{name}"), b"half", end=False)
        equal(get(t, "/etc/passwd")[0], 200)  # it has come by now
        if name == "new":
            assert [e["size"] for e in listed(t, d) if e["name"].startswith(".wrenn-")] == [4]
        c.cancel(st)
    equal(sorted(e["name"] for e in listed(t, d)), ["old"])
    equal(get(t, f"{d}/old"), (200, b"half"))


@test("guest")
def files_of_a_user(t):
    shell(t, "rm -rf /home/user/* /root/x")
    equal(put(t, "dir/file", b"1", user="user"), (204, b""))
    equal(put(t, "~/file", b"1", user="user"), (204, b""))
    equal(post(t, "/mkdir", path="~/a/b", user="user")[1]["owner"], "user")
    equal(shell(t, "cd /home/user; stat -c '%n %U %G' dir dir/file file a a/b").split(b"\n")[:-1],
          [b"dir user user", b"dir/file user user", b"file user user", b"a user user", b"a/b user user"])
    shell(t, "chown root:root /home/user/file; chmod 600 /home/user/file")
    equal(put(t, "file", b"2", user="user"), (204, b""))
    equal(shell(t, "stat -c '%a %U %G' /home/user/file"), b"600 user user\n")
    equal(get(t, "~", user="user"), (400, "invalid-args"))
    assert {"dir", "file", "a"} <= {e["name"] for e in listed(t, "~", user="user")}
    equal(put(t, "/root/x", b"by root's rights", user="user"), (204, b""))
    equal(get(t, "x"), (200, b"by root's rights"))
    equal(post(t, "/remove", path="~/dir", user="user"), (204, b""))
    equal(post(t, "/remove", path="/root/x", user="user"), (204, b""))


# archives


def tar_of(*entries):
    """entries: (name, bytes) of a file, (name, None) of a directory, or TarInfo with contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info is not name and data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def special(name, kind, **members):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in members.items():
        setattr(info, key, value)
    return info, b""


def untar(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as tar:
        return {m.name: (m, tar.extractfile(m).read() if m.isfile() and m.size < 1 << 20 else None) for m in tar.getmembers()}


def untar_sizes(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {m.name: m.size for m in tar.getmembers()}


def tar_get(t, path, **query):
    return answer(t.client.file("GET", "/tar", path=path, timeout=120, **query))


def tar_put(t, path, body, **query):
    return answer(t.client.file("PUT", "/tar", body, path=path, timeout=120, **query))


LISTING = "find . -printf '%P|%y|%m|%l|%n|%Ts\\n' | sort && find . -type f -exec sha256sum {} + | sort"


@test("detached", "guest")
def tar_out_and_in(t):
    d = fresh(t)
    shell(t, f"""cd {d}; mkdir -p tree/dir/deep tree/shut; cd tree; head -c 300000 /dev/urandom >large; echo x >dir/deep/file; ln large hard
        ln -s dir/deep link; ln -s gone dangling; mkfifo fifo; : >empty; truncate -s 60M holes; echo z >>holes; chmod 4711 dir/deep/file
        n=$(printf '%0200d' 1); echo l >"$n"; printf b >"$(printf 'bad\\377')"; touch -d @1234567890 dir/deep/file dir; chmod 500 shut""")
    status, data = tar_get(t, f"{d}/tree")
    equal(status, 200)
    assert len(data) < 1 << 20, len(data)  # holes are not sent
    found = untar(data)
    equal(set(found), {".", "./dir", "./dir/deep", "./dir/deep/file", "./shut", "./large", "./hard", "./link", "./dangling", "./fifo",
                       "./empty", "./holes", "./bad\udcff", "./" + "1".zfill(200)})
    equal((found["./dir/deep/file"][0].mode, found["./dir/deep/file"][0].mtime, found["./dir/deep/file"][1]), (0o4711, 1234567890, b"x\n"))
    equal(found["./holes"][0].size, (60 << 20) + 2)
    equal(tar_put(t, f"{d}/copy/of", data, owners="keep"), (204, b""))
    equal(shell(t, f"cd {d}/copy/of; {LISTING}"), shell(t, f"cd {d}/tree; {LISTING}"))
    assert int(shell(t, f"stat -c %b {d}/copy/of/holes")) < 1000

    status, data = tar_get(t, f"{d}/tree/link/file")
    found = untar(data)
    equal((set(found), found["file"][1]), ({"file"}, b"x\n"))
    equal(tar_put(t, f"{d}/one", data), (204, b""))
    equal(get(t, f"{d}/one/file"), (200, b"x\n"))
    equal(shell(t, f"stat -c %a {d}/one/file"), b"711\n")
    equal(set(untar(tar_get(t, f"{d}/tree/shut")[1])), {"."})
    equal(tar_get(t, f"{d}/none"), (404, "not-found"))
    equal(tar_get(t, f"{d}/tree/fifo"), (400, "invalid-args"))
    equal(tar_get(t, "/dev/null"), (400, "invalid-args"))


@test("detached", "guest")
def tar_refused(t):
    d = fresh(t)
    put(t, f"{d}/victim", b"safe")
    shell(t, f"mkdir {d}/in; ln -s .. {d}/in/out; ln -s {d} {d}/in/abs; ln -s sub {d}/in/inside; mkdir {d}/in/sub; echo f >{d}/file")
    for body in (b"", b"x", os.urandom(5000), tar_of(("../victim", b"bad")), tar_of(("/victim", b"bad")), tar_of(("a/../../victim", b"bad")),
                 tar_of(("out/victim", b"bad")), tar_of(("abs/victim", b"bad")), tar_of(special("x", tarfile.LNKTYPE, linkname="../victim")),
                 tar_of(special("x", tarfile.SYMTYPE, linkname=".."), ("x/victim", b"bad")),
                 tar_of(special("x", tarfile.LNKTYPE, linkname="out/victim"), ("x", b"bad"))):
        equal((body[:20], tar_put(t, f"{d}/in", body)), (body[:20], (400, "invalid-args")))
        equal(get(t, f"{d}/victim"), (200, b"safe"))
    whole = tar_of(("a", b"1" * 5000), ("b", b"2" * 5000))
    equal(tar_put(t, f"{d}/cut", whole[:7000]), (400, "invalid-args"))
    equal(tar_put(t, f"{d}/file", whole), (400, "invalid-args"))
    equal(tar_put(t, f"{d}/in", whole, owners="other"), (400, "invalid-args"))
    # not refused: links within, devices (left out), what comes behind the end
    equal(tar_put(t, f"{d}/in", tar_of(("inside/x", b"1"), special("null", tarfile.CHRTYPE, devmajor=1, devminor=3)) + b"x" * 100_000), (204, b""))
    equal(get(t, f"{d}/in/sub/x"), (200, b"1"))
    equal(answer(t.client.file("GET", "/stat", path=f"{d}/in/null")), (404, "not-found"))


@test("guest")
def tar_owners(t):
    shell(t, "rm -rf /home/user/* /opt/tar; mkdir -m 750 /opt/tar")
    data = tar_of(("./", None), ("./dir", None), special("./dir/x", tarfile.REGTYPE, uid=1001, gid=44, mode=0o6755))
    equal(tar_put(t, "~/new", data, user="user")[0], 204)
    equal(tar_put(t, "/opt/tar", data, user="user")[0], 204)
    equal(tar_put(t, "/opt/kept", data, owners="keep")[0], 204)
    equal(shell(t, "stat -c '%a %U %G %n' /home/user/new /home/user/new/dir/x /opt/tar /opt/tar/dir /opt/kept/dir /opt/kept/dir/x").decode()
          .splitlines(),
          ["755 user user /home/user/new", "755 user user /home/user/new/dir/x", "750 root root /opt/tar", "755 user user /opt/tar/dir",
           "755 root root /opt/kept/dir", "6755 lost video /opt/kept/dir/x"])
    equal({e["name"] for e in listed(t, "~/new/dir", user="user")}, {"x"})


# nobody waits for others


@test("detached", "guest")
def slow_readers_hold_nobody_up(t):
    """Whoever takes nothing is not sent more than his window, and what works for him waits."""
    d, c = fresh(t), t.client
    shell(t, f"mkdir {d}/many; cd {d}/many; seq 3000 | while read i; do : >$i-$(printf '%0200d' 1); done; head -c 4000000 /dev/zero >{d}/large")
    held = [c.request("GET", guestrig.file_path(verb, path=path, **query))
            for verb, path, query in (("", f"{d}/large", {}), ("/tar", f"{d}/large", {}), ("/tar", d, {}), ("/list", f"{d}/many", {}))]
    for st in held:
        st.hold = True
    for _ in range(20):
        equal(get(t, "/proc/sys/kernel/ostype"), (200, b"Linux\n"))
        equal(answer(c.file("GET", "/stat", path=d))[0], 200)
        equal(c.run("true", "x", timeout=60).code, 0)
    equal(len(listed(t, f"{d}/many")), 3000)
    for st in held:
        assert 0 < len(st.data) <= 262144 and not st.ended, (len(st.data), st.ended)
    assert workers(t) >= 2
    st = held.pop()
    st.hold = False
    c.release(st)
    c.wait(st, timeout=120)
    equal((st.data.count(b"\n"), st.reset), (3000, None))
    for st in held:
        c.cancel(st)
    wait_for(lambda: workers(t) == 0)  # a reset ends the work
    equal(post(t, "/remove", path=f"{d}/many"), (204, b""))


def workers(t):
    agent = get(t, "/proc/self/stat")[1].split()[0]
    rows = t.client.run("ps", "-eo", "ppid,comm", timeout=60).stdout.splitlines()
    return sum(row.split() == [agent, b"wrenn-files"] for row in rows)


@test("detached", "guest")
def uploads_that_stop(t):
    """An archive whose body stops half way is unpacked no further, its worker goes with its stream."""
    d, c = fresh(t), t.client
    body = tar_of(*[(f"f{i}", b"x" * 10_000) for i in range(20)])
    st = c.request("PUT", guestrig.file_path("/tar", path=d), body[: len(body) // 2], end=False)
    wait_for(lambda: len(listed(t, d)) >= 8)
    equal(workers(t), 1)
    c.cancel(st)
    wait_for(lambda: workers(t) == 0)
    assert 8 <= len(listed(t, d)) < 12


@test("detached", "guest")
def an_early_no(t):
    """A refused upload is answered at once and its body dropped, however long it is."""
    c = t.client
    for verb, path in (("", "/"), ("/tar", "/etc/passwd")):
        st = c.request("PUT", guestrig.file_path(verb, path=path), b"", end=False)
        c.send(st, b"x" * 700_000)
        wait_for(lambda st=st: st.status or not c.pump(1))
        c.send(st, b"x" * 700_000, end=True)
        c.wait(st, timeout=60)
        equal(answer(st), (400, "invalid-args"))


@test("guest")
def memory_stays_bounded(t):
    def resident():
        return int(shell(t, "grep VmRSS /proc/1/status").split()[1])

    shell(t, "truncate -s 200M /var/tmp/zeros")
    get(t, "/etc/passwd")
    before = resident()
    equal(len(get(t, "/var/tmp/zeros", timeout=300)[1]), 200 << 20)
    equal(put(t, "/var/tmp/up", bytes(60 << 20), timeout=300)[0], 204)
    after = resident()
    assert after - before < 1500, (before, after)  # KiB
    shell(t, "rm /var/tmp/zeros /var/tmp/up")


@test("guest")
def a_full_disk(t):
    shell(t, "mkdir /opt/small; mount -t tmpfs -o size=4M none /opt/small")
    equal(put(t, "/opt/small/new", bytes(6 << 20), timeout=120), (507, "agent-no-space"))
    equal(listed(t, "/opt/small"), [])
    equal(put(t, "/opt/small/new", bytes(3 << 20))[0], 204)
    equal(put(t, "/opt/small/new", bytes(6 << 20), timeout=120), (507, "agent-no-space"))
    equal([e["name"] for e in listed(t, "/opt/small")], ["new"])  # in place: what came before stays
    equal(put(t, "/opt/small/new", b"1")[0], 204)
    equal(tar_put(t, "/opt/small/dir", tar_of(("a", bytes(2 << 20)), ("b", bytes(3 << 20)))), (507, "agent-no-space"))
    equal(post(t, "/remove", path="/opt/small"), (502, "agent"))  # a mount
    shell(t, "umount /opt/small")
    equal(post(t, "/remove", path="/opt/small"), (204, b""))

    # the capsule's own disk, by one that fills it and by us
    shell(t, "mkdir /var/tmp/fill; for n in 512M 256M 128M 64M 32M 16M 8M 4M 2M 1M 512K 256K 128K 64K 32K 16K 8K 4K 4K; do "
             "fallocate -l $n /var/tmp/fill/$n 2>/dev/null || :; done")
    status, code = put(t, "/var/tmp/more", os.urandom(3 << 20), timeout=120)
    equal((status, code), (507, "agent-no-space"))
    equal(t.client.run("true", "x", timeout=60).code, 0)
    equal(post(t, "/remove", path="/var/tmp/fill"), (204, b""))
    equal(put(t, "/var/tmp/more", b"1"), (204, b""))


@test("guest")
def beyond_four_gigabytes(t):
    shell(t, "cd /var/tmp; truncate -s 4402341478 big; printf end >>big")  # 4.1 GiB
    equal(answer(t.client.file("GET", "/stat", path="/var/tmp/big"))[1]["size"], 4402341481)
    equal(get(t, "/var/tmp/big", offset=4402341470), (200, bytes(8) + b"end"))
    equal(get(t, "/var/tmp/big", offset=4294967290, length=12), (200, bytes(12)))
    packed = tar_get(t, "/var/tmp/big")[1]
    assert len(packed) < 1 << 20, len(packed)
    equal(untar_sizes(packed), {"big": 4402341481})
    shell(t, "rm /var/tmp/big")


@test("guest")
def upper_and_lower_are_removed(t):
    """Directories of the template, deeper than remove_tree_at() opens at a time."""
    shell(t, "test -f /opt/lower/1/2/3/file")
    equal(post(t, "/remove", path="/opt/lower"), (204, b""))
    equal(answer(t.client.file("GET", "/stat", path="/opt/lower")), (404, "not-found"))
