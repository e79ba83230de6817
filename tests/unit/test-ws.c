/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A WebSocket's connection over a socketpair, the test being its client: masked with zeros, so that frames
 * can be read. */

#include <fcntl.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "rest/ws.h"
#include "shared/event.h"
#include "tests/unit/test.h"

#define MASK     "\0\0\0\0"
#define BYTES(s) s, sizeof(s) - 1
#define ANSWER   "HTTP/1.1 101\r\n\r\n"

typedef struct Rig {
        sd_event *event;
        WsConn *w;
        int client;
        char text[256]; /* what came: messages one behind the other */
        size_t n_text, n_messages, n_bytes;
        bool echo, hold_each, close_each;
        unsigned n_writable, closed, n_closed, n_freed;
        size_t buffered;
} Rig;

static void on_message(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        Rig *rig = userdata;

        rig->n_messages++;
        rig->n_bytes += n;
        if (n < sizeof(rig->text) - rig->n_text) {
                memcpy(rig->text + rig->n_text, data, n);
                rig->n_text += n;
        }
        if (rig->echo)
                ASSERT_OK(ws_send(w, text, data, n));
        if (rig->hold_each)
                ws_hold(w, true);
        if (rig->close_each)
                ws_close(w, WS_CODE_NORMAL, "enough");
}

static void on_writable(WsConn *w, void *userdata) {
        Rig *rig = userdata;

        rig->n_writable++;
        ASSERT_TRUE(ws_room(w) >= WS_QUEUE_BYTES_MAX / 2);
}

static void on_closed(WsConn *w, unsigned code, void *userdata) {
        Rig *rig = userdata;

        rig->closed = code;
        rig->n_closed++;
        ASSERT_EQ(ws_send(w, true, "x", 1), -ESHUTDOWN);
        ASSERT_EQ(ws_room(w), 0);
        ws_close(w, WS_CODE_NORMAL, NULL);
        ws_hold(w, false);
}

static void on_freed(void *userdata) {
        Rig *rig = userdata;

        ASSERT_EQ(rig->n_closed, 1);
        rig->n_freed++;
        rig->w = NULL;
}

static void rig_open_with(Rig *rig, const WsConfig *config, const void *input, size_t n_input) {
        static const WsHandlers handlers = { on_message, on_writable, on_closed };
        WsConfig c = *config;
        int pair[2];

        *rig = (Rig) {};
        ASSERT_OK(sd_event_new(&rig->event));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
        rig->client = pair[1];
        c.buffered = &rig->buffered;
        ASSERT_OK(ws_new(rig->event, pair[0], &c, ANSWER, input, n_input, on_freed, rig, &rig->w));
        ws_set_handlers(rig->w, &handlers, rig);
}

static void rig_turn(Rig *rig) {
        while (sd_event_run(rig->event, 0) > 0)
                ;
}

/* What lies in the client's socket, which must be this. */
static void expect(Rig *rig, const char *expected, size_t n) {
        char text[4096];
        ssize_t k;

        rig_turn(rig);
        k = recv(rig->client, text, sizeof(text), MSG_DONTWAIT);
        if (n == 0 && k < 0 && errno == EAGAIN)
                return;
        ASSERT_EQ(k, n);
        ASSERT_EQ(memcmp(text, expected, n), 0);
}

static void expect_end(Rig *rig) {
        char c;

        rig_turn(rig);
        ASSERT_EQ(recv(rig->client, &c, 1, MSG_DONTWAIT), 0);
}

static void rig_open(Rig *rig, const WsConfig *config) {
        rig_open_with(rig, config, NULL, 0);
        expect(rig, BYTES(ANSWER));
}

static void rig_send(Rig *rig, const char *data, size_t n) {
        ASSERT_EQ(send(rig->client, data, n, MSG_NOSIGNAL), n);
        rig_turn(rig);
}

/* The client leaves; everything must be given back. */
static void rig_close(Rig *rig, unsigned code) {
        rig->client = close_fd(rig->client);
        rig_turn(rig);
        ASSERT_EQ(rig->n_freed, 1);
        ASSERT_EQ(rig->n_closed, 1);
        ASSERT_EQ(rig->closed, code);
        ASSERT_EQ(rig->buffered, 0);
        sd_event_unref(rig->event);
}

/* Until it has freed itself. */
static void rig_wait_end(Rig *rig) {
        while (rig->w)
                ASSERT_OK(sd_event_run(rig->event, UINT64_MAX));
}

