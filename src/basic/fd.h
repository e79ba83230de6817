/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* File descriptors, processes and clocks: small wrappers that speak negative errno. fds are -EBADF when
 * absent. */

#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#include "basic/macro.h"

/* Closes fd >= 0, keeps errno; returns -EBADF so that fd = close_fd(fd). */
int close_fd(int fd);
static inline void close_fdp(int *fd) {
        *fd = close_fd(*fd);
}
#define _cleanup_close_ _cleanup_(close_fdp)
void close_many(int *fds, size_t n);

int fd_nonblock(int fd, bool on);
int fd_cloexec(int fd, bool on);
/* takes fd; the new one, CLOEXEC, or -errno (fd stays open) */
int fd_move_above(int fd, int min_fd);

/* The whole buffer, retried on EINTR and short writes; blocking fds only. 0 or -errno. */
int write_all(int fd, const void *data, size_t n);
/* Up to n bytes until EOF; the count or -errno. */
ssize_t read_full(int fd, void *data, size_t n);

/* Unix stream sockets (unix(7)). dir_fd + name, so that long paths work; name may not contain '/'. */
/* replaces a stale one; fd or -errno */
int unix_listen(int dir_fd, const char *name, int type, mode_t mode, int backlog);
/* non-blocking fd or -errno */
int unix_connect(int dir_fd, const char *name, int type);
int peer_uid(int fd, uid_t *ret); /* SO_PEERCRED */

int memfd_from(const char *name, const void *data, size_t n); /* sealed, at offset 0; fd or -errno */

int pidfd_open_checked(pid_t pid);  /* pidfd_open(2), CLOEXEC */
int pidfd_kill(int pidfd, int sig); /* pidfd_send_signal(2) */
/* 1: ended, *ret_status as of waitpid (or -1 where it is not our child); 0: alive; -errno. Never blocks. */
int pidfd_reap(int pidfd, int *ret_status);

/* Field of /proc/<pid>/status or similar is not here: see files.h. */
uint64_t now_usec(clockid_t clock); /* CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME */
