/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "rest/pty-dialect.h"
#include "tests/unit/test.h"

#define NONE   PTY_FRAMING_NONE
#define JSON   PTY_FRAMING_JSON
#define BINARY PTY_FRAMING_BINARY

TEST(names) {
        for (PtyFraming f = 0; f < _PTY_FRAMING_MAX; f++)
                ASSERT_EQ(pty_framing_from_string(pty_framing_to_string(f)), f);
        ASSERT_EQ(pty_framing_from_string("JSON"), _PTY_FRAMING_INVALID);
        ASSERT_EQ(pty_framing_from_string(NULL), _PTY_FRAMING_INVALID);
        ASSERT_NULL(pty_framing_to_string(_PTY_FRAMING_MAX));
}

/* What applies when no input comes, and after how long. */
TEST(fallbacks) {
        static const struct {
                PtyFraming tag, key, other;
                uint64_t usec;
                PtyFraming settled;
        } cases[] = {
                { NONE, NONE, NONE, PTY_UNDECIDED_USEC, BINARY },
                { NONE, NONE, BINARY, PTY_UNDECIDED_USEC, BINARY },
                { NONE, NONE, JSON, PTY_UNDECIDED_USEC, JSON },
                { NONE, JSON, BINARY, PTY_REMEMBERED_USEC, JSON },
                { NONE, BINARY, JSON, PTY_REMEMBERED_USEC, BINARY },
                { JSON, NONE, BINARY, PTY_REMEMBERED_USEC, JSON },
                { JSON, BINARY, BINARY, PTY_REMEMBERED_USEC, JSON },
                { BINARY, JSON, JSON, PTY_REMEMBERED_USEC, BINARY },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                PtyDialect d = {};

                pty_dialect_start(&d, cases[i].tag, cases[i].key, cases[i].other);
                ASSERT_EQ(d.framing, NONE);
                ASSERT_EQ(pty_dialect_hold_usec(&d), cases[i].usec);
                pty_dialect_settle(&d);
                ASSERT_EQ(d.framing, cases[i].settled);
                ASSERT_EQ(d.shown, NONE); /* a default is nothing to remember */
        }
}

TEST(settled_without_a_start) {
        PtyDialect d = {};

        pty_dialect_settle(&d);
        ASSERT_EQ(d.framing, BINARY);
}

TEST(inputs_decide) {
        PtyDialect d = {};

        ASSERT_TRUE(pty_dialect_input(&d, JSON)); /* before the start */
        pty_dialect_start(&d, BINARY, BINARY, BINARY);
        ASSERT_EQ(d.framing, JSON);
        ASSERT_EQ(pty_dialect_hold_usec(&d), 0);
        pty_dialect_settle(&d);
        ASSERT_EQ(d.framing, JSON);

        ASSERT_FALSE(pty_dialect_input(&d, JSON));
        ASSERT_TRUE(pty_dialect_input(&d, BINARY)); /* a switch */
        ASSERT_EQ(d.framing, BINARY);
        ASSERT_FALSE(pty_dialect_input(&d, BINARY));
}

/* The first input behind a default is to be remembered also when it confirms it. */
TEST(input_confirms_the_default) {
        PtyDialect d = {};

        pty_dialect_start(&d, NONE, NONE, BINARY);
        pty_dialect_settle(&d);
        ASSERT_TRUE(pty_dialect_input(&d, BINARY));
        ASSERT_EQ(d.shown, BINARY);
}

TEST(tags) {
        _cleanup_(pty_tags_freep) PtyTags *t = pty_tags_new();
        char tag[32];

        ASSERT_NOT_NULL(t);
        ASSERT_EQ(pty_tags_get(t, "cl-a", "x"), NONE);
        pty_tags_put(t, "cl-a", "x", JSON);
        pty_tags_put(t, "cl-b", "x", BINARY);
        ASSERT_EQ(pty_tags_get(t, "cl-a", "x"), JSON);
        ASSERT_EQ(pty_tags_get(t, "cl-b", "x"), BINARY);
        ASSERT_EQ(pty_tags_get(t, "cl-b", "y"), NONE);
        pty_tags_put(t, "cl-a", "x", BINARY);
        ASSERT_EQ(pty_tags_get(t, "cl-a", "x"), BINARY);

        /* PTY_TAGS_MAX: the oldest goes */
        for (unsigned i = 0; i < PTY_TAGS_MAX - 1; i++) {
                (void) snprintf(tag, sizeof(tag), "t%u", i);
                pty_tags_put(t, "cl-c", tag, JSON);
        }
        ASSERT_EQ(pty_tags_get(t, "cl-b", "x"), NONE);
        ASSERT_EQ(pty_tags_get(t, "cl-a", "x"), BINARY);
        pty_tags_put(t, "cl-d", "last", JSON);
        ASSERT_EQ(pty_tags_get(t, "cl-a", "x"), NONE);
        ASSERT_EQ(pty_tags_get(t, "cl-c", "t0"), JSON);
        ASSERT_EQ(pty_tags_get(t, "cl-d", "last"), JSON);
}
