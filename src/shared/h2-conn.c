/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Moves bytes between a file descriptor and an H2Session; see h2-conn.h. Reading answers in the same turn;
 * what is submitted from elsewhere is written by a deferred source, so that a turn of the loop costs one
 * write(2) however many streams have something to say.
 */

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "shared/event.h"
#include "shared/h2-conn.h"

#define READ_BYTES      (64U * 1024U)
#define WRITES_PER_TURN 4U

struct H2Conn {
        sd_event *event;
        sd_event_source *io, *defer;
        int fd;
        bool is_socket;
        bool wants_out; /* EPOLLOUT is on */
        bool busy;      /* one of our handlers runs: h2_conn_free() from on_closed only */
        bool freed;
        int64_t priority;
        H2Session *session;
        const H2ConnHandlers *handlers;
        void *userdata;

        const uint8_t *pending; /* what the last write(2) left; lent by the session */
        size_t n_pending;
};

static void conn_release(H2Conn *c) {
        sd_event_unref(c->event);
        free(c);
}

static void conn_stop(H2Conn *c) {
        event_source_freep(&c->io);
        event_source_freep(&c->defer);
        c->session = h2_session_free(c->session);
        c->n_pending = 0;
}

/* The end: every stream hears of it, then the owner, who may free us. */
static void conn_close(H2Conn *c, int error) {
        conn_stop(c);
        if (c->handlers->on_closed)
                c->handlers->on_closed(c, error, c->userdata);
}

static int conn_set_out(H2Conn *c, bool on) {
        if (c->wants_out == on)
                return 0;

        c->wants_out = on;
        return sd_event_source_set_io_events(c->io, EPOLLIN | (on ? EPOLLOUT : 0));
}

/* 0: all is written, or EPOLLOUT or the deferred source goes on later. */
static int conn_flush(H2Conn *c) {
        for (unsigned i = 0; i < WRITES_PER_TURN; i++) {
                ssize_t k;
                int r;

                if (c->n_pending == 0) {
                        r = h2_session_output(c->session, (const void **) &c->pending, &c->n_pending);
                        if (r < 0)
                                return r;
                        if (c->n_pending == 0)
                                return conn_set_out(c, false);
                }

                k = c->is_socket ? send(c->fd, c->pending, c->n_pending, MSG_NOSIGNAL | MSG_DONTWAIT)
                                 : write(c->fd, c->pending, c->n_pending);
                if (k < 0 && errno == EAGAIN)
                        return conn_set_out(c, true);
                if (k < 0 && errno != EINTR)
                        return -errno;

                c->pending += MAX(k, (ssize_t) 0);
                c->n_pending -= (size_t) MAX(k, (ssize_t) 0);
        }

        return conn_set_out(c, true);
}

/* *ret_eof: the peer is gone. */
static int conn_read(H2Conn *c, bool *ret_eof) {
        uint8_t buffer[READ_BYTES];
        ssize_t k;

        k = read(c->fd, buffer, sizeof(buffer));
        if (k < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (k == 0) {
                *ret_eof = true;
                return 0;
        }

        return h2_session_receive(c->session, buffer, (size_t) k);
}

/* Runs one of the two below with the guard that lets on_closed free the connection. */
static int conn_run(H2Conn *c, uint32_t revents) {
        bool eof = false;
        int r = 0;

        c->busy = true;

        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                r = conn_read(c, &eof);
        if (r >= 0 && !eof)
                r = conn_flush(c);
        else if (r == -EPROTO)
                (void) conn_flush(c); /* the GOAWAY that says why */
        if (r < 0 || eof)
                conn_close(c, r);

        c->busy = false;
        if (c->freed)
                conn_release(c);
        return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        return conn_run(userdata, revents);
}

static int on_defer(sd_event_source *source, void *userdata) {
        return conn_run(userdata, 0);
}

static void on_wake(void *userdata) {
        H2Conn *c = userdata;

        /* with EPOLLOUT on, a flush comes anyway */
        if (c->io && !c->wants_out)
                (void) event_defer(c->event, &c->defer, c->priority, on_defer, c);
}

int h2_conn_new(sd_event *e, int fd, bool server, const H2ConnHandlers *handlers, void *userdata,
                const H2Limits *limits, int64_t priority, H2Conn **ret) {
        _cleanup_(h2_conn_freep) H2Conn *c = NULL;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;

        c = malloc(sizeof(H2Conn));
        if (!c)
                return -ENOMEM;

        *c = (H2Conn) {
                .event = sd_event_ref(e),
                .fd = -EBADF,
                .is_socket = S_ISSOCK(st.st_mode),
                .priority = priority,
                .handlers = handlers,
                .userdata = userdata,
        };

        r = fd_nonblock(fd, true);
        if (r < 0)
                return r;

        r = h2_session_new(server, &handlers->h2, userdata, limits, &c->session);
        if (r < 0)
                return r;
        h2_session_set_wake(c->session, on_wake, c);

        r = event_io(e, &c->io, fd, EPOLLIN, priority, on_io, c, "h2-connection");
        if (r < 0)
                return r;

        /* the preface */
        r = event_defer(e, &c->defer, priority, on_defer, c);
        if (r < 0)
                return r;

        c->fd = fd;
        *ret = TAKE_PTR(c);
        return 0;
}

H2Conn* h2_conn_free(H2Conn *c) {
        if (!c || c->freed)
                return NULL;

        conn_stop(c);
        c->fd = close_fd(c->fd);
        if (c->busy)
                c->freed = true;
        else
                conn_release(c);
        return NULL;
}

H2Session* h2_conn_session(const H2Conn *c) {
        return c->session;
}

int h2_conn_fd(const H2Conn *c) {
        return c->fd;
}
