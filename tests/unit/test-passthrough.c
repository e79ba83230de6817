/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Clients, pass-through, link and a fake agent in one loop, joined by socketpairs as by data.sock and the
 * agent's port. */

#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "monitor/passthrough.h"
#include "shared/event.h"
#include "shared/h2-conn.h"
#include "shared/protocol.h"
#include "tests/fake/fake-agent.h"
#include "tests/unit/test.h"

typedef struct Answer {
        H2Stream *stream;
        unsigned status;
        size_t n_body;
        char body[512];
        char path[128];
        bool hold; /* read without giving credit back */
        bool ended, closed;
        uint32_t error;
} Answer;

typedef struct Rig {
        sd_event *event;
        FakeAgent *agent;
        AgentLink *link;
        Passthrough *passthrough;
        unsigned n_ready, n_lost, n_activity;
        char lost[128];
} Rig;

static void on_ready(AgentLink *l, json_t *info, void *userdata) {
        Rig *r = userdata;

        r->n_ready++;
        passthrough_set_agent(r->passthrough, l);
        ASSERT_STREQ(json_string_value(json_object_get(info, "version")), "0.0-fake");
        ASSERT_EQ(json_array_size(json_object_get(info, "features")),
                  1); /* the one with a control character is left out */
}

static void on_lost(AgentLink *l, const char *text, void *userdata) {
        Rig *r = userdata;

        r->n_lost++;
        (void) snprintf(r->lost, sizeof(r->lost), "%s", text);
}

static const AgentLinkHandlers link_handlers = { .on_ready = on_ready, .on_lost = on_lost };

static void on_activity(void *userdata) {
        ((Rig *) userdata)->n_activity++;
}

static void pair(int ret[2]) {
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret));
}

/* Runs the loop until condition, or fails after 10 s. */
#define RUN_UNTIL(rig, condition)                                                   \
        do {                                                                        \
                uint64_t deadline_ = now_usec(CLOCK_MONOTONIC) + 10 * USEC_PER_SEC; \
                while (!(condition)) {                                              \
                        ASSERT_OK(sd_event_run((rig)->event, 100 * USEC_PER_MSEC)); \
                        if (now_usec(CLOCK_MONOTONIC) > deadline_)                  \
                                fail_msg("not reached: %s", #condition);            \
                }                                                                   \
        } while (0)

static void settle(Rig *r) {
        for (unsigned i = 0; i < 10000; i++)
                if (sd_event_run(r->event, 2 * USEC_PER_MSEC) == 0)
                        return;
}

static void rig_init(Rig *r, const FakeAgentOptions *options) {
        _cleanup_json_ json_t *identity = json_pack("{s:s}", "id", "cl-x");
        int fds[2];

        *r = (Rig) {};
        ASSERT_OK(sd_event_new(&r->event));
        pair(fds);
        ASSERT_OK(fake_agent_new(r->event, fds[1], options, &r->agent));
        ASSERT_OK(passthrough_new(r->event, -EBADF, on_activity, r, &r->passthrough));
        ASSERT_OK(agent_link_new(r->event, fds[0], identity, &link_handlers, r, &r->link));
}

static void rig_done(Rig *r) {
        passthrough_set_agent(r->passthrough, NULL);
        r->link = agent_link_free(r->link);
        r->passthrough = passthrough_free(r->passthrough);
        r->agent = fake_agent_free(r->agent);
        r->event = sd_event_unref(r->event);
}

static void client_on_headers(H2Stream *st, bool end, void *userdata) {
        Answer *a = h2_stream_userdata(st);

        a->status = h2_stream_status(st);
        (void) snprintf(a->path, sizeof(a->path), "%s", strempty(h2_stream_header(st, "x-path")));
}

static void client_on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Answer *a = h2_stream_userdata(st);

        if (a->n_body < sizeof(a->body) - 1)
                memcpy(a->body + a->n_body, data, MIN(n, sizeof(a->body) - 1 - a->n_body));
        a->n_body += n;
        if (!a->hold)
                h2_stream_consume(st, n);
}

