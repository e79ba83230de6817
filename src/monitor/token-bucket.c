/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "monitor/token-bucket.h"

void token_bucket_init(TokenBucket *b, uint64_t rate_sec, uint64_t burst, uint64_t now_usec_) {
        *b = (TokenBucket) { .rate_sec = rate_sec, .burst = burst, .tokens = burst, .last_usec = now_usec_ };
}

static void refill(TokenBucket *b, uint64_t now_usec_) {
        uint64_t passed, tokens;

        if (now_usec_ <= b->last_usec)
                return;
        passed = now_usec_ - b->last_usec;
        if (__builtin_mul_overflow(passed, b->rate_sec, &tokens) ||
            tokens / USEC_PER_SEC >= b->burst - b->tokens) {
                b->tokens = b->burst;
                b->last_usec = now_usec_;
                return;
        }
        tokens /= USEC_PER_SEC;
        b->tokens += tokens;
        b->last_usec += tokens * USEC_PER_SEC / b->rate_sec; /* the fraction of a token is kept as time */
}

uint64_t token_bucket_take(TokenBucket *b, uint64_t wanted, uint64_t now_usec_) {
        uint64_t n;

        if (b->rate_sec > 0)
                refill(b, now_usec_);
        n = MIN(wanted, b->tokens);
        b->tokens -= n;
        return n;
}
