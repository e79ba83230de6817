/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/route.h"
#include "tests/unit/test.h"

static void run(RestRequest *q, WsConn *w) {
}

static const RestRoute table[] = {
        { HTTP_METHOD_GET, "/health", NULL, 1, .open = true },
        { HTTP_METHOD_POST, "/v1/capsules", NULL, 2 },
        { HTTP_METHOD_GET, "/v1/capsules", NULL, 3 },
        { HTTP_METHOD_GET, "/v1/capsules/stats", NULL, 4 },
        { HTTP_METHOD_GET, "/v1/capsules/{}", NULL, 5 },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}", NULL, 6 },
        { HTTP_METHOD_POST, "/v1/capsules/{}/exec", NULL, 7 },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}/processes/{}", NULL, 8 },
        { HTTP_METHOD_GET, "/v1/capsules/{}/pty", NULL, 9, .websocket = run },
        {},
};

TEST(matching) {
        static const struct {
                HttpMethod method;
                const char *path;
                int r;
                uint64_t which; /* body_max marks the row */
                const char *arg0, *arg1;
        } cases[] = {
                { HTTP_METHOD_GET, "/health", 0, 1 },
                { HTTP_METHOD_HEAD, "/health", 0, 1 },
                { HTTP_METHOD_GET, "/api/health", 0, 1 },
                { HTTP_METHOD_POST, "/v1/capsules", 0, 2 },
                { HTTP_METHOD_GET, "/api/v1/capsules", 0, 3 },
                { HTTP_METHOD_GET, "/v1/capsules/stats", 0, 4 },
                { HTTP_METHOD_GET, "/v1/capsules/cl-1", 0, 5, "cl-1" },
                { HTTP_METHOD_GET, "/v1/capsules/a%20%C3%A4", 0, 5, "a \xc3\xa4" },
                { HTTP_METHOD_DELETE, "/v1/capsules/cl-1", 0, 6, "cl-1" },
                { HTTP_METHOD_POST, "/api/v1/capsules/cl-1/exec", 0, 7, "cl-1" },
                { HTTP_METHOD_DELETE, "/v1/capsules/cl-1/processes/p1", 0, 8, "cl-1", "p1" },
                { HTTP_METHOD_GET, "/v1/capsules/cl-1/pty", 0, 9, "cl-1" },
                { HTTP_METHOD_HEAD, "/v1/capsules/cl-1/pty", -EOPNOTSUPP },
                { HTTP_METHOD_GET, "/", -ENOENT },
                { HTTP_METHOD_GET, "/api", -ENOENT },
                { HTTP_METHOD_GET, "/api/api/health", -ENOENT },
                { HTTP_METHOD_GET, "/health/", -ENOENT },
                { HTTP_METHOD_GET, "/Health", -ENOENT },
                { HTTP_METHOD_GET, "/healthz", -ENOENT },
                { HTTP_METHOD_GET, "/v1/capsules/", -ENOENT },
                { HTTP_METHOD_GET, "/v1/capsules/a/b", -ENOENT },
                { HTTP_METHOD_DELETE, "/v1/capsules/a/processes/", -ENOENT },
                { HTTP_METHOD_GET, "/v1/capsules/%FF", -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const RestRoute *route = NULL;
                char *args[ROUTE_ARGS_MAX] = {};
                unsigned allowed = 0;
                int r;

                r = route_find(table, cases[i].method, cases[i].path, strlen(cases[i].path), &route, args,
                               &allowed);
                if (r != cases[i].r || (r == 0 && route->body_max != cases[i].which))
                        fail_msg("wrong route of '%s'", cases[i].path);
                ASSERT_STREQ(args[0], cases[i].arg0);
                ASSERT_STREQ(args[1], cases[i].arg1);
                free(args[0]);
                free(args[1]);
        }
}

TEST(query) {
        static const struct {
                const char *query;
                int r;
                const char *value;
        } cases[] = {
                { NULL, 0 },
                { "", 0 },
                { "&", 0 },
                { "signal=TERM", 1, "TERM" },
                { "&signal=1&", 1, "1" },
                { "signal=", 1, "" },
                { "signal=a%20b%26", 1, "a b&" },
                { "signal", -EINVAL },
                { "Signal=1", -EINVAL },
                { "signal=1&signal=2", -EINVAL },
                { "signal=1&x=2", -EINVAL },
                { "signals=1", -EINVAL },
                { "signal=%FF", -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *value = NULL;

                if (route_query(cases[i].query, "signal", &value) != cases[i].r)
                        fail_msg("wrong answer to '%s'", cases[i].query);
                ASSERT_STREQ(value, cases[i].value);
        }
}

TEST(allow_header) {
        const RestRoute *route = NULL;
        char *args[ROUTE_ARGS_MAX] = {}, text[128];
        unsigned allowed = 0;

        ASSERT_EQ(route_find(table, HTTP_METHOD_PUT, "/v1/capsules", 12, &route, args, &allowed),
                  -EOPNOTSUPP);
        route_format_allow(allowed, text, sizeof(text));
        ASSERT_STREQ(text, "Allow: GET, HEAD, POST\r\n");

        ASSERT_EQ(route_find(table, HTTP_METHOD_GET, "/v1/capsules/x/exec", 19, &route, args, &allowed),
                  -EOPNOTSUPP);
        route_format_allow(allowed, text, sizeof(text));
        ASSERT_STREQ(text, "Allow: POST\r\n");
}
