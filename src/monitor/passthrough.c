/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A Relay lives from the client's request head until its client stream is closed. Its two directions are
 * alike: a ring of bytes that the other side's queue did not take yet, and "the sender is done" once the
 * ring is empty. The agent's stream may end before.
 */

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/passthrough.h"
#include "shared/event.h"
#include "shared/h2-conn.h"
#include "shared/h2-ring.h"

#define RELAY_COPY_BYTES 4096U

typedef struct DataClient DataClient;

typedef struct Flow {
        H2Ring ring;
        bool ended; /* the sender sends no more */
        bool end_passed;
} Flow;

typedef struct Relay {
        AgentRequest rq;
        DataClient *client;      /* weak: outlives us */
        H2Stream *client_stream; /* NULL: closed, we are going */
        Flow up, down;           /* to the agent, to the client */
        bool answered;           /* the head went to the client */
} Relay;

struct DataClient {
        Passthrough *owner; /* weak: outlives us */
        H2Conn *conn;
        DataClient *next;
};

struct Passthrough {
        sd_event *event; /* weak: outlives us */
        int listen_fd;
        sd_event_source *listen_source, *reap_source;
        void (*on_activity)(void *userdata);
        void *userdata;
        AgentLink *agent; /* weak: passthrough_set_agent() */
        DataClient *clients, *dead;
        unsigned n_clients, n_relays;
};

static void tell_activity(Passthrough *p) {
        if (p->on_activity)
                p->on_activity(p->userdata);
}

/* Answers of our own */

static void answer_error(H2Stream *st, unsigned status, FaultCode code, const char *text) {
        static const H2Header headers[] = { { "content-type", "application/json" } };
        _cleanup_free_ char *body = NULL;

        body = strjoin("{\"error\":{\"code\":\"", fault_wire_name(code), "\",\"message\":\"", text, "\"}}");
        if (!body || h2_stream_respond(st, status, headers, ELEMENTSOF(headers), /* end= */ false) < 0 ||
            h2_stream_write(st, body, strlen(body)) != (ssize_t) strlen(body) || h2_stream_end(st) < 0)
                (void) h2_stream_reset(st, H2_INTERNAL_ERROR);
}

static void answer_not_ready(H2Stream *st) {
        answer_error(st, 503, FAULT_INVALID_STATE, "The capsule's agent is not ready.");
}

/* Flows */

/* Moves what 'to' takes from the ring; the sender gets the credit back for it. from: NULL once it is gone.
 */
static void flow_pump(Flow *f, H2Stream *from, H2Stream *to) {
        uint8_t buffer[RELAY_COPY_BYTES];

        while (f->ring.n > 0) {
                size_t n = MIN(f->ring.n, sizeof(buffer));

                n = MIN(n, h2_stream_room(to));

                if (n == 0)
                        return;
                h2_ring_get(&f->ring, buffer, n);
                (void) h2_stream_write(to, buffer, n);
                if (from)
                        h2_stream_consume(from, n);
        }
        if (f->ended && !f->end_passed) {
                f->end_passed = true;
                (void) h2_stream_end(to);
        }
}

/* to: NULL while the receiver's stream is not open yet. */
static int flow_take(Flow *f, H2Stream *from, H2Stream *to, const uint8_t *data, size_t n) {
        if (to && f->ring.n == 0) {
                ssize_t k = h2_stream_write(to, data, n);

                if (k < 0)
                        return (int) k;
                h2_stream_consume(from, (size_t) k);
                data += k;
                n -= (size_t) k;
        }
        return n > 0 ? h2_ring_put(&f->ring, data, n) : 0;
}

/* Relay: the agent's side */

static Relay* RELAY(AgentRequest *rq) {
        return container_of(rq, Relay, rq);
}

static int relay_open(AgentRequest *rq, H2Session *s) {
        Relay *r = RELAY(rq);
        const H2Header *headers;
        size_t n;
        bool end = r->up.ended && r->up.ring.n == 0;
        int k;

        n = h2_stream_headers(r->client_stream, &headers);
        k = h2_session_request(s, h2_stream_method(r->client_stream), h2_stream_path(r->client_stream),
                               headers, n, end, rq, &rq->stream);
        if (k < 0)
                return k;
        r->up.end_passed = end;
        if (!end)
                flow_pump(&r->up, r->client_stream, rq->stream);
        return 0;
}

static void relay_on_agent_headers(AgentRequest *rq) {
        Relay *r = RELAY(rq);
        const H2Header *headers;
        size_t n;

        if (r->answered)
                return;
        n = h2_stream_headers(rq->stream, &headers);
        r->answered = true;
        if (h2_stream_respond(r->client_stream, h2_stream_status(rq->stream), headers, n, /* end= */ false) <
            0)
                (void) h2_stream_reset(r->client_stream, H2_INTERNAL_ERROR);
}

