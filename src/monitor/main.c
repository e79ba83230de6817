/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* wrenn-monitor: started by wrenn-launch in its jail, with everything it may use as descriptors on the
 * command line. */

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/monitor.h"
#include "shared/event.h"

typedef struct Arguments {
        const char *id;
        MonitorFds fds;
        int log_fd;
} Arguments;

enum {
        ARG_ID = 256,
        ARG_CONTROL_FD,
        ARG_DATA_FD,
        ARG_CONSOLE_FD,
        ARG_EXIT_FD,
        ARG_LOG_FD,
        ARG_VERSION,
};

static const struct option options[] = {
        { "id", required_argument, NULL, ARG_ID },
        { "control-fd", required_argument, NULL, ARG_CONTROL_FD },
        { "data-fd", required_argument, NULL, ARG_DATA_FD },
        { "console-fd", required_argument, NULL, ARG_CONSOLE_FD },
        { "exit-fd", required_argument, NULL, ARG_EXIT_FD },
        { "log-fd", required_argument, NULL, ARG_LOG_FD },
        { "version", no_argument, NULL, ARG_VERSION },
        {},
};

static int parse_fd(const char *s, int *ret) {
        int fd, r;

        r = parse_int(s, &fd);
        if (r < 0)
                return r;
        if (fd <= STDERR_FILENO)
                return -EINVAL;
        r = fd_cloexec(fd, true);
        if (r < 0)
                return r;
        *ret = fd;
        return 0;
}

/* 1: nothing is left to do. */
static int parse_argv(int argc, char **argv, Arguments *ret) {
        Arguments a = { .fds = { -EBADF, -EBADF, -EBADF, -EBADF }, .log_fd = -EBADF };

        for (;;) {
                int *fds[] = { &a.fds.control, &a.fds.data, &a.fds.console, &a.fds.exit, &a.log_fd };
                int c = getopt_long(argc, argv, "", options, NULL);

                if (c < 0)
                        break;
                if (c == ARG_VERSION) {
                        puts("wrenn-monitor " WRENN_VERSION);
                        return 1;
                }
                if (c == ARG_ID)
                        a.id = optarg;
                else if (c < ARG_CONTROL_FD || c > ARG_LOG_FD)
                        return -EINVAL;
                else if (parse_fd(optarg, fds[c - ARG_CONTROL_FD]) < 0) {
                        log_error("Not an open descriptor: '%s'.", optarg);
                        return -EINVAL;
                }
        }
        if (optind < argc || !a.id || a.fds.control < 0 || a.fds.data < 0 || a.fds.console < 0 ||
            a.fds.exit < 0) {
                log_error("--id=, --control-fd=, --data-fd=, --console-fd= and --exit-fd= must be given, and nothing else.");
                return -EINVAL;
        }
        *ret = a;
        return 0;
}

#if defined(__SANITIZE_ADDRESS__)
/* Leaks are looked for through /proc, which the jail has not; the unit tests look for them. */
_public_ const char* __asan_default_options(void);
_public_ const char* __asan_default_options(void) {
        return "detect_leaks=0";
}
#endif

static int on_sigterm(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata) {
        monitor_terminate(userdata);
        return 0;
}

static int watch_signals(sd_event *e, Monitor *m) {
        static const int signals[] = { SIGTERM, SIGINT };
        sigset_t mask;

        sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                sigaddset(&mask, signals[i]);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                return -errno;
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                int r = sd_event_add_signal(e, NULL, signals[i], on_sigterm, m);

                if (r < 0)
                        return r;
        }
        (void) signal(SIGPIPE, SIG_IGN);
        /* a caller's file may grow to our limit: that is an error of its transfer */
        (void) signal(SIGXFSZ, SIG_IGN);
        return 0;
}

static int run(Arguments *a) {
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        _cleanup_(monitor_freep) Monitor *m = NULL;
        int r;

        r = sd_event_new(&e);
        if (r < 0)
                return log_error_errno(r, "Failed to make an event loop: %m");
        r = monitor_new(e, a->id, &a->fds, &m);
        if (r < 0)
                return log_error_errno(r, "Failed to set up: %m");
        r = watch_signals(e, m);
        if (r < 0)
                return log_error_errno(r, "Failed to watch signals: %m");
        r = sd_event_loop(e);
        if (r < 0)
                return log_error_errno(r, "Event loop failed: %m");
        return r;
}

int main(int argc, char **argv) {
        Arguments a = {};
        int r;

        log_open("wrenn-monitor");
        r = parse_argv(argc, argv, &a);
        if (r != 0)
                return r < 0 ? 2 : 0;

        if (a.log_fd >= 0 && dup2(a.log_fd, STDERR_FILENO) < 0)
                return 2;

        /* The VMM has our uid: it shall neither trace us nor read our memory. We may still read its. */
        if (prctl(PR_SET_DUMPABLE, 0) < 0)
                return log_error_errno(errno, "Failed to protect the process: %m") < 0;

        /* One heap, given back early: there is one of us for each capsule. But a session's output buffer (84
         * KiB) must come and go without a system call: it does so with every message. */
        (void) mallopt(M_ARENA_MAX, 1);
        (void) mallopt(M_TRIM_THRESHOLD, 256 * 1024);
        (void) mallopt(M_MMAP_THRESHOLD, 128 * 1024);

        return run(&a) < 0 ? 1 : 0;
}
