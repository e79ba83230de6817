/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Streams of h2.h: their heads, the queue of unsent bytes, credit. */

#include <string.h>

#include "basic/strings.h"
#include "shared/h2-internal.h"

H2Stream* h2_stream_new(H2Session *s) {
        H2Stream *st;

        st = malloc(sizeof(H2Stream));
        if (!st)
                return NULL;

        *st = (H2Stream) { .session = s, .next = s->streams };
        if (st->next)
                st->next->previous = st;
        s->streams = st;
        s->n_streams++;
        return st;
}

void h2_stream_clear_headers(H2Stream *st) {
        for (size_t i = 0; i < st->n_headers; i++)
                free((char *) st->headers[i].name);
        free(st->headers);
        st->headers = NULL;
        st->n_headers = st->n_header_bytes = 0;
}

void h2_stream_free(H2Stream *st) {
        H2Session *s = st->session;

        if (st->in_writable) {
                H2Stream **p = &s->writable;

                while (*p != st)
                        p = &(*p)->next_writable;
                *p = st->next_writable;
        }

        if (st->next)
                st->next->previous = st->previous;
        if (st->previous)
                st->previous->next = st->next;
        else
                s->streams = st->next;
        s->n_streams--;

        h2_stream_clear_headers(st);
        h2_ring_done(&st->queue);
        free(st->method);
        free(st->path);
        free(st);
}

int h2_stream_add_header(H2Stream *st, const char *name, size_t n_name, const char *value, size_t n_value) {
        H2Header *headers;
        char *p;

        if (startswith(name, ":status")) {
                for (st->status = 0; *value >= '0' && *value <= '9' && st->status < 1000; value++)
                        st->status = st->status * 10 + (unsigned) (*value - '0');
                return 0;
        }
        if (streq(name, ":method"))
                return free_and_strdup(&st->method, value);
        if (streq(name, ":path") || (streq(name, ":authority") && streq_ptr(st->method, "CONNECT")))
                return free_and_strdup(&st->path, value);
        if (name[0] == ':')
                return 0;

        headers = reallocarray(st->headers, st->n_headers + 1, sizeof(H2Header));
        if (!headers)
                return -ENOMEM;
        st->headers = headers;

        p = malloc(n_name + n_value + 2);
        if (!p)
                return -ENOMEM;

        memcpy(p, name, n_name + 1);
        memcpy(p + n_name + 1, value, n_value + 1);
        st->headers[st->n_headers++] = (H2Header) { .name = p, .value = p + n_name + 1 };
        return 0;
}

/* As on_read() for a source: the bytes are put where on_send_data() will want them, which is next. */
static ssize_t read_source(H2Stream *st, size_t n, uint32_t *flags) {
        uint8_t *buffer;
        size_t room;
        ssize_t k;

        buffer = h2_session_payload(st->session, &room);
        if (room < MIN(n, (size_t) H2_SOURCE_BYTES_MIN)) {
                st->starved = st->session->starved = st->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }

        k = st->source(buffer, MIN(n, room), st->source_userdata);
        if (k == -EAGAIN) {
                st->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        if (k < 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;

        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (k == 0) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                st->ended = true;
        }
        return k;
}

/* How much DATA the next frame may take; on_send_data() copies it straight from the queue. */
static ssize_t on_read(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t n, uint32_t *flags,
                       nghttp2_data_source *source, void *userdata) {
        H2Stream *st = source->ptr;

        if (st->source)
                return read_source(st, n, flags);
        if (st->queue.n == 0 && !st->ended) {
                st->deferred = true;
                return NGHTTP2_ERR_DEFERRED;
        }

        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (st->queue.n <= n && st->ended)
                *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t) MIN(st->queue.n, n);
}

static nghttp2_nv make_nv(const char *name, const char *value) {
        return (nghttp2_nv) {
                .name = (uint8_t *) name,
                .namelen = strlen(name),
                .value = (uint8_t *) value,
                .valuelen = strlen(value),
        };
}

/* Appends the caller's headers behind *n entries; -EINVAL for what no header may hold. */
static int add_headers(nghttp2_nv nv[static H2_HEADERS_MAX], size_t *n, const H2Header *headers,
                       size_t n_headers) {
        if (n_headers > H2_HEADERS_MAX - *n)
                return -E2BIG;

        for (size_t i = 0; i < n_headers; i++)
                nv[(*n)++] = make_nv(headers[i].name, headers[i].value);

        for (size_t i = 0; i < *n; i++)
                if (!nghttp2_check_header_value(nv[i].value, nv[i].valuelen) ||
                    (nv[i].name[0] != ':' && !nghttp2_check_header_name(nv[i].name, nv[i].namelen)))
                        return -EINVAL;

        return 0;
}

