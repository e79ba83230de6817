/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-stream.h"
#include "tests/unit/test.h"

/* A stream of ours and, at the other end of the pair, either a raw socket or a second stream. */
typedef struct Fixture {
        sd_event *event;
        JsonStream *stream;
        int peer; /* raw */

        unsigned n_requests, n_events, n_closed, n_done;
        int close_error, done_error;
        char text[256];
        FaultCode done_code;
        char done_text[256];
        uint64_t last_id;
        int fds[JSON_FDS_MAX];
        size_t n_fds;
        bool keep_fds, free_in_event, free_in_done, call_in_closed, echo;
        JsonCall *call;
} Fixture;

static void take_fds(Fixture *f, int *fds, size_t n_fds) {
        f->n_fds = n_fds;
        for (size_t i = 0; f->keep_fds && i < n_fds; i++)
                f->fds[i] = TAKE_FD(fds[i]);
}

static void on_request(JsonStream *s, uint64_t id, const char *verb, json_t *message, int *fds, size_t n_fds,
                       void *userdata) {
        Fixture *f = userdata;

        f->n_requests++;
        f->last_id = id;
        (void) snprintf(f->text, sizeof(f->text), "%s", verb);
        if (f->echo) {
                if (n_fds > 0)
                        ASSERT_OK(json_stream_reply(s, id, json_object_get(message, "body"), fds, n_fds));
                else if (streq(verb, "fail")) {
                        _cleanup_(fault_done) Fault fault = FAULT_NULL;

                        (void) fault_set(&fault, FAULT_NOT_FOUND, "No \xff thing.");
                        ASSERT_OK(json_stream_reply_fault(s, id, &fault));
                } else if (!streq(verb, "silent"))
                        ASSERT_OK(json_stream_reply(s, id, NULL, NULL, 0));
        }
        take_fds(f, fds, n_fds);
}

static void on_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                     void *userdata) {
        Fixture *f = userdata;

        f->n_events++;
        (void) snprintf(f->text, sizeof(f->text), "%s", name);
        take_fds(f, fds, n_fds);
        if (f->free_in_event)
                f->stream = json_stream_free(f->stream);
}

static void on_closed(JsonStream *s, int error, void *userdata) {
        Fixture *f = userdata;

        f->n_closed++;
        f->close_error = error;
        if (f->call_in_closed)
                ASSERT_EQ(json_stream_event(s, "x", NULL), -ENOTCONN);
        f->stream = json_stream_free(f->stream);
}

static void on_done(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                    void *userdata) {
        Fixture *f = userdata;

        f->n_done++;
        f->done_error = r;
        f->done_code = fault ? fault->code : FAULT_NONE;
        ASSERT_EQ(r < 0, fault != NULL);
        (void) snprintf(f->done_text, sizeof(f->done_text), "%s", fault ? fault->message : "");
        take_fds(f, fds, n_fds);
        if (call == f->call)
                f->call = json_call_free(f->call);
        if (f->free_in_done)
                f->stream = json_stream_free(f->stream);
}

static const JsonStreamHandlers handlers = { on_request, on_event, on_closed };

static void setup(Fixture *f, JsonDialect dialect) {
        int pair[2];

        *f = (Fixture) {};
        ASSERT_OK(sd_event_new(&f->event));
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        ASSERT_OK(json_stream_new(f->event, pair[0], dialect, 0, &handlers, f, &f->stream));
        ASSERT_EQ(json_stream_fd(f->stream), pair[0]);
        f->peer = pair[1];
        ASSERT_OK(fd_nonblock(f->peer, true));
}

static void teardown(Fixture *f) {
        json_call_free(f->call);
        json_stream_free(f->stream);
        close_fd(f->peer);
        sd_event_unref(f->event);
}

/* Runs the loop until nothing is left to do. */
static void settle(Fixture *f) {
        while (sd_event_run(f->event, 0) > 0)
                ;
}

