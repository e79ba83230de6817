/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/fd.h"
#include "basic/strings.h"
#include "monitor/guest-calls.h"
#include "monitor/process.h"
#include "monitor/transfer.h"
#include "shared/protocol.h"

/* A process, and who is to be told that it runs. */
typedef struct ProcessCall {
        GuestCalls *owner;     /* weak: owns us */
        GuestProcess *process; /* NULL: free place */
        ControlReply *reply;   /* until it runs */
        uint32_t pid;
        char *tag;
        bool exit_told; /* by another one that looks at the same process */
} ProcessCall;

typedef struct TransferCall {
        GuestCalls *owner;   /* weak: owns us */
        Transfer *transfer;  /* NULL: free place */
        ControlReply *reply; /* until it was answered */
        uint64_t id;
        bool has_fds;     /* it is told how it goes on */
        const void *peer; /* it is bound to; or NULL */
} TransferCall;

struct GuestCalls {
        sd_event *event; /* weak: outlives us */
        const GuestCallsHandlers *handlers;
        void *userdata;
        AgentLink *agent; /* weak: guest_calls_set_agent() */
        ProcessCall processes[GUEST_PROCESSES_MAX];
        TransferCall transfers[TRANSFERS_MAX];
        uint64_t last_transfer;
};

static void tell_activity(GuestCalls *g) {
        g->handlers->on_activity(g->userdata);
}

static void tell(GuestCalls *g, const char *event, json_t *body) {
        if (body)
                g->handlers->on_event(event, body, g->userdata);
}

static int check_agent(const GuestCalls *g, Fault *reterr) {
        return g->agent ? 0 : fault_set(reterr, FAULT_INVALID_STATE, "The capsule is not running.");
}

/* Processes */

static void process_clear(ProcessCall *p) {
        p->process = guest_process_free(p->process);
        free(p->tag);
        *p = (ProcessCall) { .owner = p->owner };
}

static void on_process_started(GuestProcess *process, int r, const GuestProcessStart *start,
                               const Fault *fault, void *userdata) {
        _cleanup_json_ json_t *ok = NULL;
        ProcessCall *p = userdata;
        ControlReply *reply = TAKE_PTR(p->reply);

        if (r < 0) {
                control_reply_fault(reply, fault);
                process_clear(p);
                return;
        }
        p->pid = start->pid;
        (void) free_and_strdup(&p->tag, start->tag);
        ok = json_pack("{s:I, s:s, s:b}", "pid", (json_int_t) start->pid, "tag", start->tag, "pty",
                       start->pty);
        control_reply_ok(reply, ok, start->fds, start->n_fds);
}

/* One process, one word of its end, however many look at it. */
static void mark_told(ProcessCall *p) {
        for (size_t i = 0; i < GUEST_PROCESSES_MAX; i++) {
                ProcessCall *other = &p->owner->processes[i];

                if (other->process && other->pid == p->pid && streq_ptr(other->tag, p->tag))
                        other->exit_told = true;
        }
}

static void on_process_exited(GuestProcess *process, uint32_t pid, const char *tag,
                              const GuestProcessEnd *end, void *userdata) {
        ProcessCall *p = userdata;
        GuestCalls *g = p->owner;

        if (end && !p->exit_told) {
                _cleanup_json_ json_t *body = json_pack("{s:I, s:s, s:I, s:I, s:s}", "pid", (json_int_t) pid,
                                                        "tag", tag, "exit_code", (json_int_t) end->exit_code,
                                                        "signal", (json_int_t) end->signal, "reason",
                                                        end->reason);

                mark_told(p);
                tell(g, CONTROL_EVENT_PROCESS_EXITED, body);
        }
        process_clear(p);
        tell_activity(g);
}

static const GuestProcessHandlers process_handlers = {
        .on_started = on_process_started,
        .on_exited = on_process_exited,
};

static int free_process(GuestCalls *g, ProcessCall **ret, Fault *reterr) {
        for (size_t i = 0; i < ELEMENTSOF(g->processes); i++)
                if (!g->processes[i].process) {
                        *ret = &g->processes[i];
                        return 0;
                }
        return fault_set(reterr, FAULT_QUOTA_EXCEEDED, "More than %u processes were started this way.",
                         GUEST_PROCESSES_MAX);
}

