/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls into a running capsule: processes and terminals with plain fds, the channel, the console. */

#include <fcntl.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule-request.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"

#define EXEC_START_TIMEOUT_USEC (30 * USEC_PER_SEC)

typedef struct ExecRequest {
        CapsuleRequest rq;
        bool want_stdin, pty, attach;
        ExecDone done;
        void *userdata;
} ExecRequest;

typedef struct ConsoleRequest {
        CapsuleRequest rq;
        ConsoleDone done;
        void *userdata;
} ConsoleRequest;

void exec_spec_done(ExecSpec *s) {
        strv_free(s->argv);
        strv_free(s->env);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (ExecSpec) {};
}

static int check_strings(LimitId id, char *const *v, Fault *reterr) {
        const Limit *l = &limit_table[id];
        uint64_t total = 0;
        int r;

        r = limit_check_count(l, l->option, strv_length(v), reterr);
        STRV_FOREACH(i, v) {
                if (r >= 0)
                        r = limit_check_entry(l, l->option, strlen(*i), &total, reterr);
                if (r < 0)
                        return r;
                if (!utf8_is_valid(*i, strlen(*i)))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: an entry is not UTF-8.",
                                         l->option);
        }
        return r;
}

int capsule_check_terminal(uint32_t cols, uint32_t rows, Fault *reterr) {
        int r;

        r = limit_check_number(&limit_table[LIMIT_PTY_COLS], "cols", cols, reterr);
        if (r >= 0)
                r = limit_check_number(&limit_table[LIMIT_PTY_ROWS], "rows", rows, reterr);
        return r;
}

static int check_exec(const ExecSpec *s, Fault *reterr) {
        int r;

        if (s->argv && s->argv[0] ? isempty(s->argv[0]) : !s->pty)
                return fault_set(reterr, FAULT_INVALID_ARGS, "argv: a command is needed.");
        r = check_strings(LIMIT_EXEC_ARGV, s->argv, reterr);
        if (r >= 0)
                r = check_strings(LIMIT_EXEC_ENV, s->env, reterr);
        if (r >= 0)
                r = limit_check_text(&limit_table[LIMIT_EXEC_CWD], "Cwd", strlen(strempty(s->cwd)), reterr);
        if (r >= 0 && !isempty(s->tag) && !tag_is_valid(s->tag))
                r = fault_set(reterr, FAULT_INVALID_ARGS, "Tag: expected 1 to %u bytes of text without '/'.",
                              TAG_MAX_LEN);
        if (r >= 0 && s->pty)
                r = capsule_check_terminal(s->cols, s->rows, reterr);
        if (r >= 0 && s->user && (strlen(s->user) > NAME_MAX_LEN || strpbrk(s->user, ":/\n")))
                r = fault_set(reterr, FAULT_INVALID_ARGS, "User: not a user's name.");
        return r;
}

/* For an fd that nobody wants: a pipe whose other end is closed. */
static int closed_pipe(bool read_end) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        close_fd(fds[read_end]);
        return fds[!read_end];
}

/* [stdin] stdout stderr, or a terminal's socket. */
static int take_exec_fds(const ExecRequest *q, const ExecStarted *started, int *fds, size_t n_fds,
                         int ret[3]) {
        size_t first = started->pty || q->want_stdin ? 0 : 1;

        if (n_fds != (started->pty ? 1 : 3 - first))
                return -EPROTO;
        for (size_t i = 0; i < n_fds; i++)
                ret[first + i] = TAKE_FD(fds[i]);
        for (size_t i = 0; i < 3; i++)
                if (ret[i] < 0 && (ret[i] = closed_pipe(/* read_end= */ i > 0)) < 0)
                        return ret[i];
        return 0;
}

static int take_exec_answer(const ExecRequest *q, json_t *result, int *fds, size_t n_fds, ExecStarted *ret) {
        json_int_t pid = json_integer_value(json_object_get(result, "pid"));

        ret->tag = json_string_value(json_object_get(result, "tag"));
        ret->pty = json_is_true(json_object_get(result, "pty"));
        if (pid <= 0 || pid > UINT32_MAX || !ret->tag || strlen(ret->tag) > TAG_MAX_LEN ||
            (!q->attach && ret->pty != q->pty))
                return -EPROTO;
        ret->pid = (uint32_t) pid;
        return take_exec_fds(q, ret, fds, n_fds, ret->fds);
}

static void on_exec(CapsuleRequest *rq, int r, json_t *result, int *fds, size_t n_fds, const Fault *told) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        ExecStarted started = { .fds = { -EBADF, -EBADF, -EBADF } };
        ExecRequest *q = (ExecRequest *) rq;

        if (r >= 0 && take_exec_answer(q, result, fds, n_fds, &started) < 0) {
                r = fault_set(&fault, FAULT_AGENT, "The monitor's answer is not valid.");
                told = &fault;
        }
        q->done(rq->capsule, r, r < 0 ? NULL : &started, told, q->userdata);
        close_many(started.fds, ELEMENTSOF(started.fds));
}