TEST(messages_go_both_ways) {
        Rig rig;

        rig_open_with(&rig, &(WsConfig) {}, BYTES("\x81\x81" MASK "a\x81"));
        expect(&rig, BYTES(ANSWER));
        ASSERT_STREQ(rig.text, "a");
        rig.echo = true;
        rig_send(&rig, BYTES("\x81" MASK "b\x82\x81" MASK "c"));
        expect(&rig, BYTES("\x81\x01"
                           "b\x82\x01"
                           "c"));
        rig_send(&rig, BYTES("\x89\x82" MASK "hi\x8a\x80" MASK));
        expect(&rig, BYTES("\x8a\x02hi"));
        ASSERT_STREQ(rig.text, "abc");
        rig_send(&rig, BYTES("\x88\x82" MASK "\x03\xe8"));
        ASSERT_EQ(rig.n_closed, 1); /* at once, not when it is gone */
        expect(&rig, BYTES("\x88\x02\x03\xe8"));
        expect_end(&rig);
        ASSERT_EQ(rig.n_freed, 0);
        rig_close(&rig, 1000);
}

TEST(without_handlers_and_without_a_status) {
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        rig_send(&rig, BYTES("\x88\x80" MASK));
        expect(&rig, BYTES("\x88\x00"));
        rig_close(&rig, 1005);
}

