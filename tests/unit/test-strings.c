/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

TEST(small) {
        _cleanup_free_ char *joined = NULL, *formatted = NULL, *p = NULL;

        ASSERT_STREQ(startswith("abc", "ab"), "c");
        ASSERT_NULL(startswith("abc", "b"));
        ASSERT_STREQ(endswith("abc", "bc"), "bc");
        ASSERT_STREQ(endswith("abc", ""), "");
        ASSERT_NULL(endswith("abc", "abcd"));
        ASSERT_TRUE(streq_ptr(NULL, NULL));
        ASSERT_FALSE(streq_ptr(NULL, "a"));
        ASSERT_STREQ(strempty(NULL), "");

        joined = strjoin("a", "", "bc");
        ASSERT_STREQ(joined, "abc");
        formatted = asprintf_null("%i-%s", 7, "x");
        ASSERT_STREQ(formatted, "7-x");

        ASSERT_OK(free_and_strdup(&p, "one"));
        ASSERT_OK(free_and_strdup(&p, "two"));
        ASSERT_STREQ(p, "two");
        ASSERT_OK(free_and_strdup(&p, NULL));
        ASSERT_NULL(p);
}

TEST(strv) {
        _cleanup_strv_ char **v = NULL, **copy = NULL, **split = NULL;
        _cleanup_free_ char *joined = NULL, *none = NULL;
        unsigned n = 0;

        ASSERT_EQ(strv_length(NULL), 0);
        STRV_FOREACH(i, v)
                n++;
        ASSERT_EQ(n, 0);

        ASSERT_OK(strv_extend(&v, "a"));
        ASSERT_OK(strv_extendf(&v, "b%i", 1));
        ASSERT_OK(strv_consume(&v, strdup("c")));
        ASSERT_EQ(strv_consume(&v, NULL), -ENOMEM);
        ASSERT_EQ(strv_length(v), 3);
        ASSERT_TRUE(strv_contains(v, "b1"));
        ASSERT_FALSE(strv_contains(v, "b"));
        ASSERT_FALSE(strv_contains(NULL, "b"));

        copy = strv_copy(v);
        STRV_FOREACH(i, copy)
                ASSERT_STREQ(*i, v[n++]);
        ASSERT_EQ(n, 3);
        ASSERT_NULL(strv_copy(NULL));

        split = strv_split("  a,b , c", " ,");
        ASSERT_EQ(strv_length(split), 3);
        joined = strv_join(split, ", ");
        ASSERT_STREQ(joined, "a, b, c");
        none = strv_join(NULL, ", ");
        ASSERT_STREQ(none, "");
        ASSERT_STREQ(split[2], "c");
        ASSERT_NULL(strv_split(" , ", " ,"));
}

TEST(integers) {
        static const struct {
                const char *s;
                int r;
                uint64_t value;
        } cases[] = {
                { "0", 0, 0 },
                { "18446744073709551615", 0, UINT64_MAX },
                { "18446744073709551616", -ERANGE, 0 },
                { "99999999999999999999999", -ERANGE, 0 },
                { "99999999999999999999999x", -EINVAL, 0 },
                { "007", 0, 7 },
                { "", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "+1", -EINVAL, 0 },
                { " 1", -EINVAL, 0 },
                { "1 ", -EINVAL, 0 },
                { "0x1", -EINVAL, 0 },
                { "1.0", -EINVAL, 0 },
        };
        uint32_t u32;
        int i32;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t value = 4711;

                ASSERT_EQ(parse_u64(cases[i].s, &value), cases[i].r);
                ASSERT_EQ(value, cases[i].r < 0 ? 4711 : cases[i].value);
        }

        ASSERT_OK(parse_u32("4294967295", &u32));
        ASSERT_EQ(u32, UINT32_MAX);
        ASSERT_EQ(parse_u32("4294967296", &u32), -ERANGE);

        ASSERT_OK(parse_int("-2147483648", &i32));
        ASSERT_EQ(i32, INT32_MIN);
        ASSERT_OK(parse_int("2147483647", &i32));
        ASSERT_EQ(i32, INT32_MAX);
        ASSERT_EQ(parse_int("2147483648", &i32), -ERANGE);
        ASSERT_EQ(parse_int("-2147483649", &i32), -ERANGE);
        ASSERT_EQ(parse_int("-", &i32), -EINVAL);
        ASSERT_EQ(parse_int("--1", &i32), -EINVAL);
}

