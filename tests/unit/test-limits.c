/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The limits that must fit each other. That each is enforced is tested where it is. */

#include "basic/fault.h"
#include "basic/limits.h"
#include "tests/unit/test.h"

TEST(limits_fit_each_other) {
        /* a capsule's id with its prefix; a name fits a path component with room for suffixes */
        ASSERT_EQ(CAPSULE_ID_LEN, 3 + 25);
        ASSERT_TRUE(NAME_MAX_LEN < 200);

        /* what a client may send must get through every hop behind it */
        ASSERT_TRUE(HTTP_EXEC_BODY_MAX <= AGENT_JSON_MAX);
        ASSERT_TRUE(HTTP_EXEC_BODY_MAX >= 2 * ARGV_ENV_BYTES_MAX);
        ASSERT_TRUE(HTTP_URI_MAX < HTTP_HEADER_BLOCK_MAX);

        /* one stream must not starve the others of a connection, one message must fit its queue */
        ASSERT_TRUE(H2_QUEUE_BYTES_MAX >= H2_WINDOW_BYTES);
        ASSERT_TRUE(16 * H2_WINDOW_BYTES <= INT32_MAX);
        ASSERT_TRUE(JSON_MESSAGE_MAX < JSON_QUEUE_MAX);
        ASSERT_TRUE(QMP_MESSAGE_MAX < JSON_QUEUE_MAX);
        ASSERT_TRUE(JSON_FDS_MAX <= 253); /* SCM_MAX_FD */

        /* what one capsule's clients can make its monitor hold, and the descriptors they can make it open */
        ASSERT_TRUE(RELAY_WINDOW_BYTES <= H2_QUEUE_BYTES_MAX);
        ASSERT_TRUE(DATA_CLIENTS_MAX + CONTROL_CLIENTS_MAX + CONSOLE_READERS_MAX + 6 * GUEST_PROCESSES_MAX +
                                    64 <
                    LAUNCH_NOFILE);
        ASSERT_TRUE(VMM_STDERR_BYTES >= FAULT_MESSAGE_MAX);

        ASSERT_TRUE(VCPUS_MIN <= VCPUS_MAX && MEMORY_BYTES_MIN < MEMORY_BYTES_MAX &&
                    DISK_BYTES_MIN < DISK_BYTES_MAX);
        ASSERT_EQ(DISK_BYTES_MIN % DISK_BYTES_STEP, 0);
}