static void say(Fixture *f, const char *text) {
        ASSERT_OK(fd_nonblock(f->peer, true));
        ASSERT_EQ(send(f->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void say_with_fds(Fixture *f, const char *text, unsigned n_fds) {
        union {
                char buffer[CMSG_SPACE(sizeof(int) * 64)];
                struct cmsghdr align;
        } control = {};
        struct iovec iov = { (char *) text, strlen(text) };
        struct msghdr mh = { .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(sizeof(int) * n_fds) };
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        for (unsigned i = 0; i < n_fds; i++)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &(int) { STDERR_FILENO }, sizeof(int));
        ASSERT_EQ(sendmsg(f->peer, &mh, MSG_NOSIGNAL), strlen(text));
}

static void expect_said(Fixture *f, const char *text) {
        char buffer[4096];
        ssize_t n = recv(f->peer, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);

        buffer[MAX(n, (ssize_t) 0)] = 0;
        ASSERT_STREQ(buffer, text);
}

TEST(what_is_sent) {
        _cleanup_json_ json_t *body = json_pack("{s:i}", "x", 1);
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);
        ASSERT_OK(json_stream_call(f.stream, "start", body, NULL, 0, USEC_INFINITY, on_done, &f, NULL));
        expect_said(&f, "{\"x\":1,\"verb\":\"start\",\"id\":1}\n");
        ASSERT_OK(json_stream_event(f.stream, "ready", body));
        expect_said(&f, "{\"x\":1,\"event\":\"ready\"}\n");
        ASSERT_OK(json_stream_reply(f.stream, 7, body, NULL, 0));
        expect_said(&f, "{\"id\":7,\"ok\":{\"x\":1}}\n");
        ASSERT_OK(json_stream_reply_fault(f.stream, 7, &(Fault) { FAULT_NO_KVM, (char *) "No." }));
        expect_said(&f, "{\"id\":7,\"error\":{\"code\":\"no-kvm\",\"message\":\"No.\"}}\n");
        ASSERT_EQ(json_object_size(body), 1);
        teardown(&f);

        setup(&f, JSON_DIALECT_QMP);
        ASSERT_OK(json_stream_call(f.stream, "stop", NULL, NULL, 0, USEC_INFINITY, on_done, &f, NULL));
        expect_said(&f, "{\"execute\":\"stop\",\"id\":1}\n");
        ASSERT_OK(json_stream_call(f.stream, "set", body, NULL, 0, USEC_INFINITY, on_done, &f, NULL));
        expect_said(&f, "{\"execute\":\"set\",\"arguments\":{\"x\":1},\"id\":2}\n");
        teardown(&f);
}

TEST(what_is_received) {
        static const struct {
                JsonDialect dialect;
                const char *said;
                unsigned n_requests, n_events, n_done;
                int closed; /* 1: goes on */
                const char *text;
        } cases[] = {
                { JSON_DIALECT_CONTROL, "{\"id\":3,\"verb\":\"kill\"}\n", 1, 0, 0, 1, "kill" },
                { JSON_DIALECT_CONTROL, "{\"event\":\"ready\"}\n{\"event\":\"exited\"}\n", 0, 2, 0, 1,
                  "exited" },
                { JSON_DIALECT_CONTROL, "{\"event\":\"failed\",\"error\":{}}\n", 0, 1, 0, 1, "failed" },
                { JSON_DIALECT_CONTROL, "{\"id\":99,\"ok\":{}}\n", 0, 0, 0, 1, "" },
                { JSON_DIALECT_CONTROL, "{\"id\":1,\"ok\":{}}\n{\"id\":1,\"ok\":{}}\n", 0, 0, 1, 1, "" },
                { JSON_DIALECT_CONTROL, "{\"id\":1,\"error\":{}}\n", 0, 0, 1, 1, "" },
                { JSON_DIALECT_CONTROL, "{\"id\":1,\"error\":7}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"verb\":\"kill\"}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"id\":-1,\"verb\":\"kill\"}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"id\":\"1\",\"ok\":{}}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"event\":1}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "[]\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "hello\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"event\":\"a\",\"event\":\"b\"}\n", 0, 0, 1, -EPROTO, "" },
                { JSON_DIALECT_CONTROL, "{\"event\":\"ready\"}", 0, 0, 0, 1, "" },
                { JSON_DIALECT_QMP, "{\"QMP\":{\"version\":{}}}\r\n", 0, 1, 0, 1, "greeting" },
                { JSON_DIALECT_QMP, "{\"return\":{},\"id\":1}\r\n", 0, 0, 1, 1, "" },
                { JSON_DIALECT_QMP, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":1}\n", 0,
                  0, 1, 1, "" },
                { JSON_DIALECT_QMP, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n", 0, 0, 1,
                  -EPROTO, "" },
                { JSON_DIALECT_QMP, "{\"timestamp\":{},\"event\":\"SHUTDOWN\"}\n", 0, 1, 0, 1, "SHUTDOWN" },
                { JSON_DIALECT_QMP, "{\"id\":3,\"verb\":\"kill\"}\n", 0, 0, 1, -EPROTO, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Fixture f;

                setup(&f, cases[i].dialect);
                ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &f,
                                           &f.call));
                say(&f, cases[i].said);
                settle(&f);
                ASSERT_EQ(f.n_requests, cases[i].n_requests);
                ASSERT_EQ(f.n_events, cases[i].n_events);
                ASSERT_EQ(f.n_done, cases[i].n_done);
                ASSERT_EQ(f.n_closed, cases[i].closed != 1);
                if (cases[i].closed != 1) {
                        ASSERT_EQ(f.close_error, cases[i].closed);
                        ASSERT_EQ(f.done_error, -ECONNRESET);
                        ASSERT_EQ(f.done_code, FAULT_AGENT);
                        ASSERT_STREQ(f.done_text, "x: the connection was closed.");
                }
                ASSERT_STREQ(f.text, cases[i].text);
                teardown(&f);
        }
}

