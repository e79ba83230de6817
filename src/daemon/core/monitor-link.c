/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/capsule-transfer.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"

struct MonitorLink {
        Capsule *capsule;   /* weak: owns us */
        JsonStream *stream; /* NULL: closed */
};

typedef struct Ready {
        uint64_t boot_usec;
        json_t *agent;
        char *version;
} Ready;

static void ready_done(Ready *r) {
        json_decref(r->agent);
        free(r->version);
}

static void on_ready(Capsule *c, json_t *message) {
        static const JsonField fields[] = {
                { .name = "boot_usec", .parse = json_parse_u64, .offset = offsetof(Ready, boot_usec) },
                { .name = "agent", .parse = json_parse_object, .offset = offsetof(Ready, agent) },
                {},
        };
        static const JsonField agent_fields[] = {
                { .name = "version",
                  .parse = json_parse_string,
                  .offset = offsetof(Ready, version),
                  .max = NAME_MAX_LEN },
                {},
        };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(ready_done) Ready ready = {};

        if (json_dispatch(message, fields, &ready, &fault) < 0 ||
            (ready.agent && json_dispatch(ready.agent, agent_fields, &ready, &fault) < 0))
                log_capsule(c->id, LOG_WARNING, 0,
                            "The monitor's 'ready' is odd, using what can be used: %s", fault.message);

        free(c->agent_version);
        c->agent_version = TAKE_PTR(ready.version);
        capsule_start_on_ready(c, ready.boot_usec);
}

static void on_activity(Capsule *c, json_t *message) {
        if (c->state == CAPSULE_RUNNING)
                capsule_touch(c, now_usec(CLOCK_REALTIME));
}

typedef struct TransferTold {
        uint64_t id, bytes;
        json_t *error;
        char *code, *message;
} TransferTold;

static void transfer_told_done(TransferTold *t) {
        json_decref(t->error);
        free(t->code);
        free(t->message);
}

static int parse_transfer(Capsule *c, json_t *message, TransferTold *t) {
        static const JsonField fields[] = {
                { "transfer", json_parse_u64, offsetof(TransferTold, id), JSON_FIELD_MANDATORY, .min = 1 },
                { "bytes", json_parse_u64, offsetof(TransferTold, bytes) },
                { "error", json_parse_object, offsetof(TransferTold, error) },
                {},
        };
        static const JsonField error_fields[] = {
                { "code", json_parse_string, offsetof(TransferTold, code), .max = NAME_MAX_LEN },
                { "message", json_parse_string, offsetof(TransferTold, message), .max = FAULT_MESSAGE_MAX },
                {},
        };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = json_dispatch(message, fields, t, &fault);
        if (r >= 0 && t->error)
                r = json_dispatch(t->error, error_fields, t, &fault);
        if (r < 0)
                log_capsule(c->id, LOG_WARNING, 0,
                            "The monitor told of a transfer in an odd way, ignoring: %s", fault.message);
        return r;
}

static void on_transfer(Capsule *c, json_t *message) {
        _cleanup_(transfer_told_done) TransferTold t = {};

        if (parse_transfer(c, message, &t) >= 0)
                capsule_on_transfer(c, t.id, t.bytes);
}

static void on_transfer_ended(Capsule *c, json_t *message) {
        _cleanup_(transfer_told_done) TransferTold t = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (parse_transfer(c, message, &t) < 0)
                return;
        if (t.error)
                (void) fault_set(&fault, fault_from_wire_name(t.code), "%s",
                                 isempty(t.message) ? "The transfer failed." : t.message);
        capsule_on_transfer_ended(c, t.id, t.bytes, t.error ? &fault : NULL);
}

typedef struct Exited {
        uint64_t pid;
        char *tag, *reason, *status, *message;
        int64_t code, signal;
} Exited;

static void exited_done(Exited *e) {
        free(e->tag);
        free(e->reason);
        free(e->status);
        free(e->message);
}

static void on_process_exited(Capsule *c, json_t *message) {
        static const JsonField fields[] = {
                { .name = "pid",
                  .parse = json_parse_u64,
                  .offset = offsetof(Exited, pid),
                  .max = UINT32_MAX },
                { .name = "tag",
                  .parse = json_parse_string,
                  .offset = offsetof(Exited, tag),
                  .max = TAG_MAX_LEN },
                { .name = "exit_code", .parse = json_parse_i64, .offset = offsetof(Exited, code) },
                { .name = "signal", .parse = json_parse_i64, .offset = offsetof(Exited, signal) },
                { .name = "reason",
                  .parse = json_parse_string,
                  .offset = offsetof(Exited, reason),
                  .max = NAME_MAX_LEN },
                {},
        };
        _cleanup_(exited_done) Exited e = { .code = -1 };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (json_dispatch(message, fields, &e, &fault) < 0) {
                log_capsule(c->id, LOG_WARNING, 0,
                            "The monitor told of the end of a process in an odd way, ignoring: %s",
                            fault.message);
                return;
        }

        if (e.code < 0 && e.signal > 0 && e.signal < NSIG)
                e.code = -e.signal;
        manager_event(c->manager, process_exited, c, (uint32_t) e.pid, strempty(e.tag), (int) e.code,
                      isempty(e.reason) ? (e.signal > 0 ? "signal" : "exit") : e.reason);
}

