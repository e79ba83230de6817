/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * exec and run: a process in a capsule with our standard streams, and its exit code as ours. The daemon
 * hands over plain pipes; closing them is what ends the process when we are interrupted, as with ssh.
 */

#include <stdio.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/session.h"
#include "ctl/shell.h"

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

/* Our end of file is the command's; that it reads no more is its business. */
static void on_input_end(Flow *f, int r, bool in_write, void *userdata) {
        if (r < 0 && !in_write)
                (void) log_error_errno(r, "Failed to read standard input: %m");
}

static int start_input(Session *x, int fd) {
        _cleanup_close_ int from = -EBADF, to = session_take_fd(fd);
        int r;

        if (to < 0)
                return to;
        from = flow_dup(STDIN_FILENO);
        if (from < 0)
                return from;
        r = flow_start(&x->input, x->event, from, to, /* transform= */ NULL, on_input_end, x);
        if (r >= 0)
                from = to = -EBADF;
        return r;
}

/* The fds in the reply are the message's own. */
static int start_streams(Session *x, sd_bus_message *reply) {
        const char *tag;
        int fds[3], r;

        r = sd_bus_message_read(reply, "ushhh", &x->pid, &tag, &fds[0], &fds[1], &fds[2]);
        if (r >= 0)
                r = free_and_strdup(&x->tag, tag);
        if (r >= 0)
                r = session_show(x, &x->output, session_take_fd(fds[1]), STDOUT_FILENO);
        if (r >= 0)
                r = session_show(x, &x->error, session_take_fd(fds[2]), STDERR_FILENO);
        if (r >= 0 && x->ctl->options.interactive_stdin)
                r = start_input(x, fds[0]);
        return r < 0 ? log_error_errno(r, "Failed to connect the streams: %m") : 0;
}

static int exec_start(Session *x, char *const *command) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = ctl_method(x->ctl, x->path, CAPSULE_INTERFACE, "Exec", &m);
        if (r < 0)
                return r;
        r = append_exec(m, &x->ctl->options, command);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        r = ctl_send(x->ctl, m, "run the command", &reply);
        return r != 0 ? r : start_streams(x, reply);
}

static int capsule_exec(Ctl *ctl, const char *id, const char *path, char *const *command) {
        Session x;
        int r;

        if (ctl->options.tty)
                return shell_run(ctl, id, path, ctl->options.user, command);
        r = session_open(&x, ctl, id, path);
        if (r >= 0)
                r = exec_start(&x, command);
        r = r == 0 ? session_run(&x) : command_failed(r);
        session_done(&x);
        return r;
}

int verb_exec(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = ctl_capsule_path(ctl, arguments[0], &path);
        return r != 0 ? command_failed(r) : capsule_exec(ctl, arguments[0], path, arguments + 1);
}

int verb_run(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL, *id = NULL;
        uint64_t timeout_usec = ctl->options.timeout_usec;
        int r, status;

        session_block_signals();
        ctl->options.no_wait = false;
        ctl->options.timeout_usec = 0; /* it bounds the command, not the idleness of its capsule */
        status = capsule_create(ctl, arguments[0], &id, &path);
        ctl->options.timeout_usec = timeout_usec;
        if (status != 0)
                return command_failed(status);
        if (!ctl->options.quiet && isatty(STDERR_FILENO))
                (void) fprintf(stderr, "Capsule %s runs.\n", id);

        status = capsule_exec(ctl, id, path, arguments + 1);
        r = capsule_destroy(ctl, id);
        return status == 0 && r != 0 ? EXIT_DAEMON : status;
}
