/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/h2.h"
#include "tests/unit/test.h"

/* What one end saw. Streams of one end share it. */
typedef struct Side {
        H2Session *session;
        H2Stream *stream; /* the newest that on_headers told of */
        unsigned n_headers, n_end, n_writable, n_close, n_goaway, n_want_write;
        bool end_in_head;
        uint32_t close_error;
        size_t n_data;
        char text[128]; /* the first bytes of DATA */
        bool hold;      /* do not consume */
        bool echo;      /* server: 200 and send back what comes */
        bool reset_in_head, end_in_writable;
} Side;

static void on_headers(H2Stream *st, bool end, void *userdata) {
        Side *side = userdata;

        side->stream = st;
        side->n_headers++;
        side->end_in_head = end;
        if (side->reset_in_head)
                ASSERT_OK(h2_stream_reset(st, H2_CANCEL));
        if (side->echo)
                ASSERT_OK(h2_stream_respond(st, 200, NULL, 0, false));
}

static void on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Side *side = userdata;

        for (size_t i = 0; i < n && side->n_data + i < sizeof(side->text) - 1; i++)
                side->text[side->n_data + i] = ((const char *) data)[i];
        side->n_data += n;
        if (side->echo)
                ASSERT_EQ(h2_stream_write(st, data, n), n);
        if (!side->hold)
                h2_stream_consume(st, n);
}

static void on_end(H2Stream *st, void *userdata) {
        Side *side = userdata;

        side->n_end++;
        if (side->echo)
                ASSERT_OK(h2_stream_end(st));
}

static void on_writable(H2Stream *st, void *userdata) {
        Side *side = userdata;

        side->n_writable++;
        if (side->end_in_writable)
                ASSERT_OK(h2_stream_end(st));
}

static void on_close(H2Stream *st, uint32_t error, void *userdata) {
        Side *side = userdata;

        side->n_close++;
        side->close_error = error;
        if (side->stream == st)
                side->stream = NULL;
}

static void on_goaway(H2Session *s, void *userdata) {
        ((Side *) userdata)->n_goaway++;
}

static void on_want_write(H2Session *s, void *userdata) {
        ((Side *) userdata)->n_want_write++;
}

static const H2Handlers handlers = { on_headers, on_data,   on_end,       on_writable,
                                     on_close,   on_goaway, on_want_write };

/* Carries bytes from one end to the other until both are silent. */
static bool carry(Side *from, Side *to) {
        bool any = false;

        for (;;) {
                const void *data;
                size_t n;

                ASSERT_OK(h2_session_output(from->session, &data, &n));
                if (n == 0)
                        return any;

                any = true;
                ASSERT_OK(h2_session_receive(to->session, data, n));
        }
}

static void pump(Side *a, Side *b) {
        for (;;) {
                bool there = carry(a, b), back = carry(b, a);

                if (!there && !back)
                        return;
        }
}

static void pair(Side *client, Side *server, const H2Limits *limits) {
        ASSERT_OK(h2_session_new(false, &handlers, client, NULL, &client->session));
        ASSERT_OK(h2_session_new(true, &handlers, server, limits, &server->session));
        pump(client, server);
}

static void side_done(Side *side) {
        side->session = h2_session_free(side->session);
}

