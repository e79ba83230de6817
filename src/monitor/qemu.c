/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The QEMU driver: a child with its control, console and agent streams on inherited sockets. Its end is told
 * by its pidfd alone; QMP's end and events are hints. Exit status 0 that nobody here asked for is the
 * guest's own doing: it powered off, reset itself (-no-reboot) or panicked. A full disk of the host stops
 * the guest; it is let go on every DISK_RETRY_USEC to see.
 */

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/vmm.h"
#include "shared/event.h"
#include "shared/json-stream.h"

#define DISK_RETRY_USEC (5 * USEC_PER_SEC)
#define QMP_CALL_USEC   (10 * USEC_PER_SEC)

typedef struct Qemu {
        Vmm vmm;
        sd_event *event; /* weak: the monitor outlives us */
        const VmmHandlers *handlers;
        void *userdata;
        pid_t pid; /* 0 once reaped */
        int pidfd;
        int stderr_fd;
        int agent_fd;
        int console_fd;
        sd_event_source *exit_source, *stderr_source, *start_timer, *retry_timer;
        JsonStream *qmp;
        bool start_told;  /* on_started ran */
        EndReason killed; /* our SIGKILL's reason */
        EndReason expected;
        char stderr_tail[VMM_STDERR_BYTES];
        size_t n_stderr;
} Qemu;

static Qemu* QEMU(Vmm *v) {
        return container_of(v, Qemu, vmm);
}

static void tell_started(Qemu *q, int r, const Fault *fault) {
        if (q->start_told)
                return;
        q->start_told = true;
        q->start_timer = event_source_free(q->start_timer);
        q->handlers->on_started(&q->vmm, r, fault, q->userdata);
}

/* Output */

static void keep_stderr(Qemu *q, const char *data, size_t n) {
        if (n >= sizeof(q->stderr_tail)) {
                data += n - sizeof(q->stderr_tail);
                n = sizeof(q->stderr_tail);
        }
        if (q->n_stderr + n > sizeof(q->stderr_tail)) {
                size_t drop = q->n_stderr + n - sizeof(q->stderr_tail);

                memmove(q->stderr_tail, q->stderr_tail + drop, q->n_stderr - drop);
                q->n_stderr -= drop;
        }
        memcpy(q->stderr_tail + q->n_stderr, data, n);
        q->n_stderr += n;
}

/* At most 16 KiB a turn: a VMM that floods its stderr is slowed by the pipe. */
static void read_stderr(Qemu *q) {
        char buffer[4096];

        for (unsigned i = 0; i < 4 && q->stderr_fd >= 0; i++) {
                ssize_t n = read(q->stderr_fd, buffer, sizeof(buffer));

                if (n > 0) {
                        keep_stderr(q, buffer, (size_t) n);
                        continue;
                }
                if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                        q->stderr_source = event_source_free(q->stderr_source);
                        q->stderr_fd = close_fd(q->stderr_fd);
                }
                return;
        }
}

static int on_stderr(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        read_stderr(userdata);
        return 0;
}

/*
 * What QEMU gave as the reason: its last line that begins with its name (hints may follow), else the last
 * line at all. NULL when there is none. The text is made safe for display.
 */
static char* last_stderr_line(const Qemu *q) {
        static const char prefix[] = "qemu-system-";
        const char *data = q->stderr_tail, *end = data + q->n_stderr, *found = NULL, *colon;
        size_t n_found = 0;
        bool named = false;

        for (const char *line = data; line < end;) {
                const char *newline = memchr(line, '\n', (size_t) (end - line));
                size_t n = newline ? (size_t) (newline - line) : (size_t) (end - line);
                bool this_named = n > strlen(prefix) && memcmp(line, prefix, strlen(prefix)) == 0;

                if (n > 0 && (this_named || !named)) {
                        found = line;
                        n_found = n;
                        named = this_named;
                }
                line += n + 1;
        }
        if (!found)
                return NULL;
        if (named && (colon = memmem(found, n_found, ": ", 2))) {
                n_found -= (size_t) (colon + 2 - found);
                found = colon + 2;
        }
        return escape_for_display(found, MIN(n_found, (size_t) FAULT_MESSAGE_MAX / 2));
}

