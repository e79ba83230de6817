/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "ctl/flow.h"
#include "shared/event.h"

#define FLOW_BYTES ((size_t) (64 * KIB))

int flow_dup(int fd) {
        char path[32];
        struct stat st;
        int flags, new_fd;

        if (fstat(fd, &st) < 0)
                return -errno;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0)
                return -errno;
        if (S_ISFIFO(st.st_mode) || isatty(fd)) {
                (void) snprintf(path, sizeof(path), "/proc/self/fd/%i", fd);
                new_fd = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
                if (new_fd >= 0)
                        return new_fd;
        }
        new_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return new_fd < 0 ? -errno : new_fd;
}

void flow_stop(Flow *f) {
        f->reader = event_source_free(f->reader);
        f->writer = event_source_free(f->writer);
        f->from = close_fd(f->from);
        f->to = close_fd(f->to);
        free(f->buffer);
        f->buffer = NULL;
}

static int flow_end(Flow *f, int r, bool in_write) {
        flow_stop(f);
        f->done(f, r, in_write, f->userdata);
        return 0;
}

/* Reading goes on once all is written. */
static int flow_turn(Flow *f, bool write) {
        int r = 0;

        if (f->writer)
                r = sd_event_source_set_enabled(f->writer, write ? SD_EVENT_ON : SD_EVENT_OFF);
        return r < 0 ? r : sd_event_source_set_enabled(f->reader, write ? SD_EVENT_OFF : SD_EVENT_ON);
}

static ssize_t write_some(const Flow *f, const char *data, size_t n) {
        ssize_t k;

        k = send(f->to, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (k >= 0 || errno != ENOTSOCK)
                return k;
        /* A blocking pipe that is ready takes so much without blocking. */
        return write(f->to, data, f->by_chunks ? MIN(n, (size_t) PIPE_BUF) : n);
}

static int flow_write(Flow *f) {
        while (f->begin < f->end) {
                ssize_t n = write_some(f, f->buffer + f->begin, f->end - f->begin);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return 0;
                if (n < 0)
                        return flow_end(f, -errno, true);
                f->begin += (size_t) n;
                f->n_bytes += (uint64_t) n;
                if (f->by_chunks && f->writer)
                        break;
        }
        if (f->begin < f->end)
                return 0;
        return f->ending ? flow_end(f, 0, false) : flow_turn(f, false);
}

static int on_writable(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        return flow_write(userdata);
}

static int flow_read(Flow *f) {
        ssize_t n;
        int r;

        n = read(f->from, f->buffer, FLOW_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0)
                return flow_end(f, -errno, false);
        if (n == 0)
                return flow_end(f, 0, false);

        f->begin = 0;
        f->end = (size_t) n;
        if (f->transform) {
                r = f->transform(f->userdata, f->buffer, (size_t) n, &f->end);
                if (r < 0)
                        return flow_end(f, r, false);
                f->ending = r > 0;
        }
        r = flow_turn(f, true);
        if (r < 0)
                return r;
        return f->writer ? 0 : flow_write(f);
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        return flow_read(userdata);
}

static int on_always_readable(sd_event_source *s, void *userdata) {
        return flow_read(userdata);
}

static int flow_watch(Flow *f, sd_event *e, int from, int to) {
        int r, flags;

        r = sd_event_add_io(e, &f->reader, from, EPOLLIN, on_readable, f);
        if (r == -EPERM) { /* a file, /dev/null */
                r = sd_event_add_defer(e, &f->reader, on_always_readable, f);
                if (r >= 0)
                        r = sd_event_source_set_enabled(f->reader, SD_EVENT_ON);
        }
        if (r < 0)
                return r;
        r = sd_event_add_io(e, &f->writer, to, EPOLLOUT, on_writable, f);
        if (r == -EPERM)
                return 0;
        flags = fcntl(to, F_GETFL);
        f->by_chunks = flags >= 0 && !(flags & O_NONBLOCK);
        return r < 0 ? r : sd_event_source_set_enabled(f->writer, SD_EVENT_OFF);
}

int flow_start(Flow *f, sd_event *e, int from, int to, FlowTransform transform, FlowDone done,
               void *userdata) {
        int r;

        *f = FLOW_NULL;
        f->transform = transform;
        f->done = done;
        f->userdata = userdata;
        f->buffer = malloc(FLOW_BYTES * (transform ? FLOW_EXPANSION : 1));
        if (!f->buffer)
                return -ENOMEM;
        r = flow_watch(f, e, from, to);
        if (r < 0) {
                flow_stop(f);
                return r;
        }
        f->from = from;
        f->to = to;
        return 0;
}

typedef struct FlowRun {
        void *userdata; /* the transform's */
        FlowTransform transform;
        bool ended;
        int r;
} FlowRun;

static int run_transform(void *userdata, char *data, size_t n, size_t *ret_n) {
        FlowRun *x = userdata;

        return x->transform(x->userdata, data, n, ret_n);
}

static void on_run_end(Flow *f, int r, bool in_write, void *userdata) {
        FlowRun *x = userdata;

        x->ended = true;
        x->r = r;
}

static int run_in(sd_event *e, Flow *f, FlowRun *x, int from, int to) {
        _cleanup_close_ int in = flow_dup(from), out = flow_dup(to);
        int r;

        if (in < 0 || out < 0)
                return MIN(in, out);
        r = flow_start(f, e, in, out, x->transform ? run_transform : NULL, on_run_end, x);
        if (r < 0)
                return r;
        in = out = -EBADF;
        while (r >= 0 && !x->ended)
                r = sd_event_run(e, UINT64_MAX);
        flow_stop(f);
        return r < 0 ? r : x->r;
}

int flow_run(int from, int to, FlowTransform transform, void *userdata, uint64_t *ret_bytes) {
        FlowRun x = { .userdata = userdata, .transform = transform };
        Flow f = FLOW_NULL;
        sd_event *e;
        int r;

        r = sd_event_new(&e);
        if (r < 0)
                return r;
        r = run_in(e, &f, &x, from, to);
        if (ret_bytes)
                *ret_bytes = f.n_bytes;
        sd_event_unref(e);
        return r;
}
