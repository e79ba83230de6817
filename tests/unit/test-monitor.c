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

static void call(Rig *r, const char *verb, json_t *body) {
        _cleanup_json_ json_t *owned = body;

        r->answered = false;
        ASSERT_OK(json_stream_call(r->stream, verb, owned, NULL, 0, 30 * USEC_PER_SEC, on_answer, r, NULL));
        RUN_UNTIL(r, r->answered);
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
