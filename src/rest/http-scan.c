/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/fault.h"
#include "basic/strings.h"
#include "rest/http-scan.h"

#define CHUNK_DIGITS_MAX  15U /* 60 bits: no overflow */
#define LENGTH_DIGITS_MAX 18U

static const char *const methods[_HTTP_METHOD_MAX] = {
        [HTTP_METHOD_GET] = "GET",         [HTTP_METHOD_HEAD] = "HEAD",   [HTTP_METHOD_POST] = "POST",
        [HTTP_METHOD_PUT] = "PUT",         [HTTP_METHOD_PATCH] = "PATCH", [HTTP_METHOD_DELETE] = "DELETE",
        [HTTP_METHOD_OPTIONS] = "OPTIONS",
};

static const struct {
        unsigned status;
        FaultCode code;
        const char *message;
} rejects[_HTTP_REJECT_MAX] = {
        [HTTP_REJECT_NONE] = { 500, FAULT_INTERNAL, "No reason." },
        [HTTP_REJECT_NOT_HTTP] = { 400, FAULT_INVALID_ARGS, "This is not an HTTP/1.1 request." },
        [HTTP_REJECT_REQUEST_LINE] = { 400, FAULT_INVALID_ARGS, "Malformed request line." },
        [HTTP_REJECT_METHOD] = { 501, FAULT_INVALID_ARGS, "Unknown method." },
        [HTTP_REJECT_TARGET] = { 400, FAULT_INVALID_ARGS, "Malformed or ambiguous request target." },
        [HTTP_REJECT_TARGET_LONG] = { 414, FAULT_INVALID_ARGS, "The request target is too long." },
        [HTTP_REJECT_VERSION] = { 505, FAULT_INVALID_ARGS, "Only HTTP/1.1 and HTTP/1.0 are spoken here." },
        [HTTP_REJECT_LINE_END] = { 400, FAULT_INVALID_ARGS, "Lines must end in CR LF." },
        [HTTP_REJECT_HEADER_NAME] = { 400, FAULT_INVALID_ARGS, "Malformed header name." },
        [HTTP_REJECT_HEADER_VALUE] = { 400, FAULT_INVALID_ARGS, "Malformed header value." },
        [HTTP_REJECT_FOLD] = { 400, FAULT_INVALID_ARGS, "Folded header lines are not accepted." },
        [HTTP_REJECT_HEAD_LARGE] = { 431, FAULT_INVALID_ARGS, "The request's head is too large." },
        [HTTP_REJECT_HOST_MISSING] = { 400, FAULT_INVALID_ARGS, "The Host header is missing." },
        [HTTP_REJECT_DUPLICATE] = { 400, FAULT_INVALID_ARGS, "A header that may stand once stands twice." },
        [HTTP_REJECT_LENGTH] = { 400, FAULT_INVALID_ARGS, "Malformed Content-Length." },
        [HTTP_REJECT_LENGTH_AND_ENCODING] = { 400, FAULT_INVALID_ARGS,
                                              "Content-Length and Transfer-Encoding exclude each other." },
        [HTTP_REJECT_ENCODING] = { 501, FAULT_INVALID_ARGS,
                                   "The only Transfer-Encoding understood is chunked." },
        [HTTP_REJECT_ENCODING_HTTP10] = { 400, FAULT_INVALID_ARGS, "HTTP/1.0 has no Transfer-Encoding." },
        [HTTP_REJECT_EXPECT] = { 417, FAULT_INVALID_ARGS,
                                 "The only expectation understood is 100-continue." },
        [HTTP_REJECT_CHUNK] = { 400, FAULT_INVALID_ARGS, "Malformed chunk." },
        [HTTP_REJECT_TRAILER] = { 400, FAULT_INVALID_ARGS, "Trailers are not accepted." },
        [HTTP_REJECT_HOST] = { 421, FAULT_INVALID_ARGS, "This host name is not served here." },
        [HTTP_REJECT_ORIGIN] = { 403, FAULT_ACCESS_DENIED,
                                 "Requests from other web origins are not accepted." },
        [HTTP_REJECT_UPGRADE] = { 426, FAULT_INVALID_ARGS,
                                  "This path is a WebSocket of version 13; ask for an upgrade to it." },
        [HTTP_REJECT_UPGRADE_REQUEST] = { 400, FAULT_INVALID_ARGS,
                                          "A WebSocket begins with a GET of HTTP/1.1 without a body and with a valid Sec-WebSocket-Key." },
        [HTTP_REJECT_DEADLINE] = { 408, FAULT_INVALID_ARGS, "The request did not arrive in time." },
        [HTTP_REJECT_BODY_LARGE] = { 413, FAULT_TOO_LARGE, "The request's body is too large." },
        [HTTP_REJECT_CONNECTIONS] = { 503, FAULT_NO_CAPACITY, "Too many connections." },
};