/* End */

static void describe_status(int status, char ret[static VMM_STATUS_LEN]) {
        const char *name;

        if (status < 0)
                (void) snprintf(ret, VMM_STATUS_LEN, "unknown");
        else if (WIFEXITED(status))
                (void) snprintf(ret, VMM_STATUS_LEN, "exit %i", WEXITSTATUS(status));
        else if ((name = sigabbrev_np(WTERMSIG(status))))
                (void) snprintf(ret, VMM_STATUS_LEN, "signal %s", name);
        else
                (void) snprintf(ret, VMM_STATUS_LEN, "signal %i", WTERMSIG(status));
}

static void describe_end(const Qemu *q, int status, VmmEnd *ret) {
        _cleanup_free_ char *line = NULL;
        bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;

        *ret = (VmmEnd) {};
        describe_status(status, ret->status);
        if (q->killed != END_NONE)
                ret->reason = q->killed;
        else if (clean)
                ret->reason = q->expected != END_NONE ? q->expected : END_GUEST_EXIT;
        else
                ret->reason = END_VMM_CRASH;

        if (ret->reason != END_VMM_CRASH)
                return;
        line = last_stderr_line(q);
        ret->message = line ? strjoin("The VMM ended with ", ret->status, ": ", line)
                            : strjoin("The VMM ended with ", ret->status, ".");
}

static int on_pidfd(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_(vmm_end_done) VmmEnd end = {};
        Qemu *q = userdata;
        int status = -1, r;

        r = pidfd_reap(q->pidfd, &status);
        if (r == 0)
                return 0;
        if (r < 0)
                (void) log_warning_errno(r, "Failed to reap the VMM, ignoring: %m");

        q->pid = 0;
        q->exit_source = event_source_free(q->exit_source);
        q->retry_timer = event_source_free(q->retry_timer);
        q->qmp = json_stream_free(q->qmp);
        read_stderr(q);
        describe_end(q, status, &end);

        if (!q->start_told) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                r = fault_set(&fault, FAULT_AGENT, "%s",
                              end.message ?: "The VMM was stopped before it ran.");
                tell_started(q, r, &fault);
        }
        q->handlers->on_exited(&q->vmm, &end, q->userdata);
        return 0;
}

static int qemu_kill(Vmm *v, EndReason reason) {
        Qemu *q = QEMU(v);

        if (q->pid == 0)
                return 0;
        if (q->killed == END_NONE)
                q->killed = reason;
        return pidfd_kill(q->pidfd, SIGKILL);
}

static void qemu_expect_exit(Vmm *v, EndReason reason) {
        QEMU(v)->expected = reason;
}

/* Control */

static void on_cont(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                    void *userdata) {
        if (r < 0 && fault)
                log_debug("QMP cont: %s", strempty(fault->message));
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata) {
        Qemu *q = userdata;

        if (q->qmp)
                (void) json_stream_call(q->qmp, "cont", NULL, NULL, 0, QMP_CALL_USEC, on_cont, q, NULL);
        return 0;
}

static void on_capabilities(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds,
                            const Fault *fault, void *userdata) {
        if (r != -ECONNRESET) /* its end is told by the pidfd, with its last words */
                tell_started(userdata, r, fault);
}

static void on_qmp_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                         void *userdata) {
        Qemu *q = userdata;
        int r;

        if (streq(name, "greeting")) {
                r = json_stream_call(q->qmp, "qmp_capabilities", NULL, NULL, 0, QMP_CALL_USEC,
                                     on_capabilities, q, NULL);
                if (r < 0) {
                        _cleanup_(fault_done) Fault fault = FAULT_NULL;

                        (void) fault_set_errno(&fault, r, "Failed to speak to the VMM");
                        tell_started(q, r, &fault);
                }
        } else if (streq(name, "BLOCK_IO_ERROR")) {
                const char *action = json_string_value(
                                json_object_get(json_object_get(message, "data"), "action"));

                log_warning("The disk of the host refused a write (action: %s).", strempty(action));
                if (streq_ptr(action, "stop"))
                        (void) event_timer(q->event, &q->retry_timer, DISK_RETRY_USEC, PRIORITY_VMM,
                                           on_retry, q, "disk-retry");
        } else
                log_debug("QMP event %s", name);
}

