/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The gate with this test in the place of libmicrohttpd: what is relayed, when, and what comes back. */

#include <sys/socket.h>
#include <sys/un.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/gate.h"
#include "tests/unit/test.h"

#define REQUEST "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"

typedef struct Rig {
        sd_event *event;
        Gate *gate;
        int client;
        struct sockaddr_un address;

        GateConn *conn; /* of the last attach or wait; referenced */
        int backend;    /* libmicrohttpd's end */
        GateVerdict verdict;
        uint64_t body_max;
        unsigned n_heads, n_gone;
        int taken; /* the socket of a taken connection */
        char taken_text[64];
        unsigned n_asked, n_asked_now; /* to end, taken */
        char path[64];
        int request; /* something to point at */
        bool idle;

        bool serve, upload; /* here and not by the backend */
        size_t room, n_body;
        char body[256];
        unsigned n_begun, n_whole, n_drained, n_ended;
} Rig;

static void on_begin(GateConn *c, void *userdata) {
        Rig *rig = container_of(userdata, Rig, request);

        rig->n_begun++;
}

static size_t on_body(GateConn *c, const void *data, size_t n, void *userdata) {
        Rig *rig = container_of(userdata, Rig, request);

        n = MIN(n, rig->room);
        rig->room -= n;
        memcpy(rig->body + rig->n_body % 128, data, MIN(n, 128U));
        rig->n_body += n;
        return n;
}

static void on_body_end(GateConn *c, void *userdata) {
        Rig *rig = container_of(userdata, Rig, request);

        rig->n_whole++;
}

static void on_drained(GateConn *c, void *userdata) {
        Rig *rig = container_of(userdata, Rig, request);

        ASSERT_TRUE(gate_answer_unsent(c) <= HTTP_RELAY_BYTES);
        rig->n_drained++;
}

static void on_end(GateConn *c, void *userdata) {
        Rig *rig = container_of(userdata, Rig, request);

        rig->n_ended++;
}

static const GateService service = {
        .on_begin = on_begin,
        .on_body = on_body,
        .on_body_end = on_body_end,
        .on_drained = on_drained,
        .on_end = on_end,
};

static GateVerdict on_head(GateConn *c, const HttpHead *head, const char *data, HttpHostClass host,
                           uint64_t *ret_body_max, GateRefusal *ret_refusal, void *userdata) {
        Rig *rig = userdata;

        rig->n_heads++;
        (void) snprintf(rig->path, sizeof(rig->path), "%.*s", (int) head->path.n, data + head->path.offset);
        if (!rig->conn)
                rig->conn = gate_conn_ref(c);
        *ret_body_max = rig->body_max;
        if (rig->verdict == GATE_REFUSE) {
                (void) fault_set(&ret_refusal->fault, FAULT_UNAUTHORIZED, "no");
                strcpy(ret_refusal->header, "X-Why: test\r\n");
        } else {
                gate_conn_set_request(c, &rig->request);
        }
        if (rig->serve)
                gate_conn_serve(c, &service, rig->upload);
        return rig->verdict;
}

static int on_attach(GateConn *c, int fd, void *userdata) {
        Rig *rig = userdata;

        rig->backend = fd;
        return 0;
}

static void on_relayed(GateConn *c, void *userdata) {
}

static void on_gone(GateConn *c, void *userdata) {
        Rig *rig = userdata;

        rig->n_gone++;
        ASSERT_PTR(gate_conn_request(c), &rig->request);
}

static void on_taken(GateConn *c, int fd, const char *data, size_t n, void *userdata) {
        Rig *rig = userdata;

        rig->taken = fd;
        ASSERT_TRUE(n < sizeof(rig->taken_text));
        memcpy(rig->taken_text, data, n);
        ASSERT_PTR(gate_conn_request(c), &rig->request);
}

static void on_asked(GateConn *c, bool now, void *userdata) {
        Rig *rig = userdata;

        if (now) {
                rig->n_asked_now++;
                gate_conn_release(c);
        } else {
                rig->n_asked++;
        }
}

static void on_idle(void *userdata) {
        Rig *rig = userdata;

        rig->idle = true;
}

static const GateHandlers handlers = {
        .on_head = on_head,
        .on_attach = on_attach,
        .on_relayed = on_relayed,
        .on_gone = on_gone,
        .on_taken = on_taken,
        .on_end = on_asked,
};

