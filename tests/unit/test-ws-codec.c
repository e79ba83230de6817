/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "rest/ws-codec.h"
#include "tests/unit/test.h"

/* Masked with zeros, so that the cases can be read. */
#define MASK     "\0\0\0\0"
#define HELLO    "\x81\x85" MASK "Hello"
#define BYTES(s) s, sizeof(s) - 1

typedef struct Case {
        const char *input;
        size_t n;
        int r;                /* of the last ws_codec_next() */
        const char *expected; /* what came before, and then the refusal */
} Case;

static const Case cases[] = {
        { BYTES(HELLO), 0, "1:Hello " },
        { BYTES("\x82\x82" MASK "\0\xff"), 0, "2:2 bytes " },
        { BYTES("\x81\x80" MASK "\x82\x80" MASK), 0, "1: 2: " },
        { BYTES("\x01\x82" MASK "He\x80\x83" MASK "llo"), 0, "1:Hello " },
        { BYTES("\x01\x80" MASK "\x00\x80" MASK "\x80\x81" MASK "!"), 0, "1:! " },
        /* control frames between fragments */
        { BYTES("\x01\x82" MASK "He\x89\x81" MASK "p\x8a\x80" MASK "\x80\x83" MASK "llo"), 0,
          "9:p 10: 1:Hello " },
        { BYTES("\x89\x80" MASK HELLO), 0, "9: 1:Hello " },
        /* closes */
        { BYTES("\x88\x80" MASK), 0, "8:1005 " },
        { BYTES("\x88\x85" MASK "\x03\xe8"
                "bye"),
          0, "8:1000bye " },
        { BYTES("\x88\x82" MASK "\x0f\xa0"), 0, "8:4000 " },
        { BYTES("\x88\x81" MASK "\x03"), -EBADMSG, "!1002" },
        { BYTES("\x88\x82" MASK "\x03\xed"), -EBADMSG, "!1002" },
        { BYTES("\x88\x82" MASK "\x07\xd0"), -EBADMSG, "!1002" },
        { BYTES("\x88\x83" MASK "\x03\xe8\xff"), -EBADMSG, "!1007" },
        /* text */
        { BYTES("\x81\x82" MASK "\xc3\xa4"), 0, "1:\xc3\xa4 " },
        { BYTES("\x01\x81" MASK "\xc3\x80\x81" MASK "\xa4"), 0, "1:\xc3\xa4 " },
        { BYTES("\x81\x81" MASK "\xc3"), -EBADMSG, "!1007" },
        { BYTES("\x01\x81" MASK "\xc3\x80\x80" MASK), -EBADMSG, "!1007" },
        { BYTES("\x01\x81" MASK "\xff"), -EBADMSG, "!1007" },
        { BYTES("\x01\x82" MASK "\xf4\x90"), -EBADMSG, "!1007" }, /* at once, not at the message's end */
        { BYTES("\x81\x83" MASK "\xed\xa0\x80"), -EBADMSG, "!1007" },
        /* what no client may send */
        { BYTES("\x81\x05"
                "Hello"),
          -EBADMSG, "!1002" },
        { BYTES("\xc1\x85" MASK "Hello"), -EBADMSG, "!1002" },
        { BYTES("\xa1\x85" MASK "Hello"), -EBADMSG, "!1002" },
        { BYTES("\x91\x85" MASK "Hello"), -EBADMSG, "!1002" },
        { BYTES("\x83\x80" MASK), -EBADMSG, "!1002" },
        { BYTES("\x8b\x80" MASK), -EBADMSG, "!1002" },
        { BYTES("\x80\x80" MASK), -EBADMSG, "!1002" },
        { BYTES("\x01\x80" MASK "\x81\x80" MASK), -EBADMSG, "!1002" },
        { BYTES("\x09\x80" MASK), -EBADMSG, "!1002" },
        { BYTES("\x89\xfe\x00\x7e" MASK), -EBADMSG, "!1002" },
        { BYTES("\x81\xfe\x00\x05" MASK), -EBADMSG, "!1002" },
        { BYTES("\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05" MASK), -EBADMSG, "!1002" },
        { BYTES("\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00" MASK), -EBADMSG, "!1002" },
        { BYTES("\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01" MASK "x"), -EBADMSG, "!1009" },
        { BYTES("\x02\x81" MASK "x\x80\xff\x00\x00\x00\x00\x00\x10\x00\x00" MASK "x"), -EBADMSG, "!1009" },
        /* the rest is to come */
        { BYTES("\x81\x85" MASK "Hell"), 0, "" },
        { BYTES("\x81"), 0, "" },
};

