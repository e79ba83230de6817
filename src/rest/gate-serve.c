/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests without libmicrohttpd: their bodies go to the handler without framing, as fast as it takes them,
 * and their answers are framed here. Nothing passes the socketpair, an answer may come in the middle of a
 * body, and one that cannot be finished breaks the connection.
 *
 * The answer is queued in the connection and sent from the loop, or at once when it is worth a system call.
 * Only the loop closes: a handler that queues is never called back.
 */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/gate-internal.h"
#include "shared/event.h"

#define HEAD_MAX 512U

static bool is_serving(const GateConn *c) {
        return c->service && (c->phase == CONN_BODY || c->phase == CONN_ANSWER) && !c->answer_ended &&
               !c->answer_aborted;
}

static int on_flush(sd_event_source *s, void *userdata) {
        gate_flush(userdata);
        return 0;
}

/* gate_serve_flush() runs from the loop. */
static void serve_wake(GateConn *c) {
        gate_conn_mark_ready(c);
        (void) event_defer(c->gate->event, &c->gate->flush_source, PRIORITY_CLIENT, on_flush, c->gate);
}

/* How long the kernel waits for a client that acknowledges or takes nothing. */
static void serve_set_patience(GateConn *c, bool patient) {
        const GateConfig *g = &c->gate->config;
        uint64_t usec = patient ? g->stream_idle_usec : g->write_stall_usec;
        int timeout_msec = (int) (usec / USEC_PER_MSEC);

        if (c->patient == patient)
                return;
        c->patient = patient;
        if (c->peer->kind != PEER_UNIX)
                (void) setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_msec, sizeof(timeout_msec));
}

void gate_conn_serve(GateConn *c, const GateService *service, bool upload) {
        c->service = service;
        c->upload = upload;
        c->begun = c->answer_chunked = c->answer_close = c->answer_ended = c->answer_aborted = false;
        serve_set_patience(c, upload);
}

void gate_serve_end(GateConn *c) {
        const GateService *service = c->service;
        void *request = c->request;

        c->service = NULL;
        c->request = NULL;
        if (c->phase != CONN_CLOSED)
                serve_set_patience(c, false);
        service->on_end(c, request);
}

/* Sends what is queued. < 0: the client is gone. */
static int serve_send(GateConn *c) {
        ssize_t k;

        k = send(c->fd, c->out + c->out_at, c->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                k = 0;
        }

        c->out_at += (size_t) k;
        c->n_out -= (size_t) k;
        c->n_out_window += (size_t) k;
        c->out_blocked = c->n_out > 0;
        if (c->n_out > 0) {
                if (c->patient && k > 0)
                        gate_conn_set_deadline(c, gate_now(c->gate) + c->gate->config.stream_idle_usec);
                return 0;
        }

        free(c->out);
        c->out = NULL;
        c->n_out_allocated = 0;
        gate_conn_set_deadline(c, USEC_INFINITY);
        return 0;
}

void gate_serve_flush(GateConn *c) {
        int r = 0;

        if (c->n_out > 0 && !c->out_blocked)
                r = serve_send(c);
        if (r < 0 || c->answer_aborted) {
                gate_conn_close(c, /* reset= */ c->answer_aborted && !c->answer_chunked);
                return;
        }

        if (is_serving(c) && c->responded && c->n_out <= HTTP_RELAY_BYTES)
                c->service->on_drained(c, c->request);
        if (c->n_out == 0 && c->answer_ended)
                gate_conn_next(c);
        else if (!c->feeding)
                gate_conn_settle(c);
}

/* Room for n more bytes behind what is queued. */
static int out_reserve(GateConn *c, size_t n) {
        size_t need = c->n_out + n, allocate = MAX(c->n_out_allocated, (size_t) HTTP_RELAY_BYTES);
        char *out;

        if (c->out_at + need <= c->n_out_allocated)
                return 0;
        if (c->out_at >= c->n_out && need <= c->n_out_allocated) {
                memcpy(c->out, c->out + c->out_at, c->n_out);
                c->out_at = 0;
                return 0;
        }

        while (allocate < c->out_at + need)
                allocate *= 2;
        out = realloc(c->out, allocate);
        if (!out)
                return -ENOMEM;
        c->out = out;
        c->n_out_allocated = allocate;
        return 0;
}

static void out_queue(GateConn *c, const void *data, size_t n) {
        if (c->answer_aborted || n == 0)
                return;
        if (c->n_out == 0) {
                const GateConfig *g = &c->gate->config;

                c->out_at = 0;
                c->n_out_window = 0;
                c->out_blocked = false;
                gate_conn_set_deadline(c, gate_now(c->gate) + (c->patient ? g->stream_idle_usec
                                                                          : g->write_stall_usec));
        }
        if (out_reserve(c, n) < 0) {
                c->answer_aborted = true;
                return;
        }
        memcpy(c->out + c->out_at + c->n_out, data, n);
        c->n_out += n;
}