static void rig_open(Rig *rig, const GateConfig *config) {
        socklen_t n = sizeof(rig->address);
        int listener;

        *rig = (Rig) { .client = -EBADF,
                       .backend = -EBADF,
                       .taken = -EBADF,
                       .body_max = 1 * GIB,
                       .address.sun_family = AF_UNIX };
        ASSERT_OK(sd_event_new(&rig->event));
        ASSERT_OK(gate_new(rig->event, config, &handlers, rig, &rig->gate));
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* an abstract name is made up */
        ASSERT_OK(bind(listener, (struct sockaddr *) &rig->address, sizeof(sa_family_t)));
        ASSERT_OK(listen(listener, 16));
        ASSERT_OK(getsockname(listener, (struct sockaddr *) &rig->address, &n));
        ASSERT_OK(gate_add_listener(rig->gate, listener));
        rig->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        ASSERT_OK(connect(rig->client, (struct sockaddr *) &rig->address, n));
}

static void rig_close(Rig *rig) {
        gate_free(rig->gate);
        gate_conn_unref(rig->conn);
        (void) close_fd(rig->client);
        (void) close_fd(rig->backend);
        (void) close_fd(rig->taken);
        sd_event_unref(rig->event);
}

/* Lets the gate do what it can. */
static void rig_turn(Rig *rig) {
        while (sd_event_run(rig->event, 0) > 0)
                ;
}

static void rig_send(Rig *rig, const char *text) {
        ASSERT_EQ(send(rig->client, text, strlen(text), MSG_NOSIGNAL), strlen(text));
        rig_turn(rig);
}

static void rig_answer(Rig *rig, const char *text) {
        ASSERT_OK(write_all(rig->backend, text, strlen(text)));
        gate_conn_completed(rig->conn);
        gate_flush(rig->gate);
        rig_turn(rig);
}

/* What lies in a socket, which must be this. */
static void expect_text(int fd, const char *expected) {
        char text[4096];
        ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

        text[MAX(n, (ssize_t) 0)] = '\0';
        ASSERT_STREQ(text, expected);
}

static void expect_closed(int fd) {
        char c;

        ASSERT_EQ(recv(fd, &c, 1, MSG_DONTWAIT), 0);
}

TEST(requests_are_relayed_one_at_a_time) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig_send(&rig, REQUEST REQUEST "GET /x HTTP/1.1\r\n");
        ASSERT_EQ(rig.n_heads, 1);
        expect_text(rig.backend, REQUEST);
        expect_text(rig.client, "");

        rig_answer(&rig, "answer 1");
        expect_text(rig.client, "answer 1");
        ASSERT_EQ(rig.n_heads, 2);
        expect_text(rig.backend, REQUEST);
        rig_answer(&rig, "answer 2");
        expect_text(rig.client, "answer 2");

        rig_send(&rig, "Host: localhost\r\n\r\n");
        ASSERT_EQ(rig.n_heads, 3);
        ASSERT_STREQ(rig.path, "/x");
        expect_text(rig.backend, "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        ASSERT_EQ(rig.n_gone, 0);
        rig_close(&rig);
        ASSERT_EQ(rig.n_gone, 1);
}

TEST(nothing_is_relayed_before_the_verdict) {
        _cleanup_(gate_refusal_done) GateRefusal refusal = {};
        char text[4096];
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.verdict = GATE_WAIT;
        rig_send(&rig, REQUEST);
        ASSERT_EQ(rig.backend, -EBADF);
        gate_conn_pass(rig.conn, 100);
        expect_text(rig.backend, REQUEST);
        rig_answer(&rig, "answer");
        expect_text(rig.client, "answer");

        rig_send(&rig, REQUEST);
        (void) fault_set(&refusal.fault, FAULT_UNAUTHORIZED, "who?");
        gate_conn_refuse(rig.conn, &refusal);
        ASSERT_TRUE(recv(rig.client, text, sizeof(text), 0) > 0);
        ASSERT_TRUE(strncmp(text, "HTTP/1.1 401 Unauthorized\r\n", 27) == 0);
        expect_closed(rig.client);
        expect_closed(rig.backend);
        ASSERT_EQ(rig.n_gone, 0);
        rig_close(&rig);
}

