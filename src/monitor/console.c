/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "monitor/console.h"
#include "monitor/token-bucket.h"
#include "shared/event.h"

#define CONSOLE_READ_BYTES 4096U
#define CONSOLE_READS_MAX  8U /* per turn of the loop, so that a flood leaves time for others */

typedef struct ConsoleReader {
        Console *console;  /* weak: owns us */
        int fd;            /* write end of the reader's pipe; -EBADF: free place */
        uint64_t position; /* of the next byte, counted as console->total is */
        sd_event_source *source;
} ConsoleReader;

struct Console {
        sd_event *event; /* weak: outlives us */
        int guest_fd;
        sd_event_source *guest_source;
        int ring_fd;
        uint64_t total; /* bytes ever kept */
        uint64_t start; /* position of the file's first byte; total - start is its length */
        TokenBucket bucket;
        uint64_t dropped_bytes;
        uint64_t dropped_untold;
        ConsoleReader readers[CONSOLE_READERS_MAX];
};

static void reader_close(ConsoleReader *r) {
        r->source = event_source_free(r->source);
        r->fd = close_fd(r->fd);
}

/* Gives up the older half of the file. */
static int ring_shrink(Console *c) {
        uint64_t length = c->total - c->start, keep = CONSOLE_RING_BYTES / 2, moved = 0;
        char buffer[CONSOLE_READ_BYTES];

        while (moved < keep) {
                ssize_t n = pread(c->ring_fd, buffer, MIN(sizeof(buffer), keep - moved),
                                  (off_t) (length - keep + moved));

                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                if (pwrite(c->ring_fd, buffer, (size_t) n, (off_t) moved) != n)
                        return -EIO;
                moved += (uint64_t) n;
        }
        if (ftruncate(c->ring_fd, (off_t) keep) < 0)
                return -errno;
        c->start = c->total - keep;
        return 0;
}

static int ring_append(Console *c, const char *data, size_t n) {
        ssize_t written;
        int r;

        if (c->total - c->start + n > CONSOLE_RING_BYTES) {
                r = ring_shrink(c);
                if (r < 0)
                        return r;
        }
        written = pwrite(c->ring_fd, data, n, (off_t) (c->total - c->start));
        if (written < 0)
                return -errno;
        c->total += (uint64_t) written;
        return 0;
}

static void reader_pump(ConsoleReader *r) {
        Console *c = r->console;
        char buffer[CONSOLE_READ_BYTES];

        if (r->position < c->start)
                r->position = c->start;

        while (r->position < c->total) {
                ssize_t n = pread(c->ring_fd, buffer, MIN(sizeof(buffer), c->total - r->position),
                                  (off_t) (r->position - c->start));

                if (n > 0)
                        n = write(r->fd, buffer, (size_t) n);
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n <= 0) {
                        reader_close(r);
                        return;
                }
                r->position += (uint64_t) n;
        }
        (void) sd_event_source_set_io_events(r->source, r->position < c->total ? EPOLLOUT : 0);
}

static int on_reader(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        ConsoleReader *r = userdata;

        if (revents & (EPOLLERR | EPOLLHUP))
                reader_close(r);
        else
                reader_pump(r);
        return 0;
}

static void keep(Console *c, const char *data, size_t n) {
        int r = ring_append(c, data, n);

        if (r < 0)
                (void) log_warning_errno(r, "Failed to keep console output, ignoring: %m");
        for (size_t i = 0; i < CONSOLE_READERS_MAX; i++)
                if (c->readers[i].fd >= 0)
                        reader_pump(&c->readers[i]);
}

static void take(Console *c, const char *data, size_t n) {
        size_t allowed = (size_t) token_bucket_take(&c->bucket, n, now_usec(CLOCK_MONOTONIC));

        if (allowed > 0 && c->dropped_untold > 0) {
                char line[64];
                int k = snprintf(line, sizeof(line), "\r\n[%llu bytes dropped]\r\n",
                                 (unsigned long long) c->dropped_untold);

                keep(c, line, (size_t) k);
                c->dropped_untold = 0;
        }
        if (allowed > 0)
                keep(c, data, allowed);
        c->dropped_bytes += n - allowed;
        c->dropped_untold += n - allowed;
}

static void detach(Console *c) {
        c->guest_source = event_source_free(c->guest_source);
        c->guest_fd = close_fd(c->guest_fd);
}

void console_drain(Console *c) {
        char buffer[CONSOLE_READ_BYTES];

        for (unsigned i = 0; i < CONSOLE_READS_MAX && c->guest_fd >= 0; i++) {
                ssize_t n = read(c->guest_fd, buffer, sizeof(buffer));

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n <= 0) {
                        detach(c);
                        return;
                }
                take(c, buffer, (size_t) n);
        }
}

static int on_guest(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        console_drain(userdata);
        return 0;
}

int console_new(sd_event *e, int ring_fd, Console **ret) {
        Console *c = malloc(sizeof(Console));

        if (!c)
                return -ENOMEM;
        *c = (Console) { .event = e, .guest_fd = -EBADF, .ring_fd = ring_fd };
        token_bucket_init(&c->bucket, CONSOLE_RATE_BYTES_SEC, CONSOLE_BURST_BYTES,
                          now_usec(CLOCK_MONOTONIC));
        for (size_t i = 0; i < CONSOLE_READERS_MAX; i++)
                c->readers[i] = (ConsoleReader) { .console = c, .fd = -EBADF };
        *ret = c;
        return 0;
}

Console* console_free(Console *c) {
        if (!c)
                return NULL;
        detach(c);
        for (size_t i = 0; i < CONSOLE_READERS_MAX; i++)
                reader_close(&c->readers[i]);
        (void) close_fd(c->ring_fd);
        free(c);
        return NULL;
}

int console_attach(Console *c, int fd) {
        int r;

        detach(c);
        r = event_io(c->event, &c->guest_source, fd, EPOLLIN, PRIORITY_VMM, on_guest, c, "console");
        if (r < 0)
                return r;
        c->guest_fd = fd;
        return 0;
}

int console_open_reader(Console *c, int *ret_fd) {
        ConsoleReader *r = NULL;
        int fds[2], k;

        for (size_t i = 0; i < CONSOLE_READERS_MAX && !r; i++)
                if (c->readers[i].fd < 0)
                        r = &c->readers[i];
        if (!r)
                return -EMFILE;

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        (void) fcntl(fds[1], F_SETPIPE_SZ, (int) CONSOLE_RING_BYTES);
        k = fd_nonblock(fds[0], false);
        if (k >= 0)
                k = event_io(c->event, &r->source, fds[1], EPOLLOUT, PRIORITY_CLIENT, on_reader, r,
                             "console-reader");
        if (k < 0) {
                close_many(fds, 2);
                return k;
        }
        r->fd = fds[1];
        r->position = c->start;
        reader_pump(r);
        *ret_fd = fds[0];
        return 0;
}

uint64_t console_dropped_bytes(const Console *c) {
        return c->dropped_bytes;
}
