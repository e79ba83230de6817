/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an agent may say of files, and what it may not. */

#include <stdlib.h>

#include "basic/strings.h"
#include "rest/file-entry.h"
#include "tests/unit/test.h"

#define REST \
        "\"size\":5,\"mode\":420,\"permissions\":\"-rw-r--r--\",\"owner\":\"root\",\"group\":\"0\",\"modified_at\":-1"
#define ENTRY "{\"name\":\"x\",\"path\":\"/x\",\"type\":\"file\"," REST "}"

#define TOO_LARGE ENTRY "\n{\"error\":{\"code\":\"too-large\",\"message\":\"x\"}}\n"

TEST(entries) {
        static const struct {
                const char *text, *out; /* NULL: it is refused */
        } cases[] = {
                { ENTRY, ENTRY },
                { "{\"extra\":{},\"name\":\"x\",\"path\":\"/x\",\"type\":\"file\"," REST
                  ",\"symlink_target\":null}",
                  ENTRY },
                { "{\"name\":\"\\n\",\"path\":\"\xc3\xa4\",\"type\":\"symlink\"," REST
                  ",\"symlink_target\":\"/y\",\"path_base64\":\"/w==\"}",
                  "{\"name\":\"\\n\",\"path\":\"\xc3\xa4\",\"type\":\"symlink\"," REST
                  ",\"symlink_target\":\"/y\",\"path_base64\":\"/w==\"}" },
                { "", NULL },
                { "[]", NULL },
                { "{}", NULL },
                { ENTRY "x", NULL },
                { "{\"name\":\"x\",\"name\":\"x\",\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":\"../x\",\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":\"\",\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":1,\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":\"\\u0000\",\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":\"\xff\",\"path\":\"/x\",\"type\":\"file\"," REST "}", NULL },
                { "{\"name\":\"x\",\"path\":\"/x\",\"type\":\"unknown\"," REST "}", NULL },
                { "{\"name\":\"x\",\"path\":\"/x\",\"type\":\"file\"," REST ",\"path_base64\":\"*\"}",
                  NULL },
                { "{\"name\":\"x\",\"path\":\"/x\",\"type\":\"file\"," REST ",\"symlink_target\":[]}",
                  NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                json_t *entry = NULL;
                int r = file_entry_parse(cases[i].text, strlen(cases[i].text), &entry);
                _cleanup_free_ char *out = entry ? json_dumps(entry, JSON_COMPACT) : NULL;

                json_decref(entry);
                ASSERT_EQ(r, cases[i].out ? 0 : -EBADMSG);
                ASSERT_STREQ(out, cases[i].out);
        }
}

/* ENTRY with the value of one member replaced. */
static int parse_with(const char *member, const char *value) {
        _cleanup_free_ char *text = NULL;
        json_t *entry = json_loads(ENTRY, 0, NULL), *v = json_loads(value, JSON_DECODE_ANY, NULL);
        json_t *out = NULL;
        int r;

        ASSERT_NOT_NULL(v);
        ASSERT_EQ(json_object_set_new(entry, member, v), 0);
        text = json_dumps(entry, 0);
        json_decref(entry);
        r = file_entry_parse(text, strlen(text), &out);
        json_decref(out);
        return r;
}

TEST(ranges_of_members) {
        static const struct {
                const char *member, *value;
                bool good;
        } cases[] = {
                { "size", "0", true },
                { "size", "9223372036854775807", true },
                { "size", "-1", false },
                { "size", "1.5", false },
                { "mode", "4095", true },
                { "mode", "4096", false },
                { "mode", "-1", false },
                { "permissions", "\"dLbcpS?rwx\"", true },
                { "permissions", "\"-rw-r--r-\"", false },
                { "permissions", "\"-rw-r--r--x\"", false },
                { "permissions", "\"-rw-r--r-t\"", false },
                { "owner", "0", false },
                { "modified_at", "-9223372036854775808", true },
                { "modified_at", "\"1\"", false },
        };
        char text[3 * FILE_PATH_LEN_MAX + 8];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_EQ(parse_with(cases[i].member, cases[i].value), cases[i].good ? 0 : -EBADMSG);

        for (size_t more = 0; more < 2; more++) {
                (void) snprintf(text, sizeof(text), "\"%0*u\"", (int) (LABEL_LEN_MAX + more), 0);
                ASSERT_EQ(parse_with("group", text), more ? -EBADMSG : 0);
                (void) snprintf(text, sizeof(text), "\"%0*u\"", (int) (3 * FILE_PATH_LEN_MAX + more), 0);
                ASSERT_EQ(parse_with("path", text), more ? -EBADMSG : 0);
        }
}

static void expect_list(const char *lines, const char *expected) {
        size_t n = strlen(lines);

        for (size_t piece = 1; piece <= n + 1; piece++) {
                FileList l = {};
                int r = 0;

                for (size_t i = 0; r >= 0 && i < n; i += piece)
                        r = file_list_feed(&l, lines + i, MIN(piece, n - i));
                if (r >= 0)
                        r = file_list_finish(&l);
                ASSERT_EQ(r, expected ? 0 : -EBADMSG);
                if (expected)
                        ASSERT_TRUE(l.n_text == strlen(expected) && memcmp(l.text, expected, l.n_text) == 0);
                file_list_done(&l);
        }
}

TEST(lists_cut_anywhere) {
        expect_list("", "{\"entries\":[]}");
        expect_list(ENTRY "\n", "{\"entries\":[" ENTRY "]}");
        expect_list(ENTRY "\n" ENTRY "\n", "{\"entries\":[" ENTRY "," ENTRY "]}");
        expect_list(ENTRY, NULL);
        expect_list(ENTRY "\n{}\n", NULL);
        expect_list("\n", NULL);
        expect_list(ENTRY "\n{\"error\":{\"code\":\"agent\",\"message\":\"x\"}}\n", NULL);
}

TEST(lists_are_bounded) {
        _cleanup_free_ char *blanks = malloc(FILE_ENTRY_LEN_MAX + 1);
        FileList l = {};

        for (size_t i = 0; i < FILE_ENTRIES_MAX; i++) {
                ASSERT_OK(file_list_feed(&l, ENTRY "\n", strlen(ENTRY "\n")));
                file_list_clear_text(&l);
        }
        ASSERT_EQ(file_list_feed(&l, ENTRY "\n", strlen(ENTRY "\n")), -E2BIG);
        file_list_done(&l);
        ASSERT_EQ(file_list_feed(&l, TOO_LARGE, strlen(TOO_LARGE)), -E2BIG);
        file_list_done(&l);

        ASSERT_NOT_NULL(blanks);
        memset(blanks, ' ', FILE_ENTRY_LEN_MAX + 1);
        memcpy(blanks, ENTRY, strlen(ENTRY));
        ASSERT_OK(file_list_feed(&l, blanks, FILE_ENTRY_LEN_MAX));
        ASSERT_OK(file_list_feed(&l, "\n", 1));
        ASSERT_EQ(file_list_feed(&l, blanks, FILE_ENTRY_LEN_MAX + 1), -EBADMSG);
        file_list_done(&l);
}
