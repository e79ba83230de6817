/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Paths as clients send them. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/file-path.h"
#include "tests/unit/test.h"

/* In all these: the encoded path, or '!' and the message of the fault. */
static void expect(int r, char *path, const Fault *fault, const char *expected) {
        if (expected[0] == '!') {
                ASSERT_EQ(r, -EINVAL);
                ASSERT_STREQ(fault->message, expected + 1);
                ASSERT_NULL(path);
        } else {
                ASSERT_EQ(r, 0);
                ASSERT_STREQ(path, expected);
        }
}

TEST(paths_of_json) {
        static const struct {
                const char *json, *expected;
        } cases[] = {
                { "{\"path\":\"/tmp/a b\"}", "%2Ftmp%2Fa%20b" },
                { "{\"path\":\"~/\\u00e4\\n\\\"%&?#\"}", "~%2F%C3%A4%0A%22%25%26%3F%23" },
                { "{\"path\":\"x\",\"path_base64\":null}", "x" },
                { "{\"path_base64\":\"L3D/\"}", "%2Fp%FF" },
                { "{\"path\":null,\"path_base64\":\"YQ==\"}", "a" },
                { "{}", "!path is required" },
                { "{\"path\":\"\"}", "!path is required" },
                { "{\"path\":null}", "!path is required" },
                { "{\"path_base64\":\"\"}", "!path is required" },
                { "{\"path\":1}", "!path: expected a string." },
                { "{\"path_base64\":[]}", "!path_base64: expected a string." },
                { "{\"path\":\"a\",\"path_base64\":\"YQ==\"}", "!path and path_base64 exclude each other." },
                { "{\"path\":\"a\\u0000b\"}", "!path: a NUL byte is not allowed." },
                { "{\"path_base64\":\"AA==\"}", "!path: a NUL byte is not allowed." },
                { "{\"path_base64\":\"YQ\"}", "!path_base64: expected base64." },
                { "{\"path_base64\":\"YQ==\\u0000\"}", "!path_base64: expected base64." },
                { "{\"path_base64\":\"*\"}", "!path_base64: expected base64." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *path = NULL;
                json_t *body = json_loads(cases[i].json, JSON_ALLOW_NUL, NULL);
                int r = file_path_from_json(body, "path", &path, &fault);

                json_decref(body);
                expect(r, path, &fault, cases[i].expected);
        }
}

TEST(paths_of_queries) {
        static const struct {
                const char *query, *expected;
        } cases[] = {
                { "path=/a/b", "%2Fa%2Fb" },
                { "x=1&path=a%20b+c%2B%ff&y", "a%20b%20c%2B%FF" },
                { "path=a%3D&", "a%3D" },
                { NULL, "!path is required" },
                { "", "!path is required" },
                { "path=", "!path is required" },
                { "xpath=a&path", "!path is required" },
                { "path=a&path=a", "!path stands twice in the query." },
                { "path=a%00", "!path: a NUL byte is not allowed." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *path = NULL;
                int r = file_path_from_query(cases[i].query, &path, &fault);

                expect(r, path, &fault, cases[i].expected);
        }
}

TEST(paths_of_forms) {
        char text[FILE_PATH_LEN_MAX + 1];

        for (size_t n = FILE_PATH_LEN_MAX - 1; n <= FILE_PATH_LEN_MAX; n++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *path = NULL;

                memset(text, 'x', n);
                ASSERT_EQ(file_path_from_text("path", text, n, &path, &fault),
                          n >= FILE_PATH_LEN_MAX ? -EINVAL : 0);
                ASSERT_STREQ(fault.message,
                             n >= FILE_PATH_LEN_MAX ? "path: expected a string of 1 to 4095 bytes, not 4096."
                                                    : NULL);
        }

        for (size_t i = 0; i < 2; i++) {
                static const char *const bad[] = { "\xff", "a\xc3" };
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *path = NULL;
                int r = file_path_from_text("path", bad[i], strlen(bad[i]), &path, &fault);

                expect(r, path, &fault, "!path: expected UTF-8; use path_base64 for other bytes.");
        }
}
