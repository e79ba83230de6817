/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A whole monitor in the test's loop, with tests/fake/fake-vmm as its VMM and the test as wrennd. */

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "monitor/monitor.h"
#include "shared/event.h"
#include "shared/json-stream.h"
#include "tests/unit/test.h"

typedef struct Rig {
        sd_event *event;
        Monitor *monitor;
        JsonStream *stream;
        int exit_fd, console_fd;
        json_t *answer; /* of the last call */
        int answer_r;
        char error[512], code[64];
        int fds[JSON_FDS_MAX];
        size_t n_fds;
        bool answered;
        json_t *events; /* array */
} Rig;

static void on_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                     void *userdata) {
        Rig *r = userdata;

        ASSERT_EQ(json_array_append(r->events, message), 0);
}

static void on_closed(JsonStream *s, int error, void *userdata) {
        Rig *r = userdata;

        r->stream = json_stream_free(r->stream);
}

static const JsonStreamHandlers stream_handlers = { .on_event = on_event, .on_closed = on_closed };

#define RUN_UNTIL(rig, condition)                                                   \
        do {                                                                        \
                uint64_t deadline_ = now_usec(CLOCK_MONOTONIC) + 20 * USEC_PER_SEC; \
                while (!(condition)) {                                              \
                        ASSERT_OK(sd_event_run((rig)->event, 100 * USEC_PER_MSEC)); \
                        if (now_usec(CLOCK_MONOTONIC) > deadline_)                  \
                                fail_msg("not reached: %s", #condition);            \
                }                                                                   \
        } while (0)

static bool loop_ended(Rig *r) {
        int state = sd_event_get_state(r->event);

        return state == SD_EVENT_FINISHED || state == SD_EVENT_EXITING;
}

static json_t* find_event(Rig *r, const char *name) {
        json_t *item;
        size_t i;

        json_array_foreach(r->events, i, item)
                if (streq_ptr(json_string_value(json_object_get(item, "event")), name))
                        return item;
        return NULL;
}

static void on_answer(JsonCall *call, int k, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                      void *userdata) {
        Rig *r = userdata;

        r->answered = true;
        r->answer_r = k;
        if (r->answer)
                json_decref(r->answer);
        r->answer = result ? json_incref(result) : NULL;
        r->error[0] = r->code[0] = 0;
        if (k < 0 && fault && fault_is_set(fault)) {
                (void) snprintf(r->error, sizeof(r->error), "%s", fault->message);
                (void) snprintf(r->code, sizeof(r->code), "%s", fault_wire_name(fault->code));
        }
        close_many(r->fds, r->n_fds);
        r->n_fds = n_fds;
        for (size_t i = 0; i < n_fds; i++)
                r->fds[i] = TAKE_FD(fds[i]);
}

static void call_with(Rig *r, const char *verb, json_t *body, const int *fds, size_t n_fds) {
        _cleanup_json_ json_t *owned = body;

        r->answered = false;
        ASSERT_OK(json_stream_call(r->stream, verb, owned, fds, n_fds, 30 * USEC_PER_SEC, on_answer, r,
                                   NULL));
        RUN_UNTIL(r, r->answered);
}

static void call(Rig *r, const char *verb, json_t *body) {
        call_with(r, verb, body, NULL, 0);
}

static void rig_init(Rig *r) {
        MonitorFds fds = { -EBADF, -EBADF, -EBADF, -EBADF };
        int sockets[2];

        *r = (Rig) { .exit_fd = memfd_create("exit", MFD_CLOEXEC),
                     .console_fd = memfd_create("console", MFD_CLOEXEC),
                     .events = json_array() };
        fds.exit = dup(r->exit_fd);
        fds.console = dup(r->console_fd);
        (void) signal(SIGPIPE, SIG_IGN); /* as main() does */
        ASSERT_OK(sd_event_new(&r->event));
        ASSERT_OK(monitor_new(r->event, "cl-test", &fds, &r->monitor));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
        ASSERT_OK(control_add_client(monitor_control(r->monitor), sockets[0]));
        ASSERT_OK(json_stream_new(r->event, sockets[1], JSON_DIALECT_CONTROL, JSON_MESSAGE_MAX,
                                  &stream_handlers, r, &r->stream));
}

static void rig_done(Rig *r) {
        r->monitor = monitor_free(r->monitor);
        r->stream = json_stream_free(r->stream);
        r->event = sd_event_unref(r->event);
        if (r->answer)
                json_decref(r->answer);
        json_decref(r->events);
        close_many(r->fds, r->n_fds);
        close_many((int[]) { r->exit_fd, r->console_fd }, 2);
}

static json_t* config(const char *mode) {
        _cleanup_free_ char *kernel = strjoin("/fake/", mode);

        return json_pack("{s:{s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:[{s:s, s:b}], s:n, s:i, s:{s:s}}}",
                         "config", "backend", "qemu", "accelerator", "tcg", "vcpus", 1, "memory_bytes",
                         268435456, "vmm", FAKE_VMM, "kernel", kernel, "initrd", "/initrd", "disks", "path",
                         "/layer", "read_only", 0, "mac", "tsc_khz", 1000000, "identity", "id", "cl-test");
}

static void start(Rig *r, const char *mode) {
        call(r, "start", config(mode));
        ASSERT_EQ(r->answer_r, 0);
        ASSERT_TRUE(json_integer_value(json_object_get(r->answer, "vmm_pid")) > 1);
}

static void start_ready(Rig *r, const char *mode) {
        start(r, mode);
        RUN_UNTIL(r, find_event(r, "ready"));
}

static void assert_exited(Rig *r, const char *reason, const char *status) {
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_t *file = NULL;
        json_t *event;

        RUN_UNTIL(r, find_event(r, "exited"));
        event = find_event(r, "exited");
        ASSERT_STREQ(json_string_value(json_object_get(event, "reason")), reason);
        ASSERT_STREQ(json_string_value(json_object_get(event, "status")), status);
        RUN_UNTIL(r, loop_ended(r));
        ASSERT_EQ(lseek(r->exit_fd, 0, SEEK_SET), 0);
        ASSERT_OK(read_fd(r->exit_fd, 4096, &text, NULL));
        file = json_loads(text, 0, NULL);
        ASSERT_STREQ(json_string_value(json_object_get(file, "reason")), reason);
        ASSERT_STREQ(json_string_value(json_object_get(file, "status")), status);
}

static const char* state_of(Rig *r) {
        call(r, "describe", NULL);
        ASSERT_EQ(r->answer_r, 0);
        return json_string_value(json_object_get(r->answer, "state"));
}

static void read_text(Rig *r, int fd, char *ret, size_t n) {
        size_t done = 0;
        ssize_t k;

        ASSERT_OK(fd_nonblock(fd, true));
        for (unsigned i = 0; i < 1000; i++) {
                k = read(fd, ret + done, n - 1 - done);
                if (k == 0)
                        break;
                if (k > 0)
                        done += (size_t) k;
                else
                        ASSERT_OK(sd_event_run(r->event, 10 * USEC_PER_MSEC));
        }
        ret[done] = 0;
}

TEST(life) {
        char text[256] = {};
        Rig r;

        rig_init(&r);
        ASSERT_STREQ(state_of(&r), "idle");
        start_ready(&r, "normal");
        ASSERT_STREQ(state_of(&r), "ready");
        ASSERT_STREQ(json_string_value(json_object_get(json_object_get(r.answer, "agent"), "version")),
                     "0.0-fake");
        ASSERT_NULL(json_object_get(json_object_get(r.answer, "config"), "identity"));
        ASSERT_EQ(json_integer_value(json_object_get(json_object_get(r.answer, "config"), "vcpus")), 1);
        ASSERT_OK(pread(r.console_fd, text, sizeof(text) - 1, 0));
        ASSERT_STREQ(text, "hello from the console\r\n");

        call(&r, "start", config("normal"));
        ASSERT_EQ(r.answer_r, -EREMOTEIO);
        ASSERT_STREQ(r.code, "invalid-state");
        call(&r, "no-such-verb", NULL);
        ASSERT_STREQ(r.code, "invalid-args");

        call(&r, "poweroff", json_pack("{s:i}", "timeout_usec", 10000000));
        ASSERT_EQ(r.answer_r, 0);
        assert_exited(&r, "user", "exit 0");
        rig_done(&r);
}

TEST(start_fails_with_the_vmms_words) {
        Rig r;

        rig_init(&r);
        call(&r, "start", config("fail"));
        ASSERT_STREQ(r.code, "agent");
        ASSERT_STREQ(r.error, "The VMM ended with exit 1: cannot start:\\x1b[31m no such kernel");
        assert_exited(&r, "vmm-crash", "exit 1");
        rig_done(&r);
}

TEST(start_of_what_is_not_there) {
        json_t *body = config("normal");
        Rig r;

        rig_init(&r);
        json_object_set_new(json_object_get(body, "config"), "vmm", json_string("/no/such/vmm"));
        call(&r, "start", body);
        ASSERT_STREQ(r.code, "agent");
        ASSERT_NOT_NULL(strstr(r.error, "cannot execute '/no/such/vmm': No such file or directory"));
        assert_exited(&r, "vmm-crash", "exit 127");
        rig_done(&r);
}

TEST(bad_config_leaves_it_idle) {
        Rig r;

        rig_init(&r);
        call(&r, "start", json_pack("{s:{}}", "config"));
        ASSERT_STREQ(r.code, "invalid-args");
        ASSERT_STREQ(state_of(&r), "idle");
        start_ready(&r, "normal");
        call(&r, "kill", json_pack("{s:s}", "reason", "timeout"));
        assert_exited(&r, "timeout", "signal KILL");
        rig_done(&r);
}

TEST(garbage_on_qmp) {
        Rig r;

        rig_init(&r);
        call(&r, "start", config("garbage-qmp"));
        ASSERT_TRUE(r.answer_r < 0);
        assert_exited(&r, "vmm-crash", "signal KILL");
        rig_done(&r);
}

TEST(crash) {
        json_t *event;
        Rig r;

        rig_init(&r);
        start(&r, "crash");
        RUN_UNTIL(&r, find_event(&r, "exited"));
        event = find_event(&r, "exited");
        ASSERT_STREQ(json_string_value(json_object_get(event, "reason")), "vmm-crash");
        ASSERT_NULL(find_event(&r, "agent-lost"));
        rig_done(&r);
}

TEST(stubborn_guest_is_killed) {
        Rig r;

        rig_init(&r);
        start_ready(&r, "stubborn");
        call(&r, "poweroff", json_pack("{s:i}", "timeout_usec", 200000));
        assert_exited(&r, "user", "signal KILL");
        rig_done(&r);
}

TEST(bad_reason) {
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "kill", json_pack("{s:s}", "reason", "boredom"));
        ASSERT_STREQ(r.code, "invalid-args");
        call(&r, "kill", json_pack("{s:s}", "reason", "none"));
        ASSERT_STREQ(r.code, "invalid-args");
        rig_done(&r);
}

