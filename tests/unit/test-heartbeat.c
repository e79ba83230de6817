/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "monitor/heartbeat.h"
#include "shared/event.h"
#include "tests/unit/test.h"

#define TICK_USEC (2 * USEC_PER_MSEC)

typedef struct Rig {
        sd_event *event;
        int fds[2];
        H2Conn *client, *server;
        Heartbeat heartbeat;
        unsigned n_dead;
} Rig;

static void on_headers(H2Stream *st, bool end, void *userdata) {
}

static void on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        h2_stream_consume(st, n);
}

static void on_stream(H2Stream *st, void *userdata) {
}

static void on_close(H2Stream *st, uint32_t error, void *userdata) {
}

static void on_closed(H2Conn *c, int error, void *userdata) {
}

static const H2ConnHandlers handlers = {
        .h2 = {
                .on_headers = on_headers,
                .on_data = on_data,
                .on_end = on_stream,
                .on_writable = on_stream,
                .on_close = on_close,
        },
        .on_closed = on_closed,
};

static void on_dead(void *userdata) {
        Rig *r = userdata;

        r->n_dead++;
}

/* answers: the peer is a server of ours; else nobody reads. */
static void rig_begin(Rig *r, bool answers, bool with_stream) {
        H2Stream *st;

        *r = (Rig) {};
        ASSERT_OK(sd_event_new(&r->event));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->fds));
        ASSERT_OK(h2_conn_new(r->event, r->fds[0], false, &handlers, r, NULL, 0, &r->client));
        if (answers)
                ASSERT_OK(h2_conn_new(r->event, r->fds[1], true, &handlers, r, NULL, 0, &r->server));
        heartbeat_start(&r->heartbeat, r->client, TICK_USEC, on_dead, r);
        if (with_stream)
                ASSERT_OK(h2_session_request(h2_conn_session(r->client), "GET", "/", NULL, 0, true, NULL,
                                             &st));
        heartbeat_watch(&r->heartbeat, r->event);
        heartbeat_watch(&r->heartbeat, r->event);
}

static void rig_end(Rig *r) {
        bool answers = r->server;

        heartbeat_stop(&r->heartbeat);
        h2_conn_free(r->client);
        h2_conn_free(r->server);
        if (!answers)
                (void) close_fd(r->fds[1]);
        sd_event_unref(r->event);
}

static void run_ticks(Rig *r, unsigned n) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + n * TICK_USEC;

        while (now_usec(CLOCK_MONOTONIC) < until && r->n_dead == 0)
                ASSERT_OK(sd_event_run(r->event, TICK_USEC));
}

TEST(silent_peer_is_dead) {
        Rig r;

        rig_begin(&r, /* answers= */ false, /* with_stream= */ true);
        run_ticks(&r, 5000);
        ASSERT_EQ(r.n_dead, 1);
        run_ticks(&r, 20);
        ASSERT_EQ(r.n_dead, 1);
        rig_end(&r);
}

/* Frames of a type nobody knows are dropped; they do not make it an answer. */
TEST(babbling_peer_is_dead) {
        static const uint8_t frame[] = { 0, 0, 1, 0xee, 0, 0, 0, 0, 0, 'x' };
        static const uint8_t settings[] = { 0, 0, 0, 4, 0, 0, 0, 0, 0 };
        uint64_t until = now_usec(CLOCK_MONOTONIC) + 60 * USEC_PER_SEC;
        uint8_t drop[4096];
        Rig r;

        rig_begin(&r, /* answers= */ false, /* with_stream= */ true);
        ASSERT_EQ(send(r.fds[1], settings, sizeof(settings), 0), sizeof(settings));
        while (r.n_dead == 0 && now_usec(CLOCK_MONOTONIC) < until) {
                (void) recv(r.fds[1], drop, sizeof(drop), MSG_DONTWAIT);
                (void) send(r.fds[1], frame, sizeof(frame), MSG_DONTWAIT | MSG_NOSIGNAL);
                ASSERT_OK(sd_event_run(r.event, TICK_USEC));
        }
        ASSERT_EQ(r.n_dead, 1);
        rig_end(&r);
}

/* Nothing but its answers to PING. */
TEST(answering_peer_lives) {
        Rig r;

        rig_begin(&r, /* answers= */ true, /* with_stream= */ true);
        run_ticks(&r, 10 * HEARTBEAT_TICKS_MAX);
        ASSERT_EQ(r.n_dead, 0);
        rig_end(&r);
}

TEST(without_streams_nobody_looks) {
        Rig r;

        rig_begin(&r, /* answers= */ false, /* with_stream= */ false);
        run_ticks(&r, 10 * HEARTBEAT_TICKS_MAX);
        ASSERT_EQ(r.n_dead, 0);
        rig_end(&r);
}
