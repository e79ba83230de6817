/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "rest/ws-output.h"
#include "tests/unit/test.h"

typedef struct Rig {
        WsCodec *codec;
        WsOutput output;
        int ours, theirs;
} Rig;

static void rig_open(Rig *rig) {
        int pair[2];

        *rig = (Rig) {};
        ASSERT_OK(ws_codec_new(&rig->codec));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
        rig->ours = pair[0];
        rig->theirs = pair[1];
}

static void rig_close(Rig *rig) {
        ws_output_done(&rig->output);
        ASSERT_TRUE(ws_output_is_empty(&rig->output));
        ASSERT_EQ(ws_output_held(&rig->output), 0);
        ws_codec_free(rig->codec);
        (void) close_fd(rig->ours);
        (void) close_fd(rig->theirs);
}

static void add(Rig *rig, WsOpcode opcode, const char *text) {
        ASSERT_OK(ws_output_add(&rig->output, rig->codec, opcode, text, strlen(text)));
}

static void expect(Rig *rig, const char *expected) {
        char text[256];
        ssize_t n;

        ASSERT_EQ(ws_output_flush(&rig->output, rig->ours), strlen(expected));
        n = recv(rig->theirs, text, sizeof(text) - 1, MSG_DONTWAIT);
        text[MAX(n, (ssize_t) 0)] = '\0';
        ASSERT_STREQ(text, expected);
}

TEST(pings_overtake_messages_but_not_the_beginning) {
        Rig rig;

        rig_open(&rig);
        ASSERT_OK(ws_output_begin(&rig.output, "101"));
        add(&rig, WS_TEXT, "one");
        add(&rig, WS_PONG, "p");
        add(&rig, WS_BINARY, "two");
        add(&rig, WS_PING, "q");
        add(&rig, WS_CLOSE, "\x0f\xa0");
        ASSERT_TRUE(ws_output_unsent(&rig.output) > 3 + 5 + 5 + 4);
        expect(&rig, "101\x8a\x01p\x89\x01q\x81\x03one\x82\x03two\x88\x02\x0f\xa0");
        ASSERT_TRUE(ws_output_is_empty(&rig.output));
        ASSERT_EQ(ws_output_unsent(&rig.output), 0);
        expect(&rig, "");
        rig_close(&rig);
}

TEST(a_frame_that_has_begun_is_finished_first) {
        static char large[1 * MIB], got[2 * MIB];
        size_t n = 0;
        Rig rig;

        rig_open(&rig);
        memset(large, 'x', sizeof(large));
        ASSERT_OK(ws_output_add(&rig.output, rig.codec, WS_BINARY, large, sizeof(large)));
        ASSERT_TRUE(ws_output_flush(&rig.output, rig.ours) > 0);
        add(&rig, WS_TEXT, "behind");
        add(&rig, WS_PONG, "!");
        for (ssize_t k; !ws_output_is_empty(&rig.output) || n < 10 + sizeof(large) + 3 + 8;) {
                k = recv(rig.theirs, got + n, sizeof(got) - n, MSG_DONTWAIT);
                n += (size_t) MAX(k, (ssize_t) 0);
                ASSERT_OK(ws_output_flush(&rig.output, rig.ours));
        }
        ASSERT_EQ(n, 10 + sizeof(large) + 3 + 8);
        ASSERT_EQ(memcmp(got + 10, large, sizeof(large)), 0);
        ASSERT_EQ(memcmp(got + 10 + sizeof(large),
                         "\x8a\x01!\x81\x06"
                         "behind",
                         3 + 8),
                  0);
        rig_close(&rig);
}

TEST(pongs_are_bounded) {
        char text[WS_PONGS_MAX * 3];
        size_t held;
        Rig rig;

        rig_open(&rig);
        for (unsigned i = 0; i < WS_PONGS_MAX; i++)
                add(&rig, WS_PONG, "a");
        held = ws_output_held(&rig.output);
        add(&rig, WS_PONG, "last");
        add(&rig, WS_PONG, "lost");
        add(&rig, WS_PONG, "z");
        ASSERT_EQ(ws_output_held(&rig.output), held);
        ASSERT_EQ(ws_output_flush(&rig.output, rig.ours), sizeof(text));
        ASSERT_EQ(recv(rig.theirs, text, sizeof(text), MSG_DONTWAIT), sizeof(text));
        ASSERT_EQ(memcmp(text,
                         "\x8a\x01"
                         "a",
                         3),
                  0);
        ASSERT_EQ(memcmp(text + sizeof(text) - 3, "\x8a\x01z", 3), 0);
        rig_close(&rig);
}

TEST(a_peer_that_left) {
        Rig rig;

        rig_open(&rig);
        rig.theirs = close_fd(rig.theirs);
        add(&rig, WS_TEXT, "x");
        ASSERT_EQ(ws_output_flush(&rig.output, rig.ours), -EPIPE);
        rig_close(&rig);
}