TEST(exec) {
        char text[256];
        json_t *event;
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec",
             json_pack("{s:[s,s,s], s:{s:s}}", "argv", "echo", "hello", "world", "env", "A", "b"));
        ASSERT_EQ(r.answer_r, 0);
        ASSERT_EQ(r.n_fds, 2);
        ASSERT_EQ(json_integer_value(json_object_get(r.answer, "pid")), 1);
        read_text(&r, r.fds[0], text, sizeof(text));
        ASSERT_STREQ(text, "hello world\n");
        read_text(&r, r.fds[1], text, sizeof(text));
        ASSERT_STREQ(text, "err\n");
        RUN_UNTIL(&r, find_event(&r, "process-exited"));
        event = find_event(&r, "process-exited");
        ASSERT_EQ(json_integer_value(json_object_get(event, "exit_code")), 0);
        ASSERT_STREQ(json_string_value(json_object_get(event, "reason")), "exit");
        ASSERT_STREQ(json_string_value(json_object_get(event, "tag")), "proc-00000001");
        RUN_UNTIL(&r, find_event(&r, "activity"));
        rig_done(&r);
}

TEST(exec_with_stdin) {
        char text[256];
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[s], s:b}", "argv", "cat", "stdin", 1));
        ASSERT_EQ(r.answer_r, 0);
        ASSERT_EQ(r.n_fds, 3);
        ASSERT_EQ(write(r.fds[0], "out and in", 10), 10);
        r.fds[0] = close_fd(r.fds[0]);
        read_text(&r, r.fds[1], text, sizeof(text));
        ASSERT_STREQ(text, "out and in");
        RUN_UNTIL(&r, find_event(&r, "process-exited"));
        rig_done(&r);
}