static const struct {
        unsigned status;
        const char *phrase;
} phrases[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 417, "Expectation Failed" },
        { 421, "Misdirected Request" },
        { 426, "Upgrade Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
};

/* Headers that may stand once: a bit of HttpScan.seen each. */
typedef enum SingleHeader {
        SINGLE_HOST,
        SINGLE_CONTENT_LENGTH,
        SINGLE_TRANSFER_ENCODING,
        SINGLE_CONTENT_TYPE,
        SINGLE_EXPECT,
        SINGLE_ORIGIN,
        SINGLE_FETCH_SITE,
        SINGLE_API_KEY,
        SINGLE_AUTHORIZATION,
        SINGLE_UPGRADE,
        SINGLE_WEBSOCKET_KEY,
        SINGLE_WEBSOCKET_VERSION,
        _SINGLE_MAX,
} SingleHeader;

static const char *const single_names[_SINGLE_MAX] = {
        [SINGLE_HOST] = "host",
        [SINGLE_CONTENT_LENGTH] = "content-length",
        [SINGLE_TRANSFER_ENCODING] = "transfer-encoding",
        [SINGLE_CONTENT_TYPE] = "content-type",
        [SINGLE_EXPECT] = "expect",
        [SINGLE_ORIGIN] = "origin",
        [SINGLE_FETCH_SITE] = "sec-fetch-site",
        [SINGLE_API_KEY] = "x-api-key",
        [SINGLE_AUTHORIZATION] = "authorization",
        [SINGLE_UPGRADE] = "upgrade",
        [SINGLE_WEBSOCKET_KEY] = "sec-websocket-key",
        [SINGLE_WEBSOCKET_VERSION] = "sec-websocket-version",
};

const char* http_method_to_string(HttpMethod m) {
        return m >= 0 && m < _HTTP_METHOD_MAX ? methods[m] : NULL;
}

HttpMethod http_method_from_bytes(const char *s, size_t n) {
        for (HttpMethod m = 0; m < _HTTP_METHOD_MAX; m++)
                if (strlen(methods[m]) == n && memcmp(methods[m], s, n) == 0)
                        return m;
        return _HTTP_METHOD_INVALID;
}

unsigned http_reject_status(HttpReject r) {
        return rejects[r].status;
}

const char* http_reject_code(HttpReject r) {
        return fault_rest_code(rejects[r].code);
}

const char* http_reject_message(HttpReject r) {
        return rejects[r].message;
}

const char* http_status_phrase(unsigned status) {
        for (size_t i = 0; i < ELEMENTSOF(phrases); i++)
                if (phrases[i].status == status)
                        return phrases[i].phrase;
        return "Unknown";
}

/* tchar of RFC 9110 §5.6.2 */
static bool is_token_char(uint8_t c) {
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
                return true;
        return c && strchr("!#$%&'*+-.^_`|~", c);
}

static bool is_token(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!is_token_char((uint8_t) s[i]))
                        return false;
        return n > 0;
}

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -EINVAL;
}

static bool equal_nocase(const char *s, size_t n, const char *lower) {
        return strlen(lower) == n && strncasecmp(s, lower, n) == 0;
}

static ssize_t reject(HttpScan *s, HttpReject r) {
        s->reject = r;
        return -EBADMSG;
}

void http_scan_reset(HttpScan *s) {
        *s = (HttpScan) {};
}

/* One %XX: may not hide a control character, a separator or a dot. Only NUL is refused in the query. */
static bool escape_is_good(const char *p, const char *end, bool query) {
        int high, low, c;

        if (end - p < 3)
                return false;

        high = hex_digit(p[1]);
        low = hex_digit(p[2]);
        if (high < 0 || low < 0)
                return false;

        c = high * 16 + low;
        if (query)
                return c != 0;
        return c >= 0x20 && c != 0x7f && c != '/' && c != '\\' && c != '.';
}

/* A segment of the path: not empty (but the last), not "." nor "..". */
static bool segment_is_good(const char *s, size_t n, bool last) {
        if (n == 0)
                return last;
        return !(s[0] == '.' && (n == 1 || (n == 2 && s[1] == '.')));
}

