/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/http-policy.h"
#include "tests/unit/test.h"

#define ID "cl-0123456789abcdefghijklmno"

TEST(hosts) {
        static const struct {
                const char *host;
                HttpHostClass class;
        } cases[] = {
                { "localhost", HTTP_HOST_API },
                { "LocalHost", HTTP_HOST_API },
                { "localhost:8080", HTTP_HOST_API },
                { "localhost:1", HTTP_HOST_API },
                { "localhost:65535", HTTP_HOST_API },
                { "127.0.0.1", HTTP_HOST_API },
                { "127.0.0.1:8080", HTTP_HOST_API },
                { "[::1]", HTTP_HOST_API },
                { "[::1]:8080", HTTP_HOST_API },
                { "api.example.org", HTTP_HOST_API },
                { "API.example.org:443", HTTP_HOST_API },
                { "", HTTP_HOST_FOREIGN },
                { ":", HTTP_HOST_FOREIGN },
                { ":8080", HTTP_HOST_FOREIGN },
                { "localhost:", HTTP_HOST_FOREIGN },
                { "localhost:0", HTTP_HOST_FOREIGN },
                { "localhost:65536", HTTP_HOST_FOREIGN },
                { "localhost:080", HTTP_HOST_FOREIGN },
                { "localhost:8080:1", HTTP_HOST_FOREIGN },
                { "localhost:+1", HTTP_HOST_FOREIGN },
                { "localhost.", HTTP_HOST_FOREIGN },
                { "localhost.evil", HTTP_HOST_FOREIGN },
                { "evil.localhost", HTTP_HOST_FOREIGN },
                { "127.0.0.1.nip.io", HTTP_HOST_FOREIGN },
                { "127.0.0.2", HTTP_HOST_FOREIGN },
                { "127.1", HTTP_HOST_FOREIGN },
                { "2130706433", HTTP_HOST_FOREIGN },
                { "0x7f000001", HTTP_HOST_FOREIGN },
                { "0.0.0.0", HTTP_HOST_FOREIGN },
                { "[::]", HTTP_HOST_FOREIGN },
                { "::1", HTTP_HOST_FOREIGN },
                { "[::1", HTTP_HOST_FOREIGN },
                { "[::1]x", HTTP_HOST_FOREIGN },
                { "[0:0:0:0:0:0:0:1]", HTTP_HOST_FOREIGN },
                { "[::ffff:127.0.0.1]", HTTP_HOST_FOREIGN },
                { "user@localhost", HTTP_HOST_FOREIGN },
                { "localhost@evil", HTTP_HOST_FOREIGN },
                { "localhost/", HTTP_HOST_FOREIGN },
                { "localhost,evil", HTTP_HOST_FOREIGN },
                { "xn--lcalhost-9za", HTTP_HOST_FOREIGN },
                { "8888-" ID ".localhost", HTTP_HOST_PROXY },
                { "8888-" ID ".localhost:9000", HTTP_HOST_PROXY },
                { "8888-" ID ".127.0.0.1:8080", HTTP_HOST_PROXY },
                { "8888-CL-0123456789ABCDEFGHIJKLMNO.any.Domain", HTTP_HOST_PROXY },
                { "8888-" ID, HTTP_HOST_FOREIGN },
                { "8888-" ID ".", HTTP_HOST_FOREIGN },
                { "8888-" ID "p.localhost", HTTP_HOST_FOREIGN },
                { "0-" ID ".localhost", HTTP_HOST_FOREIGN },
                { "65536-" ID ".localhost", HTTP_HOST_FOREIGN },
                { "-" ID ".localhost", HTTP_HOST_FOREIGN },
                { "8888-cl-zzzzzzzzzzzzzzzzzzzzzzzzz.localhost", HTTP_HOST_FOREIGN },
                { "8888-" ID ".a/b", HTTP_HOST_FOREIGN },
        };
        char *names[] = { (char *) "api.example.org", NULL };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (http_host_classify(cases[i].host, strlen(cases[i].host), names) != cases[i].class)
                        fail_msg("wrong class of '%s'", cases[i].host);
        ASSERT_EQ(http_host_classify("api.example.org", 15, NULL), HTTP_HOST_FOREIGN);
}

TEST(origins) {
        static const struct {
                const char *origin, *host;
                bool good;
        } cases[] = {
                { "", "localhost", true },
                { "http://localhost:8080", "localhost:8080", true },
                { "https://LOCALHOST:8080", "localhost:8080", true },
                { "http://[::1]:8080", "[::1]:8080", true },
                { "null", "localhost", false },
                { "http://localhost", "localhost:8080", false },
                { "http://localhost:8080", "localhost", false },
                { "http://evil.org", "localhost", false },
                { "http://8080-" ID ".localhost:8080", "localhost:8080", false },
                { "ftp://localhost", "localhost", false },
                { "http://localhost http://evil", "localhost", false },
                { "localhost", "localhost", false },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (http_origin_is_good(cases[i].origin, strlen(cases[i].origin), cases[i].host,
                                        strlen(cases[i].host)) != cases[i].good)
                        fail_msg("wrong verdict on '%s'", cases[i].origin);
}

TEST(fetch_sites) {
        ASSERT_TRUE(http_fetch_site_is_good("", 0));
        ASSERT_TRUE(http_fetch_site_is_good("none", 4));
        ASSERT_TRUE(http_fetch_site_is_good("same-origin", 11));
        ASSERT_FALSE(http_fetch_site_is_good("cross-site", 10));
        ASSERT_FALSE(http_fetch_site_is_good("Cross-Site", 10));
        ASSERT_FALSE(http_fetch_site_is_good("same-site", 9));
}