TEST(refusals_and_body_limits) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.verdict = GATE_REFUSE;
        rig_send(&rig, REQUEST);
        expect_text(rig.client,
                    "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 48\r\n"
                    "Connection: close\r\nX-Why: test\r\n\r\n{\"error\":{\"code\":\"unauthorized\",\"message\":\"no\"}}");
        expect_closed(rig.client);
        rig_close(&rig);

        rig_open(&rig, &(GateConfig) {});
        rig.body_max = 4;
        rig_send(&rig,
                 "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n");
        expect_text(rig.backend,
                    "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n");
        rig_send(&rig, "1\r\ne\r\n");
        expect_closed(rig.backend);
        ASSERT_EQ(rig.n_gone, 1);
        rig_close(&rig);
}

TEST(the_client_leaves) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig_send(&rig, REQUEST);
        rig.client = close_fd(rig.client);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_gone, 1);
        ASSERT_TRUE(gate_conn_is_gone(rig.conn));
        ASSERT_EQ(gate_n_connections(rig.gate), 0);
        expect_text(rig.backend, REQUEST);
        expect_closed(rig.backend);
        gate_conn_completed(rig.conn); /* libmicrohttpd notices later */
        gate_flush(rig.gate);
        rig_close(&rig);
}

#define UPGRADE "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

TEST(a_taken_connection_is_a_bare_socket) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig_send(&rig, REQUEST);
        rig_answer(&rig, "answer");
        expect_text(rig.client, "answer");

        rig.verdict = GATE_TAKE;
        rig_send(&rig, UPGRADE "\x16\x03 anything\n");
        ASSERT_STREQ(rig.taken_text, "\x16\x03 anything\n");
        expect_text(rig.backend, REQUEST);
        expect_closed(rig.backend);
        rig_send(&rig, REQUEST);
        expect_text(rig.taken, REQUEST);
        ASSERT_OK(write_all(rig.taken, "back", 4));
        expect_text(rig.client, "back");
        ASSERT_EQ(gate_n_connections(rig.gate), 1);

        /* nobody but its taker ends it */
        ASSERT_EQ(shutdown(rig.client, SHUT_WR), 0);
        rig_turn(&rig);
        ASSERT_EQ(gate_n_connections(rig.gate), 1);
        gate_conn_release(rig.conn);
        ASSERT_EQ(gate_n_connections(rig.gate), 0);
        ASSERT_EQ(rig.n_gone, 0);
        rig_close(&rig);
        ASSERT_EQ(rig.n_asked + rig.n_asked_now, 0);
}

TEST(taken_after_a_wait) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.verdict = GATE_WAIT;
        rig_send(&rig, UPGRADE "be");
        rig_send(&rig, "hind");
        ASSERT_EQ(rig.taken, -EBADF);
        gate_conn_take(rig.conn);
        ASSERT_STREQ(rig.taken_text, "behind");
        gate_conn_take(rig.conn); /* once */
        rig_close(&rig);
        ASSERT_EQ(rig.n_asked_now, 1);
        ASSERT_EQ(rig.n_gone, 0);
}

TEST(taken_connections_are_asked_to_end) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.verdict = GATE_TAKE;
        rig_send(&rig, UPGRADE);
        gate_drain(rig.gate, on_idle, &rig);
        ASSERT_EQ(rig.n_asked, 1);
        ASSERT_FALSE(rig.idle);
        gate_conn_release(rig.conn);
        ASSERT_TRUE(rig.idle);
        rig_close(&rig);
        ASSERT_EQ(rig.n_asked_now, 0);
}

/* The verdict comes while the gate drains already. */
TEST(taken_while_draining) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.verdict = GATE_WAIT;
        rig_send(&rig, UPGRADE);
        gate_drain(rig.gate, on_idle, &rig);
        gate_conn_take(rig.conn);
        ASSERT_EQ(rig.n_asked, 1);
        rig_close(&rig);
        ASSERT_EQ(rig.n_asked_now, 1);
}

