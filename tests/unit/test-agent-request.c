/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>

#include "agent/request.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

TEST(selector) {
        static const struct {
                const char *path;
                int r;
                const char *selector, *verb;
        } cases[] = {
                { "/processes/12", 0, "12", "" },
                { "/processes/my%20tag%2Fx", 0, "my tag/x", "" },
                { "/processes/a/signal", 0, "a", "signal" },
                { "/processes/a/signal?signal=9", 0, "a", "signal" },
                { "/processes/a?x", 0, "a", "" },
                { "/processes/a/attach?tail=0", 0, "a", "attach" },
                { "/processes/a/resize?cols=1&rows=1", 0, "a", "resize" },
                { "/processes/", -EINVAL, NULL, NULL },
                { "/processes//signal", -EINVAL, NULL, NULL },
                { "/processes/a/other", -EINVAL, NULL, NULL },
                { "/processes/a/signalx", -EINVAL, NULL, NULL },
                { "/processes/%", -EINVAL, NULL, NULL },
                { "/processes/%2", -EINVAL, NULL, NULL },
                { "/processes/%zz", -EINVAL, NULL, NULL },
                { "/processes/%00", -EINVAL, NULL, NULL },
                { "/processes", -EINVAL, NULL, NULL },
                { "/other/a", -EINVAL, NULL, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *selector = NULL;
                const char *verb = NULL;

                if (request_parse_selector(cases[i].path, &selector, &verb) != cases[i].r)
                        fail_msg("%s", cases[i].path);
                ASSERT_STREQ(selector, cases[i].selector);
                if (cases[i].r >= 0)
                        ASSERT_STREQ(verb, cases[i].verb);
        }
}

TEST(signals) {
        static const struct {
                const char *path;
                int want;
        } cases[] = {
                { "/p", SIGKILL },
                { "/p?signal=15", SIGTERM },
                { "/p?signal=TERM", SIGTERM },
                { "/p?signal=SIGINT", SIGINT },
                { "/p?other=1&signal=1", SIGHUP },
                { "/p?signal=1&other=2", SIGHUP },
                { "/p?other=1", SIGKILL },
                { "/p?", SIGKILL },
                { "/p?signal=0", -EINVAL },
                { "/p?signal=65", -EINVAL },
                { "/p?signal=-1", -EINVAL },
                { "/p?signal=", -EINVAL },
                { "/p?signal=term", -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (request_parse_signal(cases[i].path, SIGKILL) != cases[i].want)
                        fail_msg("%s", cases[i].path);
}

TEST(queries) {
        static const struct {
                const char *path;
                int r;
                const char *value;
        } cases[] = {
                { "/p?a=1", 1, "1" },
                { "/p?b=2&a=1", 1, "1" },
                { "/p?a=1&a=2", 1, "1" },
                { "/p?a=", 1, "" },
                { "/p?a=%2F%61b&c", 1, "/ab" },
                { "/p?aa=1", 0, NULL },
                { "/p?a", 0, NULL },
                { "/p", 0, NULL },
                { "/a=1", 0, NULL },
                { "/p?a=%0", -EINVAL, NULL },
                { "/p?a=%00", -EINVAL, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *value = NULL;

                if (request_parse_query(cases[i].path, "a", &value) != cases[i].r)
                        fail_msg("%s", cases[i].path);
                ASSERT_STREQ(value, cases[i].value);
        }
}

TEST(numbers) {
        uint32_t n = 0;

        ASSERT_OK(request_parse_number("/p?n=12", "n", 5, &n));
        ASSERT_EQ(n, 12);
        ASSERT_OK(request_parse_number("/p", "n", 5, &n));
        ASSERT_EQ(n, 5);
        ASSERT_TRUE(request_parse_number("/p?n=", "n", 5, &n) < 0);
        ASSERT_TRUE(request_parse_number("/p?n=-1", "n", 5, &n) < 0);
        ASSERT_TRUE(request_parse_number("/p?n=4294967296", "n", 5, &n) < 0);
}
