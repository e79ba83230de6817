#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/openapi.yaml against the running service: every route, method, member of a request, member of an answer and error code.

The service is wrenn-restd before tests/fake/fake-wrennd. What is documented must be served and the other way round.
"""
import json
import os
import re
import sys

import jsonschema
import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
import limits  # noqa: E402
import restd  # noqa: E402
from wrenntest import check, equal, main, test  # noqa: E402

with open(os.path.join(restd.SOURCE, "docs/openapi.yaml"), encoding="utf-8") as source:
    TEXT = source.read()
DOC = yaml.safe_load(TEXT)
METHODS = ("get", "post", "put", "patch", "delete")
NOBODY = "cl-0000000000000000000000000"


def resolve(part):
    """What a reference points to, with what stands beside it."""
    if "$ref" not in part:
        return part
    node = DOC
    for name in part["$ref"].removeprefix("#/").split("/"):
        node = node[name]
    return {**resolve(node), **{k: v for k, v in part.items() if k != "$ref"}}


def validator(schema):
    return jsonschema.Draft202012Validator({**schema, "components": DOC["components"]},
                                           format_checker=jsonschema.FormatChecker())


def valid(schema, value, where):
    wrong = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator(schema).iter_errors(value)]
    check(not wrong, f"{where}: {wrong[:3]} in {str(value)[:300]}")


def operations():
    """(METHOD, path, operation)"""
    for path, item in DOC["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def body_schema(operation, kind="application/json"):
    content = operation.get("requestBody", {}).get("content", {})
    return resolve(content[kind]["schema"]) if kind in content else None


def answer_schema(operation, status, kind="application/json"):
    return resolve(operation["responses"][str(status)])["content"][kind]["schema"]


def fill(path, capsule="", selector=""):
    return path.replace("{id}", capsule).replace("{selector}", str(selector))


def table():
    """The routes of src/rest/routes.c."""
    with open(os.path.join(restd.SOURCE, "src/rest/routes.c"), encoding="utf-8") as f:
        return {(method, pattern) for method, pattern in re.findall(r'\{ HTTP_METHOD_(\w+), "([^"]+)"', f.read())}


@test
def routes():
    """the table of routes and the document name the same ones"""
    equal({(method, re.sub(r"\{\w+\}", "{}", path)) for method, path, _ in operations()}, table())


@test
def document():
    """it is served as it stands, and says of each route what it needs"""
    with restd.Restd() as r:
        for prefix in ("", "/api"):
            status, headers, body = r.request("GET", prefix + "/openapi.yaml", key=None)
            equal((status, headers["content-type"]), (200, "application/yaml"))
            check(body.decode() == TEXT, "another document is served")
        status, headers, body = r.request("GET", "/docs", key=None)
        equal((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        check(b"Create a capsule" in body and b"src=" not in body and b"http-equiv" not in body, "the page loads something")
    for reference in re.findall(r'#/(components/\w+/\w+)', TEXT):
        resolve({"$ref": "#/" + reference})
    for name, schema in DOC["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        check(TEXT.count(f"#/components/schemas/{name}\"") > 0, f"{name} is used nowhere")
    for method, path, operation in operations():
        check(operation["summary"], f"{method} {path}")
        named = {p["name"] for p in map(resolve, DOC["paths"][path].get("parameters", [])) if p["in"] == "path"}
        equal(named, set(re.findall(r"\{(\w+)\}", path)), f"parameters of {path}")


@test
def methods():
    """405 and Allow of each path are what the document says; open routes need no key, others do"""
    with restd.Restd() as r:
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]
        for path, item in DOC["paths"].items():
            there = {m.upper() for m in METHODS if m in item}
            if "GET" in there and "x-websocket" not in item["get"]:
                there.add("HEAD")
            for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - there):
                status, headers, body = r.request(method, fill(path, capsule, 1))
                equal((status, body["error"]["code"]), (405, "invalid_request"), f"{method} {path}")
                equal(set(headers["allow"].split(", ")), there, f"Allow of {path}")
        for method, path, operation in operations():
            if operation.get("security") == []:
                equal(r.request(method, path, key=None)[0], 200, path)
            else:
                status, _, body = r.request(method, fill(path, capsule, 1), key=None)
                equal((status, body["error"]["code"]), (401, "unauthorized"), f"{method} {path}")
                valid({"$ref": "#/components/schemas/Error"}, body, path)


def needed(schema):
    """The members that must be there; of alternatives the first."""
    choices = [part["oneOf"] for part in [schema, *schema.get("allOf", [])] if "oneOf" in part]
    return schema.get("required", []) + [choice[0]["required"][0] for choice in choices]


def good_values(schema):
    """Values a member takes, with both ends of its range."""
    schema = resolve(schema)
    kind = schema.get("type")
    if "const" in schema:
        return [schema["const"]]
    if kind == "integer":
        return [v for v in (schema.get("minimum"), schema.get("maximum")) if v is not None]
    if kind == "boolean":
        return [True, False]
    if schema.get("contentEncoding") == "base64":
        return ["L3RtcA=="]
    if kind == "string":
        return ["a" * n for n in {max(1, schema.get("minLength", 1)), schema.get("maxLength", 1)}]
    if kind == "array":
        return [[], ["a"] * schema["maxItems"]]
    return [{}, {f"k{i}": "v" for i in range(schema["maxProperties"])}]


def bad_values(schema):
    """Of each other type, and one beyond each end."""
    schema = resolve(schema)
    kind = schema.get("type")
    types = {"integer": 1, "boolean": True, "string": "a", "array": ["a"], "object": {"k": "v"}}
    yield from (v for name, v in types.items() if name != kind)
    if kind == "integer":
        yield 1.5
        yield from (schema[end] + step for end, step in (("minimum", -1), ("maximum", 1)) if end in schema)
    elif kind == "string":
        if "maxLength" in schema:
            yield "a" * (schema["maxLength"] + 1)
        if schema.get("minLength"):
            yield ""
    elif kind == "array":
        yield from (["a"] * (schema["maxItems"] + 1), [1])
    elif kind == "object":
        yield from ({f"k{i}": "v" for i in range(schema["maxProperties"] + 1)}, {"k": 1})


def refuses(schema, value):
    """Whether the document refuses it; 0 stands for a default where it says so."""
    return not (value == 0 and value is not False and "0, like none" in describe(schema)) and not validator(schema).is_valid(value)


def describe(schema):
    text = resolve(schema).get("description", "")
    return "0, like none" if text == "As vcpus." else text


# member: a value that goes with it where the others' defaults do not do
USUAL = {"cmd": "true", "path": "/tmp", "from": "/tmp/a", "to": "/tmp/b"}


@test
def requests():
    """each documented member of a body is taken, and refused with 400 where it is of another type or out of its range"""
    n = 0
    with restd.Restd() as r:
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]
        for method, path, operation in operations():
            schema = body_schema(operation)
            if not schema:
                continue
            for name, member in schema["properties"].items():
                usual = {name: USUAL[name] for name in needed(schema)}
                usual.pop(name.removesuffix("_base64"), None)      # the one or the other
                for value in good_values(member):
                    if (path, name) == ("/v1/capsules/{id}/exec", "cmd") and len(value) > 1:
                        value = "true #" + value[7:]    # with its NUL it counts as much
                    status, _, answer = r.request(method, fill(path, capsule), {**usual, name: value})
                    check(status != 400 or f"{name}:" not in str(answer), f"{path} {name}={str(value)[:40]}: {str(answer)[:200]}")
                    n += 1
                for value in bad_values(member):
                    if not refuses(member, value):
                        continue
                    status, _, answer = r.request(method, fill(path, capsule), {**usual, name: value})
                    equal((status, answer["error"]["code"]) if isinstance(answer, dict) and "error" in answer else status,
                          (400, "invalid_request"), f"{path} {name}={str(value)[:40]}")
                    valid({"$ref": "#/components/schemas/Error"}, answer, path)
                    n += 1
            usual = {name: USUAL[name] for name in needed(schema)}
            for name in usual:
                status, _, answer = r.request(method, fill(path, capsule), {k: v for k, v in usual.items() if k != name})
                equal((status, answer["error"]["code"]), (400, "invalid_request"), f"{path} without {name}")
            for body in (b"", b"[]", b"{", b'"x"', b"\xff"):
                status, _, answer = r.request(method, fill(path, capsule), body)
                equal((status, answer["error"]["code"]), (400, "invalid_request"), f"{path} {body}")
            equal(r.request(method, fill(path, capsule), {**usual, "unknown": [1]})[0] == 400, False, f"{path}: unknown members")
    check(n > 100, f"only {n} cases")


@test
def bounds():
    """minimum, maximum and lengths of the document are those of src/basic/limits.def"""
    n = 0
    for row in (row for row in limits.table() if row.member):
        method, path = row.route.split(" ")
        member = resolve(body_schema(DOC["paths"][path][method.lower()])["properties"][row.member])
        if row.kind in ("number", "size", "time"):
            equal((member["minimum"], member["maximum"]), (-(-row.min // row.unit), row.max // row.unit), row.name)
        elif row.kind == "text":
            check(member["maxLength"] in (row.max, row.max - 1), row.name)
            equal(member.get("minLength", 0) > 0, row.min > 0 or row.member == "cmd", row.name)
        else:
            equal(member.get("maxItems", member.get("maxProperties")), row.max, row.name)
        n += 1
    check(n > 10, f"only {n} rows")


def expect(r, seen, method, path, status, body=None, key=restd.KEY, query="", headers=(), **names):
    """A request whose answer must be documented, and as documented. Notes status and code."""
    operation = DOC["paths"][path][method.lower()]
    got, told, answer = r.request(method, fill(path, **names) + query, body, key=key, headers=headers)
    where = f"{method} {path}"
    equal(got, status, f"{where}: {str(answer)[:300]}")
    check(str(status) in operation["responses"], f"{where}: {status} is not documented")
    response = resolve(operation["responses"][str(status)])
    if "content" not in response:
        equal(answer, b"", where)
        seen.add((method, path, str(status), None))
        return answer
    kind = told["content-type"].split(";")[0]
    check(kind in response["content"], f"{where}: {kind} is not documented")
    if kind == "application/json":
        valid(response["content"][kind]["schema"], answer, f"{where} {status}")
    code = answer["error"]["code"] if "x-codes" in response else None
    check(code is None or code in response["x-codes"], f"{where}: {code} is not documented for {status}")
    seen.add((method, path, str(status), code))
    return answer


CAPSULES, CAPSULE, EXEC = "/v1/capsules", "/v1/capsules/{id}", "/v1/capsules/{id}/exec"
PROCESSES, PROCESS = "/v1/capsules/{id}/processes", "/v1/capsules/{id}/processes/{selector}"


@test
def answers():
    """answers hold what is documented, no member more and none less, and each documented failure occurs"""
    seen = set()
    with restd.Restd() as r:
        def ok(*arguments, **more):
            return expect(r, seen, *arguments, **more)

        ok("GET", "/health", 200)
        ok("GET", "/v1/health", 200)
        ok("GET", "/openapi.yaml", 200)
        ok("GET", "/docs", 200)
        everything = {"template": "minimal", "vcpus": 2, "memory_mb": 256, "disk_size_mb": 1024, "timeout_sec": 60, "metadata": {"a": "b"}}
        capsule = ok("POST", CAPSULES, 201, everything)["id"]
        made = ok("GET", CAPSULE, 200, capsule=capsule)
        missing = set(DOC["components"]["schemas"]["Capsule"]["properties"]) - set(made)
        equal(missing, {"error_message"}, "members of a capsule that were never seen")
        equal({k: made[k] for k in everything if k != "metadata"}, {k: v for k, v in everything.items() if k != "metadata"})
        ok("GET", CAPSULES, 200)
        ok("POST", CAPSULES, 400, {"vcpus": 33})
        for mode, status in (("not-found", 404), ("no-capacity", 503), ("no-kvm", 503), ("no-space", 507)):
            r.set(create_mode=mode)
            ok("POST", CAPSULES, status, {})
        r.set(create_mode="error")
        ok("POST", CAPSULES, 502, {})
        failed = [i for i in r.control.Ids() if r.control.State(i) == "error"]
        check(ok("GET", CAPSULE, 200, capsule=failed[0])["error_message"], "error_message")
        r.set(create_mode="good")

        ok("POST", CAPSULE + "/ping", 204, capsule=capsule)
        ok("POST", EXEC, 200, {"cmd": "echo hello; echo there >&2"}, capsule=capsule)
        ok("POST", EXEC, 200, {"cmd": "printf '\\377'"}, capsule=capsule)
        ok("POST", EXEC, 200, {"cmd": "kill -9 $$"}, capsule=capsule)
        ok("POST", EXEC, 504, {"cmd": "sleep 60", "timeout_sec": 1}, capsule=capsule)
        ok("POST", EXEC, 400, {"cmd": "true", "cwd": "/nonesuch"}, capsule=capsule)
        ok("POST", EXEC, 413, {"cmd": "head -c 70000000 /dev/zero"}, capsule=capsule)
        r.set(agent_mode="garbage")
        ok("POST", EXEC, 502, {"cmd": "true"}, capsule=capsule)
        r.set(agent_mode="run")
        started = ok("POST", EXEC, 202, {"cmd": "/bin/sleep", "args": ["600"], "background": True, "tag": "mine"}, capsule=capsule)
        listed = ok("GET", PROCESSES, 200, capsule=capsule)
        equal([p["tag"] for p in listed["processes"] if p["pid"] == started["pid"]], ["mine"])
        ok("DELETE", PROCESS, 204, capsule=capsule, selector="mine", query="?signal=SIGTERM")
        ok("DELETE", PROCESS, 404, capsule=capsule, selector="4294967295")

        # what all routes of a capsule have in common
        for method, path, operation in operations():
            if "{id}" not in path:
                continue
            if "101" in operation["responses"]:
                ok(method, path, 426, capsule=capsule, selector="1")
                ok(method, path, 400, capsule="cl-x", selector="1", headers=UPGRADE)
                continue
            schema = body_schema(operation)
            body = {name: USUAL[name] for name in needed(schema)} if schema else None
            query = "?path=/tmp" if path.endswith("tar/write") else ""
            if not schema and "requestBody" in operation:
                body = b"x"
            ok(method, path, 400, body, capsule="cl-x", selector="1", query=query)
            ok(method, path, 404, body, capsule=NOBODY, selector="1", query=query)
            if "409" in operation["responses"]:
                r.control.SetState(capsule, "stopping")
                ok(method, path, 409, body, capsule=capsule, selector="1", query=query)
                r.control.SetState(capsule, "running")
        r.set(refuse_channels=True)
        r.control.CloseChannels()
        for method, path, operation in operations():
            schema = body_schema(operation)
            if "502" not in operation["responses"] or "{id}" not in path or ("requestBody" in operation and not schema):
                continue
            body = {name: USUAL[name] for name in needed(schema)} if schema else None
            ok(method, path, 502, body, capsule=capsule, selector="1")
        r.set(refuse_channels=False)
        files(r, ok, capsule)
        ok("DELETE", CAPSULE, 204, capsule=capsule)

    never = [(method, path, status) for method, path, operation in operations() for status in operation["responses"]
             if status != "101" and not [s for s in seen if s[:3] == (method, path, status)]]
    equal(never, [], "documented answers that were never seen")


UPGRADE = ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
ENTRY = {"name": "a", "path": "/tmp/a", "path_base64": "L3RtcC9h", "type": "file", "size": 1, "mode": 420, "permissions": "-rw-r--r--",
         "owner": "root", "group": "root", "modified_at": 0, "symlink_target": "/tmp/b"}
FORM = (b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/a\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhello\r\n--b--\r\n')
SOCKETS = {
    "/v1/capsules/{id}/exec/stream": (
        ({"type": "start", "cmd": "echo a; echo b >&2; exit 3", "args": [], "envs": {"A": "b"}, "cwd": "/", "tag": "t", "timeout_sec": 60}, 3),
        ({"type": "start", "cmd": "true", "cwd": "/nonesuch"}, None), ({"type": "start", "cmd": "true", "args": ["a"] * 1024}, None),
        ({"type": "start"}, None), ({"type": "stop"}, None)),
    "/v1/capsules/{id}/pty": (
        ({"type": "start", "cmd": "/bin/echo", "args": ["hello"], "envs": {"A": "b"}, "cwd": "/", "cols": 4096, "rows": 1}, 0),
        ({"type": "start", "cmd": "exit 4", "cols": 0, "rows": 0}, 4), ({"type": "start", "cols": 4097}, None),
        ({"type": "start", "rows": -1}, None), ({"type": "connect", "tag": "nonesuch"}, None), ({"type": "connect"}, None)),
}


@test
def websockets():
    """messages of the WebSockets are as documented, theirs and ours; what is documented otherwise is refused in-band"""
    kinds = set()
    with restd.Restd() as r:
        r.set(default_framing="json")
        capsule = r.request("POST", "/v1/capsules", {})[2]["id"]

        def follow(path, selector="", first=None, last=lambda m: m is None):
            schema = DOC["paths"][path]["get"]["x-websocket"]["sends"]
            with r.websocket(fill(path, capsule, selector)) as w:
                if first is not None:
                    w.send(first)
                messages = []
                while True:
                    message = w.receive()
                    if message is None:
                        equal(w.code, 1000, path)
                        return messages
                    valid(schema, message, f"{path} {str(first)[:80]}")
                    kinds.add((path, message["type"]))
                    messages.append(message)
                    if last(message):
                        w.send({"type": "kill"})

        for path, sessions in SOCKETS.items():
            receives = DOC["paths"][path]["get"]["x-websocket"]["receives"]
            for first, code in sessions:
                messages = follow(path, first=first)
                if code is None:
                    equal([m["type"] for m in messages], ["error"], f"{path} {str(first)[:80]}")
                    check("nonesuch" in str(first) or not validator(receives).is_valid(first), f"{path}: documented as good: {str(first)[:80]}")
                else:
                    equal(messages[-1], {"type": "exit", "exit_code": code}, f"{path} {first}")
                    check(validator(receives).is_valid(first) or first.get("cols") == 0, f"{path}: not documented: {first}")
        for message in ({"type": "input", "data": "YQ=="}, {"type": "resize", "cols": 1, "rows": 1}, {"type": "kill"}, {"type": "pong"}):
            valid(DOC["paths"]["/v1/capsules/{id}/pty"]["get"]["x-websocket"]["receives"], message, "pty")

        started = r.request("POST", fill(EXEC, capsule), {"cmd": "echo a; echo b >&2; sleep 1", "background": True})[2]
        attach = "/v1/capsules/{id}/processes/{selector}/stream"
        equal([m["type"] for m in follow(attach, started["pid"])][-1], "exit")
        equal([m["type"] for m in follow(attach, 4294967295)], ["error"])
        follow("/v1/capsules/{id}/pty", first={"type": "start", "cmd": "/bin/cat"}, last=lambda m: m and m["type"] == "ping")
    for path in [p for p in DOC["paths"] if "x-websocket" in DOC["paths"][p].get("get", {})]:
        for choice in resolve(DOC["paths"][path]["get"]["x-websocket"]["sends"])["oneOf"]:
            kind = resolve(choice)["properties"]["type"]
            never = set(kind.get("enum", [kind.get("const")])) - {k for p, k in kinds if p == path}
            equal(never, set(), f"{path}: messages that were never seen")


# what the agent says, and what clients are told
AGENT_ERRORS = {400: "invalid-args", 404: "not-found", 409: "already-exists", 413: "too-large", 502: "agent", 507: "agent-no-space"}


def files(r, ok, capsule):
    """The routes of files, with the agent's part played: each kind of answer and each failure."""
    for method, path, operation in operations():
        if "/files/" not in path:
            continue
        schema = body_schema(operation)
        more = {"capsule": capsule}
        if schema:
            more["body"] = {name: USUAL[name] for name in needed(schema)}
        elif path.endswith("/tar/write"):
            more.update(body=b"tar", query="?path=/tmp")
        else:
            more.update(body=FORM, headers=("Content-Type: multipart/form-data; boundary=b",))
        good = "200" if "200" in operation["responses"] else "204"
        told = json.dumps(ENTRY | {"more": 1}) + "\n" if path.endswith(("/stat", "/mkdir", "/rename", "/list")) else "bytes" * (good == "200")
        r.set(file_lie={"status": int(good), "body": told})
        answer = ok(method, path, int(good), **more)
        if told.startswith("{"):
            equal(answer.get("entry") or answer["entries"][0], ENTRY, f"{path}: members of an entry")
        for status, code in AGENT_ERRORS.items():
            response = operation["responses"].get(str(status))
            if response and (status != 409 or "conflict" in resolve(response)["x-codes"]):
                r.set(file_lie={"status": status, "body": json.dumps({"error": {"code": code, "message": "Told by the agent."}})})
                ok(method, path, status, **more)


main()