static void client_on_end(H2Stream *st, void *userdata) {
        ((Answer *) h2_stream_userdata(st))->ended = true;
}

static void client_on_writable(H2Stream *st, void *userdata) {
}

static void client_on_close(H2Stream *st, uint32_t error, void *userdata) {
        Answer *a = h2_stream_userdata(st);

        a->stream = NULL;
        a->closed = true;
        a->error = error;
}

static void client_on_closed(H2Conn *c, int error, void *userdata) {
}

static const H2ConnHandlers client_handlers = {
        .h2 = {
                .on_headers = client_on_headers,
                .on_data = client_on_data,
                .on_end = client_on_end,
                .on_writable = client_on_writable,
                .on_close = client_on_close,
        },
        .on_closed = client_on_closed,
};

static H2Conn* add_client(Rig *r) {
        H2Conn *c = NULL;
        int fds[2];

        pair(fds);
        ASSERT_OK(passthrough_add_client(r->passthrough, fds[0]));
        ASSERT_OK(h2_conn_new(r->event, fds[1], /* server= */ false, &client_handlers, NULL, NULL, 0, &c));
        return c;
}

static void request(H2Conn *c, const char *method, const char *path, const char *body, bool end, Answer *a) {
        ASSERT_OK(h2_session_request(h2_conn_session(c), method, path, NULL, 0, !body && end, a,
                                     &a->stream));
        if (body)
                ASSERT_EQ(h2_stream_write(a->stream, body, strlen(body)), (ssize_t) strlen(body));
        if (body && end)
                ASSERT_OK(h2_stream_end(a->stream));
}

static void request_process(H2Conn *c, const char *cmd, Answer *a) {
        _cleanup_free_ char *spec = strjoin("{\"cmd\":\"", cmd, "\",\"args\":[]}");
        uint8_t header[FRAME_HEADER_LEN];

        frame_header(header, FRAME_SPEC, (uint32_t) strlen(spec));
        ASSERT_OK(h2_session_request(h2_conn_session(c), "POST", "/processes", NULL, 0, false, a,
                                     &a->stream));
        ASSERT_EQ(h2_stream_write(a->stream, header, sizeof(header)), (ssize_t) sizeof(header));
        ASSERT_EQ(h2_stream_write(a->stream, spec, strlen(spec)), (ssize_t) strlen(spec));
}

TEST(identity_then_streams) {
        Answer a = {}, b = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        ASSERT_EQ(fake_agent_n_identities(r.agent), 1);
        ASSERT_NOT_NULL(strstr(fake_agent_last_identity(r.agent), "\"id\":\"cl-x\""));
        ASSERT_NOT_NULL(strstr(fake_agent_last_identity(r.agent), "\"entropy\":\""));
        ASSERT_NOT_NULL(strstr(fake_agent_last_identity(r.agent), "\"realtime_usec\":"));

        c = add_client(&r);
        request(c, "POST", "/echo?x=1", "hello", true, &a);
        request(c, "GET", "/nothing", NULL, true, &b);
        RUN_UNTIL(&r, a.closed && b.closed);
        ASSERT_EQ(a.status, 200);
        ASSERT_STREQ(a.body, "hello");
        ASSERT_STREQ(a.path, "/echo?x=1");
        ASSERT_TRUE(a.ended && b.ended);
        ASSERT_EQ(b.n_body, 0);
        ASSERT_EQ(a.error, H2_NO_ERROR);
        ASSERT_TRUE(r.n_activity >= 4);
        ASSERT_EQ(passthrough_n_streams(r.passthrough), 0);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(what_is_the_monitors_own) {
        static const struct {
                const char *method, *path;
                unsigned status;
        } cases[] = {
                { "GET", "/identity", 403 },  { "PUT", "/identity", 403 },   { "GET", "/identity?x", 403 },
                { "GET", "/identity/", 403 }, { "POST", "/poweroff", 403 },  { "GET", "/%69dentity", 400 },
                { "GET", "//identity", 400 }, { "GET", "/./identity", 400 }, { "GET", "/identity-not", 200 },
                { "POST", "/power", 200 },
        };
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Answer a = {};

                request(c, cases[i].method, cases[i].path, NULL, true, &a);
                RUN_UNTIL(&r, a.closed);
                ASSERT_EQ(a.status, cases[i].status);
        }
        ASSERT_EQ(fake_agent_n_identities(r.agent), 1);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(not_ready) {
        const FakeAgentOptions options = { .silent = true };
        Answer a = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, &options);
        c = add_client(&r);
        request(c, "GET", "/x", NULL, true, &a);
        RUN_UNTIL(&r, a.closed);
        ASSERT_EQ(a.status, 503);
        ASSERT_STREQ(a.body,
                     "{\"error\":{\"code\":\"invalid-state\",\"message\":\"The capsule's agent is not ready.\"}}");
        h2_conn_free(c);
        rig_done(&r);
}