static bool target_is_good(const char *t, size_t n, size_t *ret_n_path) {
        const char *end = t + n, *segment = t + 1;
        bool query = false;
        size_t n_path = n;

        if (n == 0 || t[0] != '/')
                return false;

        for (const char *p = t + 1; p < end; p++) {
                uint8_t c = (uint8_t) *p;

                if (c <= 0x20 || c >= 0x7f || c == '#' || c == '\\' || c == '"' || c == '<' || c == '>')
                        return false;
                if (c == '%' && !escape_is_good(p, end, query))
                        return false;
                if (query)
                        continue;
                if (strchr("^`{|}", c))
                        return false;
                if (c == '/') {
                        if (!segment_is_good(segment, (size_t) (p - segment), false))
                                return false;
                        segment = p + 1;
                } else if (c == '?') {
                        if (!segment_is_good(segment, (size_t) (p - segment), true))
                                return false;
                        query = true;
                        n_path = (size_t) (p - t);
                }
        }

        if (!query && !segment_is_good(segment, (size_t) (end - segment), true))
                return false;

        *ret_n_path = n_path;
        return true;
}

static ssize_t scan_request_line(HttpScan *s, const char *data, const char *line, size_t n) {
        const char *space, *target, *version;
        size_t n_target, n_path, n_version;

        space = memchr(line, ' ', n);
        if (!space || !is_token(line, (size_t) (space - line)))
                return reject(s, HTTP_REJECT_REQUEST_LINE);

        s->head.method = http_method_from_bytes(line, (size_t) (space - line));
        target = space + 1;
        space = memchr(target, ' ', n - (size_t) (target - line));
        if (!space)
                return reject(s, HTTP_REJECT_REQUEST_LINE);

        n_target = (size_t) (space - target);
        version = space + 1;
        n_version = n - (size_t) (version - line);

        if (n_version != 8 || memcmp(version, "HTTP/", 5) != 0)
                return reject(s, HTTP_REJECT_REQUEST_LINE);
        if (memcmp(version + 5, "1.1", 3) != 0 && memcmp(version + 5, "1.0", 3) != 0)
                return reject(s, HTTP_REJECT_VERSION);
        if (s->head.method < 0)
                return reject(s, HTTP_REJECT_METHOD);
        if (n_target > HTTP_URI_MAX)
                return reject(s, HTTP_REJECT_TARGET_LONG);
        if (!target_is_good(target, n_target, &n_path))
                return reject(s, HTTP_REJECT_TARGET);

        s->head.minor = version[7] == '1' ? 1 : 0;
        s->head.target = (HttpSlice) { (uint32_t) (target - data), (uint32_t) n_target };
        s->head.path = (HttpSlice) { (uint32_t) (target - data), (uint32_t) n_path };
        s->have_request_line = true;
        return 0;
}

static ssize_t scan_length(HttpScan *s, const char *v, size_t n) {
        uint64_t length = 0;

        if (n == 0 || n > LENGTH_DIGITS_MAX)
                return reject(s, HTTP_REJECT_LENGTH);

        for (size_t i = 0; i < n; i++) {
                if (v[i] < '0' || v[i] > '9')
                        return reject(s, HTTP_REJECT_LENGTH);
                length = length * 10 + (uint64_t) (v[i] - '0');
        }

        s->head.length = length;
        s->head.has_length = true;
        return 0;
}

/* Cuts the first element off a list, without blanks around it; it may be empty. */
static HttpSlice list_next(const char *list, size_t n, size_t *at) {
        const char *a = list + *at, *end = list + n, *b = memchr(a, ',', n - *at) ?: end;

        *at = (size_t) (b - list) + 1;
        while (a < b && (*a == ' ' || *a == '\t'))
                a++;
        while (b > a && (b[-1] == ' ' || b[-1] == '\t'))
                b--;
        return (HttpSlice) { (uint32_t) (a - list), (uint32_t) (b - a) };
}

bool http_list_has(const char *list, size_t n, const char *token) {
        for (size_t at = 0; at < n;) {
                HttpSlice e = list_next(list, n, &at);

                if (equal_nocase(list + e.offset, e.n, token))
                        return true;
        }
        return false;
}

/* Connection: a list of tokens, of which two mean something to us. */
static ssize_t scan_connection(HttpScan *s, const char *v, size_t n) {
        for (size_t at = 0; at < n;) {
                HttpSlice e = list_next(v, n, &at);

                if (e.n > 0 && !is_token(v + e.offset, e.n))
                        return reject(s, HTTP_REJECT_HEADER_VALUE);
        }
        s->head.connection_close |= http_list_has(v, n, "close");
        s->head.connection_upgrade |= http_list_has(v, n, "upgrade");
        return 0;
}

