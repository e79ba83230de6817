/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who calls, and may they? Both are asked asynchronously: the handler returns 1, the message is dispatched
 * again once the answer is there, and finds it. So a handler begins with reading, asks, and acts last,
 * looking at the state anew. Unique bus names are never used twice, so that a caller's uid is asked once.
 */

#include <systemd/sd-bus.h>

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct Polkit Polkit;

#define UID_UNKNOWN ((uid_t) -1)

/* bus: a reference is taken. trusted_uid: besides root not asked about (wrenn-rest), or UID_UNKNOWN. */
int polkit_new(sd_bus *bus, uid_t trusted_uid, Polkit **ret);
Polkit* polkit_free(Polkit *p);
DEFINE_CLEANUP(Polkit, polkit_free)
uid_t polkit_trusted_uid(const Polkit *p);
/* Checks under way, for tests and limits. */
unsigned polkit_n_pending(const Polkit *p);

/* 1: *ret is the sender's uid. 0: asked, return 1 from the handler. < 0 with reterr. */
int polkit_sender_uid(Polkit *p, sd_bus_message *m, uid_t *ret, Fault *reterr);

/*
 * action: full id. details: pairs name, value, …, NULL; a NULL or empty value leaves the pair out. 1:
 * allowed, uid in *ret_uid (may be NULL). 0: asked, return 1 from the handler. < 0: -EPERM
 * (FAULT_ACCESS_DENIED), -EAGAIN (too many pending), -ETIMEDOUT.
 */
int polkit_authorize(Polkit *p, sd_bus_message *m, const char *action, const char *const *details,
                     uid_t *ret_uid, Fault *reterr);
