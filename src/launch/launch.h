/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrenn-launch: a plan made from argv by main.c, and the steps that carry it out, each in the file named
 * after what it takes away. The program runs as root for some milliseconds and is the jailer, so it links
 * nothing but libc, reads nothing but its own arguments and allocates nothing that a caller could make grow
 * beyond LAUNCH_ARGS_MAX.
 */

#include <sys/types.h>

#include "basic/limits.h"
#include "basic/macro.h"

typedef struct Bind {
        const char *host; /* path on the host; symlinks are followed, it comes from wrennd */
        const char *jail; /* absolute path below the new root */
        bool read_only;
        bool device;
} Bind;

typedef struct Plan {
        int wait_fd;  /* or -EBADF */
        int netns_fd; /* or -EBADF: an empty network namespace of its own */
        uid_t uid;
        gid_t gid;
        int keep_fds[LAUNCH_FDS_MAX];
        size_t n_keep_fds;
        Bind binds[LAUNCH_BINDS_MAX];
        size_t n_binds;
        uint64_t fsize_bytes;       /* RLIMIT_FSIZE */
        uint64_t memory_lock_bytes; /* RLIMIT_MEMLOCK */
        uid_t userns_first;         /* --userns; 0: jail mode */
        uid_t userns_count;
        char **argv; /* the program and its arguments */
        int root_fd; /* the new root while it is built, else -EBADF */
} Plan;

/* Prints "wrenn-launch: <text>: <strerror(error)>" (error 0: without the last part) and returns -abs(error),
 * or -EINVAL. */
int launch_error(int error, const char *format, ...) _printf_(2, 3);

/* Steps of the jail; each returns 0 or a negative errno after launch_error(). */
int step_wait(Plan *p);    /* 1: end of file, nothing is to be started */
int step_fds(Plan *p);     /* closes what is not kept; stdin from /dev/null */
int step_session(Plan *p); /* session, signals, no parent-death signal, OOM score, umask */
int step_network(Plan *p);
int step_namespaces(Plan *p);
int step_root(Plan *p);
int step_limits(Plan *p);
int step_capabilities(Plan *p); /* ambient and bounding set */
int step_identity(Plan *p);     /* groups, gid, uid, and what a capability may be left */
int step_no_new_privileges(Plan *p);
int step_memory(Plan *p); /* no transparent huge pages */
int step_filter(Plan *p); /* system calls no VMM of ours makes */
int step_exec(Plan *p);

/* Closes everything above stderr but what stays open across exec (keep_fds) and what a later step still
 * needs (netns_fd). */
int launch_close_fds(Plan *p);

/* The clean environment of the program; NULL-terminated, borrowed from environ. */
#define LAUNCH_ENV_MAX 16U
void launch_environment(char *ret[static LAUNCH_ENV_MAX + 1]);

/* The other mode: a child that is root in a user namespace of its own. Returns the exit status of the
 * launcher. */
int userns_run(Plan *p);
