/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * HTTP/2 without I/O on libnghttp2; see h2.h. What this file adds to the library: streams as objects with
 * exactly one on_close, a bounded ring of unsent bytes per stream, credit that is given back by hand, and a
 * verdict on broken peers.
 *
 * Rules: nghttp2_session_mem_recv() and nghttp2_session_send() are entered from h2_session_receive() and
 * h2_session_output() only, never from a callback ('depth' > 0); everything else of the library may be
 * called any time. A stream is announced to the handlers when it is opened by us or its request head is
 * whole; only announced ones get on_close.
 */

#include <string.h>

#include "basic/strings.h"
#include "shared/h2-internal.h"

#define OUTPUT_BYTES     (64U * 1024U)       /* framed bytes for one write(2) */
#define OUTPUT_SLACK     (16U * 1024U + 64U) /* one more whole DATA frame */
#define FRAME_HEAD_BYTES 9U
#define HEADER_COST      32U /* of an entry beside its text, RFC 9113 §6.5.2 */
#define WINDOWS_DEFAULT  16U

void h2_session_wake(H2Session *s) {
        if (s->depth > 0)
                return;

        if (s->wake)
                s->wake(s->wake_userdata);
        else if (s->handlers->on_want_write)
                s->handlers->on_want_write(s, s->userdata);
}

int h2_errno(int r) {
        switch (r) {
        case 0:
                return 0;

        case NGHTTP2_ERR_NOMEM:
                return -ENOMEM;

        case NGHTTP2_ERR_INVALID_ARGUMENT:
                return -EINVAL;

        case NGHTTP2_ERR_STREAM_CLOSED:
        case NGHTTP2_ERR_STREAM_CLOSING:
        case NGHTTP2_ERR_STREAM_SHUT_WR:
        case NGHTTP2_ERR_INVALID_STREAM_ID:
        case NGHTTP2_ERR_INVALID_STREAM_STATE:
                return -EPIPE;

        case NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE:
        case NGHTTP2_ERR_START_STREAM_NOT_ALLOWED:
                return -ENOTCONN;

        default:
                return -EPROTO;
        }
}

/* ---- what nghttp2 calls --------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *userdata) {
        H2Session *s = userdata;
        H2Stream *st;

        /* a push nobody asked for */
        if (frame->hd.type != NGHTTP2_HEADERS)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        if (!s->server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
                return 0;

        st = h2_stream_new(s);
        if (!st)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;

        st->id = frame->hd.stream_id;
        (void) nghttp2_session_set_stream_user_data(ng, st->id, st);
        return 0;
}

/* nghttp2 ends names and values with NUL and lets no NUL inside. */
static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t n_name,
                     const uint8_t *value, size_t n_value, uint8_t flags, void *userdata) {
        H2Stream *st = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);

        if (!st || st->head_done || st->reset)
                return 0; /* trailers carry nothing for us */

        st->n_header_bytes += n_name + n_value + HEADER_COST;
        if (st->n_header_bytes > H2_HEADER_BYTES_MAX)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        if (h2_stream_add_header(st, (const char *) name, n_name, (const char *) value, n_value) < 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;

        return 0;
}

static void stream_received_head(H2Stream *st, bool end) {
        H2Session *s = st->session;

        /* 100-199: the real head follows */
        if (!s->server && st->status < 200 && !end) {
                h2_stream_clear_headers(st);
                st->status = 0;
                return;
        }

        st->head_done = st->announced = true;
        s->handlers->on_headers(st, end, s->userdata);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *userdata) {
        H2Session *s = userdata;
        H2Stream *st;
        bool end;

        if (frame->hd.type == NGHTTP2_GOAWAY && s->handlers->on_goaway)
                s->handlers->on_goaway(s, s->userdata);
        if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK))
                s->n_pongs++;
        if (frame->hd.type == NGHTTP2_SETTINGS || frame->hd.type == NGHTTP2_GOAWAY)
                return 0;
        if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
                return 0;

        st = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
        if (!st || st->reset)
                return 0;

        end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
        if (frame->hd.type == NGHTTP2_HEADERS && !st->head_done)
                stream_received_head(st, end);
        if (end && !st->reset)
                s->handlers->on_end(st, s->userdata);
        return 0;
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                         void *userdata) {
        H2Stream *st = nghttp2_session_get_stream_user_data(ng, id);
        H2Session *s = userdata;

        if (!st || st->reset) {
                (void) nghttp2_session_consume(ng, id, n);
                return 0;
        }

        st->n_unconsumed += n;
        s->handlers->on_data(st, data, n, s->userdata);
        return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *userdata) {
        H2Stream *st = nghttp2_session_get_stream_user_data(ng, id);
        H2Session *s = userdata;

        if (!st)
                return 0;

        /* what nobody will consume any more must not shrink the connection's window for ever */
        if (st->n_unconsumed > 0)
                (void) nghttp2_session_consume_connection(ng, st->n_unconsumed);
        st->n_unconsumed = 0;

        (void) nghttp2_session_set_stream_user_data(ng, id, NULL);
        st->reset = true;
        if (st->announced)
                s->handlers->on_close(st, error, s->userdata);
        h2_stream_free(st);
        return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *userdata) {
        H2Session *s = userdata;

        if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
                s->broken = true;
        return 0;
}