/* Two streams that talk to each other. */
TEST(both_sides) {
        _cleanup_json_ json_t *body = json_pack("{s:{s:s}}", "body", "a", "b");
        Fixture f, g = { .echo = true, .peer = -EBADF };

        setup(&f, JSON_DIALECT_CONTROL);
        g.event = sd_event_ref(f.event);
        ASSERT_OK(json_stream_new(f.event, TAKE_FD(f.peer), JSON_DIALECT_CONTROL, 0, &handlers, &g,
                                  &g.stream));

        ASSERT_OK(json_stream_call(f.stream, "ping", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, &f.call));
        ASSERT_EQ(f.n_done, 0);
        settle(&f);
        ASSERT_EQ(f.n_done, 1);
        ASSERT_EQ(f.done_error, 0);
        ASSERT_EQ(g.n_requests, 1);

        ASSERT_OK(json_stream_call(f.stream, "fail", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, &f.call));
        settle(&f);
        ASSERT_EQ(f.done_error, -EREMOTEIO);
        ASSERT_EQ(f.done_code, FAULT_NOT_FOUND);
        ASSERT_STREQ(f.done_text, "No \\xff thing.");

        /* fds there and back; the ones the other side does not take are closed, test-main.c counts */
        f.keep_fds = true;
        ASSERT_OK(json_stream_call(f.stream, "fds", body, (int[]) { 0, 1, 2 }, 3, USEC_PER_SEC, on_done, &f,
                                   &f.call));
        settle(&f);
        ASSERT_EQ(g.n_fds, 3);
        ASSERT_EQ(f.n_fds, 3);
        for (size_t i = 0; i < 3; i++) {
                ASSERT_EQ(fcntl(f.fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
                close_fd(f.fds[i]);
        }

        teardown(&f);
        settle(&g);
        ASSERT_EQ(g.n_closed, 1);
        ASSERT_EQ(g.close_error, 0);
        teardown(&g);
}

TEST(fds_belong_to_their_line) {
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);

        /* the first read ends within the second line, whose fds it brings */
        say(&f, "{\"event\":\"a\"}\n");
        say_with_fds(&f, "{\"event\":", 2);
        say(&f, "\"b\"}\n{\"event\":\"c\"}\n");
        ASSERT_TRUE(sd_event_run(f.event, 0) > 0);
        ASSERT_STREQ(f.text, "a");
        ASSERT_EQ(f.n_fds, 0);
        settle(&f);
        ASSERT_STREQ(f.text, "c");
        ASSERT_EQ(f.n_fds, 0);
        ASSERT_EQ(f.n_events, 3);

        say_with_fds(&f, "{\"event\":\"d\"}\n", JSON_FDS_MAX);
        say(&f, "x");
        settle(&f);
        ASSERT_EQ(f.n_fds, JSON_FDS_MAX);
        teardown(&f);
}

TEST(too_many_fds) {
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);
        say_with_fds(&f, "{\"event\":\"d\"}\n", JSON_FDS_MAX + 1);
        settle(&f);
        ASSERT_EQ(f.n_events, 0);
        ASSERT_EQ(f.close_error, -EPROTO);
        teardown(&f);

        /* piece by piece for one line */
        setup(&f, JSON_DIALECT_CONTROL);
        for (unsigned i = 0; i < 3; i++)
                say_with_fds(&f, " ", JSON_FDS_MAX);
        say(&f, "{\"event\":\"d\"}\n");
        settle(&f);
        ASSERT_EQ(f.n_events, 0);
        ASSERT_EQ(f.close_error, -EPROTO);
        teardown(&f);

        setup(&f, JSON_DIALECT_CONTROL);
        ASSERT_EQ(json_stream_call(f.stream, "x", NULL, (int[JSON_FDS_MAX + 1]) {}, JSON_FDS_MAX + 1,
                                   USEC_INFINITY, on_done, &f, NULL),
                  -E2BIG);
        teardown(&f);
}

