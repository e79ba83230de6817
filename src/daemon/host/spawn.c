/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include "basic/fd.h"
#include "daemon/host/spawn.h"

#define FD_ABOVE 64 /* copies stand there, out of the way of the numbers in the child */

static int add_fds(posix_spawn_file_actions_t *actions, const int *copies, size_t n) {
        int r;

        r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(actions, STDERR_FILENO, STDOUT_FILENO);
        for (size_t i = 0; i < n && r == 0; i++)
                r = posix_spawn_file_actions_adddup2(actions, copies[i], SPAWN_FD_FIRST + (int) i);
        return r;
}

static int spawn_with(posix_spawn_file_actions_t *actions, char *const argv[], char *const env[],
                      pid_t *ret) {
        posix_spawnattr_t attr;
        sigset_t none, all;
        int r;

        (void) sigemptyset(&none);
        (void) sigfillset(&all);

        r = posix_spawnattr_init(&attr);
        if (r != 0)
                return r;
        (void) posix_spawnattr_setsigmask(&attr, &none);
        (void) posix_spawnattr_setsigdefault(&attr, &all);
        (void) posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        r = posix_spawnp(ret, argv[0], actions, &attr, argv, env);
        (void) posix_spawnattr_destroy(&attr);
        return r;
}

int spawn_program(char *const argv[], char *const env[], const int *fds, size_t n_fds, pid_t *ret_pid,
                  int *ret_pidfd) {
        posix_spawn_file_actions_t actions;
        int copies[SPAWN_FDS_MAX], pidfd, r = 0;
        size_t n = 0;
        pid_t pid;

        assert(n_fds <= SPAWN_FDS_MAX);

        for (; n < n_fds && r == 0; n++) {
                copies[n] = fcntl(fds[n], F_DUPFD_CLOEXEC, FD_ABOVE);
                if (copies[n] < 0)
                        r = errno;
        }

        if (r == 0)
                r = posix_spawn_file_actions_init(&actions);
        if (r == 0) {
                r = add_fds(&actions, copies, n_fds);
                if (r == 0)
                        r = spawn_with(&actions, argv, env, &pid);
                (void) posix_spawn_file_actions_destroy(&actions);
        }
        close_many(copies, n);
        if (r != 0)
                return -r;

        pidfd = pidfd_open_checked(pid);
        if (pidfd < 0) {
                (void) kill(pid, SIGKILL);
                return pidfd;
        }

        *ret_pid = pid;
        *ret_pidfd = pidfd;
        return 0;
}
