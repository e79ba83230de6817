/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Root for a worker that unpacks archives and installs packages, without being root of the host: a user
 * namespace whose ids 0..COUNT-1 are an otherwise unused range, with its own mounts, processes, IPC and host
 * name. Three processes: we (host root, waits and forwards signals), the namespace's init (reaps; everything
 * in it dies with it), the program.
 */

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "launch/launch.h"

enum {
        EXIT_USERNS = 96,      /* the namespace could not be set up */
        EXIT_USERNS_EXEC = 97, /* the program could not be executed */
};

static const int forwarded[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };

static volatile sig_atomic_t forward_to = 0;

static void on_signal(int sig) {
        int saved = errno;

        if (forward_to > 0)
                (void) kill((pid_t) forward_to, sig);
        errno = saved;
}

static void forward_signals(void) {
        struct sigaction sa = { .sa_handler = on_signal };

        for (size_t i = 0; i < ELEMENTSOF(forwarded); i++)
                (void) sigaction(forwarded[i], &sa, NULL);
}

static void default_signals(void) {
        struct sigaction sa = { .sa_handler = SIG_DFL };

        for (size_t i = 0; i < ELEMENTSOF(forwarded); i++)
                (void) sigaction(forwarded[i], &sa, NULL);
}

/* Reaps until 'pid' ended; its status as a shell would give it. */
static int wait_for(pid_t pid) {
        for (;;) {
                int status;
                pid_t w = waitpid(-1, &status, 0);

                if (w < 0 && errno != EINTR)
                        return EXIT_USERNS;
                if (w != pid)
                        continue;
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
}

static int write_proc(pid_t pid, const char *file, const char *text, size_t n) {
        char path[64];
        int fd, r = 0;

        (void) snprintf(path, sizeof(path), "/proc/%i/%s", (int) pid, file);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, text, n) != (ssize_t) n)
                r = launch_error(errno, "cannot write %s", path);
        if (fd >= 0)
                close(fd);
        return r;
}

static int map_ids(const Plan *p, pid_t pid) {
        char text[64];
        int n, r;

        n = snprintf(text, sizeof(text), "0 %u %u\n", p->userns_first, p->userns_count);
        r = write_proc(pid, "uid_map", text, (size_t) n);
        return r < 0 ? r : write_proc(pid, "gid_map", text, (size_t) n);
}

/* The new process namespace needs a /proc of its own; a host that masks parts of /proc refuses that, then
 * the old one stays. */
static int namespace_mounts(void) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return launch_error(errno, "cannot make the mounts private");
        if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 && errno != EPERM)
                return launch_error(errno, "cannot mount /proc");
        return 0;
}

static void run_program(const Plan *p) {
        default_signals();
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
                (void) launch_error(errno, "cannot set no_new_privs");
                _exit(EXIT_USERNS);
        }
        (void) execvp(p->argv[0], p->argv);
        (void) launch_error(errno, "cannot execute '%s'", p->argv[0]);
        _exit(EXIT_USERNS_EXEC);
}

/* pid 1 of the namespace. */
static int namespace_init(const Plan *p, int go_fd) {
        pid_t pid;
        char c;

        if (read(go_fd, &c, 1) != 1)
                return EXIT_USERNS;
        close(go_fd);

        if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 || setgroups(0, NULL) < 0) {
                (void) launch_error(errno, "cannot become root of the namespace");
                return EXIT_USERNS;
        }
        /* after the change of ids, which would clear it */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || namespace_mounts() < 0)
                return EXIT_USERNS;
        umask(0022);

        forward_signals();
        pid = fork();
        if (pid < 0) {
                (void) launch_error(errno, "cannot fork");
                return EXIT_USERNS;
        }
        if (pid == 0)
                run_program(p);
        forward_to = pid;
        return wait_for(pid);
}

static pid_t clone_namespaces(void) {
        unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                              SIGCHLD;

#if defined(__s390x__)
        return (pid_t) syscall(SYS_clone, NULL, flags, NULL, NULL, NULL);
#else
        return (pid_t) syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
#endif
}

int userns_run(Plan *p) {
        int go[2], status, r;
        pid_t pid;

        if (launch_close_fds(p) < 0)
                return EXIT_USERNS;
        if (pipe2(go, O_CLOEXEC) < 0) {
                (void) launch_error(errno, "cannot make a pipe");
                return EXIT_USERNS;
        }

        pid = clone_namespaces();
        if (pid < 0) {
                (void) launch_error(errno, "cannot make a user namespace");
                return EXIT_USERNS;
        }
        if (pid == 0) {
                close(go[1]);
                _exit(namespace_init(p, go[0]));
        }

        close(go[0]);
        forward_to = pid;
        forward_signals();
        r = map_ids(p, pid);
        if (r >= 0 && write(go[1], "", 1) != 1)
                r = launch_error(errno, "cannot start the namespace");
        close(go[1]); /* end of file: the child gives up */
        status = wait_for(pid);
        return r < 0 ? EXIT_USERNS : status;
}