TEST(message_limit) {
        _cleanup_free_ char *text = malloc(JSON_MESSAGE_MAX + 64);
        _cleanup_json_ json_t *body = NULL;
        Fixture f;

        for (size_t extra = 0; extra <= 1; extra++) {
                size_t n;

                setup(&f, JSON_DIALECT_CONTROL);
                n = (size_t) sprintf(text, "{\"event\":\"a\",\"x\":\"");
                memset(text + n, 'x', JSON_MESSAGE_MAX + extra - n - 2);
                strcpy(text + JSON_MESSAGE_MAX + extra - 2, "\"}\n");
                say(&f, text);
                settle(&f);
                ASSERT_EQ(f.n_events, !extra);
                ASSERT_EQ(f.n_closed, extra);
                if (extra)
                        ASSERT_EQ(f.close_error, -EMSGSIZE);
                teardown(&f);
        }

        setup(&f, JSON_DIALECT_CONTROL);
        memset(text, 'x', JSON_MESSAGE_MAX);
        text[JSON_MESSAGE_MAX] = 0;
        body = json_pack("{s:s}", "x", text);
        ASSERT_EQ(json_stream_event(f.stream, "a", body), -EMSGSIZE);
        ASSERT_OK(json_stream_event(f.stream, "a", NULL));
        teardown(&f);
}

TEST(depth_limit) {
        char text[128] = "{\"event\":\"x\",\"x\":";
        Fixture f;

        for (unsigned i = 0; i < JSON_DEPTH_MAX; i++)
                strcat(text, "[");
        for (unsigned i = 0; i < JSON_DEPTH_MAX; i++)
                strcat(text, "]");
        strcat(text, "}\n");

        setup(&f, JSON_DIALECT_CONTROL);
        say(&f, text);
        settle(&f);
        ASSERT_EQ(f.n_events, 0);
        ASSERT_EQ(f.close_error, -EPROTO);
        teardown(&f);
}

TEST(call_limit) {
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);
        for (unsigned i = 0; i < CALLS_MAX; i++)
                ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &f, NULL));
        ASSERT_EQ(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &f, &f.call),
                  -ENOBUFS);
        ASSERT_NULL(f.call);

        close_fd(TAKE_FD(f.peer));
        settle(&f);
        ASSERT_EQ(f.n_done, CALLS_MAX);
        ASSERT_EQ(f.n_closed, 1);
        teardown(&f);
}

/* A peer that does not read is dropped, from the loop and not inside the caller. */
TEST(queue_limit) {
        _cleanup_free_ char *text = calloc(1, 60 * KIB);
        _cleanup_json_ json_t *body = NULL;
        Fixture f;
        int r = 0;

        memset(text, 'x', 60 * KIB - 1);
        body = json_pack("{s:s}", "x", text);
        setup(&f, JSON_DIALECT_CONTROL);
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &f, NULL));
        for (unsigned i = 0; i < 200 && r >= 0; i++)
                r = json_stream_call(f.stream, "x", body, NULL, 0, USEC_INFINITY, on_done, &f, NULL);
        ASSERT_EQ(r, -ENOBUFS);
        ASSERT_EQ(f.n_closed, 0);
        ASSERT_EQ(f.n_done, 0);
        ASSERT_EQ(json_stream_event(f.stream, "x", NULL), -ENOTCONN);
        settle(&f);
        ASSERT_EQ(f.n_closed, 1);
        ASSERT_EQ(f.close_error, -ENOBUFS);
        ASSERT_TRUE(f.n_done > 10);
        teardown(&f);
}

