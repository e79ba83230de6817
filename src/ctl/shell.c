/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * shell, attach, exec -t: a terminal in the capsule, typed at from ours. All keys are the guest's, but the
 * escape key three times leaves; the process goes on then, as it does when we die, and attach comes back to
 * it.
 */

#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/session.h"
#include "ctl/shell.h"
#include "ctl/terminal.h"

typedef struct Shell {
        Session session;
        const char *selector; /* what the process is called when asked for; weak */
        EscapeKey escape;
        uint32_t cols, rows; /* told last */
        sd_bus_slot *resize; /* on its way */
        bool is_typed_at, detached;
} Shell;

static int on_typed(void *userdata, char *data, size_t n, size_t *ret_n) {
        Shell *s = userdata;

        s->detached = escape_key_seen(&s->escape, data, n, now_usec(CLOCK_MONOTONIC), ret_n);
        return s->detached;
}

/* Escaped, hung up, or the other side is gone, which says so itself. */
static void on_input_end(Flow *f, int r, bool in_write, void *userdata) {
        Shell *s = userdata;

        if (in_write)
                return;
        s->detached = true;
        session_interrupt(&s->session, r < 0 ? 128 + SIGHUP : 0);
}

static int shell_resize(Shell *s);

/* The terminal may have ended meanwhile; and our size may have changed meanwhile. */
static int on_resized(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Shell *s = userdata;

        s->resize = sd_bus_slot_unref(s->resize);
        return sd_bus_message_is_method_error(m, NULL) ? 0 : shell_resize(s);
}

/* Tells our size where it is another one than was told; one call at a time. */
static int shell_resize(Shell *s) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        uint32_t cols, rows;
        int r;

        terminal_size(&cols, &rows);
        if (s->resize || (cols == s->cols && rows == s->rows))
                return 0;
        r = ctl_method(s->session.ctl, s->session.path, CAPSULE_INTERFACE, "ResizePTY", &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "suu", s->selector, cols, rows);
        if (r >= 0)
                r = sd_bus_call_async(s->session.ctl->bus, &s->resize, m, on_resized, s,
                                      CTL_CALL_TIMEOUT_USEC);
        if (r < 0)
                return r;
        s->cols = cols;
        s->rows = rows;
        return 0;
}

static int on_winch(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        return shell_resize(userdata);
}

/* Stopped from outside (the key for it is the guest's): a usable terminal meanwhile. */
static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        terminal_restore();
        (void) raise(SIGSTOP);
        return 0;
}

static int on_continue(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        int r;

        r = terminal_make_raw();
        return r < 0 ? r : shell_resize(userdata);
}

static int watch_terminal(Shell *s) {
        static const struct {
                int number;
                sd_event_signal_handler_t handler;
        } signals[] = { { SIGWINCH, on_winch }, { SIGTSTP, on_stop }, { SIGCONT, on_continue } };
        sigset_t mask;
        int r = 0;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&mask, signals[i].number);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);
        for (size_t i = 0; i < ELEMENTSOF(signals) && r >= 0; i++)
                r = sd_event_add_signal(s->session.event, NULL, signals[i].number, signals[i].handler, s);
        return r;
}

/* pty: taken in every case. */
static int start_typing(Shell *s, int pty) {
        _cleanup_close_ int from = -EBADF, to = pty;
        int r;

        if (to < 0)
                return to;
        from = flow_dup(STDIN_FILENO);
        if (from < 0)
                return from;
        r = flow_start(&s->session.input, s->session.event, from, to, on_typed, on_input_end, s);
        if (r < 0)
                return r;
        from = to = -EBADF;
        r = watch_terminal(s);
        if (r >= 0)
                r = shell_resize(s); /* it may have changed before it was watched */
        return r < 0 ? r : terminal_make_raw();
}

/* What is left to do and to say once the terminal is ours again. */
static int shell_leave(Shell *s, int status) {
        Session *x = &s->session;

        s->resize = sd_bus_slot_unref(s->resize);
        if (!s->is_typed_at)
                return status;
        if (!x->exited)
                terminal_calm();
        terminal_restore();
        if (!x->exited && x->interrupted && !x->ctl->options.quiet)
                (void) fprintf(stderr, "\nLeft it running. Come back: wrennctl attach %s %s\n", x->id,
                               s->selector);
        return status;
}

static int shell_talk(Shell *s, int pty) {
        Session *x = &s->session;
        int r;

        r = session_show(x, &x->output, session_take_fd(pty), STDOUT_FILENO);
        if (r >= 0 && s->is_typed_at)
                r = start_typing(s, session_take_fd(pty));
        if (r >= 0)
                r = session_run(x);
        else
                r = command_failed(log_error_errno(r, "Failed to connect the terminal: %m"));
        return shell_leave(s, r);
}

/* What -E says, and our TERM unless that is among it. */
static int shell_environment(const CtlOptions *o, char ***ret) {
        const char *term = getenv("TERM");
        int r = 0;

        STRV_FOREACH(e, o->env) {
                if (startswith(*e, "TERM="))
                        term = NULL;
                r = strv_extend(ret, *e);
                if (r < 0)
                        return r;
        }
        return isempty(term) ? 0 : strv_extendf(ret, "TERM=%s", term);
}

