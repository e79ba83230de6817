/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Work on files that takes its time - walks, removals, archives - in a child of the agent, so that nobody
 * waits for it. The child is a fork that keeps nothing open but its own ends; it runs plain blocking code.
 * What it writes goes to the stream as fast as the peer takes it; a pipe's worth later the child waits. The
 * child is killed when its job is freed.
 */

#include "agent/loop.h"
#include "basic/fault.h"
#include "shared/h2.h"

typedef struct FileJob FileJob;

/* Runs in the child. input: the body, -EBADF without one; output: what the answer's body is made of. Both
 * block. 0, or the errno of the fault. */
typedef int (*FileJobMain)(void *argument, int input, int output, Fault *reterr);

typedef struct FileJobHandlers {
        /* the first output is there: send the head, call file_job_stream() */
        void (*on_output)(FileJob *j, void *userdata);
        /* The child has ended without output: fault is NULL when all is well. Once, never after
         * on_output. Free the job here or later. */
        void (*on_end)(FileJob *j, const Fault *fault, void *userdata);
} FileJobHandlers;

/* argument is seen by the child as it is now. FAULT_AGENT. */
int file_job_start(Loop *l, H2Stream *st, FileJobMain run, void *argument, bool with_input,
                   const FileJobHandlers *handlers, void *userdata, FileJob **ret, Fault *reterr);
FileJob* file_job_free(FileJob *j);
DEFINE_CLEANUP(FileJob, file_job_free)

/* The stream's body is the job's output from here on: its end in good order, a failure resets the stream. */
void file_job_stream(FileJob *j);

/* Bytes of the request's body: the number done with now, the rest is given to h2_stream_consume() later. */
size_t file_job_write(FileJob *j, const void *data, size_t n);
void file_job_write_end(FileJob *j);