TEST(back_pressure_both_ways) {
        static char block[65536];
        size_t sent = 0, got = 0;
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig_send(&rig, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n");
        for (unsigned idle = 0; idle < 3;) {
                ssize_t k = send(rig.client, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);

                idle = k > 0 ? 0 : idle + 1;
                sent += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        ASSERT_TRUE(sent < 4 * MIB); /* nobody reads at the other end: it stops */
        while (got < sent) {
                ssize_t k = recv(rig.backend, block, sizeof(block), MSG_DONTWAIT);

                got += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        ASSERT_TRUE(got >= sent);

        ASSERT_OK(fd_nonblock(rig.backend, true));
        sent = got = 0;
        for (unsigned idle = 0; idle < 3;) {
                ssize_t k = send(rig.backend, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);

                idle = k > 0 ? 0 : idle + 1;
                sent += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        ASSERT_TRUE(sent < 4 * MIB);
        while (got < sent) {
                ssize_t k = recv(rig.client, block, sizeof(block), MSG_DONTWAIT);

                got += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        rig_close(&rig);
}

#define UPLOAD "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

/* What lies in the client's socket begins with this line and ends with this. */
static void expect_answer(Rig *rig, const char *first, const char *last) {
        char text[4096];
        ssize_t n = recv(rig->client, text, sizeof(text) - 1, MSG_DONTWAIT);

        ASSERT_TRUE(n > 0);
        text[n] = '\0';
        if (!startswith(text, first) || !endswith(text, last))
                fail_msg("unexpected answer: %s", text);
}

TEST(a_served_request_gets_its_body_bare) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.serve = rig.upload = true;
        rig.room = 4;
        rig_send(&rig, UPLOAD "3\r\nabc\r\n4\r\nde");
        ASSERT_EQ(rig.n_body, 4);
        rig_send(&rig, "fg\r\n0\r\n\r\n" REQUEST);
        ASSERT_EQ(rig.n_body, 4);
        ASSERT_EQ(rig.n_whole, 0);
        rig.room = 100;
        gate_conn_continue(rig.conn);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_body, 7);
        ASSERT_EQ(rig.n_whole, 1);
        ASSERT_EQ(rig.n_ended, 0);
        ASSERT_EQ(rig.n_heads, 1);
        gate_answer(rig.conn, 200, "text/plain", "yes", 3);
        rig_turn(&rig);
        expect_answer(&rig, "HTTP/1.1 200 OK\r\n",
                      "Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nyes");

        /* the one that waited, with its body */
        ASSERT_EQ(rig.n_ended, 1);
        ASSERT_EQ(rig.n_begun, 2);
        ASSERT_EQ(rig.n_body, 12);
        ASSERT_EQ(rig.n_whole, 2);
        gate_answer(rig.conn, 204, NULL, NULL, 0);
        rig.serve = false; /* and one for the backend */
        rig_send(&rig, REQUEST);
        expect_answer(&rig, "HTTP/1.1 204 No Content\r\n", "GMT\r\n\r\n");
        expect_text(rig.backend, REQUEST);
        ASSERT_EQ(rig.n_ended, 2);
        ASSERT_EQ(rig.n_gone, 0);
        rig_close(&rig);
        ASSERT_EQ(rig.n_gone, 1);
        ASSERT_EQ(rig.n_ended, 2);
}

TEST(a_served_request_is_answered_early) {
        static char block[65536];
        size_t dropped = 0;
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.serve = rig.upload = true;
        rig_send(&rig, "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                       "Content-Length: 100000000\r\n\r\n");
        expect_text(rig.client, "HTTP/1.1 100 Continue\r\n\r\n");
        rig_send(&rig, "data");
        gate_answer(rig.conn, 409, "text/plain", "no", 2);
        gate_answer(rig.conn, 200, "text/plain", "second", 6); /* nothing comes of it */
        rig_turn(&rig);
        expect_answer(&rig, "HTTP/1.1 409 Conflict\r\n", "Connection: close\r\n\r\nno");
        expect_closed(rig.client);
        ASSERT_EQ(rig.n_ended, 1);

        /* it may still send what it has begun */
        while (dropped < 8 * MIB) {
                ssize_t k = send(rig.client, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);

                ASSERT_TRUE(k > 0 || errno == EAGAIN);
                dropped += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        ASSERT_EQ(rig.n_body, 0);
        ASSERT_EQ(rig.n_whole, 0);
        rig_close(&rig);
        ASSERT_EQ(rig.n_ended, 1);
}

TEST(a_served_request_beyond_its_limit) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.serve = rig.upload = true;
        rig.body_max = 4;
        rig.room = 100;
        rig_send(&rig, UPLOAD "4\r\nabcd\r\n1\r\n");
        ASSERT_EQ(rig.n_ended, 0);
        rig_send(&rig, "e");
        ASSERT_EQ(rig.n_ended, 1);
        expect_answer(&rig, "HTTP/1.1 413 Content Too Large\r\n", "\"The request's body is too large.\"}}");
        gate_answer(rig.conn, 204, NULL, NULL, 0); /* too late */
        rig_turn(&rig);
        expect_closed(rig.client);
        rig_close(&rig);
}

TEST(an_answer_is_streamed) {
        static char block[65536];
        size_t got = 0;
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.serve = true;
        rig.room = 100;
        rig_send(&rig, REQUEST);
        gate_answer_begin(rig.conn, 200, "text/plain");
        gate_answer_data(rig.conn, "0123456789", 10);
        gate_answer_data(rig.conn, "", 0);
        rig_turn(&rig);
        expect_answer(&rig, "HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n");
        ASSERT_TRUE(rig.n_drained > 0);

        /* nobody reads: it is kept, and nobody is asked for more */
        while (gate_answer_unsent(rig.conn) < 4 * sizeof(block)) {
                gate_answer_data(rig.conn, block, sizeof(block));
                rig_turn(&rig);
        }
        rig.n_drained = 0;
        rig_turn(&rig);
        ASSERT_EQ(rig.n_drained, 0);
        gate_answer_end(rig.conn);
        while (rig.n_ended == 0) {
                ssize_t k = recv(rig.client, block, sizeof(block), MSG_DONTWAIT);

                got += (size_t) MAX(k, (ssize_t) 0);
                rig_turn(&rig);
        }
        ASSERT_TRUE(got > 0);
        while (recv(rig.client, block, sizeof(block), MSG_DONTWAIT) > 0)
                ;

        /* the connection goes on, and the next answer breaks */
        rig_send(&rig, REQUEST);
        gate_answer_begin(rig.conn, 200, "text/plain");
        gate_answer_data(rig.conn, "x", 1);
        gate_answer_abort(rig.conn);
        gate_answer_data(rig.conn, "y", 1);
        rig_turn(&rig);
        expect_answer(&rig, "HTTP/1.1 200 OK\r\n", "\r\n\r\n1\r\nx\r\n");
        expect_closed(rig.client);
        ASSERT_EQ(rig.n_ended, 2);
        rig_close(&rig);
}

TEST(the_client_of_a_served_request_leaves) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig.serve = rig.upload = true;
        rig_send(&rig, UPLOAD "3\r\nabc\r\n"); /* nothing is taken of it */
        rig.client = close_fd(rig.client);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_ended, 1);
        ASSERT_EQ(gate_n_connections(rig.gate), 0);
        gate_answer(rig.conn, 204, NULL, NULL, 0);
        rig_close(&rig);
}

TEST(a_served_body_may_pause_but_not_for_ever) {
        Rig rig;

        rig_open(&rig,
                 &(GateConfig) { .head_usec = USEC_PER_MSEC, .stream_idle_usec = 200 * USEC_PER_MSEC });
        rig.serve = rig.upload = true;
        rig.room = 100;
        rig_send(&rig, UPLOAD "3\r\nabc\r\n");
        (void) sd_event_run(rig.event, 50 * USEC_PER_MSEC);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_ended, 0);
        while (rig.n_ended == 0)
                ASSERT_OK(sd_event_run(rig.event, UINT64_MAX));
        expect_answer(&rig, "HTTP/1.1 408 Request Timeout\r\n", "}}");
        rig_close(&rig);
}

TEST(draining_lets_requests_finish) {
        Rig rig;

        rig_open(&rig, &(GateConfig) {});
        rig_send(&rig, REQUEST REQUEST);
        gate_drain(rig.gate, on_idle, &rig);
        rig_turn(&rig);
        ASSERT_FALSE(rig.idle);
        rig_answer(&rig, "answer");
        ASSERT_EQ(rig.n_heads, 1);
        expect_text(rig.client, "answer");
        rig.client = close_fd(rig.client);
        rig_turn(&rig);
        ASSERT_TRUE(rig.idle);
        rig_close(&rig);
}