/* What does not fit at once goes out when there is room, in order. */
TEST(slow_reader) {
        _cleanup_free_ char *text = calloc(1, 60 * KIB);
        _cleanup_json_ json_t *body = NULL;
        Fixture f, g = { .peer = -EBADF };

        memset(text, 'x', 60 * KIB - 1);
        body = json_pack("{s:s}", "x", text);
        setup(&f, JSON_DIALECT_CONTROL);
        for (unsigned i = 0; i < 12; i++)
                ASSERT_OK(json_stream_event(f.stream, "x", body));
        settle(&f);

        ASSERT_OK(json_stream_new(f.event, TAKE_FD(f.peer), JSON_DIALECT_CONTROL, 0, &handlers, &g,
                                  &g.stream));
        settle(&f);
        ASSERT_EQ(g.n_events, 12);
        json_stream_free(g.stream);
        settle(&f);
        ASSERT_EQ(f.n_closed, 1);
        teardown(&f);
}

TEST(last_words) {
        Fixture f;

        /* the peer says something and is gone; we notice while writing, and still hear it */
        setup(&f, JSON_DIALECT_CONTROL);
        f.call_in_closed = true;
        say(&f, "{\"event\":\"exited\"}\n");
        close_fd(TAKE_FD(f.peer));
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &f, &f.call));
        ASSERT_EQ(f.n_closed, 0);
        ASSERT_EQ(json_stream_event(f.stream, "x", NULL), -ENOTCONN);
        settle(&f);
        ASSERT_EQ(f.n_events, 1);
        ASSERT_EQ(f.n_closed, 1);
        ASSERT_EQ(f.close_error, 0);
        ASSERT_EQ(f.done_error, -ECONNRESET);
        teardown(&f);
}

TEST(timeout_and_cancel) {
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);
        ASSERT_OK(json_stream_call(f.stream, "slow", NULL, NULL, 0, USEC_PER_MSEC, on_done, &f, &f.call));
        while (f.n_done == 0)
                ASSERT_OK(sd_event_run(f.event, USEC_PER_SEC));
        ASSERT_EQ(f.done_error, -ETIMEDOUT);
        ASSERT_EQ(f.done_code, FAULT_TIMEOUT);
        ASSERT_STREQ(f.done_text, "slow: no answer in time.");

        /* late, and to a cancelled one */
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, &f.call));
        f.call = json_call_free(f.call);
        say(&f, "{\"id\":1,\"ok\":{}}\n{\"id\":2,\"ok\":{}}\n");
        settle(&f);
        ASSERT_EQ(f.n_done, 1);
        ASSERT_EQ(f.n_closed, 0);
        teardown(&f);
}

TEST(free_inside_callbacks) {
        Fixture f;

        setup(&f, JSON_DIALECT_CONTROL);
        f.free_in_event = true;
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, &f.call));
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, NULL));
        say_with_fds(&f, "{\"event\":\"a\"}\n{\"event\":\"b\"}\n", 3);
        settle(&f);
        ASSERT_EQ(f.n_events, 1);
        ASSERT_EQ(f.n_done, 0);
        ASSERT_EQ(f.n_closed, 0);
        teardown(&f);

        setup(&f, JSON_DIALECT_CONTROL);
        f.free_in_done = true;
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, &f.call));
        say(&f, "{\"id\":1,\"ok\":{}}\n{\"event\":\"b\"}\n");
        settle(&f);
        ASSERT_EQ(f.n_done, 1);
        ASSERT_EQ(f.n_events, 0);
        teardown(&f);

        /* the first of two failing calls frees the stream: the second one hears nothing more */
        setup(&f, JSON_DIALECT_CONTROL);
        f.free_in_done = true;
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, NULL));
        ASSERT_OK(json_stream_call(f.stream, "x", NULL, NULL, 0, USEC_PER_SEC, on_done, &f, NULL));
        close_fd(TAKE_FD(f.peer));
        settle(&f);
        ASSERT_EQ(f.n_done, 1);
        ASSERT_EQ(f.n_closed, 0);
        teardown(&f);
}