/* A spec that does not fit into a message comes in a memfd. */
static int read_spec(json_t *message, int *fds, size_t n_fds, json_t **ret, Fault *reterr) {
        _cleanup_free_ char *text = NULL;
        ssize_t n;

        if (!json_is_true(json_object_get(message, "spec"))) {
                *ret = json_incref(message);
                return 0;
        }
        text = n_fds == 1 ? malloc(AGENT_JSON_MAX + 1) : NULL;
        n = text ? pread(fds[0], text, AGENT_JSON_MAX + 1, 0) : -1;
        if (n < 0 || (uint64_t) n > AGENT_JSON_MAX)
                return fault_set(reterr, FAULT_TOO_LARGE, "The spec cannot be read.");
        return json_parse_text(text, (size_t) n, ret, reterr);
}

static int start_process(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply,
                         Fault *reterr) {
        _cleanup_(guest_process_spec_done) GuestProcessSpec spec = {};
        _cleanup_json_ json_t *body = NULL;
        ProcessCall *p = NULL;
        int r;

        r = read_spec(message, fds, n_fds, &body, reterr);
        if (r >= 0)
                r = guest_process_spec_parse(body, &spec, reterr);
        if (r >= 0)
                r = check_agent(g, reterr);
        if (r >= 0)
                r = free_process(g, &p, reterr);
        if (r >= 0)
                r = guest_process_start(g->event, g->agent, &spec, &process_handlers, p, &p->process,
                                        reterr);
        if (r < 0)
                return r;
        p->reply = reply;
        tell_activity(g);
        return 0;
}

void guest_calls_exec(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (start_process(g, message, fds, n_fds, reply, &fault) < 0)
                control_reply_fault(reply, &fault);
}

static int attach_process(GuestCalls *g, json_t *message, ControlReply *reply, Fault *reterr) {
        const char *selector = json_string_value(json_object_get(message, "selector"));
        ProcessCall *p = NULL;
        int r;

        if (!selector || !tag_is_valid(selector))
                return fault_set(reterr, FAULT_INVALID_ARGS, "selector: expected a tag or a pid.");
        r = check_agent(g, reterr);
        if (r >= 0)
                r = free_process(g, &p, reterr);
        if (r >= 0)
                r = guest_process_attach(g->event, g->agent, selector, &process_handlers, p, &p->process,
                                         reterr);
        if (r < 0)
                return r;
        p->reply = reply;
        tell_activity(g);
        return 0;
}

void guest_calls_attach(GuestCalls *g, json_t *message, ControlReply *reply) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (attach_process(g, message, reply, &fault) < 0)
                control_reply_fault(reply, &fault);
}

/* Transfers */

static void transfer_clear(TransferCall *t) {
        t->transfer = transfer_free(t->transfer);
        *t = (TransferCall) { .owner = t->owner };
}

static void answer_transfer(TransferCall *t) {
        _cleanup_json_ json_t *ok = json_pack("{s:I}", "transfer", (json_int_t) t->id);

        control_reply_ok(TAKE_PTR(t->reply), ok, NULL, 0);
}

static void on_transfer_started(Transfer *transfer, int r, const Fault *fault, void *userdata) {
        TransferCall *t = userdata;

        if (r < 0) {
                control_reply_fault(TAKE_PTR(t->reply), fault);
                transfer_clear(t);
        } else
                answer_transfer(t);
}

static void on_transfer_bytes(Transfer *transfer, uint64_t bytes, void *userdata) {
        _cleanup_json_ json_t *body = NULL;
        TransferCall *t = userdata;

        tell_activity(t->owner);
        if (!t->has_fds)
                return;
        body = json_pack("{s:I, s:I}", "transfer", (json_int_t) t->id, "bytes", (json_int_t) bytes);
        tell(t->owner, CONTROL_EVENT_TRANSFER, body);
}

static void on_transfer_ended(Transfer *transfer, uint64_t bytes, int r, const Fault *fault,
                              void *userdata) {
        _cleanup_json_ json_t *body = NULL;
        TransferCall *t = userdata;
        GuestCalls *g = t->owner;

        if (t->has_fds) {
                body = json_pack("{s:I, s:I}", "transfer", (json_int_t) t->id, "bytes", (json_int_t) bytes);
                if (body && r < 0)
                        (void) json_object_set_new(body, "error",
                                                   json_pack("{s:s, s:s}", "code",
                                                             fault_wire_name(fault->code), "message",
                                                             strempty(fault->message)));
                tell(g, CONTROL_EVENT_TRANSFER_ENDED, body);
        }
        transfer_clear(t);
        tell_activity(g);
}

