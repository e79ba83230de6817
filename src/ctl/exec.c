/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * exec and run: a process in a capsule with our standard streams, and its exit code as ours. The daemon
 * hands over plain pipes; closing them is what ends the process when we are interrupted, as with ssh.
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <systemd/sd-event.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/event.h"

#define COPY_BYTES (64 * KIB)

/* One direction of one stream: what was read and not yet written. */
typedef struct Pipe {
        struct Exec *exec;
        int from, to; /* to is closed at EOF when it is the capsule's stdin */
        bool owns_from, owns_to, ended;
        sd_event_source *reader;
        char *buffer;
} Pipe;

typedef struct Exec {
        Ctl *ctl;
        sd_event *event;
        Pipe input, output, error;
        uint32_t pid;
        char *tag;
        bool exited, interrupted, ended;
        int code;
        char reason[16];
} Exec;

static void pipe_done(Pipe *p) {
        p->reader = event_source_free(p->reader);
        if (p->owns_from)
                p->from = close_fd(p->from);
        if (p->owns_to)
                p->to = close_fd(p->to);
        p->ended = true;
        free(p->buffer);
        p->buffer = NULL;
}

static void exec_check_end(Exec *x) {
        if (x->interrupted || (x->exited && x->output.ended && x->error.ended))
                x->ended = true;
}

/* Reads are event-driven, writes block: a slow reader of ours slows the process in the capsule, which is
 * right. */
static int on_readable(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        Pipe *p = userdata;
        ssize_t n;

        n = read(fd, p->buffer, COPY_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0 || write_all(p->to, p->buffer, (size_t) n) < 0) {
                bool to_us = p != &p->exec->input;

                if (n > 0 && to_us) /* our reader is gone, as with a closed pipe */
                        p->exec->interrupted = true;
                pipe_done(p);
                exec_check_end(p->exec);
        }
        return 0;
}

static int pipe_start(Exec *x, Pipe *p) {
        int r;

        p->exec = x;
        p->buffer = malloc(COPY_BYTES);
        if (!p->buffer)
                return -ENOMEM;
        r = sd_event_add_io(x->event, &p->reader, p->from, EPOLLIN, on_readable, p);
        if (r == -EPERM) /* a regular file or /dev/null as our stdin cannot be polled: it is always ready */
                return 1;
        return r < 0 ? r : 0;
}

/* stdin from a file: copied in turns of the loop, so that output flows meanwhile. */
static int on_file_turn(sd_event_source *s, void *userdata) {
        Pipe *p = userdata;
        ssize_t n;

        n = read(p->from, p->buffer, COPY_BYTES);
        if (n <= 0 || write_all(p->to, p->buffer, (size_t) n) < 0)
                pipe_done(p);
        return 0;
}

static int on_process_exited(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Exec *x = userdata;
        const char *tag, *reason;
        uint32_t pid;
        int32_t code;

        if (x->exited || !x->tag || sd_bus_message_read(m, "usis", &pid, &tag, &code, &reason) < 0)
                return 0;
        if (pid != x->pid || !streq(tag, x->tag))
                return 0;
        x->exited = true;
        x->code = code;
        (void) snprintf(x->reason, sizeof(x->reason), "%s", reason);
        exec_check_end(x);
        return 0;
}

/* A capsule that ends takes its processes with it. */
static int on_capsule_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *id, *path, *reason;
        Exec *x = userdata;

        if (x->exited || sd_bus_message_read(m, "sos", &id, &path, &reason) < 0 || !x->tag)
                return 0;
        log_error("The capsule ended: %s.", reason);
        x->exited = true;
        x->code = EXIT_DAEMON;
        (void) snprintf(x->reason, sizeof(x->reason), "lost");
        exec_check_end(x);
        return 0;
}

static int on_interrupt(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata) {
        Exec *x = userdata;

        x->interrupted = true;
        x->code = 128 + (int) si->ssi_signo;
        exec_check_end(x);
        return 0;
}

/* From here on Ctrl-C is an event: a capsule that was asked for is also destroyed. */
static void block_signals(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGINT);
        (void) sigaddset(&mask, SIGTERM);
        (void) sigaddset(&mask, SIGHUP);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);
}

static int exec_watch(Exec *x, const char *path, const char *id) {
        _cleanup_free_ char *removed = NULL;
        int r;

        block_signals();
        (void) signal(SIGPIPE, SIG_IGN);

        r = sd_event_default(&x->event);
        if (r >= 0)
                r = sd_bus_attach_event(x->ctl->bus, x->event, 0);
        for (const int *sig = (const int[]) { SIGINT, SIGTERM, SIGHUP, 0 }; *sig && r >= 0; sig++)
                r = sd_event_add_signal(x->event, NULL, *sig, on_interrupt, x);
        if (r >= 0)
                r = sd_bus_match_signal(x->ctl->bus, NULL, BUS_NAME, path, CAPSULE_INTERFACE,
                                        "ProcessExited", on_process_exited, x);
        removed = asprintf_null("type='signal',sender='" BUS_NAME "',path='" BUS_PATH
                                "',interface='" MANAGER_INTERFACE "',member='CapsuleRemoved',arg0='%s'",
                                id);
        if (r >= 0)
                r = removed ? sd_bus_add_match(x->ctl->bus, NULL, removed, on_capsule_removed, x) : -ENOMEM;
        return r;
}

