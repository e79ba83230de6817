/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "monitor/token-bucket.h"
#include "tests/unit/test.h"

TEST(starts_full_and_refills) {
        TokenBucket b;

        token_bucket_init(&b, 1000, 5000, 100);
        ASSERT_EQ(token_bucket_take(&b, 4000, 100), 4000);
        ASSERT_EQ(token_bucket_take(&b, 4000, 100), 1000);
        ASSERT_EQ(token_bucket_take(&b, 4000, 100), 0);
        ASSERT_EQ(token_bucket_take(&b, 4000, 100 + USEC_PER_SEC), 1000);
        ASSERT_EQ(token_bucket_take(&b, 9000, 100 + 3600 * USEC_PER_SEC), 5000);
}

TEST(fractions_add_up) {
        uint64_t got = 0, now = 0;
        TokenBucket b;

        token_bucket_init(&b, 1000, 5000, now);
        (void) token_bucket_take(&b, 5000, now);
        for (unsigned i = 0; i < 10000; i++) {
                now += 333; /* a third of a token */
                got += token_bucket_take(&b, 100, now);
        }
        ASSERT_TRUE(got >= 3329 && got <= 3330);
}

TEST(odd_clocks) {
        TokenBucket b;

        token_bucket_init(&b, 1000, 5000, 1000000);
        (void) token_bucket_take(&b, 5000, 1000000);
        ASSERT_EQ(token_bucket_take(&b, 10, 5), 0);
        ASSERT_EQ(token_bucket_take(&b, 10000, UINT64_MAX), 5000);

        token_bucket_init(&b, 0, 10, 0);
        ASSERT_EQ(token_bucket_take(&b, 20, 0), 10);
        ASSERT_EQ(token_bucket_take(&b, 20, UINT64_MAX), 0);
}
