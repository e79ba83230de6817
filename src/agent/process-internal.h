/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shared by process.c (life), process-io.c (output), process-input.c and process-reader.c. */

#include "agent/process.h"
#include "agent/ring.h"
#include "agent/spawn.h"

typedef struct ProcessPipe {
        Process *process;
        int fd; /* our end; -EBADF: at its end */
        /* The child's end, until it has ended: nobody wakes us for closing his copies, and a terminal that
         * nobody has open for a moment is not at its end. */
        int child_fd;
        FrameType type;
        LoopSource *source;
        bool paused; /* a reader has no room */
} ProcessPipe;

struct Process {
        ProcessTable *table;
        Process *previous, *next;
        Spec spec;
        pid_t pid;
        bool child_ended; /* status is valid, the pid is reaped */
        bool finished;    /* no more output will come */
        bool timed_out;
        int status;             /* as of waitpid(2) */
        uint64_t started_usec;  /* when it was asked for */
        uint64_t duration_usec; /* until the child's end */
        ProcessPipe output[2];
        int stdin_fd; /* -EBADF: nobody reads it any more, or there is none */
        LoopSource *stdin_source;
        size_t n_input; /* sum of the readers' */
        bool stdin_eof;
        Ring ring;
        LoopTimer timeout_timer, grace_timer, stall_timer;
        ProcessReader *readers; /* in the order of their turns to write to stdin */
};

typedef struct ProcessSink {
        int fd;
        LoopSource *source;
        ProcessTable *table;
        struct ProcessSink *next;
} ProcessSink;

struct ProcessTable {
        Loop *loop;
        Process *processes; /* newest last */
        Process *last;
        size_t n_alive, n_ended;
        ProcessSink *sinks; /* newest first */
        size_t n_sinks;
        UserCache users;
        SpawnDefaults spawn_defaults;
        int null_fd; /* /dev/null, stdin of most */
        uint8_t buffer[PROCESS_READ_MAX];
};

/* A reader holds it up. */
static inline bool process_is_paused(const Process *p) {
        return p->output[0].paused || p->output[1].paused;
}

/* process-io.c */
/* Our ends into p, copies of the child's into ret: output's are p's, too; of a terminal there is one. */
int process_io_open(Process *p, const User *user, int ret_child_fds[static 3], Fault *reterr);
int process_io_start(Process *p);             /* begins to watch our ends */
void process_io_close(Process *p, bool sink); /* sink: output pipes that are open are read on for nobody */
bool process_io_at_end(const Process *p);     /* both outputs */
void process_io_pump(Process *p);             /* reads what there is and what the readers have room for */
void process_io_child_ended(Process *p);      /* the same, with the end coming into sight */
void process_sink_free(ProcessSink *s);       /* unlinks it, too */

/* process-reader.c */
void reader_link(Process *p, ProcessReader *reader);
void reader_unlink(ProcessReader *reader);
void reader_requeue(ProcessReader *reader); /* its turn to write comes last */
/* The answer's head and FRAME_STARTED: now, or (hold) with what comes first of PROCESS_HOLD_BYTES output,
 * PROCESS_HOLD_USEC and the exit. */
void reader_begin(ProcessReader *reader, bool hold);
void reader_write_tail(ProcessReader *reader);
bool reader_write_exit(ProcessReader *reader); /* and ends the stream. False: no room in it now */
size_t readers_room(const Process *p);         /* payload bytes that every reader has room for */
void readers_write(Process *p, FrameType type, const void *data, size_t n);
/* After the number of readers, or what they wait for, has changed. */
void readers_watch_stall(Process *p);

/* process-input.c */
int process_input_open(Process *p, int *ret_child_fd);
int process_input_start(Process *p);
void process_input_close(Process *p);             /* what waits is dropped */
void process_input_detach(ProcessReader *reader); /* of its process, which is still set */

/* process.c */
void process_output_came(Process *p); /* data, or the end of a pipe */
