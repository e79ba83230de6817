/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/capsule-request.h"
#include "daemon/core/capsule-transfer.h"
#include "daemon/core/monitor-link.h"
#include "shared/protocol.h"

#define HEAD_USEC (60 * USEC_PER_SEC) /* the monitor's, where no time is given */

struct CapsuleTransfer {
        Capsule *capsule; /* pinned */
        CapsuleTransfer *next;
        const TransferHandlers *handlers;
        void *userdata;
        struct StartRequest *starting; /* NULL: answered */
        uint64_t id;                   /* 0: not known yet */
        bool cancelled;                /* before it was known */
};

typedef struct StartRequest {
        CapsuleRequest rq;
        CapsuleTransfer *transfer; /* NULL: nobody waits any more */
} StartRequest;

json_t* transfer_spec_to_json(const TransferSpec *s) {
        return json_pack("{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:I, s:I}", "method", s->method, "path",
                         s->path, "body", s->body_fd >= 0, "answer", s->answer_fd >= 0, "report", s->report,
                         "shared", s->shared, "bound", s->bound, "answer_max", (json_int_t) s->answer_max,
                         "timeout_usec", (json_int_t) s->timeout_usec);
}

static void on_cancelled(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                         void *userdata) {
}

/* Its end comes as an event. */
static void send_cancel(Capsule *c, uint64_t id) {
        json_t *body = json_pack("{s:I}", "transfer", (json_int_t) id);

        (void) monitor_link_call(c->link, CONTROL_VERB_CANCEL, body, NULL, 0, MONITOR_CALL_TIMEOUT_USEC,
                                 on_cancelled, NULL, NULL);
        json_decref(body);
}

static void transfer_unlink(CapsuleTransfer *t) {
        for (CapsuleTransfer **i = &t->capsule->transfers; *i; i = &(*i)->next)
                if (*i == t) {
                        *i = t->next;
                        break;
                }
        t->id = 0;
}

static void transfer_end(CapsuleTransfer *t, uint64_t bytes, const Fault *fault) {
        transfer_unlink(t);
        t->handlers->on_ended(t, bytes, fault ? fault_errno(fault->code) : 0, fault, t->userdata);
}

static void on_started(CapsuleRequest *q, int r, json_t *result, int *fds, size_t n_fds,
                       const Fault *fault) {
        json_int_t id = json_integer_value(json_object_get(result, "transfer"));
        CapsuleTransfer *t = ((StartRequest *) q)->transfer;
        static const Fault no_id = { .code = FAULT_AGENT,
                                     .message = (char *) "The monitor's answer is not valid." };

        if (!t) {
                if (id > 0)
                        send_cancel(q->capsule, (uint64_t) id);
                return;
        }
        t->starting = NULL;
        if (r < 0 || id <= 0) {
                transfer_end(t, 0, r < 0 ? fault : &no_id);
                return;
        }
        t->id = (uint64_t) id;
        t->next = q->capsule->transfers;
        q->capsule->transfers = t;
        if (t->cancelled)
                send_cancel(q->capsule, t->id);
}

int capsule_transfer_start(Capsule *c, const TransferSpec *spec, const TransferHandlers *handlers,
                           void *userdata, CapsuleTransfer **ret, Fault *reterr) {
        _cleanup_(capsule_transfer_freep) CapsuleTransfer *t = NULL;
        _cleanup_json_ json_t *body = NULL;
        StartRequest *q;
        int fds[2], r;
        size_t n = 0;

        r = capsule_use(c, reterr);
        if (r < 0)
                return r;
        t = malloc(sizeof(CapsuleTransfer));
        if (!t)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        *t = (CapsuleTransfer) { .capsule = capsule_ref(c), .handlers = handlers, .userdata = userdata };
        if (spec->body_fd >= 0)
                fds[n++] = spec->body_fd;
        if (spec->answer_fd >= 0)
                fds[n++] = spec->answer_fd;

        body = transfer_spec_to_json(spec);
        q = malloc(sizeof(StartRequest));
        if (q)
                q->transfer = t;
        r = capsule_request_consume((CapsuleRequest *) q, c, CONTROL_VERB_REQUEST, body, fds, n,
                                    MAX(spec->timeout_usec, HEAD_USEC) + MONITOR_CALL_TIMEOUT_USEC,
                                    on_started, reterr);
        if (r < 0)
                return r;
        t->starting = q;
        *ret = TAKE_PTR(t);
        return 0;
}

void capsule_transfer_cancel(CapsuleTransfer *t) {
        t->cancelled = true;
        if (t->id != 0)
                send_cancel(t->capsule, t->id);
}

CapsuleTransfer* capsule_transfer_free(CapsuleTransfer *t) {
        if (!t)
                return NULL;
        if (t->starting)
                t->starting->transfer = NULL;
        if (t->id != 0) {
                send_cancel(t->capsule, t->id);
                transfer_unlink(t);
        }
        (void) capsule_unref(t->capsule);
        free(t);
        return NULL;
}

/* What the monitor tells; of those without a transfer here (an open file) nobody wants to know. */

static CapsuleTransfer* find(Capsule *c, uint64_t id) {
        for (CapsuleTransfer *t = c->transfers; t; t = t->next)
                if (t->id == id)
                        return t;
        return NULL;
}

void capsule_on_transfer(Capsule *c, uint64_t id, uint64_t bytes) {
        CapsuleTransfer *t = find(c, id);

        if (t && t->handlers->on_bytes)
                t->handlers->on_bytes(t, bytes, t->userdata);
}

void capsule_on_transfer_ended(Capsule *c, uint64_t id, uint64_t bytes, const Fault *fault) {
        CapsuleTransfer *t = find(c, id);

        if (t)
                transfer_end(t, bytes, fault);
}

void capsule_fail_transfers(Capsule *c, const Fault *fault) {
        while (c->transfers)
                transfer_end(c->transfers, 0, fault);
}