static json_t* make_exec_body(Capsule *c, const ExecSpec *s) {
        uint64_t max = c->manager->config.exec_max_usec,
                 timeout = s->timeout_usec > 0 && s->timeout_usec < max ? s->timeout_usec : max;
        json_t *body;

        timeout = s->pty ? 0 : MIN(timeout, (uint64_t) INT64_MAX);
        body = json_pack("{s:o, s:o, s:s, s:s, s:s, s:I, s:b}", "argv", json_from_strv(s->argv), "env",
                         json_from_env(s->env), "cwd", strempty(s->cwd), "user", strempty(s->user), "tag",
                         strempty(s->tag), "timeout_usec", (json_int_t) timeout, "stdin", s->want_stdin);
        if (body && s->pty &&
            json_object_set_new(body, "pty",
                                json_pack("{s:i, s:i}", "cols", (int) s->cols, "rows", (int) s->rows)) < 0) {
                json_decref(body);
                return NULL;
        }
        return body;
}

/* What does not fit into a message goes along in a memfd; *ret_fd is -EBADF when it fits. */
static int wrap_exec_body(json_t **body, int *ret_fd, Fault *reterr) {
        _cleanup_free_ char *text = json_dumps(*body, JSON_COMPACT);
        size_t n = text ? strlen(text) : 0;
        json_t *wrapped;
        int fd;

        *ret_fd = -EBADF;
        if (n > AGENT_JSON_MAX)
                return fault_set(reterr, FAULT_TOO_LARGE,
                                 "argv and env: expected at most %llu bytes together, as JSON.",
                                 (unsigned long long) AGENT_JSON_MAX);
        if (n > 0 && n <= JSON_MESSAGE_MAX / 2)
                return 0;
        wrapped = json_pack("{s:b}", "spec", 1);
        fd = text && wrapped ? memfd_from("wrenn-exec", text, n) : -ENOMEM;
        if (fd < 0) {
                json_decref(wrapped);
                return fault_set_errno(reterr, fd, "Failed to pass the command on");
        }
        json_decref(*body);
        *body = wrapped;
        *ret_fd = fd;
        return 0;
}

int capsule_exec(Capsule *c, const ExecSpec *spec, ExecDone done, void *userdata, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        _cleanup_close_ int fd = -EBADF;
        ExecRequest *q;
        int r;

        r = capsule_use(c, reterr);
        if (r >= 0)
                r = check_exec(spec, reterr);
        if (r < 0)
                return r;

        body = make_exec_body(c, spec);
        if (!body)
                return fault_set_errno(reterr, ENOMEM, "Failed to ask the monitor");
        r = wrap_exec_body(&body, &fd, reterr);
        if (r < 0)
                return r;
        q = malloc(sizeof(ExecRequest));
        if (q)
                *q = (ExecRequest) {
                        .want_stdin = spec->want_stdin, .pty = spec->pty, .done = done, .userdata = userdata
                };
        return capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_EXEC, body, &fd, fd >= 0,
                                       EXEC_START_TIMEOUT_USEC, on_exec, reterr);
}

int capsule_attach(Capsule *c, const char *selector, ExecDone done, void *userdata, Fault *reterr) {
        _cleanup_json_ json_t *body = json_pack("{s:s}", "selector", selector);
        ExecRequest *q;
        int r;

        r = capsule_use(c, reterr);
        if (r >= 0 && !tag_is_valid(selector))
                r = fault_set(reterr, FAULT_INVALID_ARGS, "selector: expected a tag or a pid.");
        if (r < 0)
                return r;
        q = malloc(sizeof(ExecRequest));
        if (q)
                *q = (ExecRequest) { .attach = true, .done = done, .userdata = userdata };
        return capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_ATTACH, body, NULL, 0,
                                       EXEC_START_TIMEOUT_USEC, on_exec, reterr);
}

int capsule_open_channel(Capsule *c, int *ret_fd, Fault *reterr) {
        _cleanup_free_ char *path = capsule_run_path(c, NULL);
        _cleanup_close_ int dir_fd = -EBADF, fd = -EBADF;
        int r;

        r = capsule_use(c, reterr);
        if (r < 0)
                return r;

        dir_fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
        if (dir_fd < 0)
                return fault_set_errno(reterr, path ? errno : ENOMEM,
                                       "Failed to open the capsule's run directory");
        fd = unix_connect(dir_fd, "data.sock", SOCK_STREAM);
        if (fd < 0)
                return fault_set(reterr, FAULT_AGENT, "The capsule's monitor takes no connection.");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static void on_console(CapsuleRequest *rq, int r, json_t *result, int *fds, size_t n_fds,
                       const Fault *told) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        ConsoleRequest *q = (ConsoleRequest *) rq;

        if (r >= 0 && n_fds != 1) {
                r = fault_set(&fault, FAULT_AGENT, "The monitor's answer is not valid.");
                told = &fault;
        }
        q->done(rq->capsule, r, r < 0 ? -EBADF : fds[0], told, q->userdata);
}

int capsule_open_console(Capsule *c, ConsoleDone done, void *userdata, Fault *reterr) {
        _cleanup_json_ json_t *body = json_object();
        ConsoleRequest *q;

        if (!c->link)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule is %s.",
                                 capsule_state_to_string(c->state));
        q = malloc(sizeof(ConsoleRequest));
        if (q)
                *q = (ConsoleRequest) { .done = done, .userdata = userdata };
        return capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_CONSOLE, body, NULL, 0,
                                       MONITOR_CALL_TIMEOUT_USEC, on_console, reterr);
}