TEST(queue_beyond_the_agents_limit) {
        const FakeAgentOptions options = { .streams_max = 2 };
        Answer a[8] = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, &options);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        for (size_t i = 0; i < 8; i++)
                request(c, "POST", "/echo", "part", false, &a[i]);
        settle(&r);
        ASSERT_EQ(fake_agent_n_open(r.agent), 2);
        ASSERT_EQ(passthrough_n_streams(r.passthrough), 8);
        ASSERT_EQ(a[7].status, 0);

        for (size_t i = 0; i < 8; i++) {
                ASSERT_EQ(h2_stream_write(a[i].stream, "two", 3), 3);
                ASSERT_OK(h2_stream_end(a[i].stream));
        }
        RUN_UNTIL(&r, a[7].closed);
        for (size_t i = 0; i < 8; i++) {
                ASSERT_EQ(a[i].status, 200);
                ASSERT_STREQ(a[i].body, "parttwo");
        }
        h2_conn_free(c);
        rig_done(&r);
}

TEST(slow_client_stops_the_guest) {
        Answer a = { .hold = true }, b = {};
        uint64_t sent;
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        request_process(c, "yes", &a);
        settle(&r);
        sent = fake_agent_bytes_sent(r.agent);
        ASSERT_TRUE(sent > 64 * KIB && sent < 2 * MIB);
        settle(&r);
        ASSERT_EQ(fake_agent_bytes_sent(r.agent), sent);

        /* others go on meanwhile */
        request(c, "POST", "/echo", "alive", true, &b);
        RUN_UNTIL(&r, b.closed);
        ASSERT_STREQ(b.body, "alive");

        /* and so does this one with credit */
        h2_stream_consume(a.stream, a.n_body);
        a.hold = false;
        RUN_UNTIL(&r, fake_agent_bytes_sent(r.agent) > sent + 4 * MIB);
        h2_conn_free(c);
        settle(&r);
        ASSERT_EQ(fake_agent_n_open(r.agent), 0); /* the client's leaving reset it */
        ASSERT_EQ(passthrough_n_clients(r.passthrough), 0);
        rig_done(&r);
}