/* length: "Content-Length: …" or another framing header with CR LF, or "". */
static void queue_head(GateConn *c, unsigned status, const char *type, const char *length) {
        char text[HEAD_MAX], date[64] = "";
        time_t now = time(NULL);
        struct tm tm;
        int n;

        c->responded = true;
        c->answer_close = c->phase != CONN_ANSWER || c->scan.head.connection_close ||
                          c->scan.head.minor == 0 || c->gate->draining;
        if (gmtime_r(&now, &tm))
                (void) strftime(date, sizeof(date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);

        n = snprintf(text, sizeof(text), "HTTP/1.1 %u %s\r\n%s%s%s%s%s%s\r\n", status,
                     http_status_phrase(status), date, type ? "Content-Type: " : "", strempty(type),
                     type ? "\r\n" : "", length, c->answer_close ? "Connection: close\r\n" : "");
        assert(n > 0 && (size_t) n < sizeof(text)); /* all of it is ours and short */
        out_queue(c, text, (size_t) n);
}

void gate_answer(GateConn *c, unsigned status, const char *type, const void *body, size_t n) {
        char length[48] = "";

        if (!is_serving(c) || c->responded)
                return;

        if (status != 204)
                (void) snprintf(length, sizeof(length), "Content-Length: %zu\r\n", n);
        queue_head(c, status, type, length);
        out_queue(c, body, n);
        c->answer_ended = true;
        serve_wake(c);
}

void gate_answer_begin(GateConn *c, unsigned status, const char *type) {
        if (!is_serving(c) || c->responded)
                return;

        serve_set_patience(c, true);
        c->answer_chunked = c->scan.head.minor > 0;
        queue_head(c, status, type, c->answer_chunked ? "Transfer-Encoding: chunked\r\n" : "");
        serve_wake(c);
}

void gate_answer_data(GateConn *c, const void *data, size_t n) {
        char size[24];
        int k;

        if (!is_serving(c) || n == 0)
                return;

        if (c->answer_chunked) {
                k = snprintf(size, sizeof(size), "%zx\r\n", n);
                out_queue(c, size, (size_t) k);
        }
        out_queue(c, data, n);
        if (c->answer_chunked)
                out_queue(c, "\r\n", 2);

        if (c->n_out >= HTTP_RELAY_BYTES && !c->out_blocked && serve_send(c) < 0)
                c->answer_aborted = true;
        serve_wake(c);
}

void gate_answer_end(GateConn *c) {
        if (!is_serving(c))
                return;

        if (c->answer_chunked)
                out_queue(c, "0\r\n\r\n", 5);
        c->answer_ended = true;
        serve_wake(c);
}

void gate_answer_abort(GateConn *c) {
        if (!is_serving(c))
                return;

        c->answer_aborted = true;
        serve_wake(c);
}

size_t gate_answer_unsent(const GateConn *c) {
        return c->n_out;
}

/* The request begins; its head is done with. */
static size_t serve_begin(GateConn *c) {
        size_t n = c->n_good;

        c->begun = true;
        c->n_good = 0;
        c->service->on_begin(c, c->request);
        if (c->scan.head.expect_continue && !c->responded && !http_scan_is_done(&c->scan)) {
                static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

                out_queue(c, text, strlen(text));
                serve_wake(c);
        }
        return n;
}

ssize_t gate_serve_step(GateConn *c, const char *data, size_t n) {
        ssize_t k;

        if (!c->begun) {
                k = (ssize_t) serve_begin(c);
        } else if (c->responded) { /* early: what still comes is dropped, and the connection ends */
                c->n_good = 0;
                return (ssize_t) n;
        } else if (c->n_good > 0) {
                k = (ssize_t) c->service->on_body(c, data, c->n_good, c->request);
                if (k == 0)
                        return -EAGAIN;
                c->n_good -= (size_t) k;
        } else {
                k = http_scan_payload(&c->scan, data, n, &c->n_good);
                if (k < 0)
                        gate_conn_reject(c, c->scan.reject);
                else if (c->scan.n_body > c->body_max)
                        gate_conn_reject(c, HTTP_REJECT_BODY_LARGE);
                if (gate_conn_is_ending(c))
                        return (ssize_t) n;
        }

        if (c->n_good == 0 && http_scan_is_done(&c->scan)) {
                c->phase = CONN_ANSWER;
                if (!c->responded)
                        c->service->on_body_end(c, c->request);
        }
        return k;
}
