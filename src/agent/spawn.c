/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agent/spawn.h"
#include "basic/strings.h"

#define SPAWN_STACK_BYTES (64 * KIB)
#define SPAWN_NOFILE_SOFT 1024U /* what select(2) users expect; the hard limit stays high */

typedef enum SpawnStage {
        SPAWN_STAGE_EXEC,
        SPAWN_STAGE_STDIO,
        SPAWN_STAGE_USER,
        SPAWN_STAGE_CWD,
} SpawnStage;

typedef struct SpawnContext {
        const SpawnRequest *request;
        char **script_argv; /* /bin/sh, a free slot, then argv[1…]: for a text file without "#!" */
        char *message;      /* buffer for the child's last words */
        size_t message_size;
        SpawnStage stage; /* where the child failed before exec */
        int error;        /* 0: it did not */
} SpawnContext;

/*
 * dup2(2) clears FD_CLOEXEC of the copy. All else is closed here and not at exec: that lets the agent go on
 * before it closes files, and our copies of what the agent closes meanwhile would stay in its epoll set.
 */
static int child_stdio(const SpawnRequest *q) {
        if (dup2(q->stdin_fd, STDIN_FILENO) < 0 || dup2(q->stdout_fd, STDOUT_FILENO) < 0 ||
            dup2(q->stderr_fd, STDERR_FILENO) < 0 || close_range(STDERR_FILENO + 1, UINT_MAX, 0) < 0)
                return -errno;

        return 0;
}

static void child_limits(const SpawnDefaults *d) {
        struct rlimit nofile = { .rlim_cur = MIN((rlim_t) SPAWN_NOFILE_SOFT, d->nofile_hard),
                                 .rlim_max = d->nofile_hard };

        (void) setrlimit(RLIMIT_NOFILE, &nofile);
}

/* The system calls themselves: glibc's wrappers would synchronise threads of a process we only borrow. */
static int child_user(const User *u, const SpawnDefaults *d) {
        if (syscall(SYS_setgroups, u->n_groups, u->groups) < 0 ||
            (u->gid != d->gid && syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0) ||
            (u->uid != d->uid && syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0))
                return -errno;

        return 0;
}

void spawn_defaults_init(SpawnDefaults *d) {
        struct rlimit nofile = { .rlim_max = SPAWN_NOFILE_SOFT };

        (void) getrlimit(RLIMIT_NOFILE, &nofile);
        *d = (SpawnDefaults) { .nofile_hard = nofile.rlim_max, .uid = getuid(), .gid = getgid() };
}

static void child_signals(void) {
        sigset_t none;

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
}

/* As execvp(3): a candidate that is not there is passed over, one that may not be executed is remembered. */
static int child_exec(SpawnContext *c) {
        const SpawnRequest *q = c->request;
        int error = ENOENT;

        STRV_FOREACH(path, q->candidates) {
                /* An execve(2) that fails costs many times more. */
                if (path[1] && access(*path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
                        continue;
                (void) execve(*path, q->argv, q->env);
                if (errno == ENOEXEC) {
                        c->script_argv[1] = *path;
                        (void) execve("/bin/sh", c->script_argv, q->env);
                        return ENOEXEC;
                }
                if (errno == EACCES)
                        error = EACCES;
                else if (errno != ENOENT && errno != ENOTDIR)
                        return errno;
        }

        return error;
}

static void child_say(SpawnContext *c, int error) {
        const char *reason = error == ENOENT    ? "not found"
                             : error == EACCES  ? "Permission denied"
                             : error == ENOEXEC ? "Exec format error"
                             : error == E2BIG   ? "Argument list too long"
                             : error == ENOMEM  ? "Cannot allocate memory"
                                                : "cannot execute";
        int n;

        n = snprintf(c->message, c->message_size, "sh: 1: %s: %s\n", c->request->argv[0], reason);
        if (n > 0)
                (void) !write(STDERR_FILENO, c->message, MIN((size_t) n, c->message_size - 1));
}

static int child_main(void *userdata) {
        SpawnContext *c = userdata;
        const SpawnRequest *q = c->request;
        int r;

        (void) setsid();
        r = q->terminal && ioctl(q->stdin_fd, TIOCSCTTY, 0) < 0 ? -errno : child_stdio(q);
        if (r < 0) {
                c->stage = SPAWN_STAGE_STDIO;
                goto fail;
        }

        child_limits(q->defaults);
        r = child_user(q->user, q->defaults);
        if (r < 0) {
                c->stage = SPAWN_STAGE_USER;
                goto fail;
        }

        if (chdir(q->cwd) < 0 && (!q->any_cwd || chdir("/") < 0)) {
                r = -errno;
                c->stage = SPAWN_STAGE_CWD;
                goto fail;
        }

        child_signals();
        r = child_exec(c);
        child_say(c, r);
        _exit(r == ENOENT ? 127 : 126);

fail:
        c->error = -r;
        _exit(126);
}

static int context_prepare(SpawnContext *c, const SpawnRequest *q) {
        size_t n = strv_length(q->argv);

        *c = (SpawnContext) { .request = q, .message_size = strlen(q->argv[0]) + 64 };
        c->message = malloc(c->message_size);
        c->script_argv = calloc(n + 2, sizeof(char *));
        if (!c->message || !c->script_argv)
                return -ENOMEM;

        c->script_argv[0] = (char *) "/bin/sh";
        for (size_t i = 1; i < n; i++)
                c->script_argv[i + 1] = q->argv[i];
        return 0;
}

static void context_done(SpawnContext *c) {
        free(c->message);
        free(c->script_argv);
}

static int spawn_fault(const SpawnContext *c, Fault *reterr) {
        switch (c->stage) {
        case SPAWN_STAGE_CWD:
                return fault_set(reterr, FAULT_INVALID_ARGS, "cwd: cannot enter '%s': %s.", c->request->cwd,
                                 strerror(c->error));
        case SPAWN_STAGE_USER:
                return fault_set(reterr, FAULT_AGENT, "Cannot become user '%s': %s.", c->request->user->name,
                                 strerror(c->error));
        default:
                return fault_set(reterr, FAULT_AGENT, "Cannot set up the process: %s.", strerror(c->error));
        }
}

int spawn_process(const SpawnRequest *q, Fault *reterr) {
        _cleanup_(context_done) SpawnContext c = {};
        _cleanup_free_ uint8_t *stack = NULL;
        pid_t pid;
        int r;

        stack = malloc(SPAWN_STACK_BYTES);
        r = stack ? context_prepare(&c, q) : -ENOMEM;
        if (r < 0)
                return fault_set_errno(reterr, r, "Cannot start the process");

        /* There are no handlers of signals that could run on the child's stack. */
        pid = clone(child_main, stack + SPAWN_STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, &c);
        if (pid < 0)
                return fault_set(reterr, FAULT_AGENT, "Cannot start the process: %s.", strerror(errno));
        if (c.error != 0) {
                (void) waitpid(pid, NULL, 0);
                return spawn_fault(&c, reterr);
        }

        return pid;
}