static size_t output_room(const H2Session *s) {
        return OUTPUT_BYTES + OUTPUT_SLACK - s->output_end;
}

uint8_t* h2_session_payload(H2Session *s, size_t *ret_n) {
        size_t room = output_room(s);

        *ret_n = room > FRAME_HEAD_BYTES ? room - FRAME_HEAD_BYTES : 0;
        return s->output + s->output_end + FRAME_HEAD_BYTES;
}

static ssize_t on_send(nghttp2_session *ng, const uint8_t *data, size_t n, int flags, void *userdata) {
        H2Session *s = userdata;

        n = MIN(n, output_room(s));
        if (n == 0)
                return NGHTTP2_ERR_WOULDBLOCK;

        memcpy(s->output + s->output_end, data, n);
        s->output_end += n;
        return (ssize_t) n;
}

static int on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source, void *userdata) {
        H2Stream *st = source->ptr;
        H2Session *s = userdata;
        bool was_full;

        assert(frame->data.padlen == 0); /* we set no padding callback */

        if (FRAME_HEAD_BYTES + n > output_room(s))
                return NGHTTP2_ERR_WOULDBLOCK;

        memcpy(s->output + s->output_end, head, FRAME_HEAD_BYTES);
        s->output_end += FRAME_HEAD_BYTES;

        if (st->source) { /* its bytes lie there already */
                s->output_end += n;
                return 0;
        }

        was_full = st->queue.n > H2_QUEUE_BYTES_MAX / 2;
        h2_ring_get(&st->queue, s->output + s->output_end, n);
        s->output_end += n;

        if (was_full && st->queue.n <= H2_QUEUE_BYTES_MAX / 2 && !st->ended && !st->in_writable) {
                st->in_writable = true;
                st->next_writable = s->writable;
                s->writable = st;
        }
        return 0;
}

/* ---- session -------------------------------------------------------------------------------- */

static int session_submit_settings(H2Session *s, const H2Limits *limits) {
        uint32_t window = limits && limits->window_bytes > 0 ? limits->window_bytes : H2_WINDOW_BYTES;
        uint32_t streams = limits && limits->streams_max > 0 ? limits->streams_max : H2_STREAMS_MAX;
        uint32_t windows = limits && limits->windows > 0 ? limits->windows : WINDOWS_DEFAULT;
        const nghttp2_settings_entry settings[] = {
                { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window },
                { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_BYTES_MAX },
                { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->server ? streams : 0 },
                { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 }, /* a client's word only, hence last */
        };
        int r;

        r = nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, settings,
                                    ELEMENTSOF(settings) - (s->server ? 1 : 0));
        if (r == 0)
                r = nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, /* stream_id= */ 0,
                                                          (int32_t) (window * windows));
        return h2_errno(r);
}

static int session_make_ng(H2Session *s) {
        nghttp2_session_callbacks *callbacks;
        nghttp2_option *option;
        int r;

        if (nghttp2_session_callbacks_new(&callbacks) != 0)
                return -ENOMEM;
        if (nghttp2_option_new(&option) != 0) {
                nghttp2_session_callbacks_del(callbacks);
                return -ENOMEM;
        }

        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
        nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
        nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);

        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_outbound_ack(option, H2_ACKS_MAX);
        nghttp2_option_set_stream_reset_rate_limit(option, H2_RESETS_BURST, H2_RESETS_PER_SEC);

        r = (s->server ? nghttp2_session_server_new2 : nghttp2_session_client_new2)(&s->ng, callbacks, s,
                                                                                    option);
        nghttp2_option_del(option);
        nghttp2_session_callbacks_del(callbacks);
        return h2_errno(r);
}

