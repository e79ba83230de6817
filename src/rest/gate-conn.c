/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One connection: client ⇄ scanner ⇄ socketpair ⇄ libmicrohttpd. Bytes normally pass through the gate's two
 * scratch buffers without being kept; only what the other side does not take at once is copied into the
 * connection.
 */

#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "rest/gate-internal.h"
#include "shared/event.h"

static int on_client_io(sd_event_source *s, int fd, uint32_t revents, void *userdata);
static int on_relay_io(sd_event_source *s, int fd, uint32_t revents, void *userdata);

void gate_conn_set_deadline(GateConn *c, uint64_t deadline) {
        c->deadline = deadline;
        if (c->gate)
                gate_arm(c->gate, deadline);
}

static bool conn_is_open(const GateConn *c) {
        return c->phase != CONN_CLOSED;
}

/* Do we want bytes of the client now? Pipelined requests wait in a bounded buffer, a body only in its
 * socket. */
static bool conn_wants_input(const GateConn *c) {
        switch (c->phase) {
        case CONN_HEAD:
        case CONN_LINGER:
                return true;
        case CONN_BODY:
                return c->n_good == 0;
        case CONN_WAIT:
        case CONN_ANSWER:
                return c->n_in < HTTP_HEADER_BLOCK_MAX;
        default:
                return false;
        }
}

/* Which events of both sockets matter now. */
static void conn_watch(GateConn *c) {
        uint32_t client = 0, relay = 0;

        if (!conn_is_open(c))
                return;

        if (conn_wants_input(c))
                client |= EPOLLIN | EPOLLRDHUP;
        else if (c->phase == CONN_WAIT || c->phase == CONN_ANSWER || c->service)
                client |= EPOLLRDHUP;
        if (c->n_out > 0)
                client |= EPOLLOUT;
        else if (!c->service)
                relay |= EPOLLIN;
        if (c->n_good > 0 && !c->service)
                relay |= EPOLLOUT;

        (void) sd_event_source_set_io_events(c->source, client);
        if (!c->relay_source)
                return;

        /* Off rather than without events: a hangup is reported always and would spin. */
        if (relay != 0)
                (void) sd_event_source_set_io_events(c->relay_source, relay);
        (void) sd_event_source_set_enabled(c->relay_source, relay != 0 ? SD_EVENT_ON : SD_EVENT_OFF);
}

int gate_conn_new(Gate *g, int fd, Peer *peer_consume, GateConn **ret) {
        GateConn *c;
        int r, one = 1;

        c = malloc(sizeof(GateConn));
        if (!c) {
                (void) close_fd(fd);
                peer_release(peer_consume);
                return -ENOMEM;
        }

        *c = (GateConn) {
                .n_ref = 1,
                .gate = g,
                .next = g->conns,
                .peer = peer_consume,
                .phase = CONN_HEAD,
                .fd = fd,
                .relay_fd = -EBADF,
        };
        if (g->conns)
                g->conns->previous = c;
        g->conns = c;
        g->n_conns++;

        if (c->peer->kind != PEER_UNIX) {
                int timeout_msec = (int) (g->config.write_stall_usec / USEC_PER_MSEC);

                (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                (void) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_msec, sizeof(timeout_msec));
        }

        gate_conn_set_deadline(c, gate_now(g) + g->config.first_byte_usec);
        r = event_io(g->event, &c->source, fd, EPOLLIN | EPOLLRDHUP, PRIORITY_CLIENT, on_client_io, c,
                     "gate-client");
        if (r < 0) {
                gate_conn_close(c, false);
                return r;
        }

        *ret = c;
        return 0;
}

static void conn_close_relay(GateConn *c) {
        c->relay_source = event_source_free(c->relay_source);
        c->relay_fd = close_fd(c->relay_fd);
}

/* The request, if there is one, is told that nobody waits for it any more. */
static void conn_abandon_request(GateConn *c) {
        Gate *g = c->gate;

        conn_close_relay(c);
        if (c->service)
                gate_serve_end(c);
        else if (c->request)
                g->handlers->on_gone(c, g->userdata);
        c->request = NULL;
}