TEST(exec_refused) {
        Rig r;

        rig_init(&r);
        call(&r, "exec", json_pack("{s:[s]}", "argv", "echo"));
        ASSERT_STREQ(r.code, "invalid-state");
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[]}", "argv"));
        ASSERT_STREQ(r.code, "invalid-args");
        call(&r, "exec", json_pack("{s:[s]}", "argv", "no-cwd"));
        ASSERT_STREQ(r.code, "invalid-args");
        ASSERT_STREQ(r.error, "cwd: no such \\x1b[31mdirectory.");
        call(&r, "exec", json_pack("{s:[s]}", "argv", "reset"));
        ASSERT_STREQ(r.code, "agent");
        ASSERT_EQ(r.n_fds, 0);
        rig_done(&r);
}

TEST(exec_reader_leaves) {
        json_t *event;
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[s]}", "argv", "yes"));
        ASSERT_EQ(r.n_fds, 2);
        close_many(r.fds, 2);
        r.n_fds = 0;
        RUN_UNTIL(&r, find_event(&r, "process-exited"));
        event = find_event(&r, "process-exited");
        ASSERT_STREQ(json_string_value(json_object_get(event, "reason")), "lost");
        rig_done(&r);
}

TEST(exec_survives_nonsense_frames) {
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[s]}", "argv", "lie"));
        RUN_UNTIL(&r, find_event(&r, "process-exited"));
        call(&r, "exec", json_pack("{s:[s]}", "argv", "false"));
        ASSERT_EQ(r.answer_r, 0);
        rig_done(&r);
}

