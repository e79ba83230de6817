/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "daemon/core/uid-pool.h"
#include "test.h"

TEST(range_and_quarantine) {
        _cleanup_(uid_pool_freep) UidPool *p = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        uid_t uid = 0;

        ASSERT_EQ(uid_pool_new(1000, 1002, &p), 0);
        for (uid_t i = 1000; i <= 1002; i++) {
                ASSERT_EQ(uid_pool_claim(p, &uid, NULL), 0);
                ASSERT_EQ(uid, i);
        }
        ASSERT_EQ(uid_pool_n_used(p), 3);

        /* released ones are not given out again at once */
        uid_pool_release(p, 1001);
        uid_pool_release(p, 0);
        ASSERT_EQ(uid_pool_n_used(p), 2);
        ASSERT_EQ(uid_pool_claim(p, &uid, &fault), fault_errno(FAULT_NO_CAPACITY));
        ASSERT_EQ(fault.code, FAULT_NO_CAPACITY);
}

TEST(adopted_are_not_given_out) {
        _cleanup_(uid_pool_freep) UidPool *p = NULL;
        uid_t uid = 0;

        ASSERT_EQ(uid_pool_new(1000, 1002, &p), 0);
        ASSERT_EQ(uid_pool_adopt(p, 1000), 0);
        ASSERT_EQ(uid_pool_adopt(p, 1000), -EEXIST);
        ASSERT_EQ(uid_pool_adopt(p, 77), 0);
        ASSERT_EQ(uid_pool_claim(p, &uid, NULL), 0);
        ASSERT_EQ(uid, 1001);
}
