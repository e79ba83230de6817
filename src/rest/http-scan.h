/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A strict reader of HTTP/1.1 requests (RFC 9112) that answers two questions only: where does this request
 * end, and is there any doubt about it. It knows no socket and no event loop: bytes in, verdict out. The
 * gate relays to libmicrohttpd only what this reader has passed, so that both always agree on the framing
 * (threats.md, table MHD).
 *
 * Refused on purpose although RFC 9112 allows them: trailers, chunk extensions, any second occurrence of a
 * header that decides something, absolute-form targets, encoded or literal dot segments, empty segments,
 * encoded separators.
 */

#include "basic/limits.h"
#include "basic/macro.h"

typedef enum HttpMethod {
        HTTP_METHOD_GET,
        HTTP_METHOD_HEAD,
        HTTP_METHOD_POST,
        HTTP_METHOD_PUT,
        HTTP_METHOD_PATCH,
        HTTP_METHOD_DELETE,
        HTTP_METHOD_OPTIONS,
        _HTTP_METHOD_MAX,
        _HTTP_METHOD_INVALID = -EINVAL,
} HttpMethod;

const char* http_method_to_string(HttpMethod m);
HttpMethod http_method_from_bytes(const char *s, size_t n);

/* Why a request is refused. http_reject_*() give the status and the sentence. */
typedef enum HttpReject {
        HTTP_REJECT_NONE,
        HTTP_REJECT_NOT_HTTP, /* TLS, HTTP/2 preface, garbage: seen at the first bytes */
        HTTP_REJECT_REQUEST_LINE,
        HTTP_REJECT_METHOD,
        HTTP_REJECT_TARGET,
        HTTP_REJECT_TARGET_LONG,
        HTTP_REJECT_VERSION,
        HTTP_REJECT_LINE_END, /* bare LF or CR */
        HTTP_REJECT_HEADER_NAME,
        HTTP_REJECT_HEADER_VALUE,
        HTTP_REJECT_FOLD,
        HTTP_REJECT_HEAD_LARGE,
        HTTP_REJECT_HOST_MISSING,
        HTTP_REJECT_DUPLICATE, /* of a header that may stand once */
        HTTP_REJECT_LENGTH,
        HTTP_REJECT_LENGTH_AND_ENCODING,
        HTTP_REJECT_ENCODING,
        HTTP_REJECT_ENCODING_HTTP10,
        HTTP_REJECT_EXPECT,
        HTTP_REJECT_CHUNK,
        HTTP_REJECT_TRAILER,
        HTTP_REJECT_HOST, /* not one of ours (http-policy.c) */
        HTTP_REJECT_ORIGIN,
        HTTP_REJECT_UPGRADE,         /* no WebSocket was asked for, or another version (ws-upgrade.c) */
        HTTP_REJECT_UPGRADE_REQUEST, /* …in a wrong way */
        HTTP_REJECT_DEADLINE,        /* gate */
        HTTP_REJECT_BODY_LARGE,      /* gate */
        HTTP_REJECT_CONNECTIONS,     /* gate */
        _HTTP_REJECT_MAX,
} HttpReject;

unsigned http_reject_status(HttpReject r);
const char* http_reject_code(HttpReject r); /* of the JSON envelope (api.md §1.4) */
const char* http_reject_message(HttpReject r);
const char* http_status_phrase(unsigned status);

/* Bytes of the head's buffer; offset 0 with n 0: absent. */
typedef struct HttpSlice {
        uint32_t offset, n;
} HttpSlice;

typedef struct HttpHead {
        HttpMethod method;
        unsigned minor;   /* HTTP/1.<minor>: 0 or 1 */
        HttpSlice target; /* as sent: path and query */
        HttpSlice path;   /* without the query */
        HttpSlice host, origin, fetch_site, api_key, upgrade, content_type, websocket_key, websocket_version;
        bool has_length, chunked, expect_continue;
        bool connection_close, connection_upgrade;
        uint64_t length; /* of the body, when has_length */
        uint32_t n;      /* bytes of the whole head */
} HttpHead;

typedef enum HttpScanState {
        HTTP_SCAN_HEAD,
        HTTP_SCAN_BODY, /* Content-Length */
        HTTP_SCAN_CHUNK_SIZE,
        HTTP_SCAN_CHUNK_SIZE_LF,
        HTTP_SCAN_CHUNK_DATA,
        HTTP_SCAN_CHUNK_DATA_CR,
        HTTP_SCAN_CHUNK_DATA_LF,
        HTTP_SCAN_LAST_CR, /* the empty line behind the last chunk */
        HTTP_SCAN_LAST_LF,
        HTTP_SCAN_DONE,
} HttpScanState;

typedef struct HttpScan {
        HttpScanState state;
        HttpReject reject;
        HttpHead head;
        uint32_t line;    /* where the current line begins */
        uint32_t checked; /* bytes already searched for the line's end */
        unsigned n_headers;
        bool have_request_line;
        uint32_t seen;     /* bits of single headers */
        uint64_t left;     /* of the body or chunk */
        unsigned n_digits; /* of the chunk size */
        uint64_t n_body;   /* body bytes so far, without chunk framing */
} HttpScan;

/* Is this token in a header that is a list of tokens? In any case. */
bool http_list_has(const char *list, size_t n, const char *token);

/* Begins the next request. */
void http_scan_reset(HttpScan *s);

/*
 * Reads the head. data: all bytes of this request from its first on, also those of earlier calls (at the
 * same offsets). Returns the head's length once it is whole and good (state is then what follows), 0 when
 * more bytes are needed, -EBADMSG when it is refused (s->reject).
 */
ssize_t http_scan_head(HttpScan *s, const char *data, size_t n);

/*
 * Reads on in the body. Returns how many of the n bytes belong to this request and are good; fewer than n
 * only when the request is complete (HTTP_SCAN_DONE). -EBADMSG when refused.
 */
ssize_t http_scan_body(HttpScan *s, const char *data, size_t n);

/*
 * The same for who wants the body without its framing: returns how many bytes of framing stand in front of
 * the next run of body bytes, and the length of that run in *ret_n (0: there is none in data).
 */
ssize_t http_scan_payload(HttpScan *s, const char *data, size_t n, size_t *ret_n);

static inline bool http_scan_is_done(const HttpScan *s) {
        return s->state == HTTP_SCAN_DONE;
}
