/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Bytes from one descriptor to another in the event loop: one chunk is read, then written, then the next is
 * read, so that a slow reader slows the writer and nothing is ever waited for outside of the loop. Both may
 * be anything a shell hands us: pipes, terminals, sockets, files. Their own modes are left alone, since
 * others share them.
 */

#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct Flow Flow;

/*
 * Changes what was read before it is written: n bytes at data, which has room for FLOW_EXPANSION times as
 * many as are ever read. *ret_n: what is to be written. 0, 1: write it and end, or -errno.
 */
typedef int (*FlowTransform)(void *userdata, char *data, size_t n, size_t *ret_n);
/* r: 0 at the end of file or after the transform's 1; -errno: reading failed, or writing did (in_write). The
 * flow is stopped already. */
typedef void (*FlowDone)(Flow *f, int r, bool in_write, void *userdata);

#define FLOW_EXPANSION 5U /* "\x1b" of each byte, and some kept from before */

struct Flow {
        int from, to;            /* both are the flow's own */
        FlowTransform transform; /* may be NULL */
        FlowDone done;
        void *userdata;
        uint64_t n_bytes; /* written */

        /* private */
        sd_event_source *reader, *writer;
        char *buffer;
        size_t begin, end;
        bool ending, by_chunks;
};

#define FLOW_NULL ((Flow) { .from = -EBADF, .to = -EBADF })

/*
 * Takes from and to when it succeeds. f may be stopped in a callback. -EPERM never comes: what cannot be
 * polled is always ready.
 */
int flow_start(Flow *f, sd_event *e, int from, int to, FlowTransform transform, FlowDone done,
               void *userdata);
/* Closes both; done is not called. Also for one that never started. */
void flow_stop(Flow *f);
static inline bool flow_is_on(const Flow *f) {
        return f->buffer;
}

/* One flow in a loop of its own, until its end; from and to are borrowed. 0 or -errno. */
int flow_run(int from, int to, FlowTransform transform, void *userdata, uint64_t *ret_bytes);

/*
 * A descriptor of our own for one of ours (0, 1, 2), with a mode of its own where the kernel lets us: a pipe
 * or terminal is opened again, without blocking. fd or -errno.
 */
int flow_dup(int fd);
