/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See line-io.h. */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "shared/line-io.h"

#define READ_BYTES    (64U * 1024U)
#define IN_BYTES_MIN  4096U
#define IN_BYTES_KEEP 16384U /* an empty buffer keeps so much */

struct LineOut {
        LineOut *next;
        size_t n, n_sent;
        int fds[JSON_FDS_MAX];
        size_t n_fds; /* 0 once they are sent */
        char data[];
};

int line_io_init(LineIO *io, int fd, size_t line_max) {
        int r;

        r = fd_nonblock(fd, true);
        if (r < 0)
                return r;

        *io = (LineIO) { .fd = fd, .line_max = line_max };
        return 0;
}

static void out_free(LineOut *o) {
        close_many(o->fds, o->n_fds);
        free(o);
}

static void out_drop(LineIO *io) {
        while (io->out) {
                LineOut *o = io->out;

                io->out = o->next;
                out_free(o);
        }

        io->out_last = NULL;
        io->n_out_bytes = 0;
}

void line_io_done(LineIO *io) {
        for (size_t i = 0; i < io->n_in_fds; i++)
                (void) close(io->in_fds[i].fd);
        out_drop(io);
        free(io->in);
        io->fd = close_fd(io->fd);
        *io = LINE_IO_NULL;
}

/* ---- in ------------------------------------------------------------------------------------- */

static int in_make_room(LineIO *io) {
        size_t size;
        char *p;

        if (io->in_size > io->n_in)
                return 0;

        size = MAX(io->in_size * 2, (size_t) IN_BYTES_MIN);
        size = MIN(size, io->line_max + 1);
        if (size <= io->n_in)
                return -EMSGSIZE;

        p = realloc(io->in, size);
        if (!p)
                return -ENOMEM;

        io->in = p;
        io->in_size = size;
        return 0;
}

/* Puts the fds of a message into the table; those that do not fit are closed and spoil the stream. */
static int in_take_fds(LineIO *io, struct msghdr *mh, size_t at) {
        int r = mh->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;

                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (io->n_in_fds < ELEMENTSOF(io->in_fds)) {
                                io->in_fds[io->n_in_fds].fd = fd;
                                io->in_fds[io->n_in_fds++].at = at;
                        } else {
                                (void) close(fd);
                                r = -EPROTO;
                        }
                }
        }

        return r;
}

