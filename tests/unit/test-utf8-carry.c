/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "rest/utf8-carry.h"
#include "tests/unit/test.h"

#define R "\xef\xbf\xbd"

static const struct {
        const char *bytes, *text;
} cases[] = {
        { "", "" },
        { "plain", "plain" },
        { "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\xff", R },
        { "a\xff\xfe"
          "b",
          "a" R R "b" },
        { "\x80\xbf", R R },
        { "\xc0\xaf", R R },             /* overlong */
        { "\xe0\x80\x80", R R R },       /* overlong */
        { "\xed\xa0\x80", R R R },       /* surrogate */
        { "\xf4\x90\x80\x80", R R R R }, /* beyond U+10FFFF */
        { "\xf0\x9f\x98", R },           /* cut off: one */
        { "\xf0\x9f\x98\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80" },
        { "\xe2\x82"
          "A",
          R "A" },
        { "\xe2\xc3\xa4", R "\xc3\xa4" },
        { "\xc3\xc3\xa4", R "\xc3\xa4" },
        { "\xe2\x82\xff", R R },
};

/* Whatever the pieces, the text is the same. */
TEST(pieces) {
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                size_t n = strlen(cases[i].bytes);

                for (size_t piece = 1; piece <= n + 1; piece++) {
                        char out[64] = {};
                        Utf8Carry c = {};
                        size_t k = 0;

                        for (size_t at = 0; at < n; at += piece)
                                k += utf8_carry_feed(&c, cases[i].bytes + at, MIN(piece, n - at), out + k);
                        k += utf8_carry_end(&c, out + k);
                        out[k] = '\0';
                        ASSERT_STREQ(out, cases[i].text);
                        ASSERT_EQ(c.n, 0);
                }
        }
}

TEST(nothing_whole_waits) {
        char out[UTF8_CARRY_MAX(4)];
        Utf8Carry c = {};

        ASSERT_EQ(utf8_carry_feed(&c, "a\xe2\x82", 3, out), 1);
        ASSERT_EQ(utf8_carry_feed(&c, "\xac", 1, out), 3);
        ASSERT_EQ(memcmp(out, "\xe2\x82\xac", 3), 0);
        ASSERT_EQ(utf8_carry_end(&c, out), 0);
}

/* The promise about room holds for the worst there is. */
TEST(room) {
        char out[UTF8_CARRY_MAX(6)];
        Utf8Carry c = {};

        ASSERT_EQ(utf8_carry_feed(&c, "\xf0\x9f\x98", 3, out), 0);
        ASSERT_EQ(utf8_carry_feed(&c, "\xff\xff\xff\xff\xff\xff", 6, out), 21);
        ASSERT_TRUE(utf8_is_valid(out, 21));
}
