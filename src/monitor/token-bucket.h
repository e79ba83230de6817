/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How much of a flow may pass: rate_sec units a second on average, burst at once. Time is given in, so that
 * tests need no clock. */

#include "basic/macro.h"

typedef struct TokenBucket {
        uint64_t rate_sec;
        uint64_t burst;
        uint64_t tokens;
        uint64_t last_usec;
} TokenBucket;

/* Starts full. */
void token_bucket_init(TokenBucket *b, uint64_t rate_sec, uint64_t burst, uint64_t now_usec_);

/* Takes up to wanted; what it got. A clock that goes back counts as standing still. */
uint64_t token_bucket_take(TokenBucket *b, uint64_t wanted, uint64_t now_usec_);