TEST(vmm_dies_under_a_process) {
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[s]}", "argv", "sleep"));
        ASSERT_EQ(r.answer_r, 0);
        call(&r, "kill", json_pack("{s:s}", "reason", "user"));
        RUN_UNTIL(&r, find_event(&r, "exited"));
        RUN_UNTIL(&r, find_event(&r, "process-exited"));
        rig_done(&r);
}

static unsigned count_events(Rig *r, const char *name) {
        unsigned n = 0;
        json_t *item;
        size_t i;

        json_array_foreach(r->events, i, item)
                n += streq_ptr(json_string_value(json_object_get(item, "event")), name);
        return n;
}

static void expect_text(Rig *r, int fd, const char *text) {
        char buffer[64] = {};

        ASSERT_OK(fd_nonblock(fd, true));
        RUN_UNTIL(r, read(fd, buffer, sizeof(buffer) - 1) > 0);
        ASSERT_STREQ(buffer, text);
}

static void expect_end(Rig *r, int fd) {
        char buffer[4096];
        ssize_t k;

        ASSERT_OK(fd_nonblock(fd, true));
        RUN_UNTIL(r, (k = read(fd, buffer, sizeof(buffer))) == 0 || (k < 0 && errno != EAGAIN));
        ASSERT_EQ(k, 0);
}

/* At least n bytes come. */
static void expect_part(Rig *r, int fd, size_t n) {
        char buffer[4096];
        size_t done = 0;
        ssize_t k;

        RUN_UNTIL(r, (k = read(fd, buffer, sizeof(buffer)), done += k > 0 ? (size_t) k : 0, done >= n));
}

static json_t* terminal(void) {
        return json_pack("{s:[], s:{s:i, s:i}}", "argv", "pty", "cols", 80, "rows", 24);
}

static void assert_exit_code(Rig *r, int code) {
        RUN_UNTIL(r, find_event(r, "process-exited"));
        ASSERT_EQ(json_integer_value(json_object_get(find_event(r, "process-exited"), "exit_code")), code);
}