TEST(echo) {
        static const H2Header headers[] = { { "x-one", "1" }, { "x-two", "zwei" } };
        Side client = {}, server = { .echo = true };
        const H2Header *seen;
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_EQ(h2_session_peer_streams_max(client.session), H2_STREAMS_MAX);
        ASSERT_PTR(h2_session_userdata(client.session), &client);

        ASSERT_OK(h2_session_request(client.session, "POST", "/processes?x=1", headers, 2, false, &client,
                                     &st));
        ASSERT_EQ(client.n_want_write, 1);
        ASSERT_PTR(h2_stream_userdata(st), &client);
        ASSERT_PTR(h2_stream_session(st), client.session);
        ASSERT_EQ(h2_stream_status(st), 0);
        pump(&client, &server);

        ASSERT_EQ(server.n_headers, 1);
        ASSERT_FALSE(server.end_in_head);
        ASSERT_STREQ(h2_stream_method(server.stream), "POST");
        ASSERT_STREQ(h2_stream_path(server.stream), "/processes?x=1");
        ASSERT_STREQ(h2_stream_header(server.stream, "x-two"), "zwei");
        ASSERT_NULL(h2_stream_header(server.stream, "x-three"));
        ASSERT_EQ(h2_stream_headers(server.stream, &seen), 2);
        ASSERT_STREQ(seen[0].name, "x-one");
        ASSERT_EQ(h2_stream_id(server.stream), h2_stream_id(st));
        ASSERT_EQ(h2_stream_status(st), 200);

        ASSERT_EQ(h2_stream_write(st, "hello ", 6), 6);
        ASSERT_EQ(h2_stream_write(st, "world", 5), 5);
        pump(&client, &server);
        ASSERT_STREQ(server.text, "hello world");
        ASSERT_STREQ(client.text, "hello world");
        ASSERT_EQ(client.n_end, 0);

        ASSERT_OK(h2_stream_end(st));
        ASSERT_OK(h2_stream_end(st));
        ASSERT_EQ(h2_stream_write(st, "x", 1), -EPIPE);
        ASSERT_EQ(h2_stream_room(st), 0);
        pump(&client, &server);

        ASSERT_EQ(server.n_end, 1);
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(server.n_close, 1);
        ASSERT_EQ(client.close_error, H2_NO_ERROR);
        ASSERT_EQ(h2_session_n_streams(client.session), 0);
        ASSERT_EQ(h2_session_n_streams(server.session), 0);
        ASSERT_FALSE(h2_session_want_write(client.session));

        side_done(&client);
        side_done(&server);
        ASSERT_EQ(client.n_close, 1);
}

TEST(no_bodies) {
        Side client = {}, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "GET", "/identity", NULL, 0, true, NULL, &st));
        pump(&client, &server);
        ASSERT_TRUE(server.end_in_head);
        ASSERT_EQ(server.n_end, 1);

        ASSERT_OK(h2_stream_respond(server.stream, 204, NULL, 0, true));
        ASSERT_EQ(h2_stream_respond(server.stream, 204, NULL, 0, true), -EALREADY);
        pump(&client, &server);
        ASSERT_TRUE(client.end_in_head);
        ASSERT_EQ(client.n_headers, 1);
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(server.n_close, 1);

        side_done(&client);
        side_done(&server);
}

TEST(connect_method) {
        Side client = {}, server = { .echo = true };
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "CONNECT", "127.0.0.1:80", NULL, 0, false, NULL, &st));
        pump(&client, &server);
        ASSERT_STREQ(h2_stream_method(server.stream), "CONNECT");
        ASSERT_STREQ(h2_stream_path(server.stream), "127.0.0.1:80");

        side_done(&client);
        side_done(&server);
}

/* Everything queued before the response's head is sent behind it. */
TEST(respond_late) {
        Side client = {}, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "GET", "/", NULL, 0, true, NULL, &st));
        pump(&client, &server);
        ASSERT_EQ(h2_stream_write(server.stream, "early", 5), 5);
        ASSERT_OK(h2_stream_end(server.stream));
        pump(&client, &server);
        ASSERT_EQ(client.n_headers, 0);

        ASSERT_OK(h2_stream_respond(server.stream, 200, NULL, 0, false));
        pump(&client, &server);
        ASSERT_STREQ(client.text, "early");
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(server.n_close, 1);

        side_done(&client);
        side_done(&server);
}

/* A reader that consumes nothing stops the writer: window here, queue there. */
TEST(flow_control) {
        _cleanup_free_ char *big = calloc(1, H2_QUEUE_BYTES_MAX + 1);
        Side client = {}, server = { .hold = true };
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        ASSERT_EQ(h2_stream_room(st), H2_QUEUE_BYTES_MAX);
        ASSERT_EQ(h2_stream_write(st, big, H2_QUEUE_BYTES_MAX + 1), H2_QUEUE_BYTES_MAX);
        ASSERT_EQ(h2_stream_write(st, big, 1), 0);
        ASSERT_EQ(h2_stream_room(st), 0);
        pump(&client, &server);
        ASSERT_EQ(server.n_data, H2_WINDOW_BYTES);
        ASSERT_EQ(client.n_writable, 1);

        ASSERT_EQ(h2_stream_write(st, big, H2_QUEUE_BYTES_MAX + 1), H2_QUEUE_BYTES_MAX);
        pump(&client, &server);
        ASSERT_EQ(server.n_data, H2_WINDOW_BYTES);
        ASSERT_EQ(client.n_writable, 1);
        ASSERT_FALSE(h2_session_want_write(client.session));

        h2_stream_consume(server.stream, H2_WINDOW_BYTES / 2);
        pump(&client, &server);
        ASSERT_EQ(server.n_data, H2_WINDOW_BYTES + H2_WINDOW_BYTES / 2);
        ASSERT_EQ(client.n_writable, 2);

        h2_stream_consume(server.stream, SIZE_MAX); /* more than there is: what there is */
        pump(&client, &server);
        ASSERT_EQ(server.n_data, 2 * H2_WINDOW_BYTES);

        side_done(&client);
        side_done(&server);
}

