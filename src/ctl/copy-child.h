/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The archive's end of a copy, in a child of ours: packing, unpacking and passing on are plain blocking code
 * that way, and we only look after the job. Between it and the service is a pipe.
 */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct CopyEnd CopyEnd;

/* Runs in the child; fd: its end of the pipe. 0 or the errno of the fault; -EPIPE: the other side is gone.
 */
typedef int (*CopyWork)(const CopyEnd *c, int fd, Fault *reterr);

struct CopyEnd {
        CopyWork work;
        bool writes; /* into the pipe, else it reads */
        int fd;      /* what is packed (a file or directory), or the directory to unpack in; borrowed */
        /* packing: of the entry of a file; unpacking: NULL for a tree, else of a single file … */
        const char *name;
        const char *target; /* … and what it is to be called in the directory */
        /* unpacking: the directory was made for it and gets mode and time of the tree's */
        bool is_new;
        bool preserve; /* owners, set-id bits, extended attributes */

        /* private */
        pid_t pid;
        int report_fd;
};

int copy_pack(const CopyEnd *c, int fd, Fault *reterr);
/* Nothing outside of the directory is touched, whatever the capsule sends. */
int copy_unpack(const CopyEnd *c, int fd, Fault *reterr);
int copy_from_stdin(const CopyEnd *c, int fd, Fault *reterr);
int copy_to_stdout(const CopyEnd *c, int fd, Fault *reterr);

/* *ret_fd: the service's end, to be closed once it was passed. 0 or -errno. */
int copy_end_start(CopyEnd *c, int *ret_fd);
/* Waits for it; the service's end has to be closed everywhere here. 0, or -errno with what it said in
 * *ret_reason (owned by the caller); -EPIPE without when the service hung up. */
int copy_end_wait(CopyEnd *c, bool job_failed, char **ret_reason);