int h2_session_new(bool server, const H2Handlers *handlers, void *userdata, const H2Limits *limits,
                   H2Session **ret) {
        _cleanup_(h2_session_freep) H2Session *s = NULL;
        int r;

        s = malloc(sizeof(H2Session));
        if (!s)
                return -ENOMEM;

        *s = (H2Session) { .server = server, .handlers = handlers, .userdata = userdata };

        r = session_make_ng(s);
        if (r < 0)
                return r;

        r = session_submit_settings(s, limits);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(s);
        return 0;
}

H2Session* h2_session_free(H2Session *s) {
        if (!s)
                return NULL;

        assert(s->depth == 0);

        s->closing = true;
        s->depth++; /* nobody needs waking any more */
        while (s->streams) {
                H2Stream *st = s->streams;

                st->reset = true;
                (void) nghttp2_session_set_stream_user_data(s->ng, st->id, NULL);
                if (st->announced)
                        s->handlers->on_close(st, H2_CANCEL, s->userdata);
                h2_stream_free(st);
        }

        nghttp2_session_del(s->ng);
        free(s->output);
        free(s);
        return NULL;
}

void* h2_session_userdata(const H2Session *s) {
        return s->userdata;
}

void h2_session_set_wake(H2Session *s, void (*wake)(void *userdata), void *userdata) {
        s->wake = wake;
        s->wake_userdata = userdata;
}

static void session_call_writable(H2Session *s) {
        while (s->writable) {
                H2Stream *st = s->writable;

                s->writable = st->next_writable;
                st->in_writable = false;
                if (!st->reset && !st->ended && s->handlers->on_writable)
                        s->handlers->on_writable(st, s->userdata);
        }
}

/* Frames what is due behind what the output holds already. */
static int session_fill(H2Session *s) {
        int r;

        if (!s->output) {
                s->output = malloc(OUTPUT_BYTES + OUTPUT_SLACK);
                if (!s->output)
                        return -ENOMEM;
        }

        s->depth++;
        h2_session_feed_starved(s);
        do {
                r = nghttp2_session_send(s->ng);
                session_call_writable(s);
        } while (r == 0 && s->output_end < OUTPUT_BYTES && nghttp2_session_want_write(s->ng));
        s->depth--;
        return h2_errno(r);
}

int h2_session_receive(H2Session *s, const void *data, size_t n) {
        ssize_t k;
        int r;

        assert(s->depth == 0);

        if (s->broken)
                return -EPROTO;

        s->depth++;
        k = nghttp2_session_mem_recv(s->ng, data, n);
        s->depth--;
        if (k < 0)
                return k == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
        if (nghttp2_session_get_outbound_queue_size(s->ng) > H2_FRAMES_MAX)
                return -EPROTO; /* makes us answer and does not read */

        /* The library says that a peer is broken by a GOAWAY only: frame it now to know. */
        if (nghttp2_session_want_write(s->ng)) {
                r = session_fill(s);
                if (r < 0)
                        return r;
        }

        return s->broken ? -EPROTO : 0;
}

int h2_session_output(H2Session *s, const void **ret, size_t *ret_n) {
        int r;

        assert(s->depth == 0);

        s->output_start += s->output_lent;
        s->output_lent = 0;
        if (s->output_start == s->output_end)
                s->output_start = s->output_end = 0;

        if (s->output_end < OUTPUT_BYTES && (s->starved || nghttp2_session_want_write(s->ng))) {
                r = session_fill(s);
                if (r < 0)
                        return r;
        }

        if (s->output_end == 0) {
                free(s->output);
                s->output = NULL;
        }

        s->output_lent = s->output_end - s->output_start;
        *ret = s->output ? s->output + s->output_start : NULL;
        *ret_n = s->output_lent;
        return 0;
}

bool h2_session_want_write(const H2Session *s) {
        return s->output_end > s->output_start + s->output_lent || s->starved ||
               nghttp2_session_want_write(s->ng);
}

unsigned h2_session_n_streams(const H2Session *s) {
        return s->n_streams;
}

uint32_t h2_session_peer_streams_max(const H2Session *s) {
        return nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

int h2_session_goaway(H2Session *s) {
        int r;

        /* a second one with a larger stream id, queued before the first is sent, would be an error of ours
         */
        if (s->goaway)
                return 0;

        r = nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->ng),
                                  NGHTTP2_NO_ERROR, NULL, 0);
        if (r < 0)
                return h2_errno(r);

        s->goaway = true;
        h2_session_wake(s);
        return 0;
}

uint64_t h2_session_n_pongs(const H2Session *s) {
        return s->n_pongs;
}

int h2_session_ping(H2Session *s) {
        int r;

        r = nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, NULL);
        h2_session_wake(s);
        return h2_errno(r);
}
