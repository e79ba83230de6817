/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "worker/run.h"

#define RUN_LINE_MAX (64 * KIB) /* a longer one is told in pieces */

/* fork() only: the worker has no threads, and wrennd never runs this. */
static void run_child(char *const argv[], const RunOptions *o, int stdout_fd) {
        int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(stdout_fd, STDOUT_FILENO) < 0)
                _exit(126);
        if (o->cwd && chdir(o->cwd) < 0) {
                (void) log_error_errno(errno, "Failed to enter '%s': %m", o->cwd);
                _exit(126);
        }

        (void) clearenv();
        (void) setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
        (void) setenv("LC_ALL", "C.UTF-8", 1);
        STRV_FOREACH(e, o->env)
                (void) putenv(*e);

        (void) execvp(argv[0], argv);
        _exit(errno == ENOENT ? 127 : 126);
}

/* Hands out whole lines; what is left of the last one stays at the start of the buffer. */
static size_t tell_lines(char *buffer, size_t n, bool end, const RunOptions *o) {
        char *line = buffer, *newline;

        while ((newline = memchr(line, '\n', n - (size_t) (line - buffer)))) {
                *newline = '\0';
                o->on_line(line, o->userdata);
                line = newline + 1;
        }

        n -= (size_t) (line - buffer);
        if (n > 0 && (end || n == RUN_LINE_MAX)) {
                line[n] = '\0';
                o->on_line(line, o->userdata);
                return 0;
        }
        memmove(buffer, line, n);
        return n;
}

static int read_lines(int fd, const RunOptions *o) {
        _cleanup_free_ char *buffer = malloc(RUN_LINE_MAX + 1);
        size_t n = 0;

        if (!buffer)
                return -ENOMEM;
        for (;;) {
                ssize_t k = read(fd, buffer + n, RUN_LINE_MAX - n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                n = tell_lines(buffer, n + (size_t) k, k == 0, o);
                if (k == 0)
                        return 0;
        }
}

static int wait_tool(const char *name, pid_t pid, Fault *reterr) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return fault_set_errno(reterr, -errno, "Failed to wait for %s", name);

        if (WIFSIGNALED(status))
                return fault_set(reterr, FAULT_INTERNAL, "%s was killed by signal %d.", name,
                                 WTERMSIG(status));
        if (WEXITSTATUS(status) == 127)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "%s is not installed.", name);
        if (WEXITSTATUS(status) != 0)
                return fault_set(reterr, FAULT_INTERNAL, "%s failed with exit status %d.", name,
                                 WEXITSTATUS(status));
        return 0;
}

/* The reader of the tool's stdout: by lines, or into *ret. */
static int run_reading(char *const argv[], const RunOptions *o, size_t max, char **ret, Fault *reterr) {
        int fds[2], r;
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return fault_set_errno(reterr, -errno, "Failed to run %s", argv[0]);
        pid = fork();
        if (pid == 0)
                run_child(argv, o, fds[1]);
        close(fds[1]);
        if (pid < 0) {
                close(fds[0]);
                return fault_set_errno(reterr, -EAGAIN, "Failed to run %s", argv[0]);
        }

        r = ret ? read_fd(fds[0], max, ret, /* ret_n= */ NULL) : read_lines(fds[0], o);
        close(fds[0]);
        if (r < 0) {
                (void) kill(pid, SIGKILL);
                (void) wait_tool(argv[0], pid, /* reterr= */ NULL);
                return fault_set_errno(reterr, r, "Failed to read what %s says", argv[0]);
        }

        r = wait_tool(argv[0], pid, reterr);
        if (r < 0 && ret) {
                free(*ret);
                *ret = NULL;
        }
        return r;
}

int run_tool(char *const argv[], const RunOptions *options, Fault *reterr) {
        const RunOptions o = options ? *options : (RunOptions) {};
        pid_t pid;

        if (o.on_line)
                return run_reading(argv, &o, /* max= */ 0, /* ret= */ NULL, reterr);

        pid = fork();
        if (pid == 0)
                run_child(argv, &o, o.stdout_fd > 0 ? o.stdout_fd : STDERR_FILENO);
        if (pid < 0)
                return fault_set_errno(reterr, -errno, "Failed to run %s", argv[0]);
        return wait_tool(argv[0], pid, reterr);
}

int run_tool_capture(char *const argv[], size_t max, char **ret, Fault *reterr) {
        return run_reading(argv, &(RunOptions) {}, max, ret, reterr);
}