void gate_conn_close(GateConn *c, bool reset) {
        Gate *g = c->gate;

        if (!conn_is_open(c))
                return;

        c->phase = CONN_CLOSED;
        c->deadline = USEC_INFINITY;
        c->source = event_source_free(c->source);
        if (reset && c->peer->kind != PEER_UNIX) {
                struct linger l = { .l_onoff = 1 };

                (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        }
        c->fd = close_fd(c->fd);
        conn_abandon_request(c);

        if (c->previous)
                c->previous->next = c->next;
        else
                g->conns = c->next;
        if (c->next)
                c->next->previous = c->previous;
        c->next = c->previous = NULL;
        g->n_conns--;
        c->peer = peer_release(c->peer);
        c->gate = NULL;
        gate_conn_set_session(c, NULL, NULL);

        if (g->draining && g->n_conns == 0 && g->on_idle)
                g->on_idle(g->idle_userdata);
        gate_conn_unref(c);
}

GateConn* gate_conn_ref(GateConn *c) {
        c->n_ref++;
        return c;
}

GateConn* gate_conn_unref(GateConn *c) {
        if (c && --c->n_ref == 0) {
                assert(!conn_is_open(c));
                free(c->in);
                free(c->out);
                free(c);
        }
        return NULL;
}

/* Out: what the client does not take at once is kept, and libmicrohttpd waits. */

static int conn_write(GateConn *c, const char *data, size_t n) {
        ssize_t k = 0;

        if (c->n_out == 0) {
                k = send(c->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (k < 0) {
                        if (errno != EAGAIN && errno != EINTR)
                                return -errno;
                        k = 0;
                }
        }
        if ((size_t) k == n)
                return 0;

        assert(c->n_out + n - (size_t) k <= HTTP_RELAY_BYTES);
        if (!c->out) {
                c->out = malloc(HTTP_RELAY_BYTES);
                if (!c->out)
                        return -ENOMEM;
        }
        if (c->n_out == 0) {
                c->out_at = 0;
                c->out_usec = gate_now(c->gate);
                c->n_out_window = 0;
                gate_conn_set_deadline(c, c->out_usec + c->gate->config.write_stall_usec);
        }
        memcpy(c->out + c->out_at + c->n_out, data + k, n - (size_t) k);
        c->n_out += n - (size_t) k;
        return 0;
}

/* The answer is out and the connection shall end: let the client read it before a reset could destroy it. */
static void conn_linger(GateConn *c) {
        (void) shutdown(c->fd, SHUT_WR);
        c->phase = CONN_LINGER;
        c->n_in = c->n_good = 0;
        conn_abandon_request(c);
        gate_conn_set_deadline(c,
                               gate_now(c->gate) + (c->upload ? HTTP_LINGER_UPLOAD_USEC : HTTP_LINGER_USEC));
        conn_watch(c);
}

static void conn_answer(GateConn *c, unsigned status, const char *code, const char *message,
                        const char *header) {
        _cleanup_free_ char *body = NULL;
        json_t *j;
        char text[FAULT_MESSAGE_MAX * 6 + 512];
        int n;

        j = json_pack("{s:{s:s,s:s}}", "error", "code", code, "message", message);
        if (!j)
                j = json_pack("{s:{s:s,s:s}}", "error", "code", code, "message", http_status_phrase(status));
        body = j ? json_dumps(j, JSON_COMPACT) : NULL;
        json_decref(j);
        if (!body) {
                gate_conn_close(c, false);
                return;
        }

        n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n%s",
                     status, http_status_phrase(status), strlen(body), header,
                     c->scan.head.method == HTTP_METHOD_HEAD && c->scan.have_request_line ? "" : body);
        if (n < 0 || (size_t) n >= sizeof(text)) {
                gate_conn_close(c, false);
                return;
        }

        if (c->service)
                gate_serve_end(c);
        conn_close_relay(c);
        c->phase = CONN_CLOSING;
        if (conn_write(c, text, (size_t) n) < 0)
                gate_conn_close(c, false);
        else if (c->n_out == 0)
                conn_linger(c);
        else
                conn_watch(c);
}

/* Refuses what was read so far. When the answer to it has begun already only a close is left. */
static void conn_refuse(GateConn *c, unsigned status, const char *code, const char *message,
                        const char *header) {
        if (c->responded) {
                gate_conn_close(c, true);
                return;
        }
        conn_answer(c, status, code, message, header);
}

void gate_conn_reject(GateConn *c, HttpReject reject) {
        conn_refuse(c, http_reject_status(reject), http_reject_code(reject), http_reject_message(reject),
                    "");
}

static void conn_refuse_verdict(GateConn *c, const GateRefusal *refusal) {
        HttpReject reject = refusal->reject;

        if (reject != HTTP_REJECT_NONE)
                conn_refuse(c, http_reject_status(reject), http_reject_code(reject),
                            http_reject_message(reject), refusal->header);
        else
                conn_refuse(c, fault_http_status(refusal->fault.code), fault_rest_code(refusal->fault.code),
                            refusal->fault.message ?: "", refusal->header);
}

/* In: from the client to libmicrohttpd. */

static int conn_attach(GateConn *c) {
        int pair[2], r;

        if (c->relay_fd >= 0)
                return 0;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;

        c->relay_fd = pair[0];
        r = event_io(c->gate->event, &c->relay_source, pair[0], EPOLLIN, PRIORITY_CLIENT, on_relay_io, c,
                     "gate-relay");
        if (r < 0) {
                (void) close_fd(pair[1]);
                return r;
        }
        return c->gate->handlers->on_attach(c, pair[1], c->gate->userdata);
}

/* The head is good: it goes on to libmicrohttpd. */
static int conn_pass(GateConn *c, uint64_t body_max) {
        int r;

        c->body_max = body_max;
        if (c->scan.head.has_length && c->scan.head.length > body_max) {
                gate_conn_reject(c, HTTP_REJECT_BODY_LARGE);
                return 0;
        }

        r = c->service ? 0 : conn_attach(c);
        if (r < 0)
                return r;

        c->n_good = c->scan.head.n;
        c->phase = http_scan_is_done(&c->scan) && !c->service ? CONN_ANSWER : CONN_BODY;
        c->body_usec = gate_now(c->gate);
        c->stalled_usec = 0;
        return 0;
}

/* The head is good, and the last thing of HTTP here. */
static void conn_take(GateConn *c) {
        c->phase = CONN_TAKEN;
        c->n_good = c->scan.head.n;
}

static void conn_hand_over(GateConn *c, const char *data, size_t n) {
        char *in = TAKE_PTR(c->in); /* data may be in it */
        Gate *g = c->gate;

        c->n_in = 0;
        c->source = event_source_free(c->source);
        conn_close_relay(c);
        gate_conn_set_deadline(c, USEC_INFINITY);
        g->handlers->on_taken(c, TAKE_FD(c->fd), data, n, g->userdata);
        free(in);
        if (g->draining && c->phase == CONN_TAKEN)
                g->handlers->on_end(c, /* now= */ false, g->userdata);
}

static int conn_feed_head(GateConn *c, const char *data, size_t n) {
        _cleanup_(gate_refusal_done) GateRefusal refusal = {};
        const HttpHead *h = &c->scan.head;
        HttpHostClass class;
        uint64_t body_max = 0;
        ssize_t k;

        k = http_scan_head(&c->scan, data, n);
        if (k < 0) {
                gate_conn_reject(c, c->scan.reject);
                return 0;
        }
        if (k == 0)
                return 0;

        class = http_host_classify(data + h->host.offset, h->host.n, c->gate->config.hosts);
        if (class == HTTP_HOST_FOREIGN) {
                gate_conn_reject(c, HTTP_REJECT_HOST);
                return 0;
        }
        if (!http_fetch_site_is_good(data + h->fetch_site.offset, h->fetch_site.n) ||
            !http_origin_is_good(data + h->origin.offset, h->origin.n, data + h->host.offset, h->host.n)) {
                gate_conn_reject(c, HTTP_REJECT_ORIGIN);
                return 0;
        }

        switch (c->gate->handlers->on_head(c, h, data, class, &body_max, &refusal, c->gate->userdata)) {
        case GATE_PASS:
                return conn_pass(c, body_max);
        case GATE_WAIT:
                c->phase = CONN_WAIT;
                return 0;
        case GATE_TAKE:
                conn_take(c);
                return 0;
        case GATE_REFUSE:
                conn_refuse_verdict(c, &refusal);
                return 0;
        }
        return 0;
}

static void conn_feed_body(GateConn *c, const char *data, size_t n) {
        ssize_t k;

        k = http_scan_body(&c->scan, data + c->n_good, n - c->n_good);
        if (k < 0) {
                gate_conn_reject(c, c->scan.reject);
                return;
        }
        if (c->scan.n_body > c->body_max) {
                gate_conn_reject(c, HTTP_REJECT_BODY_LARGE);
                return;
        }
        c->n_good += (size_t) k;
        if (http_scan_is_done(&c->scan))
                c->phase = CONN_ANSWER;
}

/* Sends good bytes from the front of data. The count sent, or -errno. */
static ssize_t conn_relay_in(GateConn *c, const char *data) {
        size_t sent = 0;

        while (c->n_good > 0) {
                ssize_t k = send(c->relay_fd, data + sent, c->n_good, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (k < 0) {
                        if (errno == EAGAIN)
                                break;
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                sent += (size_t) k;
                c->n_good -= (size_t) k;
        }
        return (ssize_t) sent;
}

/* libmicrohttpd closed its end while we had bytes for it: its answer, if any, is what the client gets. */
static void conn_relay_broken(GateConn *c) {
        c->n_good = 0;
        c->phase = CONN_ANSWER;
        c->relay_eof = true;
        gate_conn_drain(c);
}

bool gate_conn_is_ending(const GateConn *c) {
        return c->phase == CONN_CLOSING || c->phase == CONN_LINGER || c->phase == CONN_CLOSED;
}

/* Is the socket, with all that comes of it, none of our business any more? */
static bool conn_is_taken(const GateConn *c) {
        return c->phase == CONN_TAKEN;
}

/* One step through data (n bytes, the first c->n_good are good). The count of bytes done with; -EAGAIN: no
 * step is possible. */
static ssize_t conn_feed_step(GateConn *c, const char *data, size_t n) {
        ConnPhase before = c->phase;
        ssize_t k;

        if (c->phase == CONN_HEAD && n > 0 && conn_feed_head(c, data, n) < 0)
                gate_conn_reject(c, HTTP_REJECT_CONNECTIONS);
        if (c->phase == CONN_BODY && c->service)
                return gate_serve_step(c, data, n);
        if (c->phase == CONN_BODY)
                conn_feed_body(c, data, n);
        if (conn_is_taken(c)) {
                k = (ssize_t) c->n_good;
                c->n_good = 0;
                return k > 0 ? k : -EAGAIN;
        }
        if (gate_conn_is_ending(c))
                return (ssize_t) n;
        if (c->n_good == 0)
                return c->phase == before ? -EAGAIN : 0;

        k = conn_relay_in(c, data);
        if (k < 0) {
                conn_relay_broken(c);
                return (ssize_t) n;
        }
        if (k == 0)
                return -EAGAIN;
        c->gate->handlers->on_relayed(c, c->gate->userdata);
        return gate_conn_is_ending(c) ? (ssize_t) n : k;
}

void gate_conn_settle(GateConn *c) {
        Gate *g = c->gate;
        uint64_t now;

        if (gate_conn_is_ending(c) || conn_is_taken(c))
                return;

        now = gate_now(g);
        if (c->phase == CONN_BODY && c->n_good > 0) {
                c->stalled_usec = c->stalled_usec ?: now;
        } else if (c->stalled_usec > 0) {
                c->body_usec += now - c->stalled_usec;
                c->stalled_usec = 0;
        }

        if (c->n_out > 0) {
                /* the deadline of the write stall stands */
        } else if (c->phase == CONN_HEAD) {
                if (c->n_in > 0 && !c->head_begun) {
                        c->head_begun = true;
                        gate_conn_set_deadline(c, now + g->config.head_usec);
                }
        } else if (c->phase == CONN_BODY && c->stalled_usec == 0 && c->patient) {
                gate_conn_set_deadline(c, now + g->config.stream_idle_usec);
        } else if (c->phase == CONN_BODY && c->stalled_usec == 0) {
                gate_conn_set_deadline(c,
                                       c->body_usec + g->config.head_usec +
                                                       c->scan.n_body * USEC_PER_SEC / HTTP_BODY_RATE_BYTES);
        } else {
                gate_conn_set_deadline(c, USEC_INFINITY);
        }
        conn_watch(c);
}

/* Works through n bytes; what cannot be done with now is kept in c->in, which data may be. */
static void conn_feed(GateConn *c, const char *data, size_t n) {
        size_t done = 0;

        gate_conn_ref(c);
        c->feeding = true;
        while (done < n) {
                ssize_t k = conn_feed_step(c, data + done, n - done);

                if (k < 0)
                        break;
                done += (size_t) k;
        }
        c->feeding = false;

        if (conn_is_taken(c)) {
                conn_hand_over(c, data + done, n - done);
        } else if (gate_conn_is_ending(c)) {
                c->n_in = 0;
        } else {
                c->n_in = n - done;
                if (c->n_in > 0 && !c->in) {
                        c->in = malloc(HTTP_RELAY_BYTES);
                        if (!c->in)
                                gate_conn_close(c, true);
                }
                if (c->n_in > 0 && c->in)
                        memmove(c->in, data + done, c->n_in);
                if (c->n_in == 0 && c->in) {
                        free(c->in);
                        c->in = NULL;
                }
                gate_conn_settle(c);
        }
        gate_conn_unref(c);
}

/* Goes on with the bytes that wait. */
static void conn_continue(GateConn *c) {
        if (c->n_in > 0)
                conn_feed(c, c->in, c->n_in);
        else
                gate_conn_settle(c);
}

static void conn_read(GateConn *c) {
        Gate *g = c->gate;
        ssize_t k;

        if (c->n_in > 0)
                k = recv(c->fd, c->in + c->n_in, HTTP_RELAY_BYTES - c->n_in, MSG_DONTWAIT);
        else
                k = recv(c->fd, g->scratch_in, HTTP_RELAY_BYTES, MSG_DONTWAIT);

        if (k < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        gate_conn_close(c, false);
                return;
        }
        if (k == 0) {
                gate_conn_close(c, false);
                return;
        }
        if (c->phase == CONN_LINGER) {
                c->n_linger += (size_t) k;
                if (c->n_linger > (c->upload ? FILE_WRITE_BODY_MAX : HTTP_LINGER_BYTES))
                        gate_conn_close(c, false);
                return;
        }

        if (c->n_in > 0)
                conn_feed(c, c->in, c->n_in + (size_t) k);
        else
                conn_feed(c, g->scratch_in, (size_t) k);
}

void gate_conn_next(GateConn *c) {
        bool whole = c->phase == CONN_ANSWER;

        if (c->relay_eof || c->answer_close || !whole || c->gate->draining) {
                conn_linger(c);
                return;
        }

        if (c->service)
                gate_serve_end(c);
        c->completed = c->responded = c->head_begun = c->upload = false;
        c->request = NULL;
        c->phase = CONN_HEAD;
        http_scan_reset(&c->scan);
        gate_conn_set_deadline(c, gate_now(c->gate) + c->gate->config.idle_usec);
        if (!c->feeding)
                conn_continue(c);
}

void gate_conn_drain(GateConn *c) {
        if (c->service) {
                gate_serve_flush(c);
                return;
        }

        while (conn_is_open(c) && c->n_out == 0 && c->relay_fd >= 0) {
                ssize_t k = recv(c->relay_fd, c->gate->scratch_out, HTTP_RELAY_BYTES, MSG_DONTWAIT);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k <= 0) {
                        c->relay_eof = true;
                        conn_close_relay(c);
                        break;
                }
                if (c->phase == CONN_ANSWER || !c->scan.head.expect_continue)
                        c->responded = true;
                if (conn_write(c, c->gate->scratch_out, (size_t) k) < 0) {
                        gate_conn_close(c, false);
                        return;
                }
                if ((size_t) k < HTTP_RELAY_BYTES && c->completed)
                        break;
        }

        if (!conn_is_open(c) || conn_is_taken(c) || c->phase == CONN_LINGER)
                return;
        if (c->n_out == 0 && c->phase == CONN_CLOSING)
                conn_linger(c);
        else if (c->n_out == 0 && c->relay_eof && !c->responded)
                gate_conn_close(c, false);
        else if (c->n_out == 0 && (c->relay_eof || c->completed))
                gate_conn_next(c);
        else if (!c->feeding)
                conn_watch(c);
}

static int on_relay_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_(gate_conn_unrefp) GateConn *c = gate_conn_ref(userdata);

        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                gate_conn_drain(c);
        if (!gate_conn_is_ending(c) && !conn_is_taken(c) && (revents & EPOLLOUT))
                conn_continue(c);
        return 0;
}

/* The client takes bytes again. */
static void conn_flush(GateConn *c) {
        ssize_t k;

        k = send(c->fd, c->out + c->out_at, c->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        gate_conn_close(c, false);
                return;
        }

        c->out_at += (size_t) k;
        c->n_out -= (size_t) k;
        c->n_out_window += (size_t) k;
        if (c->n_out > 0)
                return;

        free(c->out);
        c->out = NULL;
        gate_conn_set_deadline(c, USEC_INFINITY);
        gate_conn_drain(c);
        if (conn_is_open(c))
                gate_conn_settle(c);
}

static int on_client_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_(gate_conn_unrefp) GateConn *c = gate_conn_ref(userdata);

        if (revents & (EPOLLHUP | EPOLLERR)) {
                gate_conn_close(c, false);
                return 0;
        }
        if (revents & EPOLLOUT) {
                c->out_blocked = false;
                if (c->service)
                        gate_serve_flush(c);
                else
                        conn_flush(c);
        }
        if (conn_is_taken(c))
                return 0;
        if (conn_is_open(c) && (revents & EPOLLIN) && conn_wants_input(c))
                conn_read(c);
        else if (conn_is_open(c) && (revents & EPOLLRDHUP))
                gate_conn_close(c, false);
        return 0;
}