/* What a closed stream never consumed comes back to the connection. */
TEST(connection_window_survives) {
        _cleanup_free_ char *big = calloc(1, H2_QUEUE_BYTES_MAX);
        Side client = {}, server = { .hold = true };

        pair(&client, &server, NULL);
        for (unsigned i = 0; i < 64; i++) {
                H2Stream *st;

                server.n_data = 0;
                ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
                ASSERT_EQ(h2_stream_write(st, big, H2_QUEUE_BYTES_MAX), H2_QUEUE_BYTES_MAX);
                pump(&client, &server);
                ASSERT_EQ(server.n_data, H2_WINDOW_BYTES);

                /* both ways to end it */
                ASSERT_OK(h2_stream_reset(i % 2 ? st : server.stream, H2_CANCEL));
                pump(&client, &server);
                ASSERT_EQ(client.n_close, i + 1);
                ASSERT_EQ(server.n_close, i + 1);
                ASSERT_EQ(server.close_error, H2_CANCEL);
        }

        side_done(&client);
        side_done(&server);
}

TEST(stream_limit) {
        const H2Limits limits = { .streams_max = 3 };
        Side client = {}, server = {};
        H2Stream *st[3], *extra;

        pair(&client, &server, &limits);
        ASSERT_EQ(h2_session_peer_streams_max(client.session), 3);
        for (size_t i = 0; i < ELEMENTSOF(st); i++)
                ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st[i]));
        ASSERT_EQ(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &extra), -EAGAIN);
        pump(&client, &server);
        ASSERT_EQ(server.n_headers, 3);

        ASSERT_OK(h2_stream_reset(st[1], H2_CANCEL));
        pump(&client, &server);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &extra));

        side_done(&client);
        ASSERT_EQ(client.n_close, 4);
        side_done(&server);
        ASSERT_EQ(server.n_close, 3);
}

/* Opened before the server's SETTINGS came: it refuses, the stream ends, nobody is told of a request. */
TEST(refused_stream) {
        const H2Limits limits = { .streams_max = 1 };
        Side client = {}, server = {};
        H2Stream *st;

        ASSERT_OK(h2_session_new(false, &handlers, &client, NULL, &client.session));
        ASSERT_OK(h2_session_new(true, &handlers, &server, &limits, &server.session));
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        pump(&client, &server);
        ASSERT_EQ(server.n_headers, 1);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(client.close_error, H2_REFUSED_STREAM);

        side_done(&client);
        side_done(&server);
}

TEST(bad_requests) {
        static const struct {
                const char *method, *path, *name, *value;
        } cases[] = {
                { "GET", "/a b", "x", "y" },      { "GET", "/a\nb", "x", "y" },
                { "GET", "/", "x", "a\r\nb: c" }, { "GET", "/", "X-Upper", "y" },
                { "GET", "/", "a b", "y" },       { "GET", "/", "", "y" },
                { "CONNECT", "a b", "x", "y" },   { "GE\nT", "/", "x", "y" },
        };
        H2Header many[H2_HEADERS_MAX] = {};
        Side client = {}, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const H2Header header = { cases[i].name, cases[i].value };

                ASSERT_EQ(h2_session_request(client.session, cases[i].method, cases[i].path, &header, 1,
                                             true, NULL, &st),
                          -EINVAL);
        }

        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i] = (H2Header) { "a", "b" };
        ASSERT_EQ(h2_session_request(client.session, "GET", "/", many, H2_HEADERS_MAX - 3, true, NULL, &st),
                  -E2BIG);
        ASSERT_OK(h2_session_request(client.session, "GET", "/", many, H2_HEADERS_MAX - 4, true, NULL, &st));
        ASSERT_EQ(h2_session_n_streams(client.session), 1);

        side_done(&client);
        side_done(&server);
}