TEST(wrong_peers_are_told_and_left) {
        static const struct {
                const char *input;
                size_t n;
                const char *code;
        } cases[] = {
                { BYTES("\x81\x01x"), "\x03\xea" },
                { BYTES("\x81\x81" MASK "\xff"), "\x03\xef" },
                { BYTES("\x82\xff\x00\x00\x00\x00\x7f\x00\x00\x00" MASK "x"), "\x03\xf1" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char text[256];
                Rig rig;

                rig_open(&rig, &(WsConfig) {});
                rig_send(&rig, cases[i].input, cases[i].n);
                ASSERT_TRUE(recv(rig.client, text, sizeof(text), MSG_DONTWAIT) > 4);
                ASSERT_EQ(memcmp(text, "\x88", 1), 0);
                ASSERT_EQ(memcmp(text + 2, cases[i].code, 2), 0);
                expect_end(&rig);
                /* what it goes on to say is not heard, and harmless */
                rig_send(&rig, BYTES("\x81\x81" MASK "x"));
                ASSERT_EQ(rig.n_messages, 0);
                rig_close(&rig, 1006);
        }
}

TEST(the_client_vanishes) {
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        rig_send(&rig, BYTES("\x81\x85" MASK "He"));
        rig_close(&rig, 1006);

        /* with output that nobody reads */
        rig_open(&rig, &(WsConfig) {});
        ASSERT_OK(ws_send(rig.w, true, "x", 1));
        rig_close(&rig, 1006);
}

TEST(our_close) {
        char reason[200];
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        ASSERT_OK(ws_send(rig.w, true, "last", 4));
        ws_close(rig.w, 1000, "done");
        ws_close(rig.w, 1001, "once");
        ASSERT_EQ(ws_send(rig.w, true, "x", 1), -ESHUTDOWN);
        expect(&rig, BYTES("\x81\x04last\x88\x06\x03\xe8"
                           "done"));
        ASSERT_EQ(rig.n_closed, 0);
        rig_send(&rig, BYTES("\x81\x81" MASK "x\x89\x80" MASK)); /* too late for both */
        expect(&rig, "", 0);
        rig_send(&rig, BYTES("\x88\x82" MASK "\x03\xe8"));
        ASSERT_EQ(rig.n_messages, 0);
        expect_end(&rig);
        rig_close(&rig, 1000);

        /* the peer does not answer */
        rig_open(&rig, &(WsConfig) { .close_usec = 1000 });
        ws_close(rig.w, 1001, NULL);
        expect(&rig, BYTES("\x88\x02\x03\xe9"));
        rig_wait_end(&rig);
        expect_end(&rig);
        rig_close(&rig, 1006);

        /* a reason is cut between characters */
        rig_open(&rig, &(WsConfig) {});
        memset(reason, 'x', sizeof(reason));
        memcpy(reason + WS_REASON_MAX - 1, "\xc3\xa4", 3);
        ws_close(rig.w, 1000, reason);
        rig_turn(&rig);
        ASSERT_EQ(recv(rig.client, reason, sizeof(reason), MSG_DONTWAIT), 2 + 2 + WS_REASON_MAX - 1);
        rig_close(&rig, 1006);

        /* from within a message */
        rig_open(&rig, &(WsConfig) {});
        rig.close_each = true;
        rig_send(&rig, BYTES("\x81\x81" MASK "a\x81\x81" MASK "b"));
        expect(&rig, BYTES("\x88\x08\x03\xe8"
                           "enough"));
        ASSERT_STREQ(rig.text, "a");
        rig_close(&rig, 1006);
}

TEST(abort) {
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        ASSERT_OK(ws_send(rig.w, true, "x", 1));
        ws_abort(rig.w);
        ASSERT_EQ(rig.n_freed, 1);
        expect_end(&rig);
        rig_close(&rig, 1006);
}

TEST(held_messages) {
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        rig.hold_each = true;
        rig_send(&rig, BYTES("\x81\x81" MASK "a\x81\x81" MASK "b\x89\x81" MASK "p"));
        expect(&rig, BYTES("\x8a\x01p")); /* pings are answered all the same */
        ASSERT_STREQ(rig.text, "a");
        ws_hold(rig.w, false);
        rig_turn(&rig);
        ASSERT_STREQ(rig.text, "ab");
        rig.hold_each = false;
        rig_send(&rig, BYTES("\x81\x81" MASK "c\x88\x80" MASK));
        ASSERT_STREQ(rig.text, "ab");
        ASSERT_EQ(rig.n_closed, 0); /* it comes behind what was said before */
        ws_hold(rig.w, false);
        rig.echo = true; /* and may be answered */
        rig_turn(&rig);
        expect(&rig, BYTES("\x81\x01"
                           "c\x88\x00"));
        ASSERT_STREQ(rig.text, "abc");
        ASSERT_EQ(rig.closed, 1005);
        rig_close(&rig, 1005);

        /* a peer that left is waited for so long */
        rig_open(&rig, &(WsConfig) { .close_usec = 1000 });
        rig.hold_each = true;
        rig_send(&rig, BYTES("\x81\x81" MASK "a\x81\x81" MASK "b\x88\x80" MASK));
        rig_wait_end(&rig);
        ASSERT_STREQ(rig.text, "a");
        rig_close(&rig, 1005);
}

/* Sends message after message until the socket takes no more; how many bytes of messages. */
static size_t flood(Rig *rig, const char *frame, size_t n) {
        size_t total = 0;

        for (unsigned idle = 0; idle < 2;) {
                ssize_t k = send(rig->client, frame + total % n, n - total % n, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (k > 0)
                        total += (size_t) k;
                idle = k > 0 ? 0 : idle + 1;
                rig_turn(rig);
        }
        return total;
}

TEST(holding_is_bounded) {
        static char frame[8 + 1000] = "\x82\xfe\x03\xe8", empty[6] = "\x82\x80";
        size_t sent;
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        ws_hold(rig.w, true);
        sent = flood(&rig, frame, sizeof(frame));
        ASSERT_TRUE(rig.buffered >= WS_MESSAGE_MAX && rig.buffered < WS_MESSAGE_MAX + 128 * KIB);
        ASSERT_TRUE(sent < WS_MESSAGE_MAX + 1 * MIB); /* the rest in the socket's buffers */
        ASSERT_EQ(rig.n_messages, 0);
        ws_hold(rig.w, false);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_messages, sent / sizeof(frame));
        ASSERT_TRUE(rig.buffered <= sizeof(frame));
        rig_close(&rig, 1006);

        /* messages of nothing cost, too */
        rig_open(&rig, &(WsConfig) {});
        ws_hold(rig.w, true);
        (void) flood(&rig, empty, sizeof(empty));
        ASSERT_TRUE(rig.buffered >= WS_MESSAGE_MAX && rig.buffered < WS_MESSAGE_MAX + 128 * KIB);
        ASSERT_EQ(rig.n_messages, 0);
        ws_hold(rig.w, false);
        rig_close(&rig, 1006);
}

/* It says so much that not all is read, and leaves. */
TEST(full_and_left) {
        static char frame[8 + 1000] = "\x82\xfe\x03\xe8";
        size_t sent;
        Rig rig;

        rig_open(&rig, &(WsConfig) { .close_usec = 1000 });
        ws_hold(rig.w, true);
        (void) flood(&rig, frame, sizeof(frame));
        rig.client = close_fd(rig.client);
        rig_wait_end(&rig);
        ASSERT_EQ(rig.n_messages, 0);
        rig_close(&rig, 1006);

        /* taken in time, nothing is lost */
        rig_open(&rig, &(WsConfig) {});
        ws_hold(rig.w, true);
        sent = flood(&rig, frame, sizeof(frame));
        rig.client = close_fd(rig.client);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_closed, 0);
        ws_hold(rig.w, false);
        rig_turn(&rig);
        ASSERT_EQ(rig.n_messages, sent / sizeof(frame));
        rig_close(&rig, 1006);
}