/* Takes the next window of the write stall when the client took enough in the last one. */
static bool conn_out_goes_on(GateConn *c) {
        uint64_t window = c->gate->config.write_stall_usec;

        if (c->patient || c->n_out_window < window / USEC_PER_SEC * HTTP_BODY_RATE_BYTES ||
            c->n_out_window == 0)
                return false;
        c->n_out_window = 0;
        gate_conn_set_deadline(c, gate_now(c->gate) + window);
        return true;
}

void gate_conn_on_deadline(GateConn *c) {
        c->deadline = USEC_INFINITY;

        if (c->n_out > 0) {
                if (!conn_out_goes_on(c))
                        gate_conn_close(c, true);
                return;
        }
        if ((c->phase != CONN_HEAD && c->phase != CONN_BODY) || (c->phase == CONN_HEAD && c->n_in == 0)) {
                gate_conn_close(c, c->phase == CONN_LINGER);
                return;
        }

        gate_conn_reject(c, HTTP_REJECT_DEADLINE);
        gate_conn_close(c, false);
}

void gate_conn_pass(GateConn *c, uint64_t body_max) {
        if (c->phase != CONN_WAIT)
                return;

        gate_conn_ref(c);
        if (conn_pass(c, body_max) < 0)
                gate_conn_reject(c, HTTP_REJECT_CONNECTIONS);
        else if (!gate_conn_is_ending(c))
                conn_continue(c);
        gate_conn_unref(c);
}