static ssize_t scan_single(HttpScan *s, SingleHeader h, HttpSlice slice, const char *v) {
        if (s->seen & (1U << h))
                return reject(s, HTTP_REJECT_DUPLICATE);
        s->seen |= 1U << h;

        switch (h) {
        case SINGLE_HOST:
                s->head.host = slice;
                return 0;
        case SINGLE_CONTENT_LENGTH:
                return scan_length(s, v, slice.n);
        case SINGLE_TRANSFER_ENCODING:
                if (!equal_nocase(v, slice.n, "chunked"))
                        return reject(s, HTTP_REJECT_ENCODING);
                s->head.chunked = true;
                return 0;
        case SINGLE_EXPECT:
                if (!equal_nocase(v, slice.n, "100-continue"))
                        return reject(s, HTTP_REJECT_EXPECT);
                s->head.expect_continue = true;
                return 0;
        case SINGLE_ORIGIN:
                s->head.origin = slice;
                return 0;
        case SINGLE_FETCH_SITE:
                s->head.fetch_site = slice;
                return 0;
        case SINGLE_API_KEY:
                s->head.api_key = slice;
                return 0;
        case SINGLE_CONTENT_TYPE:
                s->head.content_type = slice;
                return 0;
        case SINGLE_UPGRADE:
                s->head.upgrade = slice;
                return 0;
        case SINGLE_WEBSOCKET_KEY:
                s->head.websocket_key = slice;
                return 0;
        case SINGLE_WEBSOCKET_VERSION:
                s->head.websocket_version = slice;
                return 0;
        default:
                return 0;
        }
}

static ssize_t scan_header(HttpScan *s, const char *data, const char *line, size_t n) {
        const char *colon, *v, *end = line + n;

        if (++s->n_headers > HTTP_HEADERS_MAX)
                return reject(s, HTTP_REJECT_HEAD_LARGE);
        if (line[0] == ' ' || line[0] == '\t')
                return reject(s, HTTP_REJECT_FOLD);

        colon = memchr(line, ':', n);
        if (!colon || !is_token(line, (size_t) (colon - line)))
                return reject(s, HTTP_REJECT_HEADER_NAME);

        for (v = colon + 1; v < end && (*v == ' ' || *v == '\t'); v++)
                ;
        while (end > v && (end[-1] == ' ' || end[-1] == '\t'))
                end--;
        for (const char *p = v; p < end; p++)
                if (((uint8_t) *p < 0x20 && *p != '\t') || *p == 0x7f)
                        return reject(s, HTTP_REJECT_HEADER_VALUE);

        if (equal_nocase(line, (size_t) (colon - line), "connection"))
                return scan_connection(s, v, (size_t) (end - v));

        for (SingleHeader h = 0; h < _SINGLE_MAX; h++)
                if (equal_nocase(line, (size_t) (colon - line), single_names[h]))
                        return scan_single(s, h, (HttpSlice) { (uint32_t) (v - data), (uint32_t) (end - v) },
                                           v);
        return 0;
}

/* The empty line came: what belongs together must fit together. */
static ssize_t scan_head_end(HttpScan *s, size_t n) {
        HttpHead *h = &s->head;

        if (h->has_length && h->chunked)
                return reject(s, HTTP_REJECT_LENGTH_AND_ENCODING);
        if (h->chunked && h->minor == 0)
                return reject(s, HTTP_REJECT_ENCODING_HTTP10);
        if (h->host.n == 0)
                return reject(s, HTTP_REJECT_HOST_MISSING);

        h->n = (uint32_t) n;
        s->left = h->length;
        s->state = h->chunked ? HTTP_SCAN_CHUNK_SIZE : h->length > 0 ? HTTP_SCAN_BODY : HTTP_SCAN_DONE;
        return (ssize_t) n;
}

/* What can be said before the line is complete. */
static ssize_t scan_partial(HttpScan *s, const char *data, size_t n) {
        if (!s->have_request_line) {
                /* The first bytes are the method: capital letters, a blank soon behind them. */
                for (size_t i = 0; i < MIN(n, (size_t) 16); i++) {
                        if (data[i] == ' ' && i > 0)
                                break;
                        if (!is_token_char((uint8_t) data[i]))
                                return reject(s, HTTP_REJECT_NOT_HTTP);
                        if (i == 15)
                                return reject(s, HTTP_REJECT_NOT_HTTP);
                }
                if (n > HTTP_URI_MAX + 64)
                        return reject(s, HTTP_REJECT_TARGET_LONG);
        }
        if (n > HTTP_HEADER_BLOCK_MAX)
                return reject(s, HTTP_REJECT_HEAD_LARGE);
        return 0;
}