/* A VMM that closed its control stream or speaks nonsense on it cannot be controlled any more. */
static void on_qmp_closed(JsonStream *s, int error, void *userdata) {
        Qemu *q = userdata;

        if (error < 0 && error != -ECONNRESET && error != -EPIPE)
                (void) qemu_kill(&q->vmm, END_VMM_CRASH);
        q->qmp = json_stream_free(q->qmp);
}

static const JsonStreamHandlers qmp_handlers = {
        .on_event = on_qmp_event,
        .on_closed = on_qmp_closed,
};

static int on_start_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Qemu *q = userdata;
        int r;

        r = fault_set(&fault, FAULT_TIMEOUT, "The VMM did not answer within %u s.",
                      (unsigned) (VMM_START_USEC / USEC_PER_SEC));
        tell_started(q, r, &fault);
        (void) qemu_kill(&q->vmm, END_VMM_CRASH);
        return 0;
}

/* Start */

typedef struct ChildFds {
        QemuFds q;
        int stderr_fd;
} ChildFds;

/*
 * Between fork and exec, in a copy of a single-threaded process. The signals that end a scope go to each
 * process in it: only the monitor shall act on them, so the VMM has them blocked for good.
 */
static void __attribute__((noreturn)) child_exec(pid_t parent, const ChildFds *fds, char *const *argv) {
        static char *const env[] = { (char *) "LC_ALL=C", NULL };
        const int keep[] = { fds->q.qmp, fds->q.agent, fds->q.console, fds->q.tap };
        sigset_t mask;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                _exit(127);

        if (dup2(fds->stderr_fd, STDOUT_FILENO) < 0 || dup2(fds->stderr_fd, STDERR_FILENO) < 0)
                _exit(127);
        if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
                _exit(127);
        for (size_t i = 0; i < ELEMENTSOF(keep); i++)
                if (keep[i] >= 0 && fcntl(keep[i], F_SETFD, 0) < 0)
                        _exit(127);

        (void) signal(SIGPIPE, SIG_DFL);
        (void) signal(SIGXFSZ, SIG_DFL);
        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGHUP);
        (void) sigprocmask(SIG_SETMASK, &mask, NULL);

        (void) execve(argv[0], argv, env);
        (void) dprintf(STDERR_FILENO, "cannot execute '%s': %s\n", argv[0], strerror(errno));
        _exit(127);
}

static int make_socketpair(int *ret_ours, int *ret_theirs) {
        int fds[2], r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        r = fd_nonblock(fds[0], true);
        if (r < 0) {
                close_many(fds, 2);
                return r;
        }
        *ret_ours = fds[0];
        *ret_theirs = fds[1];
        return 0;
}

static void child_fds_done(ChildFds *f) {
        close_many((int[]) { f->q.qmp, f->q.agent, f->q.console, f->stderr_fd }, 4);
        *f = (ChildFds) { { -EBADF, -EBADF, -EBADF, -EBADF }, -EBADF };
}

static int make_streams(Qemu *q, int tap_fd, int *ret_qmp_fd, ChildFds *ret) {
        int fds[2], r;

        ret->q.tap = tap_fd;
        r = make_socketpair(ret_qmp_fd, &ret->q.qmp);
        if (r >= 0)
                r = make_socketpair(&q->agent_fd, &ret->q.agent);
        if (r >= 0)
                r = make_socketpair(&q->console_fd, &ret->q.console);
        if (r < 0)
                return r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        q->stderr_fd = fds[0];
        ret->stderr_fd = fds[1];
        return fd_nonblock(q->stderr_fd, true);
}

static int spawn(Qemu *q, const ChildFds *fds, char *const *argv) {
        pid_t parent = getpid(), pid;

        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                child_exec(parent, fds, argv);

        q->pid = pid;
        q->pidfd = pidfd_open_checked(pid);
        return q->pidfd < 0 ? q->pidfd : 0;
}