TEST(slow_guest_stops_the_client) {
        static char data[64 * KIB];
        uint64_t taken = 0;
        Answer a = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        a.hold = true; /* the echo's answer is not taken, so the agent's queue fills and it… */
        request(c, "POST", "/echo", "x", false, &a);
        for (unsigned i = 0; i < 200; i++) {
                ssize_t n = h2_stream_write(a.stream, data, sizeof(data));

                ASSERT_OK(n);
                taken += (uint64_t) n;
                ASSERT_OK(sd_event_run(r.event, USEC_PER_MSEC));
        }
        ASSERT_TRUE(a.n_body <= H2_WINDOW_BYTES);
        ASSERT_TRUE(taken >= H2_QUEUE_BYTES_MAX);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(resets_pass_both_ways) {
        Answer a = {}, b = {}, d = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        request_process(c, "sleep", &a);
        request_process(c, "sleep", &b);
        RUN_UNTIL(&r, fake_agent_n_open(r.agent) == 2);
        ASSERT_OK(h2_stream_reset(a.stream, H2_CANCEL));
        RUN_UNTIL(&r, fake_agent_n_open(r.agent) == 1);
        ASSERT_EQ(fake_agent_n_resets(r.agent), 1);

        request_process(c, "reset", &d);
        RUN_UNTIL(&r, d.ended);
        ASSERT_EQ(d.status, 502);
        ASSERT_FALSE(b.closed);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(broken_agent_costs_one_session) {
        Answer a = {}, b = {}, d = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        request_process(c, "sleep", &a);
        RUN_UNTIL(&r, a.status == 200);
        request_process(c, "garbage", &b);
        RUN_UNTIL(&r, a.closed && b.ended);
        ASSERT_TRUE(a.error != H2_NO_ERROR);
        ASSERT_EQ(b.status, 503);
        ASSERT_EQ(r.n_lost, 1);
        RUN_UNTIL(&r, r.n_ready == 2);

        request(c, "POST", "/echo", "again", true, &d);
        RUN_UNTIL(&r, d.closed);
        ASSERT_STREQ(d.body, "again");
        h2_conn_free(c);
        rig_done(&r);
}

TEST(agent_stuck_in_an_old_session_is_woken) {
        Answer a = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        request_process(c, "stuck", &a);
        RUN_UNTIL(&r, r.n_lost == 1);
        RUN_UNTIL(&r, r.n_ready == 2); /* after AGENT_RETRY_USEC */
        ASSERT_EQ(fake_agent_n_identities(r.agent), 2);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(broken_client_costs_its_connection) {
        Answer a = {};
        H2Conn *c;
        int fds[2];
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        pair(fds);
        ASSERT_OK(passthrough_add_client(r.passthrough, fds[0]));
        ASSERT_EQ(passthrough_n_clients(r.passthrough), 2);
        ASSERT_EQ(write(fds[1], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27), 27);
        RUN_UNTIL(&r, passthrough_n_clients(r.passthrough) == 1);
        request(c, "POST", "/echo", "fine", true, &a);
        RUN_UNTIL(&r, a.closed);
        ASSERT_STREQ(a.body, "fine");
        close_fd(fds[1]);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(wrong_protocol_is_told) {
        const FakeAgentOptions options = { .wrong_protocol = true };
        Rig r;

        rig_init(&r, &options);
        RUN_UNTIL(&r, r.n_lost == 1);
        ASSERT_STREQ(r.lost, "The agent speaks another version of the protocol.");
        ASSERT_FALSE(agent_link_is_ready(r.link));
        rig_done(&r);
}

TEST(end_of_the_stream) {
        Answer a = {}, b = {};
        H2Conn *c;
        Rig r;

        rig_init(&r, NULL);
        RUN_UNTIL(&r, r.n_ready == 1);
        c = add_client(&r);
        request_process(c, "sleep", &a);
        RUN_UNTIL(&r, a.status == 200);
        r.agent = fake_agent_free(r.agent);
        RUN_UNTIL(&r, a.closed);
        ASSERT_TRUE(a.error != H2_NO_ERROR);
        request(c, "GET", "/x", NULL, true, &b);
        RUN_UNTIL(&r, b.closed);
        ASSERT_EQ(b.status, 503);
        RUN_UNTIL(&r, r.n_lost == 1);
        h2_conn_free(c);
        rig_done(&r);
}

TEST(client_limit) {
        int ours[DATA_CLIENTS_MAX], fds[2];
        Rig r;

        rig_init(&r, NULL);
        for (size_t i = 0; i < DATA_CLIENTS_MAX; i++) {
                pair(fds);
                ASSERT_OK(passthrough_add_client(r.passthrough, fds[0]));
                ours[i] = fds[1];
        }
        pair(fds);
        ASSERT_EQ(passthrough_add_client(r.passthrough, fds[0]), -EMFILE);
        close_many(fds, 2);
        close_many(ours, DATA_CLIENTS_MAX);
        rig_done(&r);
}