TEST(exec_with_a_large_spec) {
        _cleanup_free_ char *large = malloc(ARGV_ENV_BYTES_MAX), *text = NULL, *got = NULL;
        _cleanup_json_ json_t *spec = NULL;
        _cleanup_close_ int fd = -EBADF;
        size_t n = ARGV_ENV_BYTES_MAX - 8;
        Rig r;

        memset(large, '"', n); /* twice as long in JSON */
        large[n] = 0;
        spec = json_pack("{s:[s,s]}", "argv", "echo", large);
        text = json_dumps(spec, 0);
        fd = memfd_from("spec", text, strlen(text));
        ASSERT_OK(fd);

        rig_init(&r);
        start_ready(&r, "normal");
        call_with(&r, "exec", json_pack("{s:b}", "spec", 1), &fd, 1);
        ASSERT_EQ(r.answer_r, 0);
        got = malloc(n + 8);
        read_text(&r, r.fds[0], got, n + 8);
        got[n] = 0;
        ASSERT_STREQ(got, large);

        call(&r, "exec", json_pack("{s:b}", "spec", 1));
        ASSERT_STREQ(r.code, "too-large");
        rig_done(&r);
}

TEST(terminals) {
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", json_pack("{s:[], s:{s:i, s:i}}", "argv", "pty", "cols", 0, "rows", 24));
        ASSERT_STREQ(r.code, "invalid-args");
        call(&r, "exec",
             json_pack("{s:[], s:{s:i, s:i}}", "argv", "pty", "cols", 80, "rows", (int) PTY_ROWS_MAX + 1));
        ASSERT_STREQ(r.code, "invalid-args");

        call(&r, "exec", terminal());
        ASSERT_EQ(r.answer_r, 0);
        ASSERT_EQ(r.n_fds, 1);
        ASSERT_TRUE(json_is_true(json_object_get(r.answer, "pty")));
        ASSERT_EQ(write(r.fds[0], "ls\r", 3), 3);
        expect_text(&r, r.fds[0], "ls\r");

        /* the end of what is typed is not the terminal's; its caller's going is a detach */
        ASSERT_EQ(shutdown(r.fds[0], SHUT_WR), 0);
        for (unsigned i = 0; i < 20; i++)
                ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
        close_many(r.fds, 1);
        for (unsigned i = 0; i < 20; i++)
                ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
        ASSERT_NULL(find_event(&r, "process-exited"));

        call(&r, "exec", terminal());
        ASSERT_EQ(write(r.fds[0], "x\4", 2), 2);
        expect_text(&r, r.fds[0], "x\4");
        assert_exit_code(&r, 5);
        expect_end(&r, r.fds[0]);
        rig_done(&r);
}

TEST(attach) {
        char text[64];
        Rig r;

        rig_init(&r);
        call(&r, "attach", json_pack("{s:s}", "selector", "tty"));
        ASSERT_STREQ(r.code, "invalid-state");
        start_ready(&r, "normal");
        call(&r, "attach", json_pack("{s:s}", "selector", "a/b"));
        ASSERT_STREQ(r.code, "invalid-args");
        call(&r, "attach", json_pack("{s:s}", "selector", "nonesuch"));
        ASSERT_STREQ(r.code, "not-found");
        ASSERT_STREQ(r.error, "No \\x1b[1msuch thing.");

        call(&r, "attach", json_pack("{s:s}", "selector", "brief"));
        ASSERT_EQ(r.n_fds, 2);
        ASSERT_FALSE(json_is_true(json_object_get(r.answer, "pty")));
        read_text(&r, r.fds[0], text, sizeof(text));
        ASSERT_STREQ(text, "tail");
        assert_exit_code(&r, 3);

        /* who leaves is not told of its end */
        call(&r, "attach", json_pack("{s:s}", "selector", "quiet"));
        ASSERT_EQ(r.n_fds, 2);
        close_many(r.fds, 2);
        for (unsigned i = 0; i < GUEST_PROCESSES_MAX + 1; i++) {
                call(&r, "attach", json_pack("{s:s}", "selector", "tty"));
                ASSERT_EQ(r.n_fds, 1);
                close_many(r.fds, 1);
                for (unsigned k = 0; k < 10; k++)
                        ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
        }
        ASSERT_EQ(count_events(&r, "process-exited"), 1);

        call(&r, "attach", json_pack("{s:s}", "selector", "tty"));
        expect_text(&r, r.fds[0], "tail");
        ASSERT_EQ(write(r.fds[0], "\4", 1), 1);
        RUN_UNTIL(&r, count_events(&r, "process-exited") == 2);
        rig_done(&r);
}