TEST(booleans) {
        static const struct {
                const char *s;
                int r;
        } cases[] = {
                { "yes", 1 }, { "Yes", 1 },    { "true", 1 },    { "on", 1 },
                { "1", 1 },   { "no", 0 },     { "FALSE", 0 },   { "off", 0 },
                { "0", 0 },   { "", -EINVAL }, { "2", -EINVAL }, { "yess", -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_EQ(parse_boolean(cases[i].s), cases[i].r);
}

TEST(sizes) {
        static const struct {
                const char *s;
                int r;
                uint64_t value;
        } cases[] = {
                { "0", 0, 0 },
                { "512", 0, 512 },
                { "3K", 0, 3 * KIB },
                { "512M", 0, 512 * MIB },
                { "1.5G", 0, GIB + GIB / 2 },
                { "2T", 0, 2048 * GIB },
                { "1B", 0, 1 },
                { "infinity", 0, UINT64_MAX },
                { "16777216T", -ERANGE, 0 },
                { "18446744073709551615", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "M", -EINVAL, 0 },
                { "1k", -EINVAL, 0 },
                { "1MB", -EINVAL, 0 },
                { "1 M", -EINVAL, 0 },
                { "1.M", -EINVAL, 0 },
                { "-1M", -EINVAL, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t value = 4711;

                ASSERT_EQ(parse_size(cases[i].s, &value), cases[i].r);
                ASSERT_EQ(value, cases[i].r < 0 ? 4711 : cases[i].value);
        }
}

TEST(times) {
        static const struct {
                const char *s;
                int r;
                uint64_t value;
        } cases[] = {
                { "0", 0, 0 },
                { "5", 0, 5 * USEC_PER_SEC },
                { "1.5", 0, 1500 * USEC_PER_MSEC },
                { "250ms", 0, 250 * USEC_PER_MSEC },
                { "5min 20s", 0, 320 * USEC_PER_SEC },
                { "5min20s", 0, 320 * USEC_PER_SEC },
                { " 1 h  2 m ", 0, 3720 * USEC_PER_SEC },
                { "1d", 0, 86400 * USEC_PER_SEC },
                { "1M", 0, 2630016 * USEC_PER_SEC },
                { "3 weeks", 0, 3 * 604800 * USEC_PER_SEC },
                { "7us", 0, 7 },
                { "7µs", 0, 7 },
                { "infinity", 0, USEC_INFINITY },
                { "584542y", 0, UINT64_C(584542) * 31557600 * USEC_PER_SEC },
                { "584543y", -ERANGE, 0 },
                { "584542y 10y", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { " ", -EINVAL, 0 },
                { "s", -EINVAL, 0 },
                { "5x", -EINVAL, 0 },
                { "5s x", -EINVAL, 0 },
                { "-5s", -EINVAL, 0 },
                { "5.s", -EINVAL, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t value = 4711;

                ASSERT_EQ(parse_usec(cases[i].s, &value), cases[i].r);
                ASSERT_EQ(value, cases[i].r < 0 ? 4711 : cases[i].value);
        }
}

TEST(percents) {
        static const struct {
                const char *s;
                int r;
                unsigned value;
        } cases[] = {
                { "0%", 0, 0 },
                { "80%", 0, 80 },
                { "1000%", 0, 1000 },
                { "1001%", -ERANGE, 0 },
                { "99999999999999999999999%", -ERANGE, 0 },
                { "80", -EINVAL, 0 },
                { "%", -EINVAL, 0 },
                { "80%%", -EINVAL, 0 },
                { "-1%", -EINVAL, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                unsigned value = 4711;

                ASSERT_EQ(parse_percent(cases[i].s, &value), cases[i].r);
                ASSERT_EQ(value, cases[i].r < 0 ? 4711 : cases[i].value);
        }
}

TEST(signals) {
        static const struct {
                const char *s;
                int r;
        } cases[] = {
                { "15", 15 },        { "TERM", 15 },   { "SIGTERM", 15 },  { "1", 1 },
                { "64", 64 },        { "0", -EINVAL }, { "65", -EINVAL },  { "-1", -EINVAL },
                { "term", -EINVAL }, { "", -EINVAL },  { "SIG", -EINVAL }, { "SIG9", -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_EQ(parse_signal(cases[i].s), cases[i].r);
}

TEST(formats) {
        static const struct {
                uint64_t value;
                const char *size, *span;
        } cases[] = {
                { 0, "0B", "0s" },
                { 999, "999B", "999us" },
                { 1024, "1K", "1ms" },
                { 12 * USEC_PER_MSEC, "11.7K", "12ms" },
                { 1536 * MIB, "1.5G", "26min 50s" },
                { 3 * USEC_PER_SEC, "2.8M", "3s" },
                { 320 * USEC_PER_SEC, "305.1M", "5min 20s" },
                { (48 + 3) * 3600 * USEC_PER_SEC, "170.9G", "2d 3h" },
                { 24 * 3600 * USEC_PER_SEC + 1, "80.4G", "1d" },
                { UINT64_MAX, "infinity", "infinity" },
                { UINT64_MAX - 1, "16777215.9T", "213503982d 8h" },
        };
        char buffer[FORMAT_SIZE_LEN];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ASSERT_STREQ(format_size(buffer, cases[i].value), cases[i].size);
                ASSERT_STREQ(format_timespan(buffer, cases[i].value), cases[i].span);
        }

        ASSERT_STREQ(format_rfc3339(buffer, UINT64_C(1777716000) * USEC_PER_SEC + 999999),
                     "2026-05-02T10:00:00Z");
        ASSERT_STREQ(format_rfc3339(buffer, 0), "1970-01-01T00:00:00Z");
        ASSERT_STREQ(format_rfc3339(buffer, UINT64_MAX), "n/a");
}

TEST(names) {
        static const struct {
                const char *s;
                bool name, team, tag, env;
        } cases[] = {
                { "minimal", true, true, true, true },
                { "a", true, true, true, true },
                { "9_x", true, true, true, true },
                { "A.b-c_d", true, false, true, true },
                { ".a", false, false, true, true },
                { "-a", false, false, true, true },
                { "_a", false, true, true, true },
                { "a/b", false, false, false, true },
                { "a=b", false, false, true, false },
                { "a b", false, false, true, true },
                { "a\nb", false, false, false, true },
                { "\x7f", false, false, false, true },
                { "ä", false, false, true, true },
                { "\xc2\x85", false, false, false, true }, /* a C1 control */
                { "\xff", false, false, false, true },
                { "..", false, false, true, true },
                { "", false, false, false, false },
                { NULL, false, false, false, false },
        };
        char text[NAME_MAX_LEN + 2];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ASSERT_EQ(name_is_valid(cases[i].s), cases[i].name);
                ASSERT_EQ(team_is_valid(cases[i].s), cases[i].team);
                ASSERT_EQ(tag_is_valid(cases[i].s), cases[i].tag);
                ASSERT_EQ(env_name_is_valid(cases[i].s), cases[i].env);
        }

        /* the longest, and one more */
        memset(text, 'a', sizeof(text));
        text[NAME_MAX_LEN + 1] = 0;
        ASSERT_FALSE(name_is_valid(text));
        ASSERT_FALSE(tag_is_valid(text));
        text[NAME_MAX_LEN] = 0;
        ASSERT_TRUE(name_is_valid(text));
        ASSERT_EQ(TAG_MAX_LEN, NAME_MAX_LEN);
        ASSERT_TRUE(tag_is_valid(text));
        text[TEAM_MAX_LEN + 1] = 0;
        ASSERT_FALSE(team_is_valid(text));
        text[TEAM_MAX_LEN] = 0;
        ASSERT_TRUE(team_is_valid(text));
}

TEST(utf8) {
        static const struct {
                const char *s;
                size_t n;
                bool valid;
                size_t prefix;
        } cases[] = {
                { "", 0, true, 0 },
                { "abc", 3, true, 3 },
                { "a\0b", 3, true, 3 },
                { "\xc3\xa4", 2, true, 2 },
                { "\xe2\x82\xac", 3, true, 3 },
                { "\xf0\x9f\x98\x80", 4, true, 4 },
                { "\xf4\x8f\xbf\xbf", 4, true, 4 },
                /* cut off */
                { "a\xc3", 2, false, 1 },
                { "a\xe2\x82", 3, false, 1 },
                { "a\xf0\x9f\x98", 4, false, 1 },
                { "a\xf0", 2, false, 1 },
                /* never valid: nothing to wait for */
                { "\xc0\xaf", 2, false, 2 },
                { "\xc1\xbf", 2, false, 2 },
                { "\xe0\x80\xaf", 3, false, 3 },
                { "\xe0\x80", 2, false, 2 },
                { "\xed\xa0\x80", 3, false, 3 },
                { "\xed\xa0", 2, false, 2 },
                { "\xf0\x80\x80\xaf", 4, false, 4 },
                { "\xf4\x90\x80\x80", 4, false, 4 },
                { "\xf5", 1, false, 1 },
                { "\xff", 1, false, 1 },
                { "\x80", 1, false, 1 },
                { "\x80\x80\x80\x80", 4, false, 4 },
                { "\xc3\xc3", 2, false, 1 },
                { "\xe2\x28\xa1", 3, false, 3 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ASSERT_EQ(utf8_is_valid(cases[i].s, cases[i].n), cases[i].valid);
                ASSERT_EQ(utf8_complete_prefix(cases[i].s, cases[i].n), cases[i].prefix);
        }
}

TEST(hex) {
        uint8_t data[3];
        char text[7];

        ASSERT_OK(hex_decode("00fFa9", data, 3));
        hex_encode(data, 3, text);
        ASSERT_STREQ(text, "00ffa9");
        ASSERT_EQ(hex_decode("00ff", data, 3), -EINVAL);
        ASSERT_EQ(hex_decode("00ffa", data, 3), -EINVAL);
        ASSERT_EQ(hex_decode("00ffa900", data, 3), -EINVAL);
        ASSERT_EQ(hex_decode("00ffg9", data, 3), -EINVAL);
        ASSERT_EQ(hex_decode("", data, 1), -EINVAL);
        ASSERT_OK(hex_decode("", data, 0));
}

TEST(base64) {
        static const struct {
                const char *plain, *text;
        } cases[] = {
                { "", "" },
                { "f", "Zg==" },
                { "fo", "Zm8=" },
                { "foo", "Zm9v" },
                { "foob", "Zm9vYg==" },
                { "fooba", "Zm9vYmE=" },
                { "foobar", "Zm9vYmFy" },
                { "\xff\xfe\xfb", "//77" },
        };
        static const char *const bad[] = {
                "Z",    "Zg",       "Zg=",    "Z===", "====", "Zh==",
                "Zm9=", "Zg==Zg==", "Zm9v\n", "Zm 9", "Zm9-", "=Zg=",
        };
        size_t n;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = base64_encode(cases[i].plain, strlen(cases[i].plain));
                _cleanup_free_ void *data = NULL;

                ASSERT_STREQ(text, cases[i].text);
                ASSERT_OK(base64_decode(text, strlen(text), &data, &n));
                ASSERT_EQ(n, strlen(cases[i].plain));
                ASSERT_EQ(memcmp(data, cases[i].plain, n), 0);
        }

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                void *data = NULL;

                ASSERT_EQ(base64_decode(bad[i], strlen(bad[i]), &data, &n), -EINVAL);
                ASSERT_NULL(data);
        }
}

TEST(display) {
        static const struct {
                const char *s;
                size_t n;
                const char *shown;
        } cases[] = {
                { "", 0, "" },
                { "plain ä€😀", 15, "plain ä€😀" },
                { "a\nb\t\a\r", 6, "a\\nb\\t\\a\\r" },
                { "\033[31m", 5, "\\x1b[31m" },
                { "a\\n", 3, "a\\\\n" },
                { "a\0b", 3, "a\\x00b" },
                { "\x7f", 1, "\\x7f" },
                { "\xff\xc3", 2, "\\xff\\xc3" },
                { "\xc2\x9b", 2, "\\xc2\\x9b" }, /* CSI as a C1 control */
                { "a\xe2\x80\xae"
                  "b",
                  5, "a\\xe2\\x80\\xaeb" }, /* right-to-left override */
                { "\xe2\x81\xa6", 3, "\\xe2\\x81\\xa6" },
                { "\xd8\x9c", 2, "\\xd8\\x9c" },
                { "\xe2\x80\xa6", 3, "\xe2\x80\xa6" }, /* an ellipsis is fine */
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *shown = escape_for_display(cases[i].s, cases[i].n);

                ASSERT_STREQ(shown, cases[i].shown);
        }
}

TEST(text_for_display) {
        static const char text[] = "a\\b\tc\n\033[2Jd\r\x7f\xc2\x9b\xff\0e";
        _cleanup_free_ char *shown = escape_text_for_display(text, sizeof(text) - 1);

        ASSERT_STREQ(shown, "a\\b\tc\n\\x1b[2Jd\\r\\x7f\\xc2\\x9b\\xff\\x00e");
}

TEST(ids) {
        static const struct {
                const char *s;
                bool valid;
        } cases[] = {
                { "cl-0000000000000000000000000", true },
                { "cl-f5lxx1zz5pnorynqglhzmsp33", true },  /* 2^128 - 1 */
                { "cl-f5lxx1zz5pnorynqglhzmsp34", false }, /* 2^128 */
                { "cl-zzzzzzzzzzzzzzzzzzzzzzzzz", false },
                { "cl-000000000000000000000000", false },
                { "cl-00000000000000000000000000", false },
                { "cl-000000000000000000000000A", false },
                { "cl-000000000000000000000000/", false },
                { "cl_0000000000000000000000000", false },
                { "cm-0000000000000000000000000", false },
                { "cl", false },
                { "", false },
                { NULL, false },
        };
        uint8_t bytes[16] = {};
        char id[64], other[64];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_EQ(id_is_valid("cl", cases[i].s), cases[i].valid);

        id_format("cl", bytes, id);
        ASSERT_STREQ(id, cases[0].s);
        memset(bytes, 0xff, sizeof(bytes));
        id_format("cl", bytes, id);
        ASSERT_STREQ(id, cases[1].s);
        memset(bytes, 0, sizeof(bytes));
        bytes[15] = 35;
        bytes[14] = 1;
        id_format("tpl", bytes, id);
        ASSERT_STREQ(id, "tpl-0000000000000000000000083");

        ASSERT_OK(id_random("cl", id));
        ASSERT_OK(id_random("cl", other));
        ASSERT_TRUE(id_is_valid("cl", id));
        ASSERT_EQ(strlen(id), CAPSULE_ID_LEN);
        ASSERT_FALSE(streq(id, other));
}

TEST(constant_time) {
        ASSERT_TRUE(memory_equal_constant_time("abc", "abd", 2));
        ASSERT_FALSE(memory_equal_constant_time("abc", "abd", 3));
        ASSERT_TRUE(memory_equal_constant_time("", "x", 0));
}

TEST(percent_encode) {
        static const struct {
                const char *data;
                size_t n;
                const char *encoded;
        } cases[] = {
                { "", 0, "" },
                { "aZ09-._~", 8, "aZ09-._~" },
                { "/a b&c=%+?#", 11, "%2Fa%20b%26c%3D%25%2B%3F%23" },
                { "\0\xff\n", 3, "%00%FF%0A" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = percent_encode(cases[i].data, cases[i].n);

                ASSERT_STREQ(text, cases[i].encoded);
        }
}

TEST(utf8_replaced) {
        static const char *const cases[][2] = {
                { "", "" },
                { "aé€😀", "aé€😀" },
                { "\xff"
                  "a\x80",
                  "\ufffd"
                  "a\ufffd" },
                { "\xe2\x82", "\ufffd\ufffd" },
                { "\xed\xa0\x80", "\ufffd\ufffd\ufffd" }, /* a surrogate */
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = utf8_replace(cases[i][0], strlen(cases[i][0]));

                ASSERT_STREQ(text, cases[i][1]);
        }
}
