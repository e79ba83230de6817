/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Between a caller's fd and a stream of the agent, with back-pressure both ways: a sink holds the credit of
 * what its fd did not take yet, a feed reads only what the stream takes. An fd is a pipe, a stream socket or
 * a plain file (a memfd); nothing here blocks, but for the disk of a plain file. A pipe whose end is shared
 * with its owner, who may change its flags and race with us, is moved to and from one of our own.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "monitor/agent-link.h"
#include "shared/h2-ring.h"

typedef enum FdKind {
        FD_KIND_PIPE,
        FD_KIND_SHARED_PIPE,
        FD_KIND_SOCKET,
        FD_KIND_FILE,
        _FD_KIND_MAX,
        _FD_KIND_INVALID = -EINVAL,
} FdKind;

/* Bytes of the agent on their way into a caller's fd. */
typedef struct FdSink {
        AgentRequest *rq; /* weak: owns us; its stream gets the credit back */
        int fd;           /* -EBADF: nobody reads, what comes is dropped */
        FdKind kind;
        int own[2]; /* between us and a shared pipe */
        size_t n_own;
        H2Ring ring;
        sd_event_source *source; /* NULL for a plain file */
        uint64_t n_bytes;        /* taken by the fd */
        /* r 0: all was taken. < 0: closed; -EPIPE: nobody reads any more, else why it cannot be written. Do
         * not free the sink here. */
        void (*on_event)(struct FdSink *s, int r, void *userdata);
        void *userdata;
} FdSink;

#define FD_SINK_NULL ((FdSink) { .fd = -EBADF, .own = { -EBADF, -EBADF } })

/* Takes fd on success. shared: others have this very end. -EINVAL: it is none that can be written here. */
int fd_sink_open(FdSink *s, sd_event *e, int fd, bool shared, AgentRequest *rq,
                 void (*on_event)(FdSink *s, int r, void *userdata), void *userdata);
/* All n bytes of a chunk that came with rq's stream, now or later. 0 or -ENOMEM. */
int fd_sink_take(FdSink *s, const void *data, size_t n);
/* Bytes that it did not take yet. */
static inline size_t fd_sink_pending(const FdSink *s) {
        return s->ring.n + s->n_own;
}
/* Gives back the credit of what was not taken. */
void fd_sink_close(FdSink *s);

/* A caller's bytes on their way to the agent. */
typedef struct FdFeed {
        AgentRequest *rq; /* weak: owns us */
        int fd;           /* -EBADF: none, or at its end */
        FdKind kind;
        int own[2];
        bool framed; /* each piece is a FRAME_STDIN */
        sd_event_source *source;
        uint64_t n_bytes;
        /* Closed: r 0 at its end, else why it cannot be read. Do not free the feed here. */
        void (*on_end)(struct FdFeed *f, int r, void *userdata);
        void *userdata;
} FdFeed;

#define FD_FEED_NULL ((FdFeed) { .fd = -EBADF, .own = { -EBADF, -EBADF } })

/* Takes fd on success; reads once fd_feed_wake() was called. -EINVAL as above. */
int fd_feed_open(FdFeed *f, sd_event *e, int fd, bool shared, bool framed, AgentRequest *rq,
                 void (*on_end)(FdFeed *f, int r, void *userdata), void *userdata);
/* The stream is open, or has room again. */
void fd_feed_wake(FdFeed *f);
void fd_feed_close(FdFeed *f);
