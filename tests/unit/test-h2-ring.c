/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "shared/h2-ring.h"
#include "tests/unit/test.h"

/* Sizes that wrap, grow and run empty: what comes out is what went in. */
TEST(order) {
        H2Ring q = {};
        uint8_t in[5000], out[5000];
        uint8_t next_in = 0, next_out = 0;

        for (unsigned i = 0; i < 2000; i++) {
                size_t n = i * 37 % sizeof(in), k;

                for (size_t j = 0; j < n; j++)
                        in[j] = next_in++;
                ASSERT_OK(h2_ring_put(&q, in, n));

                k = MIN(q.n, (size_t) i * 41 % sizeof(out));
                h2_ring_get(&q, out, k);
                for (size_t j = 0; j < k; j++)
                        ASSERT_EQ(out[j], next_out++);
        }

        h2_ring_done(&q);
        ASSERT_EQ(q.n, 0);
}

TEST(memory) {
        static const uint8_t data[H2_QUEUE_BYTES_MAX];
        uint8_t out[H2_QUEUE_BYTES_MAX];
        H2Ring q = {};

        ASSERT_OK(h2_ring_put(&q, data, 0));
        ASSERT_OK(h2_ring_put(&q, data, 1));
        ASSERT_EQ(q.size, 4096);
        h2_ring_get(&q, out, 1);
        ASSERT_EQ(q.size, 4096);

        /* exactly full, and given back when empty */
        ASSERT_OK(h2_ring_put(&q, data, sizeof(data)));
        ASSERT_EQ(q.size, sizeof(data));
        h2_ring_get(&q, out, 0);
        h2_ring_get(&q, out, sizeof(data));
        ASSERT_EQ(q.size, 0);
        ASSERT_NULL(q.data);
}