/* 0 or the exit status; the answer holds the terminal. */
static int shell_open(Shell *s, const char *user, char *const *command, sd_bus_message **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        const CtlOptions *o = &s->session.ctl->options;
        _cleanup_strv_ char **env = NULL;
        int r;

        terminal_size(&s->cols, &s->rows);
        r = shell_environment(o, &env);
        if (r >= 0)
                r = ctl_method(s->session.ctl, s->session.path, CAPSULE_INTERFACE, "OpenPTY", &m);
        if (r >= 0)
                r = sd_bus_message_append_strv(m, (char **) command);
        if (r >= 0)
                r = sd_bus_message_append(m, "s", strempty(user));
        if (r >= 0)
                r = bus_append_map(m, env);
        if (r >= 0)
                r = sd_bus_message_append(m, "uu", s->cols, s->rows);
        if (r < 0)
                return log_error_errno(r, "Failed to make the request: %m");
        return ctl_send(s->session.ctl, m, "open a terminal", ret);
}

static int shell_start(Shell *s, const char *user, char *const *command) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        Session *x = &s->session;
        const char *tag;
        int pty, r;

        r = shell_open(s, user, command, &reply);
        if (r != 0)
                return command_failed(r);
        r = sd_bus_message_read(reply, "hsu", &pty, &tag, &x->pid);
        if (r >= 0)
                r = free_and_strdup(&x->tag, tag);
        if (r < 0)
                return command_failed(log_error_errno(r, "Failed to read the answer: %m"));
        s->selector = x->tag;
        s->is_typed_at = true;
        if (!x->ctl->options.quiet)
                (void) fprintf(stderr,
                               "Connected to %s as %s; ^] three times within a second leaves it running.\n",
                               x->id, x->tag);
        return shell_talk(s, pty);
}

int shell_run(Ctl *ctl, const char *id, const char *path, const char *user, char *const *command) {
        Shell s = {};
        int r;

        if (!terminal_is_ours()) {
                log_error("Standard input and output are no terminal: use 'wrennctl exec' without -t, or "
                          "'ssh -t' to get one.");
                return EXIT_USAGE;
        }
        if (ctl->options.cwd || ctl->options.timeout_usec > 0) {
                log_error("--cwd and --timeout are for commands without a terminal.");
                return EXIT_USAGE;
        }
        r = session_open(&s.session, ctl, id, path);
        r = r < 0 ? EXIT_DAEMON : shell_start(&s, user, command);
        session_done(&s.session);
        return r;
}

/* "[USER@]ID" */
int verb_shell(Ctl *ctl, char **arguments) {
        _cleanup_free_ char *path = NULL, *user = NULL;
        const char *id = arguments[0], *at = strrchr(arguments[0], '@');
        int r;

        if (at) {
                user = strndup(id, (size_t) (at - id));
                if (!user)
                        return log_error_errno(ENOMEM, "Failed to open a terminal: %m");
                id = at + 1;
        }
        r = ctl_capsule_path(ctl, id, &path);
        if (r != 0)
                return command_failed(r);
        return shell_run(ctl, id, path, user ?: ctl->options.user, arguments + 1);
}

/* Of a terminal one socket, of other processes the read ends of output and errors. */
static int attach_start(Shell *s, int output, int errors) {
        Session *x = &s->session;
        struct stat st;
        int r;

        if (fstat(output, &st) < 0)
                return command_failed(log_error_errno(errno, "Failed to look at the answer: %m"));
        if (S_ISSOCK(st.st_mode)) {
                s->is_typed_at = terminal_is_ours();
                return shell_talk(s, output);
        }
        r = session_show(x, &x->output, session_take_fd(output), STDOUT_FILENO);
        if (r >= 0)
                r = session_show(x, &x->error, session_take_fd(errors), STDERR_FILENO);
        if (r >= 0)
                return session_run(x);
        return command_failed(log_error_errno(r, "Failed to connect the streams: %m"));
}

static int attach_run(Shell *s) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        Session *x = &s->session;
        int output, errors, r;

        if (parse_u32(s->selector, &x->pid) < 0)
                r = free_and_strdup(&x->tag, s->selector);
        else
                r = 0;
        if (r >= 0)
                r = ctl_method(x->ctl, x->path, CAPSULE_INTERFACE, "ConnectProcess", &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "s", s->selector);
        if (r < 0)
                return command_failed(
                                log_error_errno(r, "'%s' is neither a tag nor a pid: %m", s->selector));
        r = ctl_send(x->ctl, m, "attach to the process", &reply);
        if (r != 0)
                return command_failed(r);
        r = sd_bus_message_read(reply, "hh", &output, &errors);
        if (r < 0)
                return command_failed(log_error_errno(r, "Failed to read the answer: %m"));
        return attach_start(s, output, errors);
}

int verb_attach(Ctl *ctl, char **arguments) {
        Shell s = { .selector = arguments[1] };
        _cleanup_free_ char *path = NULL;
        int r;

        r = ctl_capsule_path(ctl, arguments[0], &path);
        if (r != 0)
                return command_failed(r);
        r = session_open(&s.session, ctl, arguments[0], path);
        r = r < 0 ? EXIT_DAEMON : attach_run(&s);
        session_done(&s.session);
        return r;
}