static size_t note(char *text, size_t n, const WsEvent *e, int r) {
        if (r < 0)
                return (size_t) snprintf(text, n, "!%u", e->code);
        if (e->opcode == WS_BINARY && e->n > 0)
                return (size_t) snprintf(text, n, "2:%zu bytes ", e->n);
        if (e->opcode == WS_CLOSE)
                return (size_t) snprintf(text, n, "8:%u%.*s ", e->code, (int) e->n, (const char *) e->data);
        return (size_t) snprintf(text, n, "%d:%.*s ", e->opcode, (int) e->n, (const char *) e->data);
}

/* The input in pieces of this size. */
static void check(const Case *c, size_t piece) {
        _cleanup_(ws_codec_freep) WsCodec *codec = NULL;
        char text[256] = "";
        size_t n_text = 0;
        int r = 0;

        ASSERT_OK(ws_codec_new(&codec));
        for (size_t at = 0; at < c->n && r >= 0; at += piece) {
                WsEvent e;

                ws_codec_set_input(codec, c->input + at, MIN(piece, c->n - at));
                while ((r = ws_codec_next(codec, &e)) != 0) {
                        n_text += note(text + n_text, sizeof(text) - n_text, &e, r);
                        if (r < 0 || e.opcode == WS_CLOSE)
                                break;
                }
        }
        ASSERT_STREQ(text, c->expected);
        ASSERT_EQ(r < 0 ? r : 0, c->r);
}

TEST(messages) {
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                check(&cases[i], cases[i].n);
                check(&cases[i], 1);
                check(&cases[i], 3);
        }
}

static void feed(WsCodec *c, const char *data, size_t n, int expected, WsEvent *ret) {
        ws_codec_set_input(c, data, n);
        ASSERT_EQ(ws_codec_next(c, ret), expected);
}

TEST(limits) {
        static char large[14 + WS_MESSAGE_MAX] = "\x82\xff\0\0\0\0\0\x10\0\0";
        _cleanup_(ws_codec_freep) WsCodec *c = NULL, *d = NULL;
        WsEvent e;

        /* as large as may be, in one frame; memory comes with the bytes and goes with the message */
        ASSERT_OK(ws_codec_new(&c));
        feed(c, large, 1000, 0, &e);
        ASSERT_TRUE(ws_codec_n_buffered(c) <= 1000);
        feed(c, large + 1000, sizeof(large) - 1000, 1, &e);
        ASSERT_EQ(e.n, WS_MESSAGE_MAX);
        ws_codec_release(c);
        ASSERT_EQ(ws_codec_n_buffered(c), 0);

        /* fragments, also empty ones */
        ASSERT_OK(ws_codec_new(&d));
        feed(d, BYTES("\x02\x80" MASK), 0, &e);
        for (unsigned i = 1; i < WS_FRAGMENTS_MAX; i++)
                feed(d, BYTES("\x00\x80" MASK), 0, &e);
        feed(d, BYTES("\x00\x80" MASK), -EBADMSG, &e);
        ASSERT_EQ(e.code, WS_CODE_TOO_LARGE);
}

TEST(frames_of_ours) {
        static const struct {
                WsOpcode opcode;
                size_t n;
                const char *header;
                size_t n_header;
        } frames[] = {
                { WS_TEXT, 0, BYTES("\x81\x00") },
                { WS_PONG, 125, BYTES("\x8a\x7d") },
                { WS_BINARY, 126, BYTES("\x82\x7e\x00\x7e") },
                { WS_BINARY, 65535, BYTES("\x82\x7e\xff\xff") },
                { WS_BINARY, 65536, BYTES("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00") },
                { WS_CLOSE, 2, BYTES("\x88\x02") },
        };
        static uint8_t payload[65536], buffer[65536 + WS_HEADER_MAX];
        _cleanup_(ws_codec_freep) WsCodec *c = NULL;

        memset(payload, 'x', sizeof(payload));
        ASSERT_OK(ws_codec_new(&c));
        for (size_t i = 0; i < ELEMENTSOF(frames); i++) {
                ASSERT_EQ(ws_codec_write(c, frames[i].opcode, payload, frames[i].n, buffer),
                          frames[i].n_header + frames[i].n);
                ASSERT_EQ(memcmp(buffer, frames[i].header, frames[i].n_header), 0);
                ASSERT_EQ(memcmp(buffer + frames[i].n_header, payload, frames[i].n), 0);
        }
}