ssize_t http_scan_head(HttpScan *s, const char *data, size_t n) {
        ssize_t r;

        assert(s->state == HTTP_SCAN_HEAD);

        while (s->checked < n) {
                const char *line = data + s->line, *lf;
                size_t n_line;

                lf = memchr(data + s->checked, '\n', n - s->checked);
                if (!lf) {
                        s->checked = (uint32_t) n;
                        break;
                }

                n_line = (size_t) (lf - line);
                s->line = s->checked = (uint32_t) (lf + 1 - data);
                if (s->line > HTTP_HEADER_BLOCK_MAX)
                        return reject(s, HTTP_REJECT_HEAD_LARGE);
                if (!s->have_request_line) {
                        r = scan_partial(s, data, n_line);
                        if (r < 0)
                                return r;
                }
                if (n_line == 0 || line[n_line - 1] != '\r' || memchr(line, '\r', n_line - 1))
                        return reject(s, HTTP_REJECT_LINE_END);
                n_line--;

                if (!s->have_request_line)
                        r = scan_request_line(s, data, line, n_line);
                else if (n_line == 0)
                        return scan_head_end(s, s->line);
                else
                        r = scan_header(s, data, line, n_line);
                if (r < 0)
                        return r;
        }

        return scan_partial(s, data, n);
}

/* One byte of the chunk framing. */
static ssize_t scan_chunk_byte(HttpScan *s, char c) {
        int digit;

        switch (s->state) {
        case HTTP_SCAN_CHUNK_SIZE:
                if (c == '\r' && s->n_digits > 0) {
                        s->state = HTTP_SCAN_CHUNK_SIZE_LF;
                        return 0;
                }
                digit = hex_digit(c);
                if (digit < 0 || ++s->n_digits > CHUNK_DIGITS_MAX)
                        return reject(s, HTTP_REJECT_CHUNK);
                s->left = s->left * 16 + (uint64_t) digit;
                return 0;
        case HTTP_SCAN_CHUNK_SIZE_LF:
                s->state = s->left > 0 ? HTTP_SCAN_CHUNK_DATA : HTTP_SCAN_LAST_CR;
                return c == '\n' ? 0 : reject(s, HTTP_REJECT_CHUNK);
        case HTTP_SCAN_CHUNK_DATA_CR:
                s->state = HTTP_SCAN_CHUNK_DATA_LF;
                return c == '\r' ? 0 : reject(s, HTTP_REJECT_CHUNK);
        case HTTP_SCAN_CHUNK_DATA_LF:
                s->state = HTTP_SCAN_CHUNK_SIZE;
                s->n_digits = 0;
                return c == '\n' ? 0 : reject(s, HTTP_REJECT_CHUNK);
        case HTTP_SCAN_LAST_CR:
                s->state = HTTP_SCAN_LAST_LF;
                return c == '\r' ? 0 : reject(s, HTTP_REJECT_TRAILER);
        case HTTP_SCAN_LAST_LF:
                s->state = HTTP_SCAN_DONE;
                return c == '\n' ? 0 : reject(s, HTTP_REJECT_CHUNK);
        default:
                return reject(s, HTTP_REJECT_CHUNK);
        }
}

ssize_t http_scan_payload(HttpScan *s, const char *data, size_t n, size_t *ret_n) {
        size_t i = 0, run = 0;

        assert(s->state != HTTP_SCAN_HEAD);

        while (i < n && s->state != HTTP_SCAN_DONE) {
                ssize_t r;

                if (s->state == HTTP_SCAN_BODY || s->state == HTTP_SCAN_CHUNK_DATA) {
                        run = (size_t) MIN((uint64_t) (n - i), s->left);
                        s->left -= run;
                        s->n_body += run;
                        if (s->left == 0)
                                s->state = s->state == HTTP_SCAN_BODY ? HTTP_SCAN_DONE
                                                                      : HTTP_SCAN_CHUNK_DATA_CR;
                        break;
                }

                r = scan_chunk_byte(s, data[i++]);
                if (r < 0)
                        return r;
        }

        *ret_n = run;
        return (ssize_t) i;
}

ssize_t http_scan_body(HttpScan *s, const char *data, size_t n) {
        size_t i = 0, run;

        while (i < n && s->state != HTTP_SCAN_DONE) {
                ssize_t k = http_scan_payload(s, data + i, n - i, &run);

                if (k < 0)
                        return k;
                i += (size_t) k + run;
        }
        return (ssize_t) i;
}
