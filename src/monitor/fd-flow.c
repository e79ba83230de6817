/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "monitor/fd-flow.h"
#include "shared/event.h"
#include "shared/protocol.h"

#define FEED_READ_BYTES 16384U

/* What of these the fd is. A socket may be shared with its owner, whose flags stay as they are. */
static FdKind fd_kind(int fd, bool shared) {
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISSOCK(st.st_mode))
                return FD_KIND_SOCKET;
        if (S_ISREG(st.st_mode))
                return FD_KIND_FILE;
        if (!S_ISFIFO(st.st_mode))
                return _FD_KIND_INVALID;
        if (shared)
                return FD_KIND_SHARED_PIPE;
        r = fd_nonblock(fd, true);
        return r < 0 ? (FdKind) r : FD_KIND_PIPE;
}

static int make_own_pipe(FdKind kind, int own[static 2]) {
        own[0] = own[1] = -EBADF;
        return kind == FD_KIND_SHARED_PIPE && pipe2(own, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
}

static ssize_t move_bytes(int from, int to, size_t n) {
        ssize_t k = splice(from, NULL, to, NULL, n, SPLICE_F_NONBLOCK);

        return k < 0 ? -errno : k;
}

/* Sink */

void fd_sink_close(FdSink *s) {
        s->source = event_source_free(s->source);
        s->fd = close_fd(s->fd);
        close_many(s->own, 2);
        s->n_own = 0;
        if (s->rq && s->rq->stream && s->ring.n > 0)
                h2_stream_consume(s->rq->stream, s->ring.n);
        h2_ring_done(&s->ring);
}

static void sink_fail(FdSink *s, int r) {
        fd_sink_close(s);
        s->on_event(s, r, s->userdata);
}

static ssize_t sink_write(FdSink *s, const void *data, size_t n) {
        ssize_t k;

        if (s->kind == FD_KIND_SOCKET)
                k = send(s->fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
                k = write(s->kind == FD_KIND_SHARED_PIPE ? s->own[1] : s->fd, data, n);
        if (k > 0 && s->kind == FD_KIND_SHARED_PIPE)
                s->n_own += (size_t) k;
        return k < 0 ? -errno : k;
}

/* From the ring into the fd, or into our own pipe. 0, also when not all went, or -errno. */
static int sink_pump_ring(FdSink *s) {
        uint8_t buffer[4096];

        while (s->ring.n > 0) {
                size_t n = MIN(s->ring.n, sizeof(buffer));
                ssize_t k;

                /* straight from the ring, so that what the fd refuses stays there */
                n = MIN(n, s->ring.size - s->ring.start);
                k = sink_write(s, s->ring.data + s->ring.start, n);
                if (k < 0)
                        return k == -EAGAIN || k == -EINTR ? 0 : (int) k;
                h2_ring_get(&s->ring, buffer, (size_t) k);
                s->n_bytes += (size_t) k;
                if (s->rq->stream)
                        h2_stream_consume(s->rq->stream, (size_t) k);
        }
        return 0;
}

static void sink_pump(FdSink *s) {
        int r = sink_pump_ring(s);

        while (r >= 0 && s->n_own > 0) {
                ssize_t k = move_bytes(s->own[0], s->fd, s->n_own);

                if (k == -EAGAIN || k == -EINTR)
                        break;
                if (k < 0)
                        r = (int) k;
                else {
                        s->n_own -= (size_t) k;
                        r = sink_pump_ring(s);
                }
        }
        if (r < 0) {
                sink_fail(s, r);
                return;
        }
        if (s->source)
                (void) sd_event_source_set_io_events(s->source, fd_sink_pending(s) > 0 ? EPOLLOUT : 0);
        if (fd_sink_pending(s) == 0)
                s->on_event(s, 0, s->userdata);
}

static int on_sink(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        FdSink *s = userdata;

        if (revents & (EPOLLERR | EPOLLHUP))
                sink_fail(s, -EPIPE);
        else
                sink_pump(s);
        return 0;
}

int fd_sink_open(FdSink *s, sd_event *e, int fd, bool shared, AgentRequest *rq,
                 void (*on_event)(FdSink *s, int r, void *userdata), void *userdata) {
        FdKind kind = fd_kind(fd, shared);
        int r;

        if (kind < 0)
                return kind;
        *s = (FdSink) { .rq = rq, .fd = -EBADF, .kind = kind, .on_event = on_event, .userdata = userdata };
        r = make_own_pipe(kind, s->own);
        if (r >= 0 && kind != FD_KIND_FILE)
                r = event_io(e, &s->source, fd, 0, PRIORITY_CLIENT, on_sink, s, "sink");
        if (r < 0)
                return r;
        s->fd = fd;
        return 0;
}

int fd_sink_take(FdSink *s, const void *data, size_t n) {
        int r;

        if (s->fd < 0) {
                h2_stream_consume(s->rq->stream, n);
                return 0;
        }
        r = h2_ring_put(&s->ring, data, n);
        if (r >= 0)
                sink_pump(s);
        return r;
}

/* Feed */

void fd_feed_close(FdFeed *f) {
        f->source = event_source_free(f->source);
        f->fd = close_fd(f->fd);
        close_many(f->own, 2);
}

static ssize_t feed_read(FdFeed *f, void *data, size_t n) {
        ssize_t k;

        if (f->kind == FD_KIND_SHARED_PIPE) {
                k = move_bytes(f->fd, f->own[1], n);
                if (k <= 0)
                        return k;
                k = read(f->own[0], data, (size_t) k); /* all of it: nobody else has that pipe */
        } else if (f->kind == FD_KIND_SOCKET)
                k = recv(f->fd, data, n, MSG_DONTWAIT);
        else
                k = read(f->fd, data, n);
        return k < 0 ? -errno : k;
}

/* Reads only what the stream takes as one frame, with room for a last one kept free. */
static int feed_pump(FdFeed *f) {
        uint8_t frame[FRAME_HEADER_LEN + FEED_READ_BYTES];
        size_t room = f->rq->stream ? h2_stream_room(f->rq->stream) : 0;
        ssize_t n;

        if (room < sizeof(frame) + FRAME_HEADER_LEN) {
                (void) sd_event_source_set_enabled(f->source, SD_EVENT_OFF);
                return 0;
        }
        n = feed_read(f, frame + FRAME_HEADER_LEN, FEED_READ_BYTES);
        if (n == -EAGAIN || n == -EINTR)
                return 0;
        if (n <= 0) {
                fd_feed_close(f);
                f->on_end(f, (int) n, f->userdata);
                return 0;
        }
        f->n_bytes += (size_t) n;
        if (f->framed) {
                frame_header(frame, FRAME_STDIN, (uint32_t) n);
                (void) h2_stream_write(f->rq->stream, frame, FRAME_HEADER_LEN + (size_t) n);
        } else
                (void) h2_stream_write(f->rq->stream, frame + FRAME_HEADER_LEN, (size_t) n);
        return 0;
}

static int on_feed(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        return feed_pump(userdata);
}

static int on_feed_file(sd_event_source *source, void *userdata) {
        return feed_pump(userdata);
}

int fd_feed_open(FdFeed *f, sd_event *e, int fd, bool shared, bool framed, AgentRequest *rq,
                 void (*on_end)(FdFeed *f, int r, void *userdata), void *userdata) {
        FdKind kind = fd_kind(fd, shared);
        int r;

        if (kind < 0)
                return kind;
        *f = (FdFeed) { .rq = rq,
                        .fd = -EBADF,
                        .kind = kind,
                        .framed = framed,
                        .on_end = on_end,
                        .userdata = userdata };
        r = make_own_pipe(kind, f->own);
        if (r < 0)
                return r;
        if (kind == FD_KIND_FILE)
                r = sd_event_add_defer(e, &f->source, on_feed_file, f);
        else
                r = event_io(e, &f->source, fd, EPOLLIN, PRIORITY_CLIENT, on_feed, f, "feed");
        if (r >= 0)
                r = sd_event_source_set_enabled(f->source, SD_EVENT_OFF);
        if (r < 0) {
                f->source = event_source_free(f->source);
                return r;
        }
        f->fd = fd;
        return 0;
}

void fd_feed_wake(FdFeed *f) {
        if (f->source)
                (void) sd_event_source_set_enabled(f->source, SD_EVENT_ON);
}
