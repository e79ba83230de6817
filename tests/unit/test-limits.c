/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The limits that must fit each other. That each is enforced is tested where it is. */

#include "basic/fault.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"
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

        /* a path of a file, percent-encoded, fits a request to the agent; some forms are kept beside each
         * other */
        ASSERT_TRUE(3 * FILE_PATH_LEN_MAX + 2 * KIB < H2_HEADER_BYTES_MAX);
        ASSERT_TRUE(FILE_SPOOL_TOTAL_MAX >= 4 * FILE_WRITE_BODY_MAX);
        ASSERT_TRUE(FILE_ENTRY_LEN_MAX >= 3 * 6 * FILE_PATH_LEN_MAX);

        ASSERT_TRUE(VCPUS_MIN <= VCPUS_MAX && MEMORY_BYTES_MIN < MEMORY_BYTES_MAX &&
                    DISK_BYTES_MIN < DISK_BYTES_MAX);
        ASSERT_EQ(DISK_BYTES_MIN % DISK_BYTES_STEP, 0);
}

/* Each row says enough to be checked, documented and tested. */
TEST(limit_table) {
        for (LimitId i = 0; i < _LIMIT_MAX; i++) {
                const Limit *l = &limit_table[i];

                ASSERT_TRUE(l->kind < _LIMIT_KIND_MAX && !isempty(l->what));
                ASSERT_TRUE(l->max > l->min && (l->step == 0 || l->max % l->step == 0));
                ASSERT_TRUE(l->step == 0 || l->min % l->step == 0);
                ASSERT_TRUE((l->item == 0 && l->all == 0) || l->kind == LIMIT_KIND_LIST);
                ASSERT_TRUE(!l->member || l->route);
                ASSERT_TRUE(!l->option == !l->method);
                ASSERT_TRUE(l->unit == 0 || (l->member && l->max % l->unit == 0 && l->min % l->unit == 0));
        }
}

static int check(const Limit *l, uint64_t value, Fault *reterr) {
        switch (l->kind) {
        case LIMIT_KIND_TEXT:
                return limit_check_text(l, "x", value, reterr);
        case LIMIT_KIND_LIST:
                return limit_check_count(l, "x", value, reterr);
        default:
                return limit_check_number(l, "x", value, reterr);
        }
}

TEST(limit_table_at_its_ends) {
        for (LimitId i = 0; i < _LIMIT_MAX; i++) {
                _cleanup_(fault_done) Fault high = FAULT_NULL, low = FAULT_NULL;
                const Limit *l = &limit_table[i];
                uint64_t total = 0;

                ASSERT_EQ(check(l, l->min, NULL), 0);
                ASSERT_EQ(check(l, l->max, NULL), 0);
                ASSERT_EQ(check(l, l->max + 1, &high), -EINVAL);
                ASSERT_EQ(high.code, FAULT_INVALID_ARGS);
                if (l->min > 0)
                        ASSERT_EQ(check(l, l->min - 1, &low), -EINVAL);
                if (l->item > 0) {
                        ASSERT_EQ(limit_check_entry(l, "x", l->item, &total, NULL), 0);
                        ASSERT_EQ(limit_check_entry(l, "x", l->item + 1, &total, NULL), -EINVAL);
                }
                if (l->all > 0) {
                        total = l->all - 2;
                        ASSERT_EQ(limit_check_entry(l, "x", 1, &total, NULL), 0);
                        ASSERT_EQ(limit_check_entry(l, "x", 0, &total, NULL), -EINVAL);
                }
        }
}

TEST(limit_sentences) {
        static const struct {
                LimitId id;
                uint64_t value;
                const char *message;
        } cases[] = {
                { LIMIT_VCPUS, 33, "x: expected 1 to 32, not 33." },
                { LIMIT_MEMORY, 1, "x: expected 128M to 256G, not 1." },
                { LIMIT_MEMORY, 128 * MIB + 1, "x: expected a multiple of 1M, not 134217729." },
                { LIMIT_DISK, UINT64_MAX, "x: expected 64M to 2T, not 18446744073709551615." },
                { LIMIT_TIMEOUT, USEC_INFINITY, "x: expected 0s to 31d, not 18446744073709551615." },
                { LIMIT_TEMPLATE, 0, "x: expected a non-empty string." },
                { LIMIT_TEMPLATE, 65, "x: expected a string of 1 to 64 bytes, not 65." },
                { LIMIT_LABELS, 65, "x: expected at most 64 entries, not 65." },
        };
        _cleanup_(fault_done) Fault text = FAULT_NULL, unit = FAULT_NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                ASSERT_EQ(check(&limit_table[cases[i].id], cases[i].value, &fault), -EINVAL);
                ASSERT_STREQ(fault.message, cases[i].message);
        }
        ASSERT_EQ(limit_refuse_number(&limit_table[LIMIT_VCPUS], "vcpus", NULL, &text), -EINVAL);
        ASSERT_STREQ(text.message, "vcpus: expected an integer, 1 to 32.");
        ASSERT_EQ(limit_refuse_number(&limit_table[LIMIT_MEMORY], "memory_mb", "127", &unit), -EINVAL);
        ASSERT_STREQ(unit.message, "memory_mb: expected 128 to 262144 (128M to 256G), not 127.");
}
