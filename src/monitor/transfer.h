/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One request to the agent for a caller that speaks no HTTP/2: its body comes out of an fd, its answer goes
 * into one. Verb 'request' of control.sock. A reader that goes away ends it, as does the loss of the agent.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "monitor/agent-link.h"

#define TRANSFER_TELL_USEC (250 * USEC_PER_MSEC) /* least time between two words of its progress */

typedef struct Transfer Transfer;

typedef struct TransferSpec {
        char *method, *path;
        bool body, answer;
        bool report;           /* what went wrong is written into the body's socket, before it is closed */
        bool shared;           /* the fds are ends that their owner still has */
        bool bound;            /* ends with the connection of who asked */
        uint64_t answer_max;   /* bytes; 0: no bound */
        uint64_t timeout_usec; /* of the whole; 0: none but for the head */
} TransferSpec;

void transfer_spec_done(TransferSpec *s);

/* The message of verb 'request'; only what callers may ask for. *ret must be zeroed. */
int transfer_spec_parse(json_t *message, TransferSpec *ret, Fault *reterr);

typedef struct TransferHandlers {
        /* Without a body only: the answer's head came. r < 0: refused, and nothing follows. */
        void (*on_started)(Transfer *t, int r, const Fault *fault, void *userdata);
        void (*on_bytes)(Transfer *t, uint64_t bytes, void *userdata);
        /* Over. r < 0: fault says why before its time. */
        void (*on_ended)(Transfer *t, uint64_t bytes, int r, const Fault *fault, void *userdata);
} TransferHandlers;

/*
 * fds: [body] [answer] as the spec says; taken on success. handlers are borrowed; after a last callback,
 * or in it, free the transfer. FAULT_INVALID_STATE (-ENOTCONN) when the agent is not ready.
 */
int transfer_start(sd_event *e, AgentLink *agent, const TransferSpec *spec, int *fds, size_t n_fds,
                   const TransferHandlers *handlers, void *userdata, Transfer **ret, Fault *reterr);
/* Soon ends with FAULT_CANCELED and that text. */
void transfer_cancel(Transfer *t, const char *text);
/* No callback afterwards. */
Transfer* transfer_free(Transfer *t);
DEFINE_CLEANUP(Transfer, transfer_free)
