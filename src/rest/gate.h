/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The gate: accepts the connections, follows every request with http-scan, and relays what is good to
 * libmicrohttpd over a socketpair. It refuses with the JSON envelope and closes, holds the deadlines and
 * quotas (threats.md N3-N7, N10), and keeps one request of a connection in libmicrohttpd at a time: the next
 * head is read once the answer before it is out. So a refusal never overtakes an answer. A connection costs
 * libmicrohttpd nothing before its first good head. A connection that leaves HTTP (WebSockets, tunnels) is
 * handed over as a bare socket and never sees libmicrohttpd; the gate only counts it on. Requests whose
 * bodies or answers are streamed are served by the gate itself (gate-serve.c).
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "rest/http-policy.h"
#include "rest/http-scan.h"
#include "rest/peer.h"

typedef struct Gate Gate;
typedef struct GateConn GateConn;

typedef enum GateVerdict {
        GATE_PASS,   /* relay it */
        GATE_WAIT,   /* gate_conn_pass() or gate_conn_refuse() comes later */
        GATE_TAKE,   /* on_taken() comes: it is no HTTP from here on */
        GATE_REFUSE, /* answer *ret_refusal and close */
} GateVerdict;

typedef struct GateRefusal {
        HttpReject reject; /* or, when this is none, */
        Fault fault;
        char header[128]; /* "" or more header lines with CR LF each */
} GateRefusal;

static inline void gate_refusal_done(GateRefusal *r) {
        fault_done(&r->fault);
}

typedef struct GateHandlers {
        /* A good head of an allowed host. The slices of head point into data; both end with the call.
         * body_max: set on GATE_PASS. */
        GateVerdict (*on_head)(GateConn *c, const HttpHead *head, const char *data, HttpHostClass host,
                               uint64_t *ret_body_max, GateRefusal *ret_refusal, void *userdata);
        /* Hand this end of the socketpair to libmicrohttpd; takes fd in every case. Take a reference of c
         * for as long. */
        int (*on_attach)(GateConn *c, int fd, void *userdata);
        /* Bytes wait in the socketpair of c: run libmicrohttpd, then gate_flush(). */
        void (*on_relayed)(GateConn *c, void *userdata);
        /* The client left while its request waits (GATE_WAIT) or is in libmicrohttpd. The socketpair is
         * closed already. Not for requests that are served here. */
        void (*on_gone)(GateConn *c, void *userdata);
        /* GATE_TAKE: fd (taken) is the client's socket, data the n bytes that came behind the head,
         * borrowed. c and its request live on, counted as before, until gate_conn_release(). */
        void (*on_taken)(GateConn *c, int fd, const char *data, size_t n, void *userdata);
        /* A taken connection shall end: soon, or now; then gate_conn_release() before the return. */
        void (*on_end)(GateConn *c, bool now, void *userdata);
} GateHandlers;

/*
 * A request that is served here, without libmicrohttpd: for bodies and answers that are streamed. The answer
 * is queued by gate_answer_…(), which neither call back nor close at once. userdata is gate_conn_request().
 */
typedef struct GateService {
        void (*on_begin)(GateConn *c, void *userdata); /* it was passed */
        /* Bytes of the body without framing. The count taken; after fewer than n gate_conn_continue() is
         * due. Not called any more once an answer has begun. */
        size_t (*on_body)(GateConn *c, const void *data, size_t n, void *userdata);
        void (*on_body_end)(GateConn *c, void *userdata);
        /* An answer that is streamed may go on: gate_answer_unsent() is HTTP_RELAY_BYTES or less. */
        void (*on_drained)(GateConn *c, void *userdata);
        void (*on_end)(GateConn *c, void *userdata); /* answered, or the client left; last call */
} GateService;

typedef struct GateConfig {
        char **hosts;             /* additional names for Host; borrowed */
        unsigned connections_max; /* 0: HTTP_CONNECTIONS_MAX, and less where RLIMIT_NOFILE demands it */
        unsigned connections_per_peer_max;
        uint64_t first_byte_usec, head_usec, idle_usec, write_stall_usec,
                        stream_idle_usec; /* 0: the limit of basic/limits.h */
} GateConfig;

int gate_new(sd_event *e, const GateConfig *config, const GateHandlers *handlers, void *userdata,
             Gate **ret);
/* Closes all connections at once; on_gone runs for those with a request, on_end for taken ones. */
void gate_close_all(Gate *g);
Gate* gate_free(Gate *g);
DEFINE_CLEANUP(Gate, gate_free)

/* Accepts from this listening socket; takes fd on success. */
int gate_add_listener(Gate *g, int fd);
/* Stops accepting, closes idle connections, closes the others behind their answer, asks taken ones to end;
 * on_idle runs once none is left. */
void gate_drain(Gate *g, void (*on_idle)(void *userdata), void *userdata);
unsigned gate_n_connections(const Gate *g);

/* Drains the answers of all connections whose request was completed since the last call. */
void gate_flush(Gate *g);

/* Verdicts that come later than on_head(). Nothing happens when the client left meanwhile. */
void gate_conn_pass(GateConn *c, uint64_t body_max);
void gate_conn_take(GateConn *c);
void gate_conn_refuse(GateConn *c, const GateRefusal *refusal);

/* Before the verdict that passes the request. upload: the body may pause up to stream_idle_usec. */
void gate_conn_serve(GateConn *c, const GateService *service, bool upload);
/* There is room again for what on_body() did not take. */
void gate_conn_continue(GateConn *c);

/* A whole answer; type NULL: without a body. */
void gate_answer(GateConn *c, unsigned status, const char *type, const void *body, size_t n);
/* An answer in pieces. The caller bounds what is unsent. It may pause up to stream_idle_usec. */
void gate_answer_begin(GateConn *c, unsigned status, const char *type);
void gate_answer_data(GateConn *c, const void *data, size_t n);
void gate_answer_end(GateConn *c);
/* What was begun cannot be finished: the connection breaks, so that the client notices. */
void gate_answer_abort(GateConn *c);
size_t gate_answer_unsent(const GateConn *c);

/* libmicrohttpd is done with this connection's request (MHD_OPTION_NOTIFY_COMPLETED); gate_flush() must
 * follow. */
void gate_conn_completed(GateConn *c);
/* A taken connection's socket is closed: c is forgotten. */
void gate_conn_release(GateConn *c);

GateConn* gate_conn_ref(GateConn *c);
GateConn* gate_conn_unref(GateConn *c);
DEFINE_CLEANUP(GateConn, gate_conn_unref)
Peer* gate_conn_peer(const GateConn *c);
/* What the connection's last request was authenticated as; freed when replaced and when the connection ends.
 */
void gate_conn_set_session(GateConn *c, void *session, void (*session_free)(void *session));
void* gate_conn_session(const GateConn *c);
/* The handler's mark of the request that waits or is in libmicrohttpd; the gate only keeps it. */
void gate_conn_set_request(GateConn *c, void *request);
void* gate_conn_request(const GateConn *c);
bool gate_conn_is_gone(const GateConn *c);
