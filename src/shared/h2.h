/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * HTTP/2 (RFC 9113, libnghttp2) over any byte stream, prior knowledge, no event loop: bytes in, bytes out.
 * The agent is a server, wrenn-restd a client, the monitor both. Flow control is real: received DATA counts
 * against the window until h2_stream_consume(), sent DATA is refused beyond H2_QUEUE_BYTES_MAX, so a slow
 * reader at one end stops the writer at the other. nghttp2.h is included behind this header only.
 *
 * Callbacks run inside h2_session_receive() and h2_session_output(). They may call any function of a stream
 * or session but not free the session.
 */

#include "basic/macro.h"

typedef struct H2Session H2Session;
typedef struct H2Stream H2Stream;

typedef struct H2Header {
        const char *name; /* lower case */
        const char *value;
} H2Header;

/* Error codes of RFC 9113 §7 that we send. */
enum {
        H2_NO_ERROR = 0,
        H2_INTERNAL_ERROR = 2,
        H2_REFUSED_STREAM = 7,
        H2_CANCEL = 8,
        H2_ENHANCE_YOUR_CALM = 11,
};

typedef struct H2Handlers {
        /* Server: a request came (method and path by h2_stream_method(), _path()). Client: the response's
         * head came. end: no body follows. */
        void (*on_headers)(H2Stream *st, bool end, void *userdata);
        /* Body bytes; give the credit back with h2_stream_consume(st, n) when they are passed on. */
        void (*on_data)(H2Stream *st, const void *data, size_t n, void *userdata);
        /* The peer sends no more: once for every stream it ends in good order, also right after on_headers
         * with end = true. */
        void (*on_end)(H2Stream *st, void *userdata);
        /* the queue of unsent bytes fell to half of its limit or below */
        void (*on_writable)(H2Stream *st, void *userdata);
        /* The stream is gone, both ways done or reset (error: RFC 9113 code). Last call for it; free
         * h2_stream_userdata() here. Exactly once for every stream that on_headers (server) or
         * h2_session_request() (client) made known. */
        void (*on_close)(H2Stream *st, uint32_t error, void *userdata);
        void (*on_goaway)(H2Session *s, void *userdata); /* optional */
        /* optional: h2_session_output() has something now */
        void (*on_want_write)(H2Session *s, void *userdata);
} H2Handlers;

typedef struct H2Limits {
        uint32_t streams_max;  /* concurrent streams the peer may open; 0: H2_STREAMS_MAX */
        uint32_t window_bytes; /* of a stream; 0: H2_WINDOW_BYTES */
        /* windows of streams that the connection's holds: so many may stand still before all others do; 0:
         * 16
         */
        uint32_t windows;
} H2Limits;

int h2_session_new(bool server, const H2Handlers *handlers, void *userdata, const H2Limits *limits,
                   H2Session **ret);
H2Session* h2_session_free(H2Session *s); /* on_close runs for every open stream with H2_CANCEL */
DEFINE_CLEANUP(H2Session, h2_session_free)
void* h2_session_userdata(const H2Session *s);
/* Who moves the bytes (h2-conn) is woken by this and not by on_want_write. */
void h2_session_set_wake(H2Session *s, void (*wake)(void *userdata), void *userdata);

/* -EPROTO: the peer is broken (h2_session_output() still has a GOAWAY for it), free the session; -ENOMEM. */
int h2_session_receive(H2Session *s, const void *data, size_t n);
/* The next bytes to send; *ret_n 0: nothing now. Borrowed until the next call; count them as sent. */
int h2_session_output(H2Session *s, const void **ret, size_t *ret_n);
bool h2_session_want_write(const H2Session *s);
unsigned h2_session_n_streams(const H2Session *s);
uint32_t h2_session_peer_streams_max(const H2Session *s);
int h2_session_goaway(H2Session *s);
/* the answer counts in h2_session_n_pongs(); the caller keeps the time */
int h2_session_ping(H2Session *s);
uint64_t h2_session_n_pongs(const H2Session *s);

/* Client: opens a stream. headers: besides :method, :path, :scheme, :authority. end: no body follows. For
 * CONNECT path is the authority, "host:port". -EAGAIN at the peer's stream limit, -ENOTCONN after GOAWAY,
 * -EINVAL, -E2BIG (H2_HEADERS_MAX). */
int h2_session_request(H2Session *s, const char *method, const char *path, const H2Header *headers,
                       size_t n_headers, bool end, void *stream_userdata, H2Stream **ret);
/* Server: the response's head, once. -EALREADY, -EPIPE after a reset, -EINVAL, -E2BIG. */
int h2_stream_respond(H2Stream *st, unsigned status, const H2Header *headers, size_t n_headers, bool end);
/* Copies up to n bytes into the queue; the count taken (less than n, also 0, at the limit: wait for
 * on_writable), or -errno. */
ssize_t h2_stream_write(H2Stream *st, const void *data, size_t n);
size_t h2_stream_room(const H2Stream *st); /* bytes h2_stream_write() would take now */
/*
 * Bytes that are fetched where they are framed, without a queue: source writes up to n (at least
 * H2_SOURCE_BYTES_MIN) of them into buffer and returns how many; 0: the end; -EAGAIN: none now, go on with
 * h2_stream_source_ready(); another negative errno: the stream is reset. It runs within h2_session_output()
 * as the peer gives credit, not after on_close, and may not touch the stream. Once, instead of
 * h2_stream_write() and h2_stream_end(), before or right after h2_stream_respond().
 */
#define H2_SOURCE_BYTES_MIN 4096U
typedef ssize_t (*H2Source)(void *buffer, size_t n, void *userdata);
void h2_stream_set_source(H2Stream *st, H2Source source, void *userdata);
void h2_stream_source_ready(H2Stream *st);
int h2_stream_end(H2Stream *st);                   /* no more bytes after what is queued */
int h2_stream_reset(H2Stream *st, uint32_t error); /* on_close follows */
void h2_stream_consume(H2Stream *st, size_t n);

void h2_stream_set_userdata(H2Stream *st, void *userdata);
void* h2_stream_userdata(const H2Stream *st);
H2Session* h2_stream_session(const H2Stream *st);
int32_t h2_stream_id(const H2Stream *st);
const char* h2_stream_method(const H2Stream *st); /* server; or "" */
const char* h2_stream_path(const H2Stream *st);
unsigned h2_stream_status(const H2Stream *st);                      /* client; 0 before the head */
const char* h2_stream_header(const H2Stream *st, const char *name); /* first value or NULL */
/* All received headers without the pseudo ones; borrowed. */
size_t h2_stream_headers(const H2Stream *st, const H2Header **ret);
