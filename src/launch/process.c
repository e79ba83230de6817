/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the process keeps of its parent: nothing but the descriptors asked for and a handful of environment
 * variables. */

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "launch/launch.h"

int step_wait(Plan *p) {
        ssize_t n;
        char c;

        if (p->wait_fd < 0)
                return 0;
        do
                n = read(p->wait_fd, &c, 1);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return launch_error(errno, "cannot wait on descriptor %i", p->wait_fd);
        return n == 0 ? 1 : 0;
}

static int compare_fds(const void *a, const void *b) {
        return *(const int *) a - *(const int *) b;
}

int launch_close_fds(Plan *p) {
        int kept[LAUNCH_FDS_MAX + 1];
        size_t n = 0;
        unsigned next = STDERR_FILENO + 1;

        for (size_t i = 0; i < p->n_keep_fds; i++) {
                int flags = fcntl(p->keep_fds[i], F_GETFD);

                if (flags < 0 || fcntl(p->keep_fds[i], F_SETFD, flags & ~FD_CLOEXEC) < 0)
                        return launch_error(errno, "cannot keep descriptor %i", p->keep_fds[i]);
                kept[n++] = p->keep_fds[i];
        }
        if (p->netns_fd >= 0) {
                if (fcntl(p->netns_fd, F_SETFD, FD_CLOEXEC) < 0)
                        return launch_error(errno, "cannot use descriptor %i as network namespace",
                                            p->netns_fd);
                kept[n++] = p->netns_fd;
        }
        qsort(kept, n, sizeof(int), compare_fds);

        for (size_t i = 0; i < n; i++) {
                unsigned k = (unsigned) kept[i];

                if (k > next && syscall(SYS_close_range, next, k - 1, 0) < 0)
                        return launch_error(errno, "cannot close descriptors %u to %u", next, k - 1);
                if (k >= next)
                        next = k + 1;
        }
        if (syscall(SYS_close_range, next, ~0U, 0) < 0)
                return launch_error(errno, "cannot close descriptors from %u on", next);
        return 0;
}

int step_fds(Plan *p) {
        int fd, r;

        r = launch_close_fds(p);
        if (r < 0)
                return r;

        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
                return launch_error(errno, "cannot open /dev/null");
        if (fd != STDIN_FILENO)
                close(fd);
        return 0;
}

/*
 * wrennd protects itself from the OOM killer and its children inherit that: a capsule must be the first to
 * go. A kernel without /proc mounted here is not our concern.
 */
static int reset_oom_score(void) {
        int fd, r = 0;

        fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : launch_error(errno, "cannot open the OOM score");
        if (write(fd, "0", 1) < 0)
                r = launch_error(errno, "cannot reset the OOM score");
        close(fd);
        return r;
}

/*
 * Until the byte came, end of file on the wait descriptor tied us to wrennd; from here on the scope does,
 * and the capsule must outlive a restart of wrennd: so no parent-death signal, not even an inherited one.
 */
int step_session(Plan *p) {
        sigset_t none;

        if (setsid() < 0 && errno != EPERM)
                return launch_error(errno, "cannot start a session");
        if (prctl(PR_SET_PDEATHSIG, 0) < 0)
                return launch_error(errno, "cannot clear the parent-death signal");

        for (int sig = 1; sig < NSIG; sig++)
                (void) signal(sig, SIG_DFL); /* SIGKILL, SIGSTOP and those of libc refuse */
        sigemptyset(&none);
        if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
                return launch_error(errno, "cannot unblock signals");

        umask(0077);
        return reset_oom_score();
}

void launch_environment(char *ret[static LAUNCH_ENV_MAX + 1]) {
        static const char *const names[] = {
                "INVOCATION_ID=", "JOURNAL_STREAM=", "WRENN_LOG_LEVEL=", "SYSTEMD_LOG_LEVEL=",
                "ASAN_OPTIONS=",  "UBSAN_OPTIONS=",  "LSAN_OPTIONS=",
        };
        size_t n = 0;

        for (char **e = environ; *e && n < LAUNCH_ENV_MAX; e++)
                for (size_t i = 0; i < ELEMENTSOF(names); i++)
                        if (strncmp(*e, names[i], strlen(names[i])) == 0) {
                                ret[n++] = *e;
                                break;
                        }
        ret[n] = NULL;
}

int step_exec(Plan *p) {
        char *env[LAUNCH_ENV_MAX + 1];

        launch_environment(env);
        (void) execve(p->argv[0], p->argv, env);
        return launch_error(errno, "cannot execute '%s'", p->argv[0]);
}