TEST(sending_is_bounded) {
        static char chunk[16 * KIB];
        size_t sent = 0, got = 0;
        int r;
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        while (ws_room(rig.w) > 0) {
                ASSERT_OK(ws_send(rig.w, false, chunk, sizeof(chunk)));
                sent += sizeof(chunk);
                rig_turn(&rig);
        }
        ASSERT_TRUE(sent >= WS_QUEUE_BYTES_MAX);
        ASSERT_EQ(rig.n_writable, 0);
        for (r = 0; r >= 0;) {
                r = ws_send(rig.w, false, chunk, sizeof(chunk));
                sent += r >= 0 ? sizeof(chunk) : 0;
        }
        ASSERT_EQ(r, -ENOBUFS);
        ASSERT_TRUE(rig.buffered <= 2 * WS_QUEUE_BYTES_MAX + 64 * KIB);

        /* a ping is answered before what waits, behind what has begun */
        rig_send(&rig, BYTES("\x89\x81" MASK "!"));
        while (got < sent / sizeof(chunk) * (sizeof(chunk) + 4) + 3) {
                static char text[1 * MIB];
                ssize_t k = recv(rig.client, text, sizeof(text), MSG_DONTWAIT);

                if (k > 0)
                        got += (size_t) k;
                if (k > 0 && rig.n_messages == 0 && memmem(text, (size_t) k, "\x8a\x01!", 3)) {
                        rig.n_messages = got;
                        ASSERT_TRUE(got < sent);
                }
                rig_turn(&rig);
        }
        ASSERT_TRUE(rig.n_messages > 0);
        ASSERT_EQ(rig.n_writable, 1);
        ASSERT_EQ(rig.buffered, 0);
        rig_close(&rig, 1006);
}

TEST(unread_output_ends_it) {
        static char chunk[16 * KIB];
        Rig rig;

        rig_open(&rig, &(WsConfig) { .write_stall_usec = 1000 });
        while (ws_room(rig.w) > 0) {
                ASSERT_OK(ws_send(rig.w, false, chunk, sizeof(chunk)));
                rig_turn(&rig);
                if (!rig.w)
                        break;
        }
        rig_wait_end(&rig);
        rig_close(&rig, 1006);
}

TEST(many_pings) {
        static char ping[7] = "\x89\x81\0\0\0\0a", pings[1000 * sizeof(ping)];
        char text[4096];
        ssize_t k;
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        /* ten at once are answered one by one */
        for (unsigned i = 0; i < 10; i++) {
                ping[6] = (char) ('0' + i);
                ASSERT_EQ(send(rig.client, ping, sizeof(ping), 0), sizeof(ping));
        }
        expect(&rig, BYTES("\x8a\x01"
                           "0\x8a\x01"
                           "1\x8a\x01"
                           "2\x8a\x01"
                           "3\x8a\x01"
                           "4\x8a\x01"
                           "5\x8a\x01"
                           "6\x8a\x01"
                           "7\x8a\x01"
                           "8\x8a\x01"
                           "9"));

        /* a thousand in one read: the first ones, and the last */
        for (unsigned i = 0; i < 1000; i++) {
                ping[6] = i == 999 ? 'z' : 'a';
                memcpy(pings + i * sizeof(ping), ping, sizeof(ping));
        }
        ASSERT_EQ(send(rig.client, pings, sizeof(pings), 0), sizeof(pings));
        rig_turn(&rig);
        k = recv(rig.client, text, sizeof(text), MSG_DONTWAIT);
        ASSERT_EQ(k, WS_PONGS_MAX * 3);
        ASSERT_EQ(text[k - 1], 'z');
        ASSERT_EQ(rig.buffered, 0);
        rig_close(&rig, 1006);
}

TEST(silence) {
        Rig rig;

        rig_open(&rig, &(WsConfig) { .ping_usec = 1000 });
        rig_wait_end(&rig);
        expect(&rig, BYTES("\x89\x00\x89\x00"));
        rig_close(&rig, 1006);

        /* who answers stays */
        rig_open(&rig, &(WsConfig) { .ping_usec = 20 * USEC_PER_MSEC });
        for (unsigned i = 0; i < 10; i++) {
                char c[64];

                while (recv(rig.client, c, sizeof(c), MSG_DONTWAIT) < 0)
                        ASSERT_OK(sd_event_run(rig.event, UINT64_MAX));
                ASSERT_NOT_NULL(rig.w);
                rig_send(&rig, BYTES("\x8a\x80" MASK));
        }
        rig_close(&rig, 1006);
}

TEST(memory_of_all_is_bounded) {
        static char frame[8 + 1000] = "\x82\xfe\x03\xe8";
        char text[256] = "";
        Rig rig;

        rig_open(&rig, &(WsConfig) {});
        rig.buffered = WS_BUFFERED_TOTAL_MAX - 3000; /* others */
        ws_hold(rig.w, true);
        (void) flood(&rig, frame, sizeof(frame));
        ASSERT_TRUE(recv(rig.client, text, sizeof(text), MSG_DONTWAIT) > 4);
        ASSERT_EQ(memcmp(text + 2, "\x03\xf5", 2), 0);
        ASSERT_TRUE(rig.buffered <= WS_BUFFERED_TOTAL_MAX);
        rig.buffered -= WS_BUFFERED_TOTAL_MAX - 3000;
        rig_close(&rig, 1006);
}
