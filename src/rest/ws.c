/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Everything that happens to a connection ends in ws_turn(): messages are delivered, frames go out, the
 * phase changes, the events and the one timer are set. What handlers call only queues and asks for a turn.
 * Buffers exist only while something is in them.
 */

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/ws-output.h"
#include "rest/ws.h"
#include "shared/event.h"

#define READ_BYTES (64 * KIB)
#define TOO_MUCH   "All connections together hold too much that is not read."

typedef enum Phase {
        PHASE_OPEN,
        PHASE_CLOSING, /* our Close is on its way, the peer's is awaited */
        PHASE_ENDING,  /* nothing is read any more; the rest goes out */
        PHASE_LINGER,  /* all is out and the peer may read it */
        PHASE_OVER,
} Phase;

struct WsConn {
        unsigned n_pins;
        sd_event *event;
        int fd;
        sd_event_source *io, *timer, *turn;
        uint32_t events;
        uint64_t armed_usec; /* when the timer fires; USEC_INFINITY: off */
        WsConfig config;
        WsCodec *codec;
        const WsHandlers *handlers; /* NULL before they are set and after on_closed() */
        void *userdata;
        void (*on_freed)(void *userdata);
        void *freed_userdata;

        Phase phase;
        bool hold, close_queued, overdrawn, was_full;
        bool peer_closed, peer_left, peer_gone; /* its Close came; it hung up, unread; all of it is read */
        unsigned peer_code;
        size_t n_counted; /* of ours in *config.buffered */

        uint8_t *rest; /* input that was read but not looked at */
        size_t n_rest;
        WsQueue held; /* messages */
        WsOutput output;

        uint64_t close_deadline, stall_deadline; /* CLOCK_BOOTTIME, USEC_INFINITY: none */
        uint64_t heard_usec;
        unsigned n_pings; /* since then */
        uint64_t n_taken; /* bytes the peer took in this window of the write stall */
};

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata);

static uint64_t ws_now(const WsConn *w) {
        uint64_t usec = 0;

        (void) sd_event_now(w->event, CLOCK_BOOTTIME, &usec);
        return usec;
}

/* Memory. */

static void input_drop(WsConn *w) {
        ws_codec_set_input(w->codec, NULL, 0);
        free(w->rest);
        w->rest = NULL;
        w->n_rest = 0;
}

static void ws_account(WsConn *w) {
        size_t n = w->n_rest + ws_codec_n_buffered(w->codec) + w->held.n_bytes + ws_output_held(&w->output);

        if (!w->config.buffered)
                return;
        *w->config.buffered += n - w->n_counted;
        if (n > w->n_counted && *w->config.buffered > WS_BUFFERED_TOTAL_MAX)
                w->overdrawn = true;
        w->n_counted = n;
}

static void ws_ask_turn(WsConn *w) {
        (void) sd_event_source_set_enabled(w->turn, SD_EVENT_ONESHOT);
}

/* The end. */

static void ws_tell_closed(WsConn *w, unsigned code) {
        const WsHandlers *handlers = TAKE_PTR(w->handlers);

        if (handlers)
                handlers->on_closed(w, code, w->userdata);
}

/* Nothing is left to be said: no event comes any more, the last pin frees. */
static void ws_over(WsConn *w) {
        w->phase = PHASE_OVER;
        w->io = event_source_free(w->io);
        w->timer = event_source_free(w->timer);
        w->turn = event_source_free(w->turn);
        w->fd = close_fd(w->fd);
        ws_tell_closed(w, w->peer_closed ? w->peer_code : WS_CODE_ABNORMAL);
}

