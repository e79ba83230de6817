/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls into a running capsule: processes with plain fds, the channel, the console. Each counts as activity.
 */

#include <fcntl.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"

#define EXEC_START_TIMEOUT_USEC (30 * USEC_PER_SEC)

/* One call that waits for the monitor. Pins the capsule; freed by its answer, or when the connection is
 * given up. */
typedef struct CapsuleRequest {
        Capsule *capsule;
        struct CapsuleRequest *next;
        JsonCall *call;
        bool want_stdin;
        ExecDone exec_done;
        ConsoleDone console_done;
        void *userdata;
} Request;

void exec_spec_done(ExecSpec *s) {
        strv_free(s->argv);
        strv_free(s->env);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (ExecSpec) {};
}

static int check_running(const Capsule *c, Fault *reterr) {
        if (c->state == CAPSULE_RUNNING)
                return 0;
        return fault_set(reterr, FAULT_INVALID_STATE, "The capsule is %s, not running.",
                         capsule_state_to_string(c->state));
}

static int check_strings(char *const *v, const char *what, size_t n_max, size_t entry_max, Fault *reterr) {
        size_t n = 0, total = 0;

        STRV_FOREACH(i, v) {
                size_t length = strlen(*i);

                total += length + 1;
                if (++n > n_max || length > entry_max || total > ARGV_ENV_BYTES_MAX)
                        return fault_set(reterr, FAULT_TOO_LARGE,
                                         "%s: expected at most %zu entries of together %llu bytes.", what,
                                         n_max, (unsigned long long) ARGV_ENV_BYTES_MAX);
                if (!utf8_is_valid(*i, length))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: an entry is not UTF-8.", what);
        }
        return 0;
}

static int check_exec(const ExecSpec *s, Fault *reterr) {
        int r;

        if (strv_length(s->argv) == 0 || isempty(s->argv[0]))
                return fault_set(reterr, FAULT_INVALID_ARGS, "argv: a command is needed.");
        r = check_strings(s->argv, "argv", ARGV_MAX, ARGV_ENV_BYTES_MAX, reterr);
        if (r >= 0)
                r = check_strings(s->env, "env", ENV_MAX, ENV_ENTRY_LEN_MAX, reterr);
        if (r >= 0 && s->cwd && strlen(s->cwd) > CWD_LEN_MAX)
                r = fault_set(reterr, FAULT_INVALID_ARGS, "Cwd: expected at most %u bytes.", CWD_LEN_MAX);
        if (r >= 0 && !isempty(s->tag) && !tag_is_valid(s->tag))
                r = fault_set(reterr, FAULT_INVALID_ARGS, "Tag: expected 1 to %u bytes of text without '/'.",
                              TAG_MAX_LEN);
        if (r >= 0 && s->user && (strlen(s->user) > NAME_MAX_LEN || strpbrk(s->user, ":/\n")))
                r = fault_set(reterr, FAULT_INVALID_ARGS, "User: not a user's name.");
        return r;
}

static int request_new(Capsule *c, void *userdata, Request **ret, Fault *reterr) {
        Request *q = malloc(sizeof(Request));

        if (!q)
                return fault_set_errno(reterr, ENOMEM, "Failed to ask the monitor");
        *q = (Request) { .capsule = capsule_ref(c), .next = c->requests, .userdata = userdata };
        c->requests = q;
        *ret = q;
        return 0;
}

static void request_free(Request *q) {
        for (Request **i = &q->capsule->requests; *i; i = &(*i)->next)
                if (*i == q) {
                        *i = q->next;
                        break;
                }
        json_call_free(q->call);
        (void) capsule_unref(q->capsule);
        free(q);
}

static void explain(Fault *fault, const Fault *told, int r) {
        if (told && fault_is_set(told))
                (void) fault_set(fault, told->code, "%s", told->message);
        else if (r == -ETIMEDOUT)
                (void) fault_set(fault, FAULT_TIMEOUT, "The capsule did not answer in time.");
        else
                (void) fault_set(fault, FAULT_AGENT, "The capsule ended or its monitor does not answer.");
}

/* stdin that nobody wants: a pipe whose other end is closed. */
static int closed_pipe(void) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        close_fd(fds[0]);
        return fds[1];
}

static int take_exec_answer(Request *q, json_t *result, int *fds, size_t n_fds, int ret[3],
                            json_int_t *ret_pid, const char **ret_tag) {
        size_t n = q->want_stdin ? 3 : 2;

        *ret_pid = json_integer_value(json_object_get(result, "pid"));
        *ret_tag = json_string_value(json_object_get(result, "tag"));
        if (*ret_pid <= 0 || *ret_pid > UINT32_MAX || !*ret_tag || strlen(*ret_tag) > TAG_MAX_LEN ||
            n_fds != n)
                return -EPROTO;

        ret[0] = q->want_stdin ? TAKE_FD(fds[0]) : closed_pipe();
        ret[1] = TAKE_FD(fds[n - 2]);
        ret[2] = TAKE_FD(fds[n - 1]);
        return ret[0] < 0 ? ret[0] : 0;
}

