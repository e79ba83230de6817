/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs one tool of the distribution (apt-get, dpkg-deb, mke2fs, mkfs.erofs…) to its end. It gets stdin from
 * /dev/null, stderr from us (the job's log), PATH and LC_ALL=C.UTF-8 and what is passed; it dies with the
 * worker. Blocking.
 */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct RunOptions {
        int stdout_fd;    /* <= 0: to our stderr, i.e. into the log; else this fd, borrowed */
        const char *cwd;  /* NULL: ours */
        char *const *env; /* more "NAME=value"; borrowed */
        /* Called for every line of the tool's stdout when set (stdout_fd is ignored then), without the
         * newline. */
        void (*on_line)(const char *line, void *userdata);
        void *userdata;
} RunOptions;

/*
 * argv[0] is looked up in PATH. options: NULL for the defaults. 0 when it exited 0; else a fault:
 * FAULT_INTERNAL "<tool> failed with exit status 3.", FAULT_BACKEND_UNAVAILABLE when the tool is not
 * installed.
 */
int run_tool(char *const argv[], const RunOptions *options, Fault *reterr);

/* The same; *ret is all of its stdout (at most max bytes), NUL-terminated. */
int run_tool_capture(char *const argv[], size_t max, char **ret, Fault *reterr);