static void relay_on_agent_data(AgentRequest *rq, const void *data, size_t n) {
        Relay *r = RELAY(rq);

        tell_activity(r->client->owner);
        if (flow_take(&r->down, rq->stream, r->client_stream, data, n) < 0)
                (void) h2_stream_reset(r->client_stream, H2_INTERNAL_ERROR);
}

static void relay_on_agent_end(AgentRequest *rq) {
        Relay *r = RELAY(rq);

        r->down.ended = true;
        flow_pump(&r->down, rq->stream, r->client_stream);
}

static void relay_on_agent_writable(AgentRequest *rq) {
        Relay *r = RELAY(rq);

        flow_pump(&r->up, r->client_stream, rq->stream);
}

/* The agent's stream is gone. What it had sent still goes to the client; a stream cut short is cut short for
 * the client, too. */
static void relay_on_agent_close(AgentRequest *rq, uint32_t error) {
        Relay *r = RELAY(rq);

        tell_activity(r->client->owner);
        if (r->down.ended)
                flow_pump(&r->down, NULL, r->client_stream);
        else if (!r->answered) {
                r->answered = r->down.ended = r->down.end_passed = true;
                if (error == H2_REFUSED_STREAM)
                        (void) h2_stream_reset(r->client_stream, error);
                else if (error == H2_CANCEL) /* with the whole session */
                        answer_not_ready(r->client_stream);
                else
                        answer_error(r->client_stream, 502, FAULT_AGENT, "The agent did not answer.");
        } else
                (void) h2_stream_reset(r->client_stream, error != H2_NO_ERROR ? error : H2_INTERNAL_ERROR);
}

static const AgentRequestOps relay_ops = {
        .open = relay_open,
        .on_headers = relay_on_agent_headers,
        .on_data = relay_on_agent_data,
        .on_end = relay_on_agent_end,
        .on_writable = relay_on_agent_writable,
        .on_close = relay_on_agent_close,
};

/* Relay: the client's side */

static Relay* relay_free(Relay *r) {
        agent_request_cancel(&r->rq, H2_CANCEL);
        h2_ring_done(&r->up.ring);
        h2_ring_done(&r->down.ring);
        r->client->owner->n_relays--;
        free(r);
        return NULL;
}

/* /identity and /poweroff, with a query or not, are the monitor's. */
static bool path_is_ours(const char *path) {
        static const char *const ours[] = { "/identity", "/poweroff" };

        for (size_t i = 0; i < ELEMENTSOF(ours); i++) {
                const char *rest = startswith(path, ours[i]);

                if (rest && (*rest == 0 || *rest == '?' || *rest == '/' || *rest == '#'))
                        return true;
        }
        return false;
}

/* The first segment says whose a resource is: it may not be spelled in another way. */
static bool path_is_plain(const char *path) {
        size_t n;

        if (*path != '/')
                return false;
        n = strcspn(path + 1, "/?#");
        return n > 0 && path[1] != '.' && !memchr(path + 1, '%', n);
}

static void on_client_headers(H2Stream *st, bool end, void *userdata) {
        DataClient *c = userdata;
        Passthrough *p = c->owner;
        Relay *r;
        int k;

        if (!streq(h2_stream_method(st), "CONNECT")) {
                if (!path_is_plain(h2_stream_path(st))) {
                        answer_error(st, 400, FAULT_INVALID_ARGS, "There is no such resource.");
                        return;
                }
                if (path_is_ours(h2_stream_path(st))) {
                        answer_error(st, 403, FAULT_ACCESS_DENIED, "This resource is the monitor's own.");
                        return;
                }
        }
        if (!p->agent || !agent_link_is_ready(p->agent)) {
                answer_not_ready(st);
                return;
        }

        r = malloc(sizeof(Relay));
        if (!r) {
                (void) h2_stream_reset(st, H2_INTERNAL_ERROR);
                return;
        }
        *r = (Relay) { .rq.ops = &relay_ops, .client = c, .client_stream = st, .up.ended = end };
        p->n_relays++;
        tell_activity(p);

        k = agent_link_submit(p->agent, &r->rq);
        if (k < 0) {
                (void) relay_free(r);
                if (k == -ENOTCONN)
                        answer_not_ready(st);
                else if (k == -EINVAL || k == -E2BIG)
                        answer_error(st, 400, FAULT_INVALID_ARGS, "The request's head cannot be passed on.");
                else
                        (void) h2_stream_reset(st, H2_INTERNAL_ERROR);
                return;
        }
        h2_stream_set_userdata(st, r);
}

static void on_client_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Relay *r = h2_stream_userdata(st);

        /* answered by us, or the agent wants no more */
        if (!r || !r->rq.link) {
                h2_stream_consume(st, n);
                return;
        }
        tell_activity(r->client->owner);
        if (flow_take(&r->up, st, r->rq.stream, data, n) < 0)
                (void) h2_stream_reset(st, H2_INTERNAL_ERROR);
}