static int watch(Qemu *q, int *qmp_fd) {
        int r;

        r = event_io(q->event, &q->exit_source, q->pidfd, EPOLLIN, PRIORITY_EXIT, on_pidfd, q, "vmm-exit");
        if (r >= 0)
                r = event_io(q->event, &q->stderr_source, q->stderr_fd, EPOLLIN, PRIORITY_VMM, on_stderr, q,
                             "vmm-stderr");
        if (r >= 0)
                r = event_timer(q->event, &q->start_timer, VMM_START_USEC, PRIORITY_VMM, on_start_timeout, q,
                                "vmm-start");
        if (r >= 0)
                r = json_stream_new(q->event, *qmp_fd, JSON_DIALECT_QMP, QMP_MESSAGE_MAX, &qmp_handlers, q,
                                    &q->qmp);
        if (r < 0)
                return r;
        *qmp_fd = -EBADF;
        return 0;
}

static Vmm* qemu_free(Vmm *v) {
        Qemu *q = QEMU(v);

        q->exit_source = event_source_free(q->exit_source);
        q->stderr_source = event_source_free(q->stderr_source);
        q->start_timer = event_source_free(q->start_timer);
        q->retry_timer = event_source_free(q->retry_timer);
        q->qmp = json_stream_free(q->qmp);
        if (q->pid > 0) {
                if (q->pidfd >= 0)
                        (void) pidfd_kill(q->pidfd, SIGKILL);
                else
                        (void) kill(q->pid, SIGKILL);
        }
        close_many((int[]) { q->pidfd, q->stderr_fd, q->agent_fd, q->console_fd }, 4);
        free(q);
        return NULL;
}

static int qemu_start(sd_event *e, const VmmConfig *c, int tap_fd, const VmmHandlers *handlers,
                      void *userdata, Vmm **ret, Fault *reterr) {
        _cleanup_(child_fds_done) ChildFds fds = { { -EBADF, -EBADF, -EBADF, -EBADF }, -EBADF };
        _cleanup_close_ int qmp_fd = -EBADF;
        _cleanup_strv_ char **argv = NULL;
        Qemu *q;
        int r;

        q = malloc(sizeof(Qemu));
        if (!q)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        *q = (Qemu) { .vmm.ops = &vmm_qemu_ops,
                      .event = e,
                      .handlers = handlers,
                      .userdata = userdata,
                      .pidfd = -EBADF,
                      .stderr_fd = -EBADF,
                      .agent_fd = -EBADF,
                      .console_fd = -EBADF };

        r = make_streams(q, tap_fd, &qmp_fd, &fds);
        if (r >= 0) {
                argv = qemu_command_line(c, &fds.q);
                r = argv ? spawn(q, &fds, argv) : -ENOMEM;
        }
        if (r >= 0)
                r = watch(q, &qmp_fd);
        if (r < 0) {
                (void) qemu_free(&q->vmm);
                return fault_set_errno(reterr, r, "Failed to start the VMM");
        }

        (void) close_fd(tap_fd);
        *ret = &q->vmm;
        return 0;
}

static pid_t qemu_pid(const Vmm *v) {
        return container_of(v, const Qemu, vmm)->pid;
}

static int qemu_take_agent_fd(Vmm *v) {
        return TAKE_FD(QEMU(v)->agent_fd);
}

static int qemu_take_console_fd(Vmm *v) {
        return TAKE_FD(QEMU(v)->console_fd);
}

const VmmOps vmm_qemu_ops = {
        .backend = "qemu",
        .start = qemu_start,
        .kill = qemu_kill,
        .expect_exit = qemu_expect_exit,
        .pid = qemu_pid,
        .take_agent_fd = qemu_take_agent_fd,
        .take_console_fd = qemu_take_console_fd,
        .free = qemu_free,
};

const VmmOps* vmm_ops_find(const char *backend) {
        static const VmmOps *const drivers[] = { &vmm_qemu_ops };

        for (size_t i = 0; i < ELEMENTSOF(drivers); i++)
                if (streq(drivers[i]->backend, backend))
                        return drivers[i];
        return NULL;
}
