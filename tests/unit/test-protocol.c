/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "shared/protocol.h"
#include "tests/unit/test.h"

typedef struct Seen {
        char text[256]; /* "o3:abc " for each call */
        size_t n_calls, n_bytes;
        int answer;
} Seen;

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Seen *s = userdata;

        s->n_calls++;
        s->n_bytes += n;
        if (n < 32)
                (void) snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), "%c%zu:%.*s ",
                                type, n, (int) n, (const char *) payload);
        return s->answer;
}

TEST(header) {
        uint8_t header[FRAME_HEADER_LEN];

        frame_header(header, FRAME_STDOUT, 0x01020304);
        ASSERT_EQ(memcmp(header, "o\x01\x02\x03\x04", 5), 0);
}

TEST(decode) {
        static const struct {
                const char *data;
                size_t n;
                int r;
                const char *seen;
        } cases[] = {
                { "o\0\0\0\3abc", 8, 0, "o3:abc " },
                { "o\0\0\0\0", 5, 0, "" }, /* data types give no empty piece */
                { "I\0\0\0\0", 5, 0, "I0: " },
                { "s\0\0\0\2{}o\0\0\0\1xx\0\0\0\2{}", 20, 0, "s2:{} o1:x x2:{} " },
                { "w\0\0\0\4abcd", 9, 0, "w4:abcd " },
                { "I\0\0\0\1a", 6, -EPROTO, "" },
                { "w\0\0\0\5abcde", 10, -EPROTO, "" },
                { "o\0\1\0\1", 5, -EPROTO, "" },
                { "x\0\1\0\1", 5, -EPROTO, "" },
                { "j\0\10\0\1", 5, -EPROTO, "" },
                { "\0\0\0\0\0", 5, -EPROTO, "" },
                { "z\0\0\0\0", 5, -EPROTO, "" },
                { "\377\377\377\377\377", 5, -EPROTO, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(frame_decoder_done) FrameDecoder d = {};
                Seen s = {};

                ASSERT_EQ(frame_decoder_feed(&d, cases[i].data, cases[i].n, on_frame, &s), cases[i].r);
                ASSERT_STREQ(s.text, cases[i].seen);
        }
}

TEST(byte_by_byte) {
        static const char data[] = "s\0\0\0\2{}o\0\0\0\3abcI\0\0\0\0";
        _cleanup_(frame_decoder_done) FrameDecoder d = {};
        Seen s = {};

        for (size_t i = 0; i < sizeof(data) - 1; i++)
                ASSERT_OK(frame_decoder_feed(&d, data + i, 1, on_frame, &s));
        ASSERT_STREQ(s.text, "s2:{} o1:a o1:b o1:c I0: ");
}

TEST(largest) {
        static const struct {
                FrameType type;
                uint32_t max;
        } cases[] = {
                { FRAME_SPEC, AGENT_JSON_MAX },      { FRAME_STDIN, FRAME_PAYLOAD_MAX },
                { FRAME_STDOUT, FRAME_PAYLOAD_MAX }, { FRAME_STDERR, FRAME_PAYLOAD_MAX },
                { FRAME_PTY, FRAME_PAYLOAD_MAX },    { FRAME_STARTED, FRAME_PAYLOAD_MAX },
                { FRAME_EXIT, FRAME_PAYLOAD_MAX },
        };
        _cleanup_free_ char *payload = calloc(1, AGENT_JSON_MAX);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(frame_decoder_done) FrameDecoder d = {}, e = {};
                uint8_t header[FRAME_HEADER_LEN];
                Seen s = {};

                frame_header(header, cases[i].type, cases[i].max);
                ASSERT_OK(frame_decoder_feed(&d, header, sizeof(header), on_frame, &s));
                ASSERT_OK(frame_decoder_feed(&d, payload, cases[i].max, on_frame, &s));
                ASSERT_EQ(s.n_calls, 1);
                ASSERT_EQ(s.n_bytes, cases[i].max);

                frame_header(header, cases[i].type, cases[i].max + 1);
                ASSERT_EQ(frame_decoder_feed(&e, header, sizeof(header), on_frame, &s), -EPROTO);
        }
}

TEST(handler_stops) {
        _cleanup_(frame_decoder_done) FrameDecoder d = {};
        Seen s = { .answer = -ECANCELED };

        ASSERT_EQ(frame_decoder_feed(&d, "s\0\0\0\2{}s\0\0\0\2{}", 14, on_frame, &s), -ECANCELED);
        ASSERT_EQ(s.n_calls, 1);
}

TEST(end_reasons) {
        for (EndReason i = 0; i < _END_REASON_MAX; i++) {
                ASSERT_NOT_NULL(end_reason_to_string(i));
                ASSERT_EQ(end_reason_from_string(end_reason_to_string(i)), i);
        }

        ASSERT_EQ(end_reason_from_string("vmm-crash"), END_VMM_CRASH);
        ASSERT_EQ(end_reason_from_string("boredom"), -EINVAL);
        ASSERT_EQ(end_reason_from_string(""), -EINVAL);
        ASSERT_EQ(end_reason_from_string(NULL), -EINVAL);
}