int h2_session_request(H2Session *s, const char *method, const char *path, const H2Header *headers,
                       size_t n_headers, bool end, void *stream_userdata, H2Stream **ret) {
        nghttp2_nv nv[H2_HEADERS_MAX];
        H2Stream *st;
        size_t n = 0;
        int32_t id;
        int r;

        assert(!s->server);

        if (s->closing || s->broken || !nghttp2_session_check_request_allowed(s->ng))
                return -ENOTCONN;
        if (s->n_streams >= h2_session_peer_streams_max(s))
                return -EAGAIN;

        nv[n++] = make_nv(":method", method);
        if (!(streq(method, "CONNECT") ? nghttp2_check_authority
                                       : nghttp2_check_path)((const uint8_t *) path, strlen(path)))
                return -EINVAL;
        if (streq(method, "CONNECT"))
                nv[n++] = make_nv(":authority", path);
        else {
                nv[n++] = make_nv(":path", path);
                nv[n++] = make_nv(":scheme", "http");
                nv[n++] = make_nv(":authority", "localhost");
        }

        r = add_headers(nv, &n, headers, n_headers);
        if (r < 0)
                return r;

        st = h2_stream_new(s);
        if (!st)
                return -ENOMEM;

        st->userdata = stream_userdata;
        st->ended = end;
        st->provider = !end;

        id = nghttp2_submit_request(s->ng, NULL, nv, n,
                                    end ? NULL
                                        : &(nghttp2_data_provider) { .source.ptr = st,
                                                                     .read_callback = on_read },
                                    st);
        if (id < 0) {
                h2_stream_free(st);
                return h2_errno(id);
        }

        st->id = id;
        st->announced = true;
        h2_session_wake(s);
        *ret = st;
        return 0;
}

int h2_stream_respond(H2Stream *st, unsigned status, const H2Header *headers, size_t n_headers, bool end) {
        nghttp2_nv nv[H2_HEADERS_MAX];
        char text[] = { (char) ('0' + status / 100 % 10), (char) ('0' + status / 10 % 10),
                        (char) ('0' + status % 10), 0 };
        size_t n = 0;
        int r;

        assert(st->session->server);

        if (st->reset)
                return -EPIPE;
        if (st->provider || st->status > 0)
                return -EALREADY;

        nv[n++] = make_nv(":status", text);
        r = add_headers(nv, &n, headers, n_headers);
        if (r < 0)
                return r;

        r = nghttp2_submit_response(st->session->ng, st->id, nv, n,
                                    end ? NULL
                                        : &(nghttp2_data_provider) { .source.ptr = st,
                                                                     .read_callback = on_read });
        if (r < 0)
                return h2_errno(r);

        st->status = status;
        st->provider = !end;
        st->ended = st->ended || end;
        h2_session_wake(st->session);
        return 0;
}

/* There is something new for a provider that was told to wait. */
static void stream_resume(H2Stream *st) {
        if (!st->deferred)
                return;

        st->deferred = false;
        (void) nghttp2_session_resume_data(st->session->ng, st->id);
        h2_session_wake(st->session);
}

void h2_session_feed_starved(H2Session *s) {
        if (!s->starved)
                return;

        s->starved = false;
        for (H2Stream *st = s->streams; st; st = st->next)
                if (st->starved) {
                        st->starved = false;
                        stream_resume(st);
                }
}

void h2_stream_set_source(H2Stream *st, H2Source source, void *userdata) {
        assert(!st->source && st->queue.n == 0);

        st->source = source;
        st->source_userdata = userdata;
        stream_resume(st);
}

void h2_stream_source_ready(H2Stream *st) {
        if (!st->starved)
                stream_resume(st);
}

size_t h2_stream_room(const H2Stream *st) {
        return st->source || st->ended || st->reset ? 0 : H2_QUEUE_BYTES_MAX - st->queue.n;
}

ssize_t h2_stream_write(H2Stream *st, const void *data, size_t n) {
        int r;

        if (st->reset || st->ended || st->source)
                return -EPIPE;

        n = MIN(n, h2_stream_room(st));
        if (n == 0)
                return 0;

        r = h2_ring_put(&st->queue, data, n);
        if (r < 0)
                return r;

        stream_resume(st);
        return (ssize_t) n;
}

int h2_stream_end(H2Stream *st) {
        if (st->reset)
                return -EPIPE;
        if (st->ended)
                return 0;

        st->ended = true;
        stream_resume(st);
        return 0;
}

int h2_stream_reset(H2Stream *st, uint32_t error) {
        int r;

        if (st->reset)
                return 0;

        r = nghttp2_submit_rst_stream(st->session->ng, NGHTTP2_FLAG_NONE, st->id, error);
        if (r < 0)
                return h2_errno(r);

        st->reset = true;
        if (st->n_unconsumed > 0)
                (void) nghttp2_session_consume_connection(st->session->ng, st->n_unconsumed);
        st->n_unconsumed = 0;
        h2_session_wake(st->session);
        return 0;
}

void h2_stream_consume(H2Stream *st, size_t n) {
        n = MIN(n, st->n_unconsumed);
        if (n == 0)
                return;

        st->n_unconsumed -= n;
        (void) nghttp2_session_consume(st->session->ng, st->id, n);
        if (nghttp2_session_want_write(st->session->ng))
                h2_session_wake(st->session);
}

void h2_stream_set_userdata(H2Stream *st, void *userdata) {
        st->userdata = userdata;
}

void* h2_stream_userdata(const H2Stream *st) {
        return st->userdata;
}

H2Session* h2_stream_session(const H2Stream *st) {
        return st->session;
}

int32_t h2_stream_id(const H2Stream *st) {
        return st->id;
}

const char* h2_stream_method(const H2Stream *st) {
        return strempty(st->method);
}

const char* h2_stream_path(const H2Stream *st) {
        return strempty(st->path);
}

unsigned h2_stream_status(const H2Stream *st) {
        return st->status;
}

const char* h2_stream_header(const H2Stream *st, const char *name) {
        for (size_t i = 0; i < st->n_headers; i++)
                if (streq(st->headers[i].name, name))
                        return st->headers[i].value;

        return NULL;
}

size_t h2_stream_headers(const H2Stream *st, const H2Header **ret) {
        *ret = st->headers;
        return st->n_headers;
}