static void on_client_end(H2Stream *st, void *userdata) {
        Relay *r = h2_stream_userdata(st);

        if (!r)
                return;
        r->up.ended = true;
        if (r->rq.stream)
                flow_pump(&r->up, st, r->rq.stream);
}

static void on_client_writable(H2Stream *st, void *userdata) {
        Relay *r = h2_stream_userdata(st);

        if (r)
                flow_pump(&r->down, r->rq.stream, st);
}

static void on_client_close(H2Stream *st, uint32_t error, void *userdata) {
        DataClient *c = userdata;
        Relay *r = h2_stream_userdata(st);

        if (!r)
                return;
        tell_activity(c->owner);
        r->client_stream = NULL;
        (void) relay_free(r);
}

/* Clients */

static int on_reap(sd_event_source *s, void *userdata) {
        Passthrough *p = userdata;

        while (p->dead) {
                DataClient *c = p->dead;

                p->dead = c->next;
                c->conn = h2_conn_free(c->conn);
                free(c);
        }
        return 0;
}

/* Its streams are closed already; the rest goes from the loop. */
static void on_client_closed(H2Conn *conn, int error, void *userdata) {
        DataClient *c = userdata;
        Passthrough *p = c->owner;

        for (DataClient **i = &p->clients; *i; i = &(*i)->next)
                if (*i == c) {
                        *i = c->next;
                        break;
                }
        p->n_clients--;
        c->next = p->dead;
        p->dead = c;
        (void) event_defer(p->event, &p->reap_source, PRIORITY_CLIENT, on_reap, p);
}

static const H2ConnHandlers client_handlers = {
        .h2 = {
                .on_headers = on_client_headers,
                .on_data = on_client_data,
                .on_end = on_client_end,
                .on_writable = on_client_writable,
                .on_close = on_client_close,
        },
        .on_closed = on_client_closed,
};

int passthrough_add_client(Passthrough *p, int fd) {
        const H2Limits limits = { .streams_max = H2_STREAMS_MAX,
                                  .window_bytes = RELAY_WINDOW_BYTES,
                                  .windows = H2_STREAMS_MAX };
        DataClient *c;
        int r;

        if (p->n_clients >= DATA_CLIENTS_MAX)
                return -EMFILE;
        c = malloc(sizeof(DataClient));
        if (!c)
                return -ENOMEM;
        *c = (DataClient) { .owner = p };
        r = h2_conn_new(p->event, fd, /* server= */ true, &client_handlers, c, &limits, PRIORITY_CLIENT,
                        &c->conn);
        if (r < 0) {
                free(c);
                return r;
        }
        c->next = p->clients;
        p->clients = c;
        p->n_clients++;
        return 0;
}

static int on_listen(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_close_ int client = -EBADF;
        int r;

        client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0)
                return 0;
        r = passthrough_add_client(userdata, client);
        if (r < 0) {
                (void) log_warning_errno(r, "Refused a client of the data socket: %m");
                return 0;
        }
        (void) TAKE_FD(client);
        return 0;
}

int passthrough_new(sd_event *e, int listen_fd, void (*on_activity)(void *userdata), void *userdata,
                    Passthrough **ret) {
        Passthrough *p;
        int r;

        p = malloc(sizeof(Passthrough));
        if (!p)
                return -ENOMEM;
        *p = (Passthrough) {
                .event = e, .listen_fd = -EBADF, .on_activity = on_activity, .userdata = userdata
        };
        if (listen_fd >= 0) {
                r = fd_nonblock(listen_fd, true);
                if (r >= 0)
                        r = event_io(e, &p->listen_source, listen_fd, EPOLLIN, PRIORITY_CLIENT, on_listen, p,
                                     "data-listen");
                if (r < 0) {
                        (void) passthrough_free(p);
                        return r;
                }
                p->listen_fd = listen_fd;
        }
        *ret = p;
        return 0;
}

Passthrough* passthrough_free(Passthrough *p) {
        if (!p)
                return NULL;
        p->listen_source = event_source_free(p->listen_source);
        p->on_activity = NULL;
        p->agent = NULL;
        while (p->clients) {
                DataClient *c = p->clients;

                p->clients = c->next;
                c->conn = h2_conn_free(c->conn);
                free(c);
        }
        (void) on_reap(NULL, p);
        p->reap_source = event_source_free(p->reap_source);
        (void) close_fd(p->listen_fd);
        free(p);
        return NULL;
}

void passthrough_set_agent(Passthrough *p, AgentLink *agent) {
        p->agent = agent;
}

unsigned passthrough_n_clients(const Passthrough *p) {
        return p->n_clients;
}

unsigned passthrough_n_streams(const Passthrough *p) {
        return p->n_relays;
}
