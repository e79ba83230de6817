/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What gate.c (listeners, quotas, deadlines), gate-conn.c (one connection) and gate-serve.c (requests
 * without libmicrohttpd) share. */

#include "rest/gate.h"

typedef enum ConnPhase {
        CONN_HEAD,    /* a head is read */
        CONN_WAIT,    /* a good head waits for the verdict */
        CONN_BODY,    /* the body is relayed */
        CONN_ANSWER,  /* the request is relayed, the answer comes */
        CONN_TAKEN,   /* the socket is somebody else's */
        CONN_CLOSING, /* the last bytes go out, then linger */
        CONN_LINGER,  /* the answer is out; what still comes is dropped */
        CONN_CLOSED,
} ConnPhase;

struct GateConn {
        unsigned n_ref;
        Gate *gate;                /* weak; NULL once closed */
        GateConn *next, *previous; /* all connections of the gate */
        GateConn *next_ready;      /* gate->ready */
        Peer *peer;
        ConnPhase phase;

        int fd, relay_fd;
        sd_event_source *source, *relay_source;

        char *in; /* bytes of the client, not relayed yet; n_good of them are good */
        size_t n_in, n_good;
        char *out; /* bytes of the answer the client has not taken yet */
        size_t n_out, out_at;

        HttpScan scan;
        uint64_t body_max;
        uint64_t deadline;               /* CLOCK_BOOTTIME, USEC_INFINITY: none */
        uint64_t body_usec;              /* when the body began, moved by the times we did not read */
        uint64_t stalled_usec;           /* since when we do not read because of back-pressure, or 0 */
        uint64_t out_usec, n_out_window; /* write stall: start of the window, bytes taken in it */
        uint64_t n_linger;

        bool completed, ready, feeding, relay_eof, responded, head_begun;

        const GateService *service; /* of a request that is served here (gate-serve.c) */
        size_t n_out_allocated;     /* for its answer */
        bool upload, patient, begun, out_blocked;
        bool answer_chunked, answer_close, answer_ended, answer_aborted;

        void *session;
        void (*session_free)(void *session);
        void *request;
};

struct Gate {
        sd_event *event;
        GateConfig config;
        const GateHandlers *handlers;
        void *userdata;
        PeerTable *peers;

        sd_event_source **listeners;
        size_t n_listeners;
        sd_event_source *timer;
        uint64_t armed_usec; /* when the timer fires, USEC_INFINITY: off */
        sd_event_source *accept_timer;
        sd_event_source *flush_source; /* gate_flush() from the loop */

        GateConn *conns, *ready;
        unsigned n_conns;

        bool draining;
        void (*on_idle)(void *userdata);
        void *idle_userdata;

        char *scratch_in, *scratch_out; /* HTTP_RELAY_BYTES each */
};

uint64_t gate_now(const Gate *g);
/* Makes sure the sweep runs at the deadline. */
void gate_arm(Gate *g, uint64_t deadline);

/* Takes fd in every case. */
int gate_conn_new(Gate *g, int fd, Peer *peer_consume, GateConn **ret);
/* Answers this refusal to an accepted connection beyond the quota and closes it by and by. */
void gate_conn_reject(GateConn *c, HttpReject reject);
void gate_conn_on_deadline(GateConn *c);
void gate_conn_close(GateConn *c, bool reset);
/* Relays what libmicrohttpd wrote. */
void gate_conn_drain(GateConn *c);
bool gate_conn_is_ending(const GateConn *c);
void gate_conn_set_deadline(GateConn *c, uint64_t deadline);
/* Deadline and events of what is awaited now. */
void gate_conn_settle(GateConn *c);
/* The answer is out: the next request, or the end. */
void gate_conn_next(GateConn *c);
/* gate_flush() will look at this connection. */
void gate_conn_mark_ready(GateConn *c);

/* gate-serve.c. One step through data, the first c->n_good bytes of which are the head or body bytes; as
 * conn_feed_step(). */
ssize_t gate_serve_step(GateConn *c, const char *data, size_t n);
/* Sends what is queued and goes on with what follows it. */
void gate_serve_flush(GateConn *c);
/* The service is over; nothing of the request is called any more. */
void gate_serve_end(GateConn *c);
