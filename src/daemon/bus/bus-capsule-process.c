/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The Capsule interface: processes and terminals. */

#include <string.h>

#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-capsule.h"
#include "daemon/core/capsule-files.h"

#define TERMINAL_TAG_PREFIX "pty-" /* of those that got none of their own */

/* --- Exec, OpenPTY, ConnectProcess ----------------------------------------------------------- */

typedef struct ExecRequest {
        ExecSpec spec;
        BusCaller caller;
} ExecRequest;

static void exec_request_done(ExecRequest *q) {
        exec_spec_done(&q->spec);
        bus_caller_done(&q->caller);
}

static int read_exec(sd_bus_message *m, ExecRequest *q, Fault *reterr) {
        static const BusOption options[] = {
                { "Cwd", 's', offsetof(ExecSpec, cwd) },
                { "User", 's', offsetof(ExecSpec, user) },
                { "Tag", 's', offsetof(ExecSpec, tag) },
                { "TimeoutUSec", 't', offsetof(ExecSpec, timeout_usec) },
                { "Stdin", 'b', offsetof(ExecSpec, want_stdin) },
                {},
        };
        int r;

        r = sd_bus_message_read_strv(m, &q->spec.argv);
        if (r >= 0)
                r = bus_read_string_map(m, &q->spec.env, reterr);
        if (r >= 0)
                r = bus_read_options(m, options, &q->spec, &q->caller, reterr);
        return r;
}

static void on_exec(Capsule *c, int r, const ExecStarted *p, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, "ushhh", p->pid, p->tag, p->fds[0], p->fds[1],
                                                  p->fds[2]);
}

static int method_exec(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(exec_request_done) ExecRequest q = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        int r;

        r = read_exec(m, &q, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = bus_capsule_authorize(bus_capsule_server(c), m, c, "exec", &q.caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_exec(c, &q.spec, on_exec, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

static int read_terminal(sd_bus_message *m, ExecSpec *s, Fault *reterr) {
        const char *user;
        int r;

        s->pty = true;
        r = sd_bus_message_read_strv(m, &s->argv);
        if (r >= 0)
                r = sd_bus_message_read(m, "s", &user);
        if (r >= 0)
                r = free_and_strdup(&s->user, user);
        if (r >= 0)
                r = bus_read_string_map(m, &s->env, reterr);
        if (r >= 0)
                r = sd_bus_message_read(m, "uu", &s->cols, &s->rows);
        return r;
}

static void on_terminal(Capsule *c, int r, const ExecStarted *p, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, "hsu", p->fds[0], p->tag, p->pid);
}

static int method_open_pty(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(exec_spec_done) ExecSpec spec = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        int r;

        r = read_terminal(m, &spec, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = bus_capsule_allow(m, c, "shell", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_exec(c, &spec, on_terminal, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

static void on_connected(Capsule *c, int r, const ExecStarted *p, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, "hh", p->fds[p->pty ? 0 : 1], p->fds[2]);
}

/* For callers who were asked for 'exec' alone. */
static void on_process_connected(Capsule *c, int r, const ExecStarted *p, const Fault *fault,
                                 void *userdata) {
        static const Fault terminal = {
                .code = FAULT_ACCESS_DENIED,
                .message = (char *) "It is a terminal: name it by its tag, '" TERMINAL_TAG_PREFIX "…'.",
        };

        if (r >= 0 && p->pty)
                on_connected(c, fault_errno(terminal.code), NULL, &terminal, userdata);
        else
                on_connected(c, r, p, fault, userdata);
}

/* What a selector names is not known before it is asked for; the tag tells which right is needed. */
static int method_connect_process(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        BusServer *s = bus_capsule_server(c);
        const char *selector;
        bool may_shell;
        int r;

        r = sd_bus_message_read(m, "s", &selector);
        if (r < 0)
                return r;
        may_shell = startswith(selector, TERMINAL_TAG_PREFIX);
        r = bus_capsule_authorize(s, m, c, may_shell ? "shell" : "exec", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        may_shell = may_shell || caller.uid == 0 || caller.uid == polkit_trusted_uid(s->polkit);

        r = capsule_attach(c, selector, may_shell ? on_connected : on_process_connected, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

/* --- ResizePTY, SignalProcess ---------------------------------------------------------------- */

static int method_resize_pty(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *selector;
        uint32_t cols, rows;
        int r;

        r = sd_bus_message_read(m, "suu", &selector, &cols, &rows);
        if (r < 0)
                return r;
        r = bus_capsule_allow(m, c, "shell", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_resize_terminal(c, selector, cols, rows, bus_capsule_done, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

static int method_signal_process(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        const char *selector;
        int32_t number;
        int r;

        r = sd_bus_message_read(m, "si", &selector, &number);
        if (r < 0)
                return r;
        r = bus_capsule_allow(m, c, "exec", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_signal_process(c, selector, number, bus_capsule_done, m, &fault);
        return bus_capsule_wait(m, r, &fault, error);
}

/* --- ListProcesses --------------------------------------------------------------------------- */

static int on_process(const ProcessEntry *e, void *userdata) {
        sd_bus_message *reply = ((BusList *) userdata)->reply;
        int r;

        r = sd_bus_message_open_container(reply, 'r', "ussas");
        if (r >= 0)
                r = sd_bus_message_append(reply, "uss", e->pid, strempty(e->tag), strempty(e->command));
        if (r >= 0)
                r = sd_bus_message_append_strv(reply, e->args);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int method_list_processes(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_list_freep) BusList *list = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        int r;

        r = bus_capsule_allow(m, c, "exec", error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = bus_list_new(m, "(ussas)", &list);
        if (r < 0)
                return r;

        r = capsule_list_processes(c, on_process, bus_list_done, list, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        (void) TAKE_PTR(list); /* bus_list_done()'s */
        return 1;
}

#define METHOD SD_BUS_VTABLE_UNPRIVILEGED

const sd_bus_vtable bus_capsule_process_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Exec", SD_BUS_ARGS("as", argv, "a{ss}", env, "a{sv}", opts),
                                SD_BUS_RESULT("u", pid, "s", tag, "h", stdin, "h", stdout, "h", stderr),
                                method_exec, METHOD),
        SD_BUS_METHOD_WITH_ARGS("OpenPTY",
                                SD_BUS_ARGS("as", argv, "s", user, "a{ss}", env, "u", cols, "u", rows),
                                SD_BUS_RESULT("h", pty, "s", tag, "u", pid), method_open_pty, METHOD),
        SD_BUS_METHOD_WITH_ARGS("ResizePTY", SD_BUS_ARGS("s", selector, "u", cols, "u", rows),
                                SD_BUS_NO_RESULT, method_resize_pty, METHOD),
        SD_BUS_METHOD_WITH_ARGS("ConnectProcess", SD_BUS_ARGS("s", selector),
                                SD_BUS_RESULT("h", output, "h", errors), method_connect_process, METHOD),
        SD_BUS_METHOD_WITH_ARGS("ListProcesses", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ussas)", processes),
                                method_list_processes, METHOD),
        SD_BUS_METHOD_WITH_ARGS("SignalProcess", SD_BUS_ARGS("s", selector, "i", signal), SD_BUS_NO_RESULT,
                                method_signal_process, METHOD),
        SD_BUS_VTABLE_END,
};