static int append_exec(sd_bus_message *m, const CtlOptions *o, char *const *command) {
        int r;

        r = sd_bus_message_append_strv(m, (char **) command);
        if (r >= 0)
                r = bus_append_map(m, o->env);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "Stdin", "b", o->interactive_stdin);
        if (r >= 0 && o->cwd)
                r = sd_bus_message_append(m, "{sv}", "Cwd", "s", o->cwd);
        if (r >= 0 && o->user)
                r = sd_bus_message_append(m, "{sv}", "User", "s", o->user);
        if (r >= 0 && o->timeout_usec > 0)
                r = sd_bus_message_append(m, "{sv}", "TimeoutUSec", "t", o->timeout_usec);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r;
}

/* Duplicates the three fds out of the reply (the message owns its own). */
static int exec_take_fds(Exec *x, sd_bus_message *reply) {
        int fds[3], copies[3];
        const char *tag;
        int r;

        r = sd_bus_message_read(reply, "ushhh", &x->pid, &tag, &fds[0], &fds[1], &fds[2]);
        if (r < 0)
                return r;
        r = free_and_strdup(&x->tag, tag);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < 3; i++) {
                copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
                if (copies[i] < 0)
                        return -errno;
        }
        x->input = (Pipe) { .from = STDIN_FILENO, .to = copies[0], .owns_to = true };
        x->output = (Pipe) { .from = copies[1], .owns_from = true, .to = STDOUT_FILENO };
        x->error = (Pipe) { .from = copies[2], .owns_from = true, .to = STDERR_FILENO };
        return 0;
}

/* The end of the process as an exit status: podman(1)'s and timeout(1)'s numbers. */
static int exec_status(const Exec *x) {
        if (streq(x->reason, "timeout")) {
                log_error("The command took longer than it may and was killed.");
                return EXIT_COMMAND_TIMEOUT;
        }
        if (x->interrupted && !x->exited)
                return x->code ?: 128 + SIGPIPE;
        if (streq(x->reason, "lost"))
                return EXIT_DAEMON;
        return x->code < 0 ? 128 - x->code : x->code;
}

static int exec_start(Exec *x, const char *path, char *const *command) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = ctl_method(x->ctl, path, CAPSULE_INTERFACE, "Exec", &m);
        if (r < 0)
                return r;
        r = append_exec(m, &x->ctl->options, command);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        r = ctl_send(x->ctl, m, "run the command", &reply);
        if (r != 0)
                return r == EXIT_UNKNOWN || r == EXIT_NOT_RUNNING || r == EXIT_USAGE ? r : EXIT_DAEMON;
        r = exec_take_fds(x, reply);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");

        r = pipe_start(x, &x->output);
        if (r >= 0)
                r = pipe_start(x, &x->error);
        if (r >= 0 && !x->ctl->options.interactive_stdin)
                pipe_done(&x->input);
        else if (r >= 0) {
                r = pipe_start(x, &x->input);
                if (r > 0) {
                        r = sd_event_add_defer(x->event, &x->input.reader, on_file_turn, &x->input);
                        if (r >= 0)
                                r = sd_event_source_set_enabled(x->input.reader, SD_EVENT_ON);
                }
        }
        return r < 0 ? log_error_errno(r, "Failed to watch the streams: %m") : 0;
}

static int capsule_exec(Ctl *ctl, const char *id, const char *path, char *const *command) {
        Exec x = { .ctl = ctl };
        int r;

        r = exec_watch(&x, path, id);
        if (r < 0)
                (void) log_error_errno(r, "Failed to watch the capsule: %m");
        else
                r = exec_start(&x, path, command);
        if (r == 0) {
                /* sd_event_exit() would close the bus as well, and run still has a capsule to destroy. */
                while (r >= 0 && !x.ended)
                        r = sd_event_run(x.event, UINT64_MAX);
                r = r < 0 ? log_error_errno(r, "Event loop failed: %m") : exec_status(&x);
        }
        if (x.tag) {
                pipe_done(&x.input);
                pipe_done(&x.output);
                pipe_done(&x.error);
        }
        free(x.tag);
        (void) sd_bus_detach_event(ctl->bus);
        sd_event_unref(x.event);
        return r < 0 ? EXIT_DAEMON : r;
}

int verb_exec(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = ctl_capsule_path(ctl, arguments[0], &path);
        if (r != 0)
                return r < 0 ? EXIT_DAEMON : r;
        return capsule_exec(ctl, arguments[0], path, arguments + 1);
}

int verb_run(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL, *id = NULL;
        uint64_t timeout_usec = ctl->options.timeout_usec;
        int r, status;

        block_signals();
        ctl->options.no_wait = false;
        ctl->options.timeout_usec = 0; /* it bounds the command, not the idleness of its capsule */
        status = capsule_create(ctl, arguments[0], &id, &path);
        ctl->options.timeout_usec = timeout_usec;
        if (status != 0)
                return status == EXIT_USAGE || status == EXIT_UNKNOWN ? status : EXIT_DAEMON;
        if (!ctl->options.quiet && isatty(STDERR_FILENO))
                (void) fprintf(stderr, "Capsule %s runs.\n", id);

        status = capsule_exec(ctl, id, path, arguments + 1);
        r = capsule_destroy(ctl, id);
        return status == 0 && r != 0 ? EXIT_DAEMON : status;
}