static void on_exec(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *told,
                    void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int taken[3] = { -EBADF, -EBADF, -EBADF };
        const char *tag = NULL;
        Request *q = userdata;
        json_int_t pid = 0;

        if (r >= 0)
                r = take_exec_answer(q, result, fds, n_fds, taken, &pid, &tag);
        if (r < 0)
                explain(&fault, told, r);

        q->exec_done(q->capsule, r, (uint32_t) pid, tag, taken, r < 0 ? &fault : NULL, q->userdata);
        close_many(taken, ELEMENTSOF(taken));
        request_free(q);
}

static json_t* make_exec_body(Capsule *c, const ExecSpec *s) {
        uint64_t timeout = s->timeout_usec == 0 ? c->manager->config.exec_max_usec
                                                : MIN(s->timeout_usec, c->manager->config.exec_max_usec);

        return json_pack("{s:o, s:o, s:s, s:s, s:s, s:I, s:b}", "argv", json_from_strv(s->argv), "env",
                         json_from_env(s->env), "cwd", strempty(s->cwd), "user", strempty(s->user), "tag",
                         strempty(s->tag), "timeout_usec", (json_int_t) MIN(timeout, (uint64_t) INT64_MAX),
                         "stdin", s->want_stdin);
}

int capsule_exec(Capsule *c, const ExecSpec *spec, ExecDone done, void *userdata, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        Request *q = NULL;
        int r;

        r = check_running(c, reterr);
        if (r >= 0)
                r = check_exec(spec, reterr);
        if (r < 0)
                return r;

        body = make_exec_body(c, spec);
        if (!body)
                return fault_set_errno(reterr, ENOMEM, "Failed to ask the monitor");

        r = request_new(c, userdata, &q, reterr);
        if (r < 0)
                return r;
        q->want_stdin = spec->want_stdin;
        q->exec_done = done;

        r = monitor_link_call(c->link, CONTROL_VERB_EXEC, body, NULL, 0, EXEC_START_TIMEOUT_USEC, on_exec, q,
                              &q->call);
        if (r < 0) {
                request_free(q);
                return fault_set(reterr, r == -E2BIG ? FAULT_TOO_LARGE : FAULT_AGENT,
                                 "The capsule's monitor cannot be asked.");
        }

        capsule_touch(c, now_usec(CLOCK_REALTIME));
        return 0;
}

int capsule_open_channel(Capsule *c, int *ret_fd, Fault *reterr) {
        _cleanup_free_ char *path = capsule_run_path(c, NULL);
        _cleanup_close_ int dir_fd = -EBADF, fd = -EBADF;
        int r;

        r = check_running(c, reterr);
        if (r < 0)
                return r;

        dir_fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
        if (dir_fd < 0)
                return fault_set_errno(reterr, path ? errno : ENOMEM,
                                       "Failed to open the capsule's run directory");
        fd = unix_connect(dir_fd, "data.sock", SOCK_STREAM);
        if (fd < 0)
                return fault_set(reterr, FAULT_AGENT, "The capsule's monitor takes no connection.");

        capsule_touch(c, now_usec(CLOCK_REALTIME));
        *ret_fd = TAKE_FD(fd);
        return 0;
}

void capsule_fail_requests(Capsule *c) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int none[3] = { -EBADF, -EBADF, -EBADF }, r;
        Request *q = NULL;

        r = fault_set(&fault, FAULT_AGENT, "The capsule ended.");
        while ((q = c->requests)) {
                c->requests = q->next;
                if (q->exec_done)
                        q->exec_done(c, r, 0, NULL, none, &fault, q->userdata);
                else
                        q->console_done(c, r, -EBADF, &fault, q->userdata);
                request_free(q);
        }
}

static void on_console(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *told,
                       void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Request *q = userdata;

        if (r >= 0 && n_fds != 1)
                r = -EPROTO;
        if (r < 0)
                explain(&fault, told, r);

        q->console_done(q->capsule, r, r < 0 ? -EBADF : fds[0], r < 0 ? &fault : NULL, q->userdata);
        request_free(q);
}

int capsule_open_console(Capsule *c, ConsoleDone done, void *userdata, Fault *reterr) {
        Request *q = NULL;
        int r;

        if (!c->link)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule is %s.",
                                 capsule_state_to_string(c->state));

        r = request_new(c, userdata, &q, reterr);
        if (r < 0)
                return r;
        q->console_done = done;

        r = monitor_link_call(c->link, CONTROL_VERB_CONSOLE, NULL, NULL, 0, MONITOR_CALL_TIMEOUT_USEC,
                              on_console, q, &q->call);
        if (r < 0) {
                request_free(q);
                return fault_set(reterr, FAULT_AGENT, "The capsule's monitor cannot be asked.");
        }
        return 0;
}