static void on_exited(Capsule *c, json_t *message) {
        static const JsonField fields[] = {
                { .name = "reason",
                  .parse = json_parse_string,
                  .offset = offsetof(Exited, reason),
                  .max = NAME_MAX_LEN },
                { .name = "status",
                  .parse = json_parse_string,
                  .offset = offsetof(Exited, status),
                  .max = NAME_MAX_LEN },
                { .name = "message",
                  .parse = json_parse_string,
                  .offset = offsetof(Exited, message),
                  .max = FAULT_MESSAGE_MAX },
                {},
        };
        _cleanup_(exited_done) Exited e = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (json_dispatch(message, fields, &e, &fault) < 0)
                log_capsule(c->id, LOG_WARNING, 0,
                            "The monitor's 'exited' is odd, using what can be used: %s", fault.message);
        capsule_on_exited(c, strempty(e.reason), strempty(e.status), strempty(e.message));
}

int capsule_read_exit(Capsule *c) {
        _cleanup_free_ char *path = capsule_run_path(c, "exit"), *text = NULL;
        _cleanup_json_ json_t *message = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        size_t n = 0;
        int r;

        if (!path)
                return -ENOMEM;
        r = read_file_at(AT_FDCWD, path, JSON_MESSAGE_MAX, &text, &n);
        if (r < 0)
                return r;
        if (n == 0)
                return -ENODATA;
        r = json_parse_text(text, n, &message, &fault);
        if (r < 0)
                return r;

        on_exited(c, message);
        return 0;
}

static void on_agent_lost(Capsule *c, json_t *message) {
        const char *text = json_string_value(json_object_get(message, "message"));

        log_capsule(c->id, LOG_WARNING, 0, "The agent in the guest does not answer: %s", strempty(text));
}

static const struct {
        const char *name;
        void (*handler)(Capsule *c, json_t *message);
} events[] = {
        { CONTROL_EVENT_READY, on_ready },
        { CONTROL_EVENT_ACTIVITY, on_activity },
        { CONTROL_EVENT_PROCESS_EXITED, on_process_exited },
        { CONTROL_EVENT_TRANSFER, on_transfer },
        { CONTROL_EVENT_TRANSFER_ENDED, on_transfer_ended },
        { CONTROL_EVENT_AGENT_LOST, on_agent_lost },
        { CONTROL_EVENT_EXITED, on_exited },
};

static void on_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                     void *userdata) {
        MonitorLink *l = userdata;

        for (size_t i = 0; i < ELEMENTSOF(events); i++)
                if (streq(events[i].name, name)) {
                        _cleanup_(capsule_unrefp) Capsule *c = capsule_ref(l->capsule);

                        events[i].handler(c, message);
                        return;
                }

        log_capsule(l->capsule->id, LOG_DEBUG, 0, "The monitor sent an unknown event, ignoring.");
}

static void on_request(JsonStream *s, uint64_t id, const char *verb, json_t *message, int *fds, size_t n_fds,
                       void *userdata) {
        Fault fault = { .code = FAULT_INVALID_ARGS, .message = (char *) "wrennd takes no requests." };

        (void) json_stream_reply_fault(s, id, &fault);
}

/* Its processes' pidfds tell what to do; a stream that breaks while they live is asked for again by the
 * sweep. */
static void on_closed(JsonStream *s, int error, void *userdata) {
        MonitorLink *l = userdata;
        _cleanup_(capsule_unrefp) Capsule *c = capsule_ref(l->capsule);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (error < 0 && error != -ECONNRESET)
                log_capsule(l->capsule->id, LOG_WARNING, error, "The connection to the monitor broke: %m");
        l->stream = json_stream_free(l->stream);

        (void) fault_set(&fault, FAULT_AGENT, "The capsule's monitor does not answer.");
        capsule_fail_transfers(c, &fault);
}

static const JsonStreamHandlers handlers = { .on_request = on_request,
                                             .on_event = on_event,
                                             .on_closed = on_closed };

int monitor_link_new(Capsule *c, int fd, MonitorLink **ret) {
        MonitorLink *l = malloc(sizeof(MonitorLink));
        int r;

        if (!l)
                return -ENOMEM;

        *l = (MonitorLink) { .capsule = c };
        r = json_stream_new(c->manager->event, fd, JSON_DIALECT_CONTROL, JSON_MESSAGE_MAX, &handlers, l,
                            &l->stream);
        if (r < 0) {
                free(l);
                return r;
        }

        *ret = l;
        return 0;
}

MonitorLink* monitor_link_free(MonitorLink *l) {
        if (!l)
                return NULL;

        json_stream_free(l->stream);
        free(l);
        return NULL;
}

int monitor_link_call(MonitorLink *l, const char *verb, json_t *body, const int *fds, size_t n_fds,
                      uint64_t timeout_usec, JsonCallDone done, void *userdata, JsonCall **ret) {
        if (!l || !l->stream)
                return -ENOTCONN;
        return json_stream_call(l->stream, verb, body, fds, n_fds, timeout_usec, done, userdata, ret);
}

bool monitor_link_closed(const MonitorLink *l) {
        return !l->stream;
}