TEST(process_limit) {
        int kept[GUEST_PROCESSES_MAX];
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        for (unsigned i = 0; i < GUEST_PROCESSES_MAX; i++) {
                call(&r, "exec", terminal());
                ASSERT_EQ(r.n_fds, 1);
                kept[i] = TAKE_FD(r.fds[0]);
        }
        call(&r, "exec", terminal());
        ASSERT_STREQ(r.code, "quota-exceeded");
        call(&r, "attach", json_pack("{s:s}", "selector", "tty"));
        ASSERT_STREQ(r.code, "quota-exceeded");
        close_many(kept, GUEST_PROCESSES_MAX);
        rig_done(&r);
}

TEST(exits_wait_for_somebody_to_hear_of_them) {
        int sockets[2], fd;
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "exec", terminal());
        fd = TAKE_FD(r.fds[0]);
        r.stream = json_stream_free(r.stream);
        ASSERT_EQ(write(fd, "\4", 1), 1);
        expect_text(&r, fd, "\4");
        expect_end(&r, fd);
        close(fd);

        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
        ASSERT_OK(control_add_client(monitor_control(r.monitor), sockets[0]));
        ASSERT_OK(json_stream_new(r.event, sockets[1], JSON_DIALECT_CONTROL, JSON_MESSAGE_MAX,
                                  &stream_handlers, &r, &r.stream));
        ASSERT_STREQ(state_of(&r), "ready");
        assert_exit_code(&r, 5);
        call(&r, "describe", NULL);
        ASSERT_EQ(count_events(&r, "process-exited"), 1);
        rig_done(&r);
}

/* Requests */

static json_t* request(const char *method, const char *path, bool body, bool answer) {
        return json_pack("{s:s, s:s, s:b, s:b}", "method", method, "path", path, "body", body, "answer",
                         answer);
}

static json_t* ended(Rig *r) {
        RUN_UNTIL(r, find_event(r, "transfer-ended"));
        return find_event(r, "transfer-ended");
}

static const char* ended_code(Rig *r) {
        return json_string_value(json_object_get(json_object_get(ended(r), "error"), "code"));
}

TEST(requests_that_are_allowed) {
        static const struct {
                const char *method, *path;
                bool allowed;
        } cases[] = {
                { "GET", "/processes", true },
                { "GET", "/files/stat?path=%2Fetc", true },
                { "POST", "/files/mkdir?path=x", true },
                { "POST", "/processes/tag/signal?signal=15", true },
                { "POST", "/processes", false },
                { "POST", "/processes/tag/attach", false },
                { "POST", "/processes/a/b/signal", false },
                { "DELETE", "/files", false },
                { "POST", "/poweroff", false },
                { "PUT", "/identity", false },
                { "GET", "/files/../identity", false },
                { "GET", "/files?path=a b", false },
                { "GET", "/files?path=a#b", false },
                { "GET", "/files?path=\xc3\xa4", false },
        };
        Rig r;

        rig_init(&r);
        call(&r, "request", request("GET", "/processes", false, false));
        ASSERT_STREQ(r.code, "invalid-state");
        start_ready(&r, "normal");
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                call(&r, "request", request(cases[i].method, cases[i].path, false, false));
                if (cases[i].allowed)
                        ASSERT_EQ(r.answer_r, 0);
                else
                        ASSERT_STREQ(r.code, "access-denied");
        }
        call(&r, "request", request("GET", "/files?path=nonesuch", false, false));
        ASSERT_STREQ(r.code, "not-found");
        ASSERT_STREQ(r.error, "No \\x1b[1msuch thing.");
        call(&r, "request", request("GET", "/files?path=x", false, true));
        ASSERT_STREQ(r.code, "invalid-args"); /* without its fd */
        ASSERT_NULL(find_event(&r, "transfer-ended"));
        rig_done(&r);
}

