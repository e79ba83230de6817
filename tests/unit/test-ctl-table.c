/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/fd.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"
#include "test.h"

TEST(property_to_member) {
        static const struct {
                const char *property, *member;
        } cases[] = {
                { "Id", "id" },
                { "MemoryBytes", "memory_bytes" },
                { "VCPUs", "vcpus" },
                { "TimeoutUSec", "timeout_usec" },
                { "OwnerUID", "owner_uid" },
                { "VMMPID", "vmmpid" },
                { "LastActiveTimestamp", "last_active_timestamp" },
        };
        char member[64], shortened[5];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                property_to_member(cases[i].property, member, sizeof(member));
                ASSERT_STREQ(member, cases[i].member);
        }
        property_to_member("MemoryBytes", shortened, sizeof(shortened));
        ASSERT_TRUE(strlen(shortened) < sizeof(shortened));
}

TEST(table_cell) {
        static const struct {
                const char *json;
                ColumnKind kind;
                const char *cell;
        } cases[] = {
                { "{\"P\":\"text\"}", COLUMN_TEXT, "text" },
                { "{\"P\":\"\"}", COLUMN_TEXT, "-" },
                { "{}", COLUMN_TEXT, "-" },
                { "{\"P\":null}", COLUMN_SIZE, "-" },
                { "{\"P\":\"a\\u001b[31mb\"}", COLUMN_TEXT, "a\\x1b[31mb" },
                { "{\"P\":536870912}", COLUMN_SIZE, "512M" },
                { "{\"P\":536870912}", COLUMN_NUMBER, "536870912" },
                { "{\"P\":0}", COLUMN_TIME, "-" },
                { "{\"P\":1777716000000000}", COLUMN_TIME, "2026-05-02T10:00:00Z" },
                { "{\"P\":true}", COLUMN_BOOLEAN, "yes" },
                { "{\"P\":0.42}", COLUMN_TEXT, "42%" },
                { "{\"P\":[]}", COLUMN_TEXT, "-" },
                { "{\"P\":[\"a\",\"b\\n\"]}", COLUMN_TEXT, "a b\\n" },
                { "{\"P\":{}}", COLUMN_TEXT, "-" },
                { "{\"P\":{\"a\":\"b\"}}", COLUMN_TEXT, "{\"a\":\"b\"}" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ json_t *row = json_loads(cases[i].json, 0, NULL);
                _cleanup_free_ char *cell = NULL;

                ASSERT_NOT_NULL(row);
                cell = table_cell(row, &(Column) { "TITLE", "P", cases[i].kind });
                ASSERT_STREQ(cell, cases[i].cell);
        }
}

/* Every kind of container and number, out of a sealed message that is never sent. */
TEST(bus_value_to_json) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
        _cleanup_json_ json_t *value = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int peer = -EBADF;
        int fds[2];

        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
        peer = fds[1];
        ASSERT_OK(sd_bus_new(&bus));
        ASSERT_OK(sd_bus_set_fd(bus, fds[0], fds[0]));
        ASSERT_OK(sd_bus_start(bus));
        ASSERT_OK(sd_bus_message_new(bus, &m, SD_BUS_MESSAGE_METHOD_CALL));
        ASSERT_OK(sd_bus_message_append(m, "(a{sv}asbuitd)", 2, "Name", "s", "x", "Labels", "a{ss}", 1, "k",
                                        "v", 2, "one", "two", true, UINT32_C(7), -3, UINT64_MAX, 0.5));
        ASSERT_OK(sd_bus_message_seal(m, 1, 0));
        ASSERT_OK(bus_value_to_json(m, &value));
        text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
        ASSERT_STREQ(text,
                     "[{\"Labels\":{\"k\":\"v\"},\"Name\":\"x\"},[\"one\",\"two\"],true,7,-3,9223372036854775807,0.5]");
}
