/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The uids of the jails: never two living capsules with one, and none used again before UID_QUARANTINE_USEC
 * have passed. */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct UidPool UidPool;

/* first to last, both included. 0 or -ENOMEM. */
int uid_pool_new(uid_t first, uid_t last, UidPool **ret);
UidPool* uid_pool_free(UidPool *p);
DEFINE_CLEANUP(UidPool, uid_pool_free)

/* 0 and *ret; -EAGAIN (FAULT_NO_CAPACITY) when all are in use or in quarantine. */
int uid_pool_claim(UidPool *p, uid_t *ret, Fault *reterr);
/* A capsule that runs has it. -EEXIST when another has; -ERANGE is fine for a range that was changed: it is
 * remembered, too. */
int uid_pool_adopt(UidPool *p, uid_t uid);
/* No process with it is alive any more. 0 is ignored. */
void uid_pool_release(UidPool *p, uid_t uid);
/* In use, without those in quarantine. */
size_t uid_pool_n_used(const UidPool *p);
