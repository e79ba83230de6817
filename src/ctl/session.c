/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/session.h"

static const int interrupts[] = { SIGINT, SIGTERM, SIGHUP };

static void check_end(Session *x) {
        if (x->interrupted || (x->exited && !flow_is_on(&x->output) && !flow_is_on(&x->error)))
                x->ended = true;
}

void session_interrupt(Session *x, int code) {
        if (!x->interrupted)
                x->code = x->exited ? x->code : code;
        x->interrupted = true;
        check_end(x);
}

static void exited(Session *x, int code, const char *reason) {
        x->exited = true;
        x->code = code;
        (void) snprintf(x->reason, sizeof(x->reason), "%s", reason);
        check_end(x);
}

static int on_process_exited(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Session *x = userdata;
        const char *tag, *reason;
        uint32_t pid;
        int32_t code;

        if (x->exited || (!x->tag && x->pid == 0) ||
            sd_bus_message_read(m, "usis", &pid, &tag, &code, &reason) < 0)
                return 0;
        if ((x->pid != 0 && pid != x->pid) || (x->tag && !streq(tag, x->tag)))
                return 0;
        if (streq(reason, "lost"))
                log_error("The capsule's agent was lost, and the process with it.");
        exited(x, code, reason);
        return 0;
}

/* A capsule that ends takes its processes with it. */
static int on_capsule_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *id, *path, *reason;
        Session *x = userdata;

        if (x->exited || sd_bus_message_read(m, "sos", &id, &path, &reason) < 0)
                return 0;
        log_error("The capsule ended: %s.", reason);
        exited(x, EXIT_DAEMON, "lost");
        return 0;
}

static int on_interrupt(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata) {
        session_interrupt(userdata, 128 + (int) si->ssi_signo);
        return 0;
}

void session_block_signals(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(interrupts); i++)
                (void) sigaddset(&mask, interrupts[i]);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);
}

int session_open(Session *x, Ctl *ctl, const char *id, const char *path) {
        _cleanup_free_ char *removed = NULL;
        int r;

        *x = (Session) { .ctl = ctl,
                         .id = id,
                         .path = path,
                         .input = FLOW_NULL,
                         .output = FLOW_NULL,
                         .error = FLOW_NULL };
        session_block_signals();
        (void) signal(SIGPIPE, SIG_IGN);

        r = sd_event_default(&x->event);
        if (r >= 0)
                r = sd_bus_attach_event(ctl->bus, x->event, 0);
        for (size_t i = 0; i < ELEMENTSOF(interrupts) && r >= 0; i++)
                r = sd_event_add_signal(x->event, NULL, interrupts[i], on_interrupt, x);
        if (r >= 0)
                r = sd_bus_match_signal(ctl->bus, &x->exited_slot, BUS_NAME, path, CAPSULE_INTERFACE,
                                        "ProcessExited", on_process_exited, x);
        removed = asprintf_null("type='signal',sender='" BUS_NAME "',path='" BUS_PATH
                                "',interface='" MANAGER_INTERFACE "',member='CapsuleRemoved',arg0='%s'",
                                id);
        if (r >= 0)
                r = removed ? sd_bus_add_match(ctl->bus, &x->removed_slot, removed, on_capsule_removed, x)
                            : -ENOMEM;
        return r < 0 ? log_error_errno(r, "Failed to watch the capsule: %m") : 0;
}

int session_take_fd(int fd) {
        int copy, r;

        copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return -errno;
        r = fd_nonblock(copy, true);
        if (r < 0) {
                (void) close_fd(copy);
                return r;
        }
        return copy;
}

static void on_output_end(Flow *f, int r, bool in_write, void *userdata) {
        Session *x = userdata;

        if (in_write && r == -EPIPE) /* our reader is gone, as with a closed pipe */
                session_interrupt(x, 128 + SIGPIPE);
        else if (in_write) {
                (void) log_error_errno(r, "Failed to write the output: %m");
                session_interrupt(x, EXIT_DAEMON);
        } else
                check_end(x);
}

int session_show(Session *x, Flow *f, int fd, int our_fd) {
        _cleanup_close_ int from = fd, to = -EBADF;
        int r;

        if (fd < 0)
                return fd;
        to = flow_dup(our_fd);
        if (to < 0)
                return to;
        r = flow_start(f, x->event, from, to, /* transform= */ NULL, on_output_end, x);
        if (r >= 0)
                from = to = -EBADF;
        return r;
}

/* The end of the process as an exit status: podman(1)'s and timeout(1)'s numbers. */
static int exit_status(const Session *x) {
        if (streq(x->reason, "timeout")) {
                log_error("The command took longer than it may and was killed.");
                return EXIT_COMMAND_TIMEOUT;
        }
        if (streq(x->reason, "lost"))
                return EXIT_DAEMON;
        return x->code < 0 ? 128 - x->code : x->code;
}

int command_failed(int r) {
        return r == EXIT_UNKNOWN || r == EXIT_NOT_RUNNING || r == EXIT_USAGE ? r : EXIT_DAEMON;
}

int session_run(Session *x) {
        int r = 0;

        check_end(x);
        /* sd_event_exit() would close the bus as well, and run still has a capsule to destroy. */
        while (r >= 0 && !x->ended)
                r = sd_event_run(x->event, UINT64_MAX);
        if (r < 0) {
                (void) log_error_errno(r, "Event loop failed: %m");
                return EXIT_DAEMON;
        }
        return exit_status(x);
}

void session_done(Session *x) {
        flow_stop(&x->input);
        flow_stop(&x->output);
        flow_stop(&x->error);
        free(x->tag);
        x->exited_slot = sd_bus_slot_unref(x->exited_slot);
        x->removed_slot = sd_bus_slot_unref(x->removed_slot);
        (void) sd_bus_detach_event(x->ctl->bus);
        x->event = sd_event_unref(x->event);
}
