/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "rest/http-scan.h"
#include "tests/unit/test.h"

#define GET  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

/* Feeds text in pieces of the given size; 0: all at once. What is left over is another request's. */
static HttpReject scan(const char *text, size_t n, size_t piece, HttpScan *s, size_t *ret_used) {
        size_t have = 0, used = 0;
        bool head = true;

        http_scan_reset(s);
        while (have < n && !http_scan_is_done(s)) {
                ssize_t k;

                have = piece == 0 ? n : MIN(have + piece, n);
                if (head) {
                        k = http_scan_head(s, text, have);
                        if (k < 0)
                                return s->reject;
                        if (k == 0)
                                continue;
                        head = false;
                        used = (size_t) k;
                }
                k = http_scan_body(s, text + used, have - used);
                if (k < 0)
                        return s->reject;
                used += (size_t) k;
        }
        *ret_used = used;
        return HTTP_REJECT_NONE;
}

static const struct {
        const char *text;
        size_t n; /* 0: strlen(text) */
        HttpReject reject;
        bool done;
        size_t left; /* bytes behind the request */
} cases[] = {
        { GET "\r\n", .done = true },
        { "HEAD /v1/capsules?x=%20y&z=a|b HTTP/1.0\r\nHost: localhost:80\r\n\r\n", .done = true },
        { GET "\r\nGET / HT", .done = true, .left = 8 },
        { GET, .done = false },
        { POST "Content-Length: 3\r\n\r\nabc", .done = true },
        { POST "content-length:3 \t\r\n\r\nabcPOST", .done = true, .left = 4 },
        { POST "Content-Length: 3\r\n\r\nab", .done = false },
        { POST "Content-Length: 0\r\n\r\nX", .done = true, .left = 1 },
        { POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", .done = true },
        { POST "Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nX", .done = true,
          .left = 1 },
        { POST "Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n00\r\n\r\n", .done = true },
        { GET "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", .done = true },
        { GET "X-Empty:\r\nX-Tab:\ta\tb\r\nX-High: \xc3\xa4\r\n\r\n", .done = true },
        { GET "Expect: 100-Continue\r\n\r\n", .done = true },

        /* framing */
        { POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
          .reject = HTTP_REJECT_LENGTH_AND_ENCODING },
        { POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
          .reject = HTTP_REJECT_LENGTH_AND_ENCODING },
        { POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },
        { POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },
        { POST "Content-Length: 3, 3\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: +3\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: -1\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: 0x5\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: 5_0\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: 5 5\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: \r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Content-Length: 99999999999999999999\r\n\r\n", .reject = HTTP_REJECT_LENGTH },
        { POST "Transfer-Encoding: gzip\r\n\r\n", .reject = HTTP_REJECT_ENCODING },
        { POST "Transfer-Encoding: gzip, chunked\r\n\r\n", .reject = HTTP_REJECT_ENCODING },
        { POST "Transfer-Encoding: identity\r\n\r\n", .reject = HTTP_REJECT_ENCODING },
        { POST "Transfer-Encoding: xchunked\r\n\r\n", .reject = HTTP_REJECT_ENCODING },
        { POST "Transfer-Encoding: \vchunked\r\n\r\n", .reject = HTTP_REJECT_HEADER_VALUE },
        { POST "Transfer-Encoding:\r\n\r\n", .reject = HTTP_REJECT_ENCODING },
        { POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
          .reject = HTTP_REJECT_DUPLICATE },
        { "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
          .reject = HTTP_REJECT_ENCODING_HTTP10 },
        { POST "Transfer-Encoding : chunked\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },
        { POST "Content-Length : 3\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },

        /* chunks */
        { POST "Transfer-Encoding: chunked\r\n\r\n0x5\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n5 \r\nabcde\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde0\r\n\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\n0\r\n\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF5\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n0000000000000000\r\n", .reject = HTTP_REJECT_CHUNK },
        { POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
          .reject = HTTP_REJECT_TRAILER },
        { POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\rX", .reject = HTTP_REJECT_CHUNK },

        /* lines */
        { "GET / HTTP/1.1\nHost: a\r\n\r\n", .reject = HTTP_REJECT_LINE_END },
        { GET "X: y\n\r\n", .reject = HTTP_REJECT_LINE_END },
        { GET "\n", .reject = HTTP_REJECT_LINE_END },
        { GET "X: y\rz\r\n\r\n", .reject = HTTP_REJECT_LINE_END },
        { GET " folded\r\n\r\n", .reject = HTTP_REJECT_FOLD },
        { GET "X: y\r\n\tfolded\r\n\r\n", .reject = HTTP_REJECT_FOLD },
        { "GET / HTTP/1.1\r\n Host: a\r\n\r\n", .reject = HTTP_REJECT_FOLD },

        /* names and values */
        { GET ": y\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },
        { GET "X\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },
        { GET "X(Y): z\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },
        { GET "X\x80: z\r\n\r\n", .reject = HTTP_REJECT_HEADER_NAME },
        { GET "X: y\0z\r\n\r\n", sizeof(GET "X: y\0z\r\n\r\n") - 1, HTTP_REJECT_HEADER_VALUE },
        { GET "X\0Y: z\r\n\r\n", sizeof(GET "X\0Y: z\r\n\r\n") - 1, HTTP_REJECT_HEADER_NAME },
        { GET "X: \x7f\r\n\r\n", .reject = HTTP_REJECT_HEADER_VALUE },
        { GET "X: \x1b[31m\r\n\r\n", .reject = HTTP_REJECT_HEADER_VALUE },
        { GET "Connection: a b\r\n\r\n", .reject = HTTP_REJECT_HEADER_VALUE },
        { GET "Expect: 200-ok\r\n\r\n", .reject = HTTP_REJECT_EXPECT },
        { "GET / HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_HOST_MISSING },
        { "GET / HTTP/1.0\r\n\r\n", .reject = HTTP_REJECT_HOST_MISSING },
        { "GET / HTTP/1.1\r\nHost:\r\n\r\n", .reject = HTTP_REJECT_HOST_MISSING },
        { GET "Host: a\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },
        { GET "hOST: b\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },
        { GET "X-API-Key: a\r\nx-api-key: b\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },
        { GET "Origin: a\r\nOrigin: b\r\n\r\n", .reject = HTTP_REJECT_DUPLICATE },

        /* request line */
        { "\x16\x03\x01\x02", .reject = HTTP_REJECT_NOT_HTTP },
        { "\r\n", .reject = HTTP_REJECT_NOT_HTTP },
        { " GET / HTTP/1.1\r\n", .reject = HTTP_REJECT_NOT_HTTP },
        { "\0", 1, HTTP_REJECT_NOT_HTTP },
        { "AAAAAAAAAAAAAAAAAAAAAAAAAA", .reject = HTTP_REJECT_NOT_HTTP },
        { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .reject = HTTP_REJECT_VERSION },
        { "GET / HTTP/0.9\r\n\r\n", .reject = HTTP_REJECT_VERSION },
        { "GET / HTTP/1.2\r\n\r\n", .reject = HTTP_REJECT_VERSION },
        { "GET / http/1.1\r\n\r\n", .reject = HTTP_REJECT_REQUEST_LINE },
        { "GET / HTTP/1.1 \r\n\r\n", .reject = HTTP_REJECT_REQUEST_LINE },
        { "GET /\r\n\r\n", .reject = HTTP_REJECT_REQUEST_LINE },
        { "GET\r\n\r\n", .reject = HTTP_REJECT_NOT_HTTP },
        { "GET  / HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_REQUEST_LINE },
        { "GET /a b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_REQUEST_LINE },
        { "GET\t/ HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_NOT_HTTP },
        { "get / HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_METHOD },
        { "BREW / HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_METHOD },
        { "CONNECT a:1 HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_METHOD },
        { "G\x01T / HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_NOT_HTTP },

        /* targets */
        { "OPTIONS * HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET http://a/ HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET a HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%00b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%0ab HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%2fb HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%5Cb HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /%2e%2e/b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%zzb HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a%2 HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a\\b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a/../b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a/.. HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a/./b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /..?x HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET //a HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a//b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a#b HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a?b#c HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a?b%00 HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /\x80 HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /a\x7f HTTP/1.1\r\n\r\n", .reject = HTTP_REJECT_TARGET },
        { "GET /...?../.. HTTP/1.1\r\nHost: a\r\n\r\n", .done = true },
};

TEST(cases_whole_and_piecewise) {
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t piece = 0; piece < 8; piece++) {
                        size_t n = cases[i].n ?: strlen(cases[i].text), used = 0;
                        HttpReject reject;
                        HttpScan s;

                        reject = scan(cases[i].text, n, piece, &s, &used);
                        if (reject != cases[i].reject)
                                fail_msg("case %zu in pieces of %zu: '%s' gives '%s'", i, piece,
                                         cases[i].text, http_reject_message(reject));
                        if (reject != HTTP_REJECT_NONE)
                                continue;
                        ASSERT_EQ(http_scan_is_done(&s), cases[i].done);
                        if (cases[i].done)
                                ASSERT_EQ(used, n - cases[i].left);
                }
}

TEST(slices_point_at_values) {
        static const char text[] =
                        "POST /v1/x?q=1 HTTP/1.1\r\nHost:  localhost:8080 \r\nX-API-Key: wrn_1\r\n"
                        "Origin: http://a\r\nSec-Fetch-Site: none\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        HttpScan s;

        http_scan_reset(&s);
        ASSERT_EQ(http_scan_head(&s, text, strlen(text)), strlen(text));
        ASSERT_EQ(s.head.method, HTTP_METHOD_POST);
        ASSERT_EQ(s.head.minor, 1);
        ASSERT_TRUE(strncmp(text + s.head.target.offset, "/v1/x?q=1", s.head.target.n) == 0 &&
                    s.head.target.n == 9);
        ASSERT_EQ(s.head.path.n, 5);
        ASSERT_TRUE(strncmp(text + s.head.host.offset, "localhost:8080", s.head.host.n) == 0 &&
                    s.head.host.n == 14);
        ASSERT_TRUE(strncmp(text + s.head.api_key.offset, "wrn_1", s.head.api_key.n) == 0 &&
                    s.head.api_key.n == 5);
        ASSERT_EQ(s.head.origin.n, 8);
        ASSERT_EQ(s.head.fetch_site.n, 4);
        ASSERT_EQ(s.head.length, 12);
        ASSERT_TRUE(s.head.has_length && s.head.connection_close && !s.head.chunked);
}

/* text of n bytes in front, then the rest. */
static HttpReject scan_padded(const char *before, size_t n, char fill, const char *after) {
        size_t n_before = strlen(before), size = n_before + n + strlen(after), used;
        _cleanup_free_ char *text = malloc(size + 1);
        HttpScan s;

        memcpy(text, before, n_before);
        memset(text + n_before, fill, n);
        strcpy(text + n_before + n, after);
        return scan(text, size, 0, &s, &used);
}

TEST(limits) {
        char many[HTTP_HEADERS_MAX * 8 + 200] = GET;
        size_t used;
        HttpScan s;

        ASSERT_EQ(scan_padded("GET /", HTTP_URI_MAX - 1, 'a', " HTTP/1.1\r\nHost: a\r\n\r\n"),
                  HTTP_REJECT_NONE);
        ASSERT_EQ(scan_padded("GET /", HTTP_URI_MAX, 'a', " HTTP/1.1\r\nHost: a\r\n\r\n"),
                  HTTP_REJECT_TARGET_LONG);
        ASSERT_EQ(scan_padded("GET /", 40000, 'a', ""), HTTP_REJECT_TARGET_LONG);
        ASSERT_EQ(scan_padded(GET "X: ", HTTP_HEADER_BLOCK_MAX - strlen(GET "X: \r\n\r\n"), 'a', "\r\n\r\n"),
                  HTTP_REJECT_NONE);
        ASSERT_EQ(scan_padded(GET "X: ", HTTP_HEADER_BLOCK_MAX - strlen(GET "X: \r\n\r\n") + 1, 'a',
                              "\r\n\r\n"),
                  HTTP_REJECT_HEAD_LARGE);
        ASSERT_EQ(scan_padded(GET "X: ", 40000, 'a', ""), HTTP_REJECT_HEAD_LARGE);

        for (unsigned i = 1; i < HTTP_HEADERS_MAX; i++)
                strcat(many, "X: y\r\n");
        strcat(many, "\r\n");
        ASSERT_EQ(scan(many, strlen(many), 0, &s, &used), HTTP_REJECT_NONE);
        many[strlen(many) - 2] = '\0';
        strcat(many, "X: y\r\n\r\n");
        ASSERT_EQ(scan(many, strlen(many), 0, &s, &used), HTTP_REJECT_HEAD_LARGE);
}

TEST(tables_are_complete) {
        for (HttpReject r = 0; r < _HTTP_REJECT_MAX; r++) {
                ASSERT_TRUE(http_reject_status(r) >= 400 && http_reject_status(r) < 600);
                ASSERT_NOT_NULL(http_reject_message(r));
                ASSERT_NOT_NULL(http_reject_code(r));
                ASSERT_FALSE(streq(http_status_phrase(http_reject_status(r)), "Unknown"));
        }
        for (HttpMethod m = 0; m < _HTTP_METHOD_MAX; m++) {
                const char *name = http_method_to_string(m);

                ASSERT_EQ(http_method_from_bytes(name, strlen(name)), m);
        }
        ASSERT_NULL(http_method_to_string(_HTTP_METHOD_MAX));
        ASSERT_EQ(http_method_from_bytes("GE", 2), _HTTP_METHOD_INVALID);
}
