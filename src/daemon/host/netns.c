/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Entering and leaving network namespaces; the one rule is that whoever entered returns. */

#include <fcntl.h>
#include <sched.h>

#include "basic/log.h"
#include "daemon/host/netns.h"

#define RETURN_TRIES 100U

int netns_open_own(void) {
        int fd;

        fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int netns_enter_new(void) {
        int home_fd, fd;

        home_fd = netns_open_own();
        if (home_fd < 0)
                return home_fd;

        if (unshare(CLONE_NEWNET) < 0) {
                fd = -errno;
                (void) close(home_fd);
                return fd;
        }

        fd = netns_open_own();
        if (fd < 0)
                netns_return(home_fd);

        (void) close(home_fd);
        return fd;
}

int netns_enter(int netns_fd) {
        return setns(netns_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}

void netns_return(int home_fd) {
        int saved_errno = errno;

        for (unsigned i = 0; setns(home_fd, CLONE_NEWNET) < 0; i++) {
                if (i >= RETURN_TRIES) {
                        (void) log_error_errno(
                                        errno,
                                        "Failed to return to the host's network namespace, exiting: %m");
                        _exit(EXIT_FAILURE);
                }
                (void) sched_yield();
        }

        errno = saved_errno;
}