static void ws_reset(WsConn *w) {
        struct linger l = { .l_onoff = 1 };

        (void) setsockopt(w->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        ws_over(w);
}

static WsConn* ws_free(WsConn *w) {
        if (!w)
                return NULL;

        event_source_free(w->io);
        event_source_free(w->timer);
        event_source_free(w->turn);
        (void) close_fd(w->fd);
        if (w->codec)
                input_drop(w);
        ws_codec_free(w->codec);
        ws_queue_clear(&w->held);
        ws_output_done(&w->output);
        if (w->config.buffered)
                *w->config.buffered -= w->n_counted;
        sd_event_unref(w->event);
        if (w->on_freed)
                w->on_freed(w->freed_userdata);
        free(w);
        return NULL;
}
DEFINE_CLEANUP(WsConn, ws_free)

static void ws_pin(WsConn *w) {
        w->n_pins++;
}

static void ws_unpin(WsConn *w) {
        if (--w->n_pins == 0 && w->phase == PHASE_OVER)
                ws_free(w);
}

void ws_abort(WsConn *w) {
        ws_pin(w);
        if (w->phase != PHASE_OVER)
                ws_over(w);
        ws_unpin(w);
}

/* Out. */

static int ws_queue(WsConn *w, WsOpcode opcode, const void *data, size_t n) {
        if (ws_output_is_empty(&w->output)) {
                w->stall_deadline = ws_now(w) + w->config.write_stall_usec;
                w->n_taken = 0;
        }
        ws_ask_turn(w);
        return ws_output_add(&w->output, w->codec, opcode, data, n);
}

int ws_send(WsConn *w, bool text, const void *data, size_t n) {
        int r;

        if (w->phase != PHASE_OPEN || w->close_queued)
                return -ESHUTDOWN;
        if (ws_output_unsent(&w->output) >= 2 * WS_QUEUE_BYTES_MAX)
                return -ENOBUFS;

        r = ws_queue(w, text ? WS_TEXT : WS_BINARY, data, n);
        if (r < 0)
                return r;
        if (ws_output_unsent(&w->output) > WS_QUEUE_BYTES_MAX / 2)
                w->was_full = true;
        ws_account(w);
        return 0;
}

size_t ws_room(const WsConn *w) {
        if (w->phase != PHASE_OPEN || w->close_queued)
                return 0;
        return WS_QUEUE_BYTES_MAX - MIN(ws_output_unsent(&w->output), (size_t) WS_QUEUE_BYTES_MAX);
}

/* The Close goes behind all messages. */
static void ws_queue_close(WsConn *w, unsigned code, const void *reason, size_t n) {
        uint8_t payload[WS_CONTROL_MAX] = { (uint8_t) (code >> 8), (uint8_t) code };

        if (w->close_queued)
                return;
        w->close_queued = true;
        if (n > 0)
                memcpy(payload + 2, reason, n);
        if (ws_queue(w, WS_CLOSE, payload, code == WS_CODE_NONE ? 0 : 2 + n) < 0)
                w->peer_gone = true; /* no memory: it ends without one */
}

void ws_close(WsConn *w, unsigned code, const char *reason) {
        size_t n = strlen(reason ?: "");

        if (w->phase != PHASE_OPEN)
                return;
        if (n > WS_REASON_MAX)
                n = utf8_complete_prefix(reason, WS_REASON_MAX);
        ws_queue_close(w, code, reason, n);
        w->phase = PHASE_CLOSING;
        ws_ask_turn(w);
}

/* Nothing more is read or delivered; what is queued goes out, within some seconds. */
static void ws_end(WsConn *w, unsigned code) {
        input_drop(w);
        ws_queue_clear(&w->held);
        w->phase = PHASE_ENDING;
        w->close_deadline = ws_now(w) + w->config.close_usec;
        ws_tell_closed(w, code);
}

static void ws_fail(WsConn *w, unsigned code, const void *reason, size_t n) {
        ws_queue_close(w, code, reason, n);
        ws_end(w, WS_CODE_ABNORMAL);
}

static void ws_flush(WsConn *w) {
        ssize_t k = ws_output_flush(&w->output, w->fd);

        if (k < 0) {
                ws_over(w);
                return;
        }
        w->n_taken += (size_t) k;
        if (ws_output_is_empty(&w->output))
                w->stall_deadline = USEC_INFINITY;
        if (w->was_full && ws_output_unsent(&w->output) <= WS_QUEUE_BYTES_MAX / 2 &&
            w->phase == PHASE_OPEN) {
                w->was_full = false;
                if (w->handlers && w->handlers->on_writable)
                        w->handlers->on_writable(w, w->userdata);
        }
}

/* In. */

static bool ws_reads(const WsConn *w) {
        return w->phase <= PHASE_CLOSING && !w->peer_closed;
}

/* The handler holds, and what may be kept for it is kept. */
static bool ws_is_full(const WsConn *w) {
        return w->held.first && w->held.n_bytes + ws_codec_n_buffered(w->codec) >= WS_MESSAGE_MAX;
}

static void ws_deliver(WsConn *w) {
        while (!w->hold && w->phase == PHASE_OPEN && w->held.first) {
                _cleanup_free_ WsFrame *f = ws_queue_pop(&w->held);

                if (w->handlers)
                        w->handlers->on_message(w, f->text, f->data, f->n, w->userdata);
        }
        if (w->phase != PHASE_OPEN)
                ws_queue_clear(&w->held);
}

static int ws_take_message(WsConn *w, const WsEvent *e) {
        WsFrame *f;

        if (w->phase != PHASE_OPEN || !w->handlers)
                return 0;
        if (!w->hold && !w->held.first) {
                w->handlers->on_message(w, e->opcode == WS_TEXT, e->data, e->n, w->userdata);
                return 0;
        }

        f = malloc(sizeof(WsFrame) + e->n);
        if (!f)
                return -ENOMEM;
        *f = (WsFrame) { .n = e->n, .text = e->opcode == WS_TEXT };
        memcpy(f->data, e->data, e->n);
        ws_queue_push(&w->held, f);
        return 0;
}

static int ws_take_event(WsConn *w, const WsEvent *e) {
        switch (e->opcode) {
        case WS_TEXT:
        case WS_BINARY:
                return ws_take_message(w, e);
        case WS_PING:
                return w->close_queued ? 0 : ws_queue(w, WS_PONG, e->data, e->n);
        case WS_CLOSE:
                w->peer_closed = true;
                w->peer_code = e->code;
                w->close_deadline = MIN(w->close_deadline, ws_now(w) + w->config.close_usec);
                return 0;
        default:
                return 0;
        }
}

/* Looks at n bytes; what must wait is kept in w->rest, which data may be. */
static void ws_feed(WsConn *w, const uint8_t *data, size_t n) {
        WsEvent e;
        size_t left;
        int r = 1;

        ws_codec_set_input(w->codec, data, n);
        while (r > 0 && ws_reads(w) && !ws_is_full(w)) {
                r = ws_codec_next(w->codec, &e);
                if (r > 0)
                        r = ws_take_event(w, &e) < 0 ? -ENOMEM : 1;
                ws_codec_release(w->codec);
        }
        if (r == -EBADMSG)
                ws_fail(w, e.code, e.data, e.n);
        else if (r < 0)
                ws_fail(w, WS_CODE_INTERNAL, NULL, 0);

        left = ws_reads(w) ? ws_codec_n_left(w->codec) : 0;
        if (left > 0 && !w->rest) {
                w->rest = malloc(left);
                if (!w->rest) {
                        ws_fail(w, WS_CODE_INTERNAL, NULL, 0);
                        left = 0;
                }
        }
        if (left > 0) {
                memmove(w->rest, data + n - left, left);
                w->n_rest = left;
                ws_codec_set_input(w->codec, NULL, 0);
        } else {
                input_drop(w);
        }
}

static void ws_read(WsConn *w) {
        uint8_t buffer[READ_BYTES];
        ssize_t k = recv(w->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        if (k < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        ws_over(w);
                return;
        }

        w->heard_usec = ws_now(w);
        w->n_pings = 0;
        if (k == 0)
                w->peer_gone = true;
        else if (ws_reads(w))
                ws_feed(w, buffer, (size_t) k);
}

/* The phases. */

static void ws_settle(WsConn *w) {
        if (w->overdrawn && w->phase == PHASE_OPEN)
                ws_fail(w, WS_CODE_TRY_LATER, TOO_MUCH, strlen(TOO_MUCH));
        if (w->peer_closed && w->phase <= PHASE_CLOSING && !w->held.first) {
                ws_queue_close(w, w->peer_code, NULL, 0);
                ws_end(w, w->peer_code);
        }
        if (w->peer_gone && w->phase != PHASE_OVER && !(w->peer_closed && w->held.first))
                ws_over(w);

        if (w->phase == PHASE_CLOSING && ws_output_is_empty(&w->output) &&
            w->close_deadline == USEC_INFINITY)
                w->close_deadline = ws_now(w) + w->config.close_usec;
        if (w->phase == PHASE_ENDING && ws_output_is_empty(&w->output)) {
                w->phase = PHASE_LINGER;
                w->close_deadline = ws_now(w) + HTTP_LINGER_USEC;
                (void) shutdown(w->fd, SHUT_WR);
        }
}

static bool ws_wants_input(const WsConn *w) {
        if (w->phase >= PHASE_ENDING)
                return !w->peer_gone;
        return ws_reads(w) && !w->peer_gone && w->n_rest == 0 && !ws_is_full(w);
}

static uint64_t ws_ping_deadline(const WsConn *w) {
        if (w->phase != PHASE_OPEN || !(w->events & EPOLLIN))
                return USEC_INFINITY;
        return w->heard_usec + (w->n_pings + 1) * w->config.ping_usec;
}

/* The events and the time that matter now. */
static void ws_watch(WsConn *w) {
        uint32_t events = !ws_output_is_empty(&w->output) ? EPOLLOUT : 0;
        uint64_t deadline;

        if (ws_wants_input(w))
                events |= EPOLLIN;
        else if (!w->peer_left)
                events |= EPOLLRDHUP;
        if (events & ~w->events & EPOLLIN)
                w->heard_usec = ws_now(w);
        if (events != w->events) {
                /* Off rather than without events: a hangup is reported always and would spin. */
                (void) sd_event_source_set_io_events(w->io, events);
                (void) sd_event_source_set_enabled(w->io, events != 0 ? SD_EVENT_ON : SD_EVENT_OFF);
                w->events = events;
        }

        deadline = MIN(w->close_deadline, w->stall_deadline);
        deadline = MIN(deadline, ws_ping_deadline(w));
        if (deadline < w->armed_usec) {
                uint64_t now = ws_now(w);

                if (event_timer(w->event, &w->timer, deadline > now ? deadline - now : 0, PRIORITY_CLIENT,
                                on_timer, w, "ws-deadlines") >= 0)
                        w->armed_usec = deadline;
        }
}

static void ws_turn(WsConn *w) {
        ws_pin(w);
        if (w->phase != PHASE_OVER) {
                ws_deliver(w);
                if (w->n_rest > 0)
                        ws_feed(w, w->rest, w->n_rest);
                (void) sd_event_source_set_enabled(w->turn, SD_EVENT_OFF);
                ws_flush(w);
                ws_account(w);
        }
        if (w->phase != PHASE_OVER)
                ws_settle(w);
        if (w->phase != PHASE_OVER)
                ws_watch(w);
        ws_unpin(w);
}

static int on_turn(sd_event_source *s, void *userdata) {
        ws_turn(userdata);
        return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        WsConn *w = userdata;

        ws_pin(w);
        if (w->events & EPOLLIN) {
                if (revents & ~(uint32_t) EPOLLOUT)
                        ws_read(w);
        } else if (revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
                /* It left while the handler does not take what it said: that may wait only so long. */
                w->peer_left = true;
                w->close_deadline = MIN(w->close_deadline, ws_now(w) + w->config.close_usec);
        }
        ws_turn(w);
        ws_unpin(w);
        return 0;
}

/* Did the peer take enough in this window of the write stall? Then the next one begins. */
static bool ws_output_goes_on(WsConn *w, uint64_t now) {
        if (w->n_taken == 0 || w->n_taken < w->config.write_stall_usec / USEC_PER_SEC * HTTP_BODY_RATE_BYTES)
                return false;
        w->n_taken = 0;
        w->stall_deadline = now + w->config.write_stall_usec;
        return true;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        WsConn *w = userdata;
        uint64_t now = ws_now(w);

        ws_pin(w);
        w->armed_usec = USEC_INFINITY;
        if (w->close_deadline <= now) {
                if (!ws_output_is_empty(&w->output))
                        ws_reset(w);
                else
                        ws_over(w);
        } else if (w->stall_deadline <= now && !ws_output_goes_on(w, now)) {
                ws_reset(w);
        } else if (ws_ping_deadline(w) <= now) {
                if (++w->n_pings > WS_PINGS_MISSED_MAX || ws_queue(w, WS_PING, NULL, 0) < 0)
                        ws_reset(w);
        }
        ws_turn(w);
        ws_unpin(w);
        return 0;
}

void ws_hold(WsConn *w, bool hold) {
        w->hold = hold;
        if (!hold && w->phase != PHASE_OVER)
                ws_ask_turn(w);
}

void ws_set_handlers(WsConn *w, const WsHandlers *handlers, void *userdata) {
        w->handlers = handlers;
        w->userdata = userdata;
}

static int ws_begin(WsConn *w, const char *answer, const void *input, size_t n_input) {
        int r;

        r = ws_output_begin(&w->output, answer);
        if (r < 0)
                return r;
        w->stall_deadline = w->heard_usec + w->config.write_stall_usec;

        if (n_input > 0) {
                w->rest = malloc(n_input);
                if (!w->rest)
                        return -ENOMEM;
                memcpy(w->rest, input, n_input);
                w->n_rest = n_input;
        }
        return 0;
}

int ws_new(sd_event *e, int fd, const WsConfig *config, const char *answer, const void *input,
           size_t n_input, void (*on_freed)(void *userdata), void *userdata, WsConn **ret) {
        _cleanup_(ws_freep) WsConn *w = NULL;
        int r;

        w = malloc(sizeof(WsConn));
        if (!w) {
                (void) close_fd(fd);
                return -ENOMEM;
        }
        *w = (WsConn) {
                .event = sd_event_ref(e),
                .fd = fd,
                .events = EPOLLIN,
                .armed_usec = USEC_INFINITY,
                .config = { config->close_usec ?: WS_CLOSE_USEC, config->ping_usec ?: WS_PING_USEC,
                            config->write_stall_usec ?: HTTP_WRITE_STALL_USEC, config->buffered },
                .close_deadline = USEC_INFINITY,
                .stall_deadline = USEC_INFINITY,
        };
        w->heard_usec = ws_now(w);

        r = ws_codec_new(&w->codec);
        if (r < 0)
                return r;
        r = ws_begin(w, answer, input, n_input);
        if (r < 0)
                return r;
        r = event_io(e, &w->io, fd, w->events, PRIORITY_CLIENT, on_io, w, "ws-client");
        if (r < 0)
                return r;
        r = event_defer(e, &w->turn, PRIORITY_CLIENT, on_turn, w);
        if (r < 0)
                return r;

        w->on_freed = on_freed;
        w->freed_userdata = userdata;
        *ret = TAKE_PTR(w);
        return 0;
}