void gate_conn_take(GateConn *c) {
        if (c->phase != CONN_WAIT)
                return;

        gate_conn_ref(c);
        conn_take(c);
        conn_continue(c);
        gate_conn_unref(c);
}

void gate_conn_refuse(GateConn *c, const GateRefusal *refusal) {
        if (c->phase != CONN_WAIT)
                return;
        c->request = NULL;
        conn_refuse_verdict(c, refusal);
}

void gate_conn_completed(GateConn *c) {
        c->request = NULL;
        if (!conn_is_open(c))
                return;

        c->completed = true;
        gate_conn_mark_ready(c);
}

void gate_conn_mark_ready(GateConn *c) {
        if (c->ready)
                return;
        c->ready = true;
        c->next_ready = c->gate->ready;
        c->gate->ready = gate_conn_ref(c);
}

void gate_conn_continue(GateConn *c) {
        if (c->service && c->phase == CONN_BODY && !c->feeding)
                conn_continue(c);
}

void gate_conn_release(GateConn *c) {
        assert(conn_is_taken(c));
        c->request = NULL;
        gate_conn_close(c, /* reset= */ false);
}

Peer* gate_conn_peer(const GateConn *c) {
        return c->peer;
}

void gate_conn_set_session(GateConn *c, void *session, void (*session_free)(void *session)) {
        void *old = c->session;

        c->session = session;
        if (old && c->session_free)
                c->session_free(old);
        c->session_free = session_free;
}

void* gate_conn_session(const GateConn *c) {
        return c->session;
}

void gate_conn_set_request(GateConn *c, void *request) {
        c->request = request;
}

void* gate_conn_request(const GateConn *c) {
        return c->request;
}

bool gate_conn_is_gone(const GateConn *c) {
        return !conn_is_open(c);
}
