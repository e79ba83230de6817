/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a reader is given, without HTTP/2 on a wire: both ends of the session are here. */

#include <sys/eventfd.h>

#include "agent/agent.h"
#include "agent/request.h"
#include "basic/fd.h"
#include "basic/strings.h"
#include "shared/protocol.h"
#include "tests/unit/test.h"

typedef struct Answer {
        FrameDecoder decoder;
        char text[4096]; /* a letter a frame, then its payload */
        unsigned status;
        bool ended;
} Answer;

typedef struct Rig {
        Agent agent;
        H2Session *server, *client;
        unsigned n_sent; /* pieces of bytes from the agent */
        LoopTimer timer;
} Rig;

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Answer *a = userdata;
        size_t at = strlen(a->text);

        (void) snprintf(a->text + at, sizeof(a->text) - at, "%c%.*s", (char) type,
                        type == FRAME_STARTED || type == FRAME_EXIT ? 0 : (int) n, (const char *) payload);
        return 0;
}

static void client_headers(H2Stream *st, bool end, void *userdata) {
        ((Answer *) h2_stream_userdata(st))->status = h2_stream_status(st);
}

static void client_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Answer *a = h2_stream_userdata(st);

        ASSERT_OK(frame_decoder_feed(&a->decoder, data, n, on_frame, a));
        h2_stream_consume(st, n);
}

static void client_end(H2Stream *st, void *userdata) {
        ((Answer *) h2_stream_userdata(st))->ended = true;
}

static void client_close(H2Stream *st, uint32_t error, void *userdata) {
        frame_decoder_done(&((Answer *) h2_stream_userdata(st))->decoder);
}

static const H2Handlers client_handlers = {
        .on_headers = client_headers,
        .on_data = client_data,
        .on_end = client_end,
        .on_close = client_close,
};

static void on_prepare(void *userdata) {
        H2Session *ends[2];
        Rig *r = userdata;

        ends[0] = r->client;
        ends[1] = r->server;
        for (unsigned quiet = 0, i = 0; quiet < 2; i++) {
                const void *data;
                size_t n;

                ASSERT_OK(h2_session_output(ends[i % 2], &data, &n));
                quiet = n == 0 ? quiet + 1 : 0;
                if (n == 0)
                        continue;
                r->n_sent += i % 2;
                ASSERT_OK(h2_session_receive(ends[(i + 1) % 2], data, n));
        }

        process_table_reap(r->agent.processes);
}

static void rig_init(Rig *r) {
        *r = (Rig) {};
        ASSERT_OK(loop_new(&r->agent.loop));
        ASSERT_OK(process_table_new(r->agent.loop, &r->agent.processes));
        ASSERT_OK(identity_init(&r->agent.identity, /* detached= */ true));
        ASSERT_OK(h2_session_new(true, &request_handlers, &r->agent, NULL, &r->server));
        ASSERT_OK(h2_session_new(false, &client_handlers, r, NULL, &r->client));
        loop_set_prepare(r->agent.loop, on_prepare, r);
}

static void rig_done(Rig *r) {
        r->client = h2_session_free(r->client);
        r->server = h2_session_free(r->server);
        r->agent.processes = process_table_free(r->agent.processes);
        r->agent.loop = loop_free(r->agent.loop);
        identity_done(&r->agent.identity);
}

static void on_time(void *userdata) {
        loop_stop(userdata);
}

/* Turns of the loop, each a few ms, until *what is true. */
static void rig_run(Rig *r, const bool *what) {
        for (unsigned i = 0; i < 20000 && !*what; i++) {
                loop_timer_start(r->agent.loop, &r->timer, 2 * USEC_PER_MSEC, on_time, r->agent.loop);
                ASSERT_OK(loop_run(r->agent.loop));
        }
        ASSERT_TRUE(*what);
}

static H2Stream* rig_post(Rig *r, const char *spec, Answer *a) {
        uint8_t header[FRAME_HEADER_LEN];
        H2Stream *st;

        *a = (Answer) {};
        frame_header(header, FRAME_SPEC, (uint32_t) strlen(spec));
        ASSERT_OK(h2_session_request(r->client, "POST", "/processes", NULL, 0, false, a, &st));
        ASSERT_EQ(h2_stream_write(st, header, sizeof(header)), sizeof(header));
        ASSERT_EQ(h2_stream_write(st, spec, strlen(spec)), (ssize_t) strlen(spec));
        return st;
}

TEST(a_batch_is_sent_at_once) {
        static const struct {
                const char *batch;
                unsigned n_pieces_max;
        } cases[] = { { "false", 4 }, { "true", 1 } };
        Answer a;
        Rig r;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char spec[256];

                rig_init(&r);
                on_prepare(&r); /* greetings */
                r.n_sent = 0;
                (void) snprintf(spec, sizeof(spec),
                                "{\"cmd\":\"echo out; exit 3\",\"user\":\"root\",\"cwd\":\"/\",\"batch\":%s}",
                                cases[i].batch);
                ASSERT_OK(h2_stream_end(rig_post(&r, spec, &a)));
                rig_run(&r, &a.ended);
                ASSERT_EQ(a.status, 200);
                ASSERT_STREQ(a.text, "soout\nx");
                if (r.n_sent > cases[i].n_pieces_max)
                        fail_msg("batch %s: %u pieces", cases[i].batch, r.n_sent);
                rig_done(&r);
        }
}

TEST(typing_and_resizing) {
        static const uint8_t input[] = { FRAME_RESIZE, 0, 0, 0, 4, 0,   70,   0, 7,
                                         FRAME_STDIN,  0, 0, 0, 3, 'y', '\n', 4 };
        H2Stream *st;
        Answer a;
        Rig r;

        rig_init(&r);
        st = rig_post(&r,
                      "{\"cmd\":\"read x; stty size; echo $x\",\"user\":\"root\",\"cwd\":\"/\",\"pty\":{}}",
                      &a);
        ASSERT_EQ(h2_stream_write(st, input, sizeof(input)), sizeof(input));
        rig_run(&r, &a.ended);
        ASSERT_NOT_NULL(strstr(a.text, "7 70\r\n"));
        ASSERT_NOT_NULL(strstr(a.text, "y\r\n"));
        ASSERT_EQ(a.text[strlen(a.text) - 1], 'x');
        rig_done(&r);
}