/* kind: 'p' pipes, 's' sockets, 'f' files, of which ends are whose */
static void echo_through(char kind, bool shared) {
        char data[70000], got[sizeof(data) + 1];
        int body[2], answer[2], fds[2];
        size_t n = kind == 'f' ? sizeof(data) : 60000; /* what a pipe holds */
        json_t *message = request("PUT", "/files?path=x", true, true);
        Rig r;

        memset(data, 'd', sizeof(data));
        rig_init(&r);
        start_ready(&r, "normal");
        if (kind == 'f') {
                body[0] = memfd_create("body", MFD_CLOEXEC);
                ASSERT_EQ(pwrite(body[0], data, n, 0), n);
                answer[1] = memfd_create("answer", MFD_CLOEXEC);
        } else {
                ASSERT_OK(kind == 'p' ? pipe2(body, O_CLOEXEC)
                                      : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, body));
                ASSERT_OK(kind == 'p' ? pipe2(answer, O_CLOEXEC)
                                      : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, answer));
                ASSERT_EQ(write(body[1], data, n), n);
                close(body[1]);
        }
        fds[0] = body[0];
        fds[1] = answer[1];
        json_object_set_new(message, "shared", json_boolean(shared));
        call_with(&r, "request", message, fds, 2);
        ASSERT_EQ(r.answer_r, 0);
        if (kind == 'f') {
                (void) ended(&r);
                ASSERT_EQ(pread(answer[1], got, sizeof(got), 0), n);
        } else {
                ASSERT_EQ(shared && kind == 'p' && (fcntl(body[0], F_GETFL) & O_NONBLOCK), false);
                close_many(fds, 2);
                read_text(&r, answer[0], got, sizeof(got));
                ASSERT_EQ(strlen(got), n);
                close(answer[0]);
        }
        ASSERT_EQ(memcmp(got, data, n), 0);
        ASSERT_NULL(json_object_get(ended(&r), "error"));
        ASSERT_EQ(json_integer_value(json_object_get(ended(&r), "bytes")), n);
        if (kind == 'f')
                close_many(fds, 2);
        rig_done(&r);
}

TEST(body_and_answer) {
        echo_through('p', false);
        echo_through('p', true);
        echo_through('s', true);
        echo_through('f', true);
}

/* Asks for a path with the write end of a pipe; the read end, non-blocking. */
static int ask_for(Rig *r, const char *path, bool shared, json_t *more) {
        _cleanup_json_ json_t *members = more;
        json_t *message = request("GET", path, false, true);
        int fds[2];

        ASSERT_OK(pipe2(fds, O_CLOEXEC));
        ASSERT_OK(fd_nonblock(fds[0], true));
        json_object_set_new(message, "shared", json_boolean(shared));
        if (members)
                json_object_update(message, members);
        call_with(r, "request", message, &fds[1], 1);
        close(fds[1]);
        return fds[0];
}

TEST(transfers_end_before_their_time) {
        for (unsigned shared = 0; shared < 2; shared++) {
                json_t *id;
                int fd;
                Rig r;

                rig_init(&r);
                start_ready(&r, "normal");
                fd = ask_for(&r, "/files?path=flood", shared, NULL);
                call(&r, "exec", json_pack("{s:[s]}", "argv", "garbage")); /* ends the session */
                ASSERT_STREQ(ended_code(&r), "agent");
                expect_end(&r, fd);
                close(fd);
                rig_done(&r);

                /* nobody reads: it waits, and nothing is lost */
                rig_init(&r);
                start_ready(&r, "normal");
                fd = ask_for(&r, "/files?path=flood", shared, NULL);
                ASSERT_EQ(r.answer_r, 0);
                for (unsigned i = 0; i < 200; i++)
                        ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
                ASSERT_NULL(find_event(&r, "transfer-ended"));
                expect_part(&r, fd, 2 * MIB);
                RUN_UNTIL(&r, find_event(&r, "transfer"));
                id = json_object_get(r.answer, "transfer");
                call(&r, "cancel", json_pack("{s:O}", "transfer", id));
                ASSERT_EQ(r.answer_r, 0);
                ASSERT_STREQ(ended_code(&r), "canceled");
                call(&r, "cancel", json_pack("{s:i}", "transfer", 4711));
                ASSERT_STREQ(r.code, "not-found");
                close(fd);

                json_array_clear(r.events);
                fd = ask_for(&r, "/files?path=flood", shared, NULL);
                close(fd);
                ASSERT_STREQ(ended_code(&r), "canceled");

                json_array_clear(r.events);
                fd = ask_for(&r, "/files?path=flood", shared, json_pack("{s:i}", "answer_max", 5000));
                ASSERT_STREQ(ended_code(&r), "too-large");
                close(fd);

                fd = ask_for(&r, "/files?path=mute", shared, json_pack("{s:i}", "timeout_usec", 50000));
                ASSERT_STREQ(r.code, "timeout");
                close(fd);

                json_array_clear(r.events);
                fd = ask_for(&r, "/files?path=flood", shared, NULL);
                call(&r, "kill", json_pack("{s:s}", "reason", "user"));
                ASSERT_STREQ(ended_code(&r), "agent");
                close(fd);
                rig_done(&r);
        }
}

