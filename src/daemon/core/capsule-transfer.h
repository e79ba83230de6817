/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One request to the agent in a capsule, with fds for its body and its answer, moved by the monitor (verb
 * 'request', docs/PROTOCOLS.md §2). */

#include <jansson.h>

#include "daemon/core/capsule.h"

typedef struct CapsuleTransfer CapsuleTransfer;

typedef struct TransferSpec {
        const char *method, *path;
        int body_fd, answer_fd; /* borrowed; -EBADF: none */
        bool report;            /* errors are written into the body's socket */
        bool shared;            /* the fds are a caller's own */
        bool bound;             /* ends with us */
        uint64_t answer_max;    /* bytes; 0: no bound */
        uint64_t timeout_usec;  /* of the whole; 0: none */
} TransferSpec;

/* The members of the message; NULL on out of memory. */
json_t* transfer_spec_to_json(const TransferSpec *s);

typedef struct TransferHandlers {
        void (*on_bytes)(CapsuleTransfer *t, uint64_t bytes, void *userdata); /* or NULL */
        /* Once; r < 0 with fault. Free t here or later. */
        void (*on_ended)(CapsuleTransfer *t, uint64_t bytes, int r, const Fault *fault, void *userdata);
} TransferHandlers;

/* handlers are borrowed. The start contract of style.md §7. */
int capsule_transfer_start(Capsule *c, const TransferSpec *spec, const TransferHandlers *handlers,
                           void *userdata, CapsuleTransfer **ret, Fault *reterr);
/* Soon ends with FAULT_CANCELED. */
void capsule_transfer_cancel(CapsuleTransfer *t);
/* No callback afterwards; one that is not over ends. */
CapsuleTransfer* capsule_transfer_free(CapsuleTransfer *t);
DEFINE_CLEANUP(CapsuleTransfer, capsule_transfer_free)

/* --- for monitor-link.c and capsule-request.c ------------------------------------------------ */

void capsule_on_transfer(Capsule *c, uint64_t id, uint64_t bytes);
/* fault NULL: it ended well */
void capsule_on_transfer_ended(Capsule *c, uint64_t id, uint64_t bytes, const Fault *fault);
/* All that are under way. */
void capsule_fail_transfers(Capsule *c, const Fault *fault);
