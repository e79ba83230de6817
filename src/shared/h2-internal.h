/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What h2.c (sessions, what nghttp2 calls) and h2-stream.c (streams) share; nobody else includes it. */

#include <nghttp2/nghttp2.h>

#include "basic/limits.h"
#include "shared/h2-ring.h"
#include "shared/h2.h"

struct H2Stream {
        H2Session *session;
        H2Stream *next, *previous;
        H2Stream *next_writable; /* list of those that on_writable waits for */
        void *userdata;
        int32_t id;

        char *method, *path;
        unsigned status;
        H2Header *headers; /* name and value share one allocation, owned by name */
        size_t n_headers, n_header_bytes;

        H2Ring queue;
        H2Source source; /* NULL: the queue */
        void *source_userdata;
        size_t n_unconsumed;
        bool head_done; /* request or final response head received */
        bool announced;
        bool provider; /* nghttp2 asks us for DATA, now or later */
        bool deferred; /* … and was told to wait */
        bool ended;    /* nothing follows the queue */
        bool reset;
        bool in_writable;
        bool starved; /* the output had no room for its source */
};

struct H2Session {
        nghttp2_session *ng;
        bool server;
        bool broken;  /* we told the peer so by GOAWAY */
        bool closing; /* h2_session_free() runs */
        bool goaway;  /* we sent one in peace */
        unsigned depth;
        const H2Handlers *handlers;
        void *userdata;
        void (*wake)(void *userdata);
        void *wake_userdata;
        H2Stream *streams, *writable;
        bool starved; /* a stream is */
        unsigned n_streams;
        uint64_t n_pongs;

        uint8_t *output;
        size_t output_start, output_end, output_lent;
};

/* Tells the owner that there is something to send; inside receive and output it looks by itself. */
void h2_session_wake(H2Session *s);

/* Where the next DATA frame's payload will lie, and how much of it there is room for. */
uint8_t* h2_session_payload(H2Session *s, size_t *ret_n);

/* Streams whose source found no room try again. */
void h2_session_feed_starved(H2Session *s);

/* 0 or a negative errno for a result of nghttp2. */
int h2_errno(int r);

/* A stream that nobody knows yet, in the session's list; NULL on out of memory. */
H2Stream* h2_stream_new(H2Session *s);
/* Out of the list, with all it holds. on_close is the caller's part. */
void h2_stream_free(H2Stream *st);

/* One field of the peer's head; both texts end with NUL. 0 or -ENOMEM. */
int h2_stream_add_header(H2Stream *st, const char *name, size_t n_name, const char *value, size_t n_value);
void h2_stream_clear_headers(H2Stream *st);
