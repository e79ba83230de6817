/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/ini.h"
#include "basic/strings.h"
#include "test.h"

TEST(ini_next) {
        static const struct {
                int r;
                unsigned number;
                const char *section, *name, *value;
        } lines[] = {
                { 1, 1, "", "Early", "1" },   { 1, 6, "One", "Name", "a b = c" }, { -EBADMSG, 7 },
                { 1, 8, "One", "Empty", "" }, { 1, 10, "Two words", "X", "[y]" }, { 0, 11 },
        };
        char buffer[] = "Early=1\n\n  # comment\n; another\n[One]\r\n Name =\ta b = c \r\nno assignment\nEmpty=\n[Two words]\n"
                        "X=[y]\n";
        char *text = buffer;
        IniLine line = {};

        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                ASSERT_EQ(ini_next(&text, &line), lines[i].r);
                ASSERT_EQ(line.number, lines[i].number);
                if (lines[i].r <= 0)
                        continue;
                ASSERT_STREQ(line.section, lines[i].section);
                ASSERT_STREQ(line.name, lines[i].name);
                ASSERT_STREQ(line.value, lines[i].value);
        }
        ASSERT_EQ(ini_next(&text, &line), 0);
}

TEST(ini_find_and_parse) {
        static const IniKey keys[] = {
                { "A", "Count", ini_parse_u32, 0, 1, 32 },
                { "A", "Size", ini_parse_size, 0, KIB, MIB },
        };
        uint32_t count = 7;
        uint64_t size = 7;
        bool known;

        ASSERT_TRUE(ini_find(keys, 2, &(IniLine) { .section = "A", .name = "Size" }, &known) == keys + 1);
        ASSERT_TRUE(known);
        ASSERT_NULL(ini_find(keys, 2, &(IniLine) { .section = "A", .name = "size" }, &known));
        ASSERT_TRUE(known);
        ASSERT_NULL(ini_find(keys, 2, &(IniLine) { .section = "B", .name = "Size" }, &known));
        ASSERT_FALSE(known);

        ASSERT_EQ(ini_parse_u32(keys, "33", &count), -ERANGE);
        ASSERT_EQ(ini_parse_u32(keys, "0", &count), -ERANGE);
        ASSERT_EQ(ini_parse_u32(keys, "x", &count), -EINVAL);
        ASSERT_EQ(count, 7);
        ASSERT_EQ(ini_parse_u32(keys, "32", &count), 0);
        ASSERT_EQ(count, 32);
        ASSERT_EQ(ini_parse_size(keys + 1, "2M", &size), -ERANGE);
        ASSERT_EQ(ini_parse_size(keys + 1, "", &size), -EINVAL);
        ASSERT_EQ(size, 7);
        ASSERT_EQ(ini_parse_size(keys + 1, "4K", &size), 0);
        ASSERT_EQ(size, 4096);
}