/* A header block over the limit ends its stream, not the connection. */
TEST(header_limit) {
        _cleanup_free_ char *value = calloc(1, H2_HEADER_BYTES_MAX + 1);
        const H2Header header = { "x", value };
        Side client = {}, server = {};
        H2Stream *st;

        memset(value, 'a', H2_HEADER_BYTES_MAX);
        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "GET", "/", &header, 1, true, NULL, &st));
        pump(&client, &server);
        ASSERT_EQ(server.n_headers, 0);
        ASSERT_EQ(server.n_close, 0);
        ASSERT_EQ(client.n_close, 1);

        value[H2_HEADER_BYTES_MAX - 512] = 0;
        ASSERT_OK(h2_session_request(client.session, "GET", "/", &header, 1, true, NULL, &st));
        pump(&client, &server);
        ASSERT_EQ(server.n_headers, 1);

        side_done(&client);
        side_done(&server);
}

TEST(reset_inside_callback) {
        Side client = {}, server = { .reset_in_head = true };
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        ASSERT_EQ(h2_stream_write(st, "abc", 3), 3);
        ASSERT_OK(h2_stream_end(st));
        pump(&client, &server);
        ASSERT_EQ(server.n_headers, 1);
        ASSERT_EQ(server.n_data, 0);
        ASSERT_EQ(server.n_end, 0);
        ASSERT_EQ(server.n_close, 1);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(client.close_error, H2_CANCEL);

        side_done(&client);
        side_done(&server);
}

TEST(end_inside_writable) {
        _cleanup_free_ char *big = calloc(1, H2_QUEUE_BYTES_MAX);
        Side client = { .end_in_writable = true }, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        ASSERT_EQ(h2_stream_write(st, big, H2_QUEUE_BYTES_MAX), H2_QUEUE_BYTES_MAX);
        pump(&client, &server);
        ASSERT_EQ(server.n_end, 1);
        ASSERT_EQ(server.n_data, H2_QUEUE_BYTES_MAX);
        ASSERT_EQ(client.n_writable, 1);

        side_done(&client);
        side_done(&server);
}

/* Reset before a single byte of the request was sent. */
TEST(reset_unsent) {
        Side client = {}, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        ASSERT_OK(h2_stream_reset(st, H2_CANCEL));
        ASSERT_OK(h2_stream_reset(st, H2_CANCEL));
        ASSERT_EQ(h2_stream_write(st, "x", 1), -EPIPE);
        ASSERT_EQ(h2_stream_end(st), -EPIPE);
        pump(&client, &server);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(server.n_headers, 0);

        side_done(&client);
        side_done(&server);
}

TEST(goaway) {
        Side client = {}, server = { .echo = true };
        H2Stream *st, *second;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        pump(&client, &server);
        ASSERT_OK(h2_session_goaway(server.session));
        ASSERT_OK(h2_session_goaway(server.session));
        pump(&client, &server);
        ASSERT_EQ(client.n_goaway, 1);
        ASSERT_EQ(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &second), -ENOTCONN);

        /* what runs goes on */
        ASSERT_EQ(h2_stream_write(st, "x", 1), 1);
        ASSERT_OK(h2_stream_end(st));
        pump(&client, &server);
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(client.close_error, H2_NO_ERROR);

        side_done(&client);
        side_done(&server);
}

TEST(ping) {
        Side client = {}, server = {};
        const void *data;
        size_t n;

        pair(&client, &server, NULL);
        ASSERT_OK(h2_session_ping(client.session));
        ASSERT_TRUE(h2_session_want_write(client.session));
        ASSERT_TRUE(carry(&client, &server));
        ASSERT_OK(h2_session_output(server.session, &data, &n));
        ASSERT_EQ(n, 9 + 8);

        side_done(&client);
        side_done(&server);
}

