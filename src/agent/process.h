/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The processes of the API: what was started over the control stream, alive or lately ended.
 *
 * Output goes from two pipes into the streams of all readers and into a ring for those who come later. The
 * slowest reader sets the pace: without room in its stream the pipes are not read, so the process blocks and
 * no byte is lost. But one that takes nothing for READER_STALL_USEC while others could is dropped. Without a
 * reader output goes into the ring alone. After the direct child has ended the pipes are drained until end
 * of file or PROCESS_GRACE_USEC without data; what then still holds them (a daemon the process left behind)
 * is left alone, its output is read and dropped. A terminal is one stream of output instead of two, and hung
 * up with the direct child.
 */

#include <jansson.h>

#include "agent/loop.h"
#include "agent/spec.h"
#include "basic/fault.h"
#include "basic/macro.h"
#include "shared/h2.h"

#define PROCESS_GRACE_USEC (1 * USEC_PER_SEC)
#define PROCESS_SINKS_MAX  64U        /* pipes read on behalf of nobody; beyond it the oldest is closed */
#define PROCESS_READ_MAX   (64 * KIB) /* one read of a pipe */
/* "batch": what is held back to be sent in one piece */
#define PROCESS_HOLD_USEC  (100 * USEC_PER_MSEC)
#define PROCESS_HOLD_BYTES (16 * KIB)

typedef struct Process Process;
typedef struct ProcessTable ProcessTable;

/* One stream that is given the output; part of a request. */
typedef struct ProcessReader {
        H2Stream *stream; /* weak: the request is freed with it */
        Process *process; /* weak: NULL before the start and once all has been written */
        bool owner;       /* it started the process */
        uint8_t *input;   /* owned: taken from it for stdin, not yet written; bounded by its window */
        size_t n_input, input_size;
        size_t stall_room; /* in its stream when last looked at */
        bool holding;      /* head and FRAME_STARTED are yet to be sent, before what is held */
        uint8_t *held;     /* owned: frames */
        size_t n_held;
        LoopTimer hold_timer;
        struct ProcessReader *next;
} ProcessReader;

int process_table_new(Loop *loop, ProcessTable **ret);
ProcessTable* process_table_free(ProcessTable *t);
DEFINE_CLEANUP(ProcessTable, process_table_free)

/* Starts spec (its contents are taken) for reader, which is given nothing yet. */
int process_prepare(ProcessTable *t, Spec *spec, char *const *env_defaults, const char *default_user,
                    ProcessReader *reader, Fault *reterr);
/* Gives the reader of process_prepare() its answer: the head, FRAME_STARTED, and the rest as it comes. */
void process_begin(ProcessReader *reader);
/* Gives reader its answer: the head, FRAME_STARTED, the tail kept if it is wanted, and what follows. */
void process_attach(Process *p, ProcessReader *reader, bool tail);
/* The stream is gone. Kills the process group when it was the owner's and on_disconnect=kill. */
void process_detach(ProcessReader *reader);
/* The stream has room again. */
void process_reader_writable(ProcessReader *reader);

/* Bytes for stdin, or typed. The number of bytes done with now; the reader's stream gets the credit for the
 * rest later. Whatever the process cannot take any more is dropped. */
size_t process_stdin(ProcessReader *reader, const void *data, size_t n);
/* A terminal has no end of input: there it does nothing. */
void process_stdin_eof(Process *p);
/* -ENOTTY: no terminal; -ERANGE: beyond PTY_COLS_MAX, PTY_ROWS_MAX, or 0; -ESRCH: it is closed. */
int process_resize(Process *p, uint32_t cols, uint32_t rows);

/* All digits: pid; else tag, the first match. ended: also those whose tail is kept. NULL: none. */
Process* process_find(ProcessTable *t, const char *selector, bool ended);
/* To the whole group; SIGKILL also to the foreground group of its terminal. -ESRCH. */
int process_kill(Process *p, int sig);
/* {"processes":[…]} of those alive, with cmd and args cut so that it fits into a stream's queue; NULL on out
 * of memory. */
json_t* process_table_to_json(ProcessTable *t);

/* Collects every ended child, ours or inherited. On SIGCHLD. */
void process_table_reap(ProcessTable *t);
