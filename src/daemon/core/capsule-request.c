/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/fd.h"
#include "daemon/core/capsule-request.h"
#include "daemon/core/capsule-transfer.h"
#include "daemon/core/monitor-link.h"

int capsule_use(Capsule *c, Fault *reterr) {
        if (c->state == CAPSULE_RUNNING) {
                capsule_touch(c, now_usec(CLOCK_REALTIME));
                return 0;
        }
        return fault_set(reterr, FAULT_INVALID_STATE, "The capsule is %s, not running.",
                         capsule_state_to_string(c->state));
}

static void request_free(CapsuleRequest *q) {
        for (CapsuleRequest **i = &q->capsule->requests; *i; i = &(*i)->next)
                if (*i == q) {
                        *i = q->next;
                        break;
                }
        json_call_free(q->call);
        (void) capsule_unref(q->capsule);
        free(q);
}

static void on_answer(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *told,
                      void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        CapsuleRequest *q = userdata;

        if (r == -ETIMEDOUT)
                r = fault_set(&fault, FAULT_TIMEOUT, "The capsule did not answer in time.");
        else if (r == -ECONNRESET)
                r = fault_set(&fault, FAULT_AGENT, "The capsule ended or its monitor does not answer.");
        else if (r < 0)
                r = fault_set(&fault, told->code, "%s", told->message);
        q->answer(q, r, result, fds, n_fds, r < 0 ? &fault : NULL);
        request_free(q);
}

int capsule_request_consume(CapsuleRequest *q, Capsule *c, const char *verb, json_t *body, const int *fds,
                            size_t n_fds, uint64_t timeout_usec, CapsuleAnswer answer, Fault *reterr) {
        int r;

        if (!q || !body) {
                free(q);
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        }
        q->capsule = capsule_ref(c);
        q->answer = answer;
        q->call = NULL;
        q->next = c->requests;
        c->requests = q;

        r = monitor_link_call(c->link, verb, body, fds, n_fds, timeout_usec, on_answer, q, &q->call);
        if (r < 0) {
                request_free(q);
                if (r == -ENOBUFS)
                        return fault_set(reterr, FAULT_QUOTA_EXCEEDED,
                                         "Too many calls wait for this capsule; try again later.");
                return fault_set(reterr, r == -EMSGSIZE ? FAULT_TOO_LARGE : FAULT_AGENT,
                                 "The capsule's monitor cannot be asked.");
        }
        return 0;
}

void capsule_fail_requests(Capsule *c) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        CapsuleRequest *q;
        int r;

        r = fault_set(&fault, FAULT_AGENT, "The capsule ended.");
        while ((q = c->requests)) {
                c->requests = q->next;
                q->answer(q, r, NULL, NULL, 0, &fault);
                request_free(q);
        }
        capsule_fail_transfers(c, &fault);
}