/* 1: got something, 0: EOF */
static int in_receive(LineIO *io) {
        union {
                char buffer[CMSG_SPACE(sizeof(int) * JSON_FDS_MAX)];
                struct cmsghdr align;
        } control;
        struct iovec iov;
        struct msghdr mh = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t k;
        int r;

        r = in_make_room(io);
        if (r < 0)
                return r;

        iov = (struct iovec) { .iov_base = io->in + io->n_in,
                               .iov_len = MIN(io->in_size - io->n_in, (size_t) READ_BYTES) };
        k = recvmsg(io->fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (k < 0)
                return errno == EAGAIN || errno == EINTR ? 1 : -errno;

        r = in_take_fds(io, &mh, io->n_in + (size_t) MAX(k, (ssize_t) 1) - 1);
        if (r < 0)
                return r;

        io->n_in += (size_t) k;
        return k > 0;
}

/* Moves the fds of in[start..end] to *ret; those that are too many stay for line_io_done(). */
static int in_pick_fds(LineIO *io, size_t start, size_t end, LineFds *ret) {
        size_t n_kept = 0;
        int r = 0;

        ret->n = 0;
        for (size_t i = 0; i < io->n_in_fds; i++) {
                bool ours = io->in_fds[i].at >= start && io->in_fds[i].at <= end;

                if (ours && ret->n < JSON_FDS_MAX) {
                        ret->fds[ret->n++] = io->in_fds[i].fd;
                        continue;
                }

                io->in_fds[n_kept++] = io->in_fds[i];
                if (ours)
                        r = -EPROTO;
        }

        io->n_in_fds = n_kept;
        return r;
}

static void in_remove(LineIO *io, size_t n) {
        memmove(io->in, io->in + n, io->n_in - n);
        io->n_in -= n;
        io->n_scanned = io->n_in;
        for (size_t i = 0; i < io->n_in_fds; i++)
                io->in_fds[i].at -= n;

        if (io->n_in == 0 && io->in_size > IN_BYTES_KEEP) {
                free(io->in);
                io->in = NULL;
                io->in_size = 0;
        }
}

int line_io_read(LineIO *io, LineHandler on_line, void *userdata) {
        size_t start = 0;
        int r, k;

        k = in_receive(io);
        if (k < 0)
                return k;

        for (;;) {
                LineFds fds;
                char *end;

                end = memchr(io->in + io->n_scanned, '\n', io->n_in - io->n_scanned);
                if (!end)
                        break;

                io->n_scanned = (size_t) (end - io->in) + 1;
                r = in_pick_fds(io, start, io->n_scanned - 1, &fds);
                if (r >= 0)
                        r = on_line(io->in + start, io->n_scanned - 1 - start, &fds, userdata);
                close_many(fds.fds, fds.n);
                if (r < 0)
                        return r;

                start = io->n_scanned;
        }

        in_remove(io, start);
        return k;
}

/* ---- out ------------------------------------------------------------------------------------ */

int line_io_queue(LineIO *io, const char *line, size_t n, const int *fds, size_t n_fds) {
        LineOut *o;

        if (io->write_dead || io->fd < 0)
                return -ENOTCONN;
        if (n_fds > JSON_FDS_MAX)
                return -E2BIG;
        if (n > io->line_max)
                return -EMSGSIZE;
        if (io->n_out_bytes + n + 1 > JSON_QUEUE_MAX)
                return -ENOBUFS;

        o = malloc(sizeof(LineOut) + n + 1);
        if (!o)
                return -ENOMEM;

        *o = (LineOut) { .n = n + 1 };
        memcpy(o->data, line, n);
        o->data[n] = '\n';

        for (; o->n_fds < n_fds; o->n_fds++) {
                o->fds[o->n_fds] = fcntl(fds[o->n_fds], F_DUPFD_CLOEXEC, 3);
                if (o->fds[o->n_fds] < 0) {
                        int r = -errno;

                        out_free(o);
                        return r;
                }
        }

        if (io->out_last)
                io->out_last->next = o;
        else
                io->out = o;
        io->out_last = o;
        io->n_out_bytes += o->n;
        return 0;
}

static ssize_t out_send(LineIO *io, LineOut *o) {
        union {
                char buffer[CMSG_SPACE(sizeof(int) * JSON_FDS_MAX)];
                struct cmsghdr align;
        } control = {};
        struct iovec iov = { .iov_base = o->data + o->n_sent, .iov_len = o->n - o->n_sent };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t k;

        if (o->n_fds > 0) {
                struct cmsghdr *c;

                mh.msg_control = &control;
                mh.msg_controllen = CMSG_SPACE(sizeof(int) * o->n_fds);
                c = CMSG_FIRSTHDR(&mh);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * o->n_fds);
                memcpy(CMSG_DATA(c), o->fds, sizeof(int) * o->n_fds);
        }

        k = sendmsg(io->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
        return k < 0 ? -errno : k;
}

int line_io_flush(LineIO *io) {
        while (io->out) {
                LineOut *o = io->out;
                ssize_t k;

                k = out_send(io, o);
                if (k == -EINTR)
                        continue;
                if (k == -EAGAIN)
                        return 0;
                if (k == -EPIPE || k == -ECONNRESET) {
                        io->write_dead = true;
                        out_drop(io);
                        return 0;
                }
                if (k < 0)
                        return (int) k;

                close_many(o->fds, o->n_fds);
                o->n_fds = 0;
                o->n_sent += (size_t) k;
                io->n_out_bytes -= (size_t) k;
                if (o->n_sent < o->n)
                        continue;

                io->out = o->next;
                if (!io->out)
                        io->out_last = NULL;
                out_free(o);
        }

        return 0;
}

size_t line_io_n_queued(const LineIO *io) {
        return io->n_out_bytes;
}
