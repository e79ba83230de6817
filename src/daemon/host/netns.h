/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Network namespaces by fd, for a process with one thread. CAP_SYS_ADMIN. */

#include "basic/macro.h"

/* The namespace this process is in now: fd or -errno. */
int netns_open_own(void);

/*
 * Makes a new namespace, enters it and opens it: fd or -errno (then nothing has changed). netns_return()
 * must follow.
 */
int netns_enter_new(void);

/* Enters the namespace of netns_fd. 0 or -errno (then nothing has changed). netns_return() must follow. */
int netns_enter(int netns_fd);

/*
 * Back to home_fd, for certain: a daemon that went on in a wrong namespace would configure the wrong host.
 * Setting a valid namespace fails only for want of memory; it is tried again and in the end the process
 * exits. Keeps errno.
 */
void netns_return(int home_fd);

/* For _cleanup_(netns_return_ptr): *home_fd is borrowed, -EBADF does nothing. */
static inline void netns_return_ptr(int *home_fd) {
        if (*home_fd >= 0)
                netns_return(*home_fd);
}
