/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A peer that says anything: the first byte chooses the dialect and what the handlers do, then come pieces,
 * [length] bytes…; a piece of odd length brings an fd. Every call is done once and the stream is closed at
 * most once.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "shared/json-stream.h"
#include "tests/fuzz/fuzz.h"

#define CALLS 3U

enum {
        QMP = 1 << 0,
        FREE_IN_EVENT = 1 << 1,
        FREE_IN_DONE = 1 << 2,
        TAKE_FDS = 1 << 3,
        CALL_IN_DONE = 1 << 4,
};

typedef struct Context {
        JsonStream *stream;
        uint8_t flags;
        unsigned n_done, n_closed, n_called;
} Context;

static void take(Context *c, int *fds, size_t n) {
        assert(n <= JSON_FDS_MAX);
        for (size_t i = 0; i < n && (c->flags & TAKE_FDS); i++)
                fds[i] = close_fd(fds[i]);
}

static void on_done(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                    void *userdata) {
        Context *c = userdata;

        assert((r < 0) == (fault != NULL));
        assert((r < 0) == (result == NULL));
        c->n_done++;
        take(c, fds, n_fds);
        if ((c->flags & CALL_IN_DONE) && c->n_called < 2 * CALLS &&
            json_stream_call(c->stream, "again", NULL, NULL, 0, USEC_INFINITY, on_done, c, NULL) >= 0)
                c->n_called++;
        if (c->flags & FREE_IN_DONE)
                c->stream = json_stream_free(c->stream);
}

static void on_request(JsonStream *s, uint64_t id, const char *verb, json_t *message, int *fds, size_t n_fds,
                       void *userdata) {
        take(userdata, fds, n_fds);
        (void) json_stream_reply(s, id, message, NULL, 0);
}

static void on_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                     void *userdata) {
        Context *c = userdata;

        take(c, fds, n_fds);
        if (c->flags & FREE_IN_EVENT)
                c->stream = json_stream_free(c->stream);
}

static void on_closed(JsonStream *s, int error, void *userdata) {
        Context *c = userdata;

        c->n_closed++;
        assert(c->n_done == c->n_called);
}

static const JsonStreamHandlers handlers = { on_request, on_event, on_closed };

static void say(int fd, const uint8_t *data, size_t n) {
        union {
                char buffer[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = {};
        struct iovec iov = { (void *) data, n };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n % 2 == 1) {
                struct cmsghdr *c;

                mh.msg_control = &control;
                mh.msg_controllen = sizeof(control);
                c = CMSG_FIRSTHDR(&mh);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(c), &(int) { STDERR_FILENO }, sizeof(int));
        }

        (void) sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void settle(sd_event *e) {
        for (unsigned i = 0; i < 10000 && sd_event_run(e, 0) > 0; i++)
                ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        _cleanup_close_ int peer = -EBADF;
        FuzzInput in = { data, n };
        Context c = { .flags = fuzz_byte(&in) };
        int pair[2];

        assert(sd_event_new(&e) >= 0);
        assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) >= 0);
        peer = pair[1];
        assert(json_stream_new(e, pair[0], c.flags & QMP ? JSON_DIALECT_QMP : JSON_DIALECT_CONTROL, 4096,
                               &handlers, &c, &c.stream) >= 0);
        for (; c.n_called < CALLS; c.n_called++)
                assert(json_stream_call(c.stream, "x", NULL, NULL, 0, USEC_INFINITY, on_done, &c, NULL) >=
                       0);

        while (in.n > 0) {
                size_t k = fuzz_byte(&in);
                const uint8_t *p = fuzz_bytes(&in, k, &k);

                say(peer, p, k);
                settle(e);
        }

        peer = close_fd(peer);
        settle(e);
        assert(c.n_closed <= 1);
        assert(c.n_done <= c.n_called);
        assert(!c.stream || c.n_closed == 1);
        json_stream_free(c.stream);
        return 0;
}
