/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A connection's bytes through the scanner: in one piece and in small ones, which must agree; then what uses
 * the head. */

#include <string.h>

#include "basic/strings.h"
#include "rest/http-policy.h"
#include "rest/http-scan.h"
#include "rest/route.h"
#include "tests/fuzz/fuzz.h"

typedef struct Verdict {
        HttpReject reject;
        bool done;
        size_t used; /* when not refused */
} Verdict;

static Verdict scan(const char *data, size_t n, size_t piece, HttpScan *s) {
        size_t have = 0, used = 0;
        ssize_t k = 0;

        http_scan_reset(s);
        while (have < n && !http_scan_is_done(s)) {
                have = MIN(have + piece, n);
                if (used == 0) {
                        k = http_scan_head(s, data, have);
                        if (k < 0)
                                return (Verdict) { .reject = s->reject };
                        used = (size_t) k;
                        if (k == 0)
                                continue;
                }
                k = http_scan_body(s, data + used, have - used);
                if (k < 0)
                        return (Verdict) { .reject = s->reject };
                used += (size_t) k;
                assert(used <= have);
                assert(used == have || http_scan_is_done(s));
        }
        return (Verdict) { .done = http_scan_is_done(s), .used = used };
}

static void check_slice(const HttpScan *s, HttpSlice slice) {
        assert((uint64_t) slice.offset + slice.n <= s->head.n);
}

/* What a good head promises. */
static void check_head(const HttpScan *s, const char *data) {
        static const RestRoute table[] = {
                { HTTP_METHOD_GET, "/health" },
                { HTTP_METHOD_DELETE, "/v1/capsules/{}/processes/{}" },
                {},
        };
        const HttpHead *h = &s->head;
        char *args[ROUTE_ARGS_MAX] = {};
        const RestRoute *route;
        unsigned allowed;

        assert(h->n >= 4 && memcmp(data + h->n - 4, "\r\n\r\n", 4) == 0);
        assert(!memchr(data, '\0', h->n));
        assert(h->method >= 0 && h->method < _HTTP_METHOD_MAX);
        assert(!(h->has_length && h->chunked) && !(h->chunked && h->minor == 0));
        assert(h->host.n > 0 && h->path.n > 0 && data[h->path.offset] == '/');
        for (size_t i = 0; i < h->n; i++)
                assert(data[i] != '\n' || (i > 0 && data[i - 1] == '\r'));
        check_slice(s, h->target);
        check_slice(s, h->path);
        check_slice(s, h->host);
        check_slice(s, h->origin);
        check_slice(s, h->fetch_site);
        check_slice(s, h->api_key);
        check_slice(s, h->upgrade);
        check_slice(s, h->websocket_key);
        check_slice(s, h->websocket_version);

        (void) http_host_classify(data + h->host.offset, h->host.n, NULL);
        (void) http_origin_is_good(data + h->origin.offset, h->origin.n, data + h->host.offset, h->host.n);
        (void) http_fetch_site_is_good(data + h->fetch_site.offset, h->fetch_site.n);
        if (route_find(table, h->method, data + h->path.offset, h->path.n, &route, args, &allowed) == 0)
                for (size_t i = 0; i < ROUTE_ARGS_MAX; i++) {
                        assert(!args[i] || (*args[i] && !strpbrk(args[i], "/\\")));
                        free(args[i]);
                }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        const char *text = (const char *) data + 1;
        HttpScan whole, pieces;
        size_t piece;
        Verdict a, b;

        if (n < 2)
                return 0;
        piece = 1U + data[0] % 32U;
        n--;

        a = scan(text, n, n, &whole);
        b = scan(text, n, piece, &pieces);
        assert(a.reject == b.reject && a.done == b.done && a.used == b.used);
        if (a.reject == HTTP_REJECT_NONE && a.used > 0) {
                check_head(&whole, text);
                assert(memcmp(&whole.head, &pieces.head, sizeof(whole.head)) == 0);
                assert(whole.n_body == pieces.n_body);
        }
        return 0;
}