static const TransferHandlers transfer_handlers = {
        .on_started = on_transfer_started,
        .on_bytes = on_transfer_bytes,
        .on_ended = on_transfer_ended,
};

static int free_transfer(GuestCalls *g, TransferCall **ret, Fault *reterr) {
        for (size_t i = 0; i < ELEMENTSOF(g->transfers); i++)
                if (!g->transfers[i].transfer) {
                        *ret = &g->transfers[i];
                        return 0;
                }
        return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                         "More than %u files of this capsule are open this way; close some.", TRANSFERS_MAX);
}

static int start_request(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply,
                         Fault *reterr) {
        _cleanup_(transfer_spec_done) TransferSpec spec = {};
        TransferCall *t = NULL;
        int r;

        r = transfer_spec_parse(message, &spec, reterr);
        if (r >= 0)
                r = check_agent(g, reterr);
        if (r >= 0)
                r = free_transfer(g, &t, reterr);
        if (r >= 0)
                r = transfer_start(g->event, g->agent, &spec, fds, n_fds, &transfer_handlers, t,
                                   &t->transfer, reterr);
        if (r < 0)
                return r;
        t->id = ++g->last_transfer;
        t->has_fds = n_fds > 0;
        t->peer = spec.bound ? control_reply_peer(reply) : NULL;
        t->reply = reply;
        if (spec.body)
                answer_transfer(t);
        tell_activity(g);
        return 0;
}

void guest_calls_request(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (start_request(g, message, fds, n_fds, reply, &fault) < 0)
                control_reply_fault(reply, &fault);
}

void guest_calls_cancel(GuestCalls *g, json_t *message, ControlReply *reply) {
        json_int_t id = json_integer_value(json_object_get(message, "transfer"));
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *ok = json_object();

        for (size_t i = 0; id > 0 && i < ELEMENTSOF(g->transfers); i++)
                if (g->transfers[i].transfer && g->transfers[i].id == (uint64_t) id) {
                        transfer_cancel(g->transfers[i].transfer, "It was cancelled.");
                        control_reply_ok(reply, ok, NULL, 0);
                        return;
                }
        (void) fault_set(&fault, FAULT_NOT_FOUND, "There is no such transfer.");
        control_reply_fault(reply, &fault);
}

void guest_calls_peer_gone(GuestCalls *g, const void *peer) {
        for (size_t i = 0; i < ELEMENTSOF(g->transfers); i++)
                if (g->transfers[i].transfer && g->transfers[i].peer == peer)
                        transfer_cancel(g->transfers[i].transfer, "Who asked for it has gone.");
}

/* Life */

int guest_calls_new(sd_event *e, const GuestCallsHandlers *handlers, void *userdata, GuestCalls **ret) {
        GuestCalls *g = malloc(sizeof(GuestCalls));

        if (!g)
                return -ENOMEM;
        *g = (GuestCalls) { .event = e, .handlers = handlers, .userdata = userdata };
        for (size_t i = 0; i < ELEMENTSOF(g->processes); i++)
                g->processes[i].owner = g;
        for (size_t i = 0; i < ELEMENTSOF(g->transfers); i++)
                g->transfers[i].owner = g;
        *ret = g;
        return 0;
}

GuestCalls* guest_calls_free(GuestCalls *g) {
        if (!g)
                return NULL;
        for (size_t i = 0; i < ELEMENTSOF(g->processes); i++)
                process_clear(&g->processes[i]);
        for (size_t i = 0; i < ELEMENTSOF(g->transfers); i++)
                transfer_clear(&g->transfers[i]);
        free(g);
        return NULL;
}

void guest_calls_set_agent(GuestCalls *g, AgentLink *agent) {
        g->agent = agent;
}

unsigned guest_calls_n_open(const GuestCalls *g) {
        unsigned n = 0;

        for (size_t i = 0; i < ELEMENTSOF(g->processes); i++)
                n += g->processes[i].process != NULL;
        for (size_t i = 0; i < ELEMENTSOF(g->transfers); i++)
                n += g->transfers[i].transfer != NULL;
        return n;
}
