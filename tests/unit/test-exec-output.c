/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/exec-output.h"
#include "tests/unit/test.h"

/* The JSON of two streams, read in pieces of at most 'piece' bytes. */
static char* body_text(const char *out, size_t n_out, const char *err, size_t n_err, size_t piece) {
        _cleanup_(exec_body_freep) ExecBody *b = NULL;
        uint64_t budget = 0;
        ExecOutput o;
        size_t n = 0, size;
        char *text;

        exec_output_init(&o, &budget);
        ASSERT_OK(exec_output_append(&o, 0, out, n_out));
        ASSERT_OK(exec_output_append(&o, 1, err, n_err));
        ASSERT_EQ(budget, n_out + n_err);
        ASSERT_OK(exec_body_new("cl-1", "a \"b\"", &o, -1, 12, &b));
        size = (size_t) exec_body_size(b);
        text = malloc(size + 1);
        while (n < size) {
                size_t k = exec_body_read(b, text + n, MIN(piece, size - n));

                ASSERT_TRUE(k > 0);
                n += k;
        }
        ASSERT_EQ(exec_body_read(b, text, 16), 0);
        text[size] = '\0';
        b = exec_body_free(b);
        ASSERT_EQ(budget, 0);
        return text;
}

#define BODY(out, err, encoding)                                                                    \
        "{\"sandbox_id\":\"cl-1\",\"cmd\":\"a \\\"b\\\"\",\"stdout\":\"" out "\",\"stderr\":\"" err \
        "\",\"exit_code\":-1,\"duration_ms\":12,\"encoding\":\"" encoding "\"}"

TEST(encodings) {
        static const struct {
                const char *out;
                size_t n_out;
                const char *err, *text;
        } cases[] = {
                { "", 0, "", BODY("", "", "utf-8") },
                { "hi\n", 3, "\xc3\xa4\t", BODY("hi\\n", "\xc3\xa4\\t", "utf-8") },
                { "\0\x01\x1f\x7f\"\\/\b\f\r", 10, "",
                  BODY("\\u0000\\u0001\\u001f\x7f\\\"\\\\/\\b\\f\\r", "", "utf-8") },
                { "\xff", 1, "text", BODY("/w==", "dGV4dA==", "base64") },
                { "ab", 2, "\xc3", BODY("YWI=", "ww==", "base64") },
                { "abc", 3, "\xed\xa0\x80", BODY("YWJj", "7aCA", "base64") },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t piece = 6; piece < 300; piece += 7) {
                        _cleanup_free_ char *text = body_text(cases[i].out, cases[i].n_out, cases[i].err,
                                                              strlen(cases[i].err), piece);

                        ASSERT_STREQ(text, cases[i].text);
                }
}

TEST(limits) {
        _cleanup_free_ char *block = calloc(1, MIB);
        uint64_t budget = 0;
        ExecOutput o;

        exec_output_init(&o, &budget);
        for (uint64_t n = 0; n < EXEC_OUTPUT_MAX; n += MIB)
                ASSERT_OK(exec_output_append(&o, n % 2, block, MIB));
        ASSERT_EQ(exec_output_append(&o, 0, block, 1), -E2BIG);
        ASSERT_EQ(exec_output_size(&o), EXEC_OUTPUT_MAX);
        exec_output_done(&o);
        ASSERT_EQ(budget, 0);

        budget = EXEC_OUTPUT_TOTAL_MAX - 1;
        exec_output_init(&o, &budget);
        ASSERT_OK(exec_output_append(&o, 1, block, 1));
        ASSERT_EQ(exec_output_append(&o, 1, block, 1), -ENOBUFS);
        exec_output_done(&o);
}
