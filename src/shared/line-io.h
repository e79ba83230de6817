/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Lines with fds over a Unix stream socket, no event loop: the part below json-stream. One line is one
 * sendmsg(2), its fds travel with its first byte. The kernel ends a recvmsg(2) after bytes that fds came
 * with, hence fds belong to the line that holds the last byte of that read.
 */

#include "basic/limits.h"
#include "basic/macro.h"

typedef struct LineFds {
        int fds[JSON_FDS_MAX]; /* what the handler sets to -EBADF is its own from then on */
        size_t n;
} LineFds;

/* < 0 stops and is returned. The line carries no line break and is borrowed. */
typedef int (*LineHandler)(const char *line, size_t n, LineFds *fds, void *userdata);

typedef struct LineOut LineOut;

typedef struct LineIO {
        int fd; /* owned */
        size_t line_max;

        char *in; /* owned */
        size_t in_size, n_in, n_scanned;
        struct {
                int fd;
                size_t at; /* offset in 'in' of the last byte it came with */
        } in_fds[2 * JSON_FDS_MAX];
        size_t n_in_fds;

        LineOut *out, *out_last;
        size_t n_out_bytes;
        bool write_dead; /* the peer reads no more; what it wrote before is still to be read */
} LineIO;

#define LINE_IO_NULL ((LineIO) { .fd = -EBADF })

/* Takes fd on success and makes it non-blocking. */
int line_io_init(LineIO *io, int fd, size_t line_max);

/* Closes the socket and all fds on the way; may be called by the handler inside line_io_read(). */
void line_io_done(LineIO *io);

/*
 * One read, then the handler for every whole line. 1: go on, 0: EOF, -EPROTO: fds that belong to no line or
 * too many, -EMSGSIZE: a line longer than line_max, the handler's error, or that of recvmsg(2). After
 * line_io_done() in the handler it must return < 0.
 */
int line_io_read(LineIO *io, LineHandler on_line, void *userdata);

/* Queues a line; fds are duplicated. -E2BIG, -EMSGSIZE (fds, length), -ENOBUFS beyond JSON_QUEUE_MAX,
 * -ENOTCONN. */
int line_io_queue(LineIO *io, const char *line, size_t n, const int *fds, size_t n_fds);

/* Writes what the socket takes. A peer that went away is no error here: reading tells it, after its last
 * words. */
int line_io_flush(LineIO *io);
size_t line_io_n_queued(const LineIO *io);
