/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Calls of control.sock on a capsule's behalf: what capsule-exec.c, capsule-files.c and capsule-transfer.c
 * share. */

#include <jansson.h>

#include "daemon/core/capsule.h"
#include "shared/json-stream.h"

/* for what the guest has to do until it answers: it may remove a large tree */
#define GUEST_REQUEST_USEC (600 * USEC_PER_SEC)

typedef struct CapsuleRequest CapsuleRequest;

/* r 0 with result and fds (taken by setting to -EBADF), or a negative errno with fault. q is freed
 * afterwards. */
typedef void (*CapsuleAnswer)(CapsuleRequest *q, int r, json_t *result, int *fds, size_t n_fds,
                              const Fault *fault);

/* Embedded as the first member of what the answer needs to know, which is one piece of malloc(). */
struct CapsuleRequest {
        Capsule *capsule; /* pinned */
        CapsuleRequest *next;
        JsonCall *call;
        CapsuleAnswer answer;
};

/* Every call into the guest begins so: FAULT_INVALID_STATE unless it runs; counts as activity. */
int capsule_use(Capsule *c, Fault *reterr);

/* Asks the monitor; answer runs exactly once, from the loop. Takes q in every case. */
int capsule_request_consume(CapsuleRequest *q, Capsule *c, const char *verb, json_t *body, const int *fds,
                            size_t n_fds, uint64_t timeout_usec, CapsuleAnswer answer, Fault *reterr);

/* The size of a terminal. */
int capsule_check_terminal(uint32_t cols, uint32_t rows, Fault *reterr);