TEST(bound_transfers_end_with_who_asked) {
        int bound, free_, sockets[2];
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        bound = ask_for(&r, "/files?path=flood", false, json_pack("{s:b}", "bound", 1));
        free_ = ask_for(&r, "/files?path=flood", false, NULL);
        r.stream = json_stream_free(r.stream);
        expect_end(&r, bound);
        expect_part(&r, free_, 2 * MIB);
        close_many((int[]) { bound, free_ }, 2);

        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
        ASSERT_OK(control_add_client(monitor_control(r.monitor), sockets[0]));
        ASSERT_OK(json_stream_new(r.event, sockets[1], JSON_DIALECT_CONTROL, JSON_MESSAGE_MAX,
                                  &stream_handlers, &r, &r.stream));
        ASSERT_STREQ(state_of(&r), "ready");
        rig_done(&r);
}

TEST(transfer_limit) {
        int fds[TRANSFERS_MAX];
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        for (unsigned i = 0; i < TRANSFERS_MAX; i++) {
                fds[i] = ask_for(&r, "/files?path=flood", false, NULL);
                ASSERT_EQ(r.answer_r, 0);
        }
        call(&r, "request", request("GET", "/processes", false, false));
        ASSERT_STREQ(r.code, "quota-exceeded");

        /* none of them is read, which nobody else feels */
        for (unsigned i = 0; i < 1000; i++)
                ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
        call(&r, "exec", json_pack("{s:[s,s]}", "argv", "echo", "meanwhile"));
        expect_text(&r, r.fds[0], "meanwhile\n");
        close_many(fds, TRANSFERS_MAX);
        rig_done(&r);
}

TEST(errors_are_reported_into_the_body) {
        json_t *message = request("PUT", "/files?path=nonesuch", true, false);
        int fds[2];
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
        ASSERT_EQ(write(fds[0], "unread", 6), 6);
        json_object_set_new(message, "report", json_true());
        call_with(&r, "request", message, &fds[1], 1);
        close(fds[1]);
        expect_text(&r, fds[0], "No \\x1b[1msuch thing.");
        expect_end(&r, fds[0]);
        ASSERT_STREQ(ended_code(&r), "not-found");
        close(fds[0]);
        rig_done(&r);
}

TEST(console_reader) {
        char text[64] = {};
        Rig r;

        rig_init(&r);
        start_ready(&r, "normal");
        call(&r, "console", NULL);
        ASSERT_EQ(r.n_fds, 1);
        ASSERT_OK(fd_nonblock(r.fds[0], true));
        RUN_UNTIL(&r, read(r.fds[0], text, sizeof(text) - 1) > 0);
        ASSERT_STREQ(text, "hello from the console\r\n");
        rig_done(&r);
}

TEST(terminate) {
        Rig r;

        rig_init(&r);
        monitor_terminate(r.monitor);
        RUN_UNTIL(&r, loop_ended(&r));
        rig_done(&r);

        rig_init(&r);
        start_ready(&r, "normal");
        monitor_terminate(r.monitor);
        assert_exited(&r, "user", "exit 0");
        rig_done(&r);

        /* an agent that is not there is not waited for */
        rig_init(&r);
        start(&r, "silent");
        monitor_terminate(r.monitor);
        assert_exited(&r, "user", "signal KILL");
        rig_done(&r);
}