TEST(free_closes_streams) {
        Side client = {}, server = {};
        H2Stream *st;

        pair(&client, &server, NULL);
        for (unsigned i = 0; i < 5; i++)
                ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
        pump(&client, &server);
        side_done(&client);
        side_done(&server);
        ASSERT_EQ(client.n_close, 5);
        ASSERT_EQ(server.n_close, 5);
        ASSERT_EQ(client.close_error, H2_CANCEL);
        ASSERT_EQ(server.close_error, H2_CANCEL);
        ASSERT_NULL(h2_session_free(NULL));
}

TEST(garbage) {
        static const struct {
                const char *data;
                size_t n;
        } cases[] = {
                { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27 },
                { "\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16\x16",
                  25 },
                { "{\"id\":1,\"verb\":\"describe\"}\n                         ", 50 },
                { "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 30 },
                { "\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377", 16 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (int is_server = 0; is_server <= 1; is_server++) {
                        Side side = {};

                        ASSERT_OK(h2_session_new(is_server, &handlers, &side, NULL, &side.session));
                        ASSERT_EQ(h2_session_receive(side.session, cases[i].data, cases[i].n), -EPROTO);
                        ASSERT_EQ(h2_session_receive(side.session, cases[i].data, cases[i].n), -EPROTO);
                        side_done(&side);
                }
}

/* Preface and empty SETTINGS, then whatever a table says; the peer never reads. */
static int flood(const char *frame, size_t n_frame, unsigned n_times) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
        Side server = {};
        int r;

        ASSERT_OK(h2_session_new(true, &handlers, &server, NULL, &server.session));
        ASSERT_OK(h2_session_receive(server.session, preface, sizeof(preface)));
        for (unsigned i = 0; i < n_times; i++) {
                r = h2_session_receive(server.session, frame, n_frame);
                if (r < 0)
                        break;
        }

        side_done(&server);
        ASSERT_EQ(server.n_headers, server.n_close);
        return r;
}

TEST(floods) {
        /* what is answered, by one who does not read: each must end, not pile up */
        ASSERT_EQ(flood("\0\0\10\6\0\0\0\0\0abcdefgh", 17, 100000), -EPROTO);
        ASSERT_EQ(flood("\0\0\0\4\0\0\0\0\0", 9, 100000), -EPROTO);
        /* a frame larger than we said */
        ASSERT_EQ(flood("\0\100\1\0\0\0\0\0\1", 9, 1), -EPROTO);
        /* DATA without a stream */
        ASSERT_EQ(flood("\0\0\1\0\0\0\0\0\1a", 10, 1), -EPROTO);
        /* a window beyond 2^31 - 1 */
        ASSERT_EQ(flood("\0\0\4\10\0\0\0\0\0\177\377\377\377", 13, 1), -EPROTO);
}

/* A header block that never ends. */
TEST(continuations) {
        char frames[9 * 100] = "\0\0\0\1\0\0\0\0\1";

        for (size_t i = 1; i < 100; i++)
                memcpy(frames + 9 * i, "\0\0\0\11\0\0\0\0\1", 9);
        ASSERT_EQ(flood(frames, sizeof(frames), 1), -EPROTO);
}

/* Streams over the limit are refused one by one; a client that goes on and reads nothing of it is dropped.
 */
TEST(unread_refusals) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
        uint8_t head[] = "\0\0\6\1\5\0\0\0\1\x83\x84\x86\x41\1a";
        Side server = {};
        unsigned n = 0;
        int r = 0;

        ASSERT_OK(h2_session_new(true, &handlers, &server, NULL, &server.session));
        ASSERT_OK(h2_session_receive(server.session, preface, sizeof(preface)));
        for (uint32_t id = 1; id < 100000 && r >= 0; id += 2, n++) {
                for (size_t i = 0; i < 4; i++)
                        head[5 + i] = (uint8_t) (id >> (24 - 8 * i));
                r = h2_session_receive(server.session, head, sizeof(head) - 1);
        }

        ASSERT_EQ(r, -EPROTO);
        ASSERT_EQ(server.n_headers, H2_STREAMS_MAX);
        ASSERT_TRUE(n > H2_FRAMES_MAX);
        side_done(&server);
        ASSERT_EQ(server.n_close, H2_STREAMS_MAX);
}

/* Rapid reset: HEADERS and RST_STREAM without end. */
TEST(rapid_reset) {
        Side client = {}, server = {};
        unsigned n = 0;
        int r = 0;

        pair(&client, &server, NULL);
        for (; n < 100 * H2_RESETS_BURST && r >= 0; n++) {
                const void *data;
                H2Stream *st;
                size_t k;

                ASSERT_OK(h2_session_request(client.session, "POST", "/", NULL, 0, false, NULL, &st));
                ASSERT_OK(h2_session_output(client.session, &data, &k));
                ASSERT_OK(h2_session_receive(server.session, data, k));
                ASSERT_OK(h2_stream_reset(st, H2_CANCEL));
                ASSERT_OK(h2_session_output(client.session, &data, &k));
                r = h2_session_receive(server.session, data, k);
        }

        ASSERT_EQ(r, -EPROTO);
        ASSERT_TRUE(n >= H2_RESETS_BURST);
        side_done(&client);
        side_done(&server);
        ASSERT_EQ(server.n_headers, server.n_close);
}

/* A source of n bytes 's' that says -EAGAIN now and then. */
typedef struct Source {
        size_t n;
        unsigned n_calls, n_small;
        int error;        /* instead of the end */
        unsigned wait_at; /* call that has nothing */
} Source;

static ssize_t source_read(void *buffer, size_t n, void *userdata) {
        Source *source = userdata;

        if (++source->n_calls == source->wait_at)
                return -EAGAIN;
        source->n_small += n < H2_SOURCE_BYTES_MIN;
        if (source->n == 0)
                return source->error;
        n = MIN(n, source->n);
        memset(buffer, 's', n);
        source->n -= n;
        return (ssize_t) n;
}

static H2Stream* request_of(Side *client, Side *server) {
        H2Stream *st;

        ASSERT_OK(h2_session_request(client->session, "GET", "/files", NULL, 0, true, client, &st));
        pump(client, server);
        ASSERT_OK(h2_stream_respond(server->stream, 200, NULL, 0, false));
        return st;
}

TEST(source) {
        Side client = {}, server = {};
        Source source = { .n = 3 * MIB + 1, .wait_at = 7 };

        pair(&client, &server, NULL);
        (void) request_of(&client, &server);
        h2_stream_set_source(server.stream, source_read, &source);
        ASSERT_EQ(h2_stream_room(server.stream), 0);
        ASSERT_EQ(h2_stream_write(server.stream, "x", 1), -EPIPE);
        pump(&client, &server);
        ASSERT_EQ(source.n_calls, 7); /* it waits */
        ASSERT_EQ(client.n_end, 0);
        pump(&client, &server);
        ASSERT_EQ(source.n_calls, 7);

        h2_stream_source_ready(server.stream);
        pump(&client, &server);
        ASSERT_EQ(client.n_data, 3 * MIB + 1);
        ASSERT_STREQ(client.text + 100, "sssssssssssssssssssssssssss");
        ASSERT_EQ(client.n_end, 1);
        ASSERT_EQ(client.close_error, H2_NO_ERROR);
        side_done(&client);
        side_done(&server);
}

TEST(source_waits_for_credit) {
        Side client = { .hold = true }, server = {};
        Source source = { .n = 10 * MIB };
        H2Stream *st;

        pair(&client, &server, NULL);
        st = request_of(&client, &server);
        h2_stream_set_source(server.stream, source_read, &source);
        pump(&client, &server);
        ASSERT_EQ(client.n_data, H2_WINDOW_BYTES);
        ASSERT_EQ(source.n, 10 * MIB - H2_WINDOW_BYTES);
        h2_stream_consume(st, H2_WINDOW_BYTES);
        pump(&client, &server);
        ASSERT_EQ(client.n_data, 2 * H2_WINDOW_BYTES);

        ASSERT_OK(h2_stream_reset(st, H2_CANCEL));
        pump(&client, &server);
        ASSERT_EQ(server.n_close, 1);
        side_done(&client);
        side_done(&server);
}

TEST(source_that_fails) {
        Side client = {}, server = {};
        Source source = { .n = 100000, .error = -EIO };

        pair(&client, &server, NULL);
        (void) request_of(&client, &server);
        h2_stream_set_source(server.stream, source_read, &source);
        pump(&client, &server);
        ASSERT_EQ(client.n_end, 0);
        ASSERT_EQ(client.n_close, 1);
        ASSERT_EQ(client.close_error, H2_INTERNAL_ERROR);
        ASSERT_EQ(server.n_close, 1);
        side_done(&client);
        side_done(&server);
}
