/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * First byte, lowest bit set: two ends of ours, the input is a program of what they do to each other and in
 * which order bytes travel. Else one end that is fed the input as bytes of its peer, in pieces; bits choose
 * the side and what it does in callbacks. Every announced stream is closed exactly once, whatever comes.
 */

#include <string.h>

#include "basic/limits.h"
#include "shared/h2.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS 64U

enum {
        PROGRAM = 1 << 0,
        SERVER = 1 << 1,
        PREFACE = 1 << 2, /* the bytes every client begins with are put before */
        RESET = 1 << 3,   /* in on_headers */
        ANSWER = 1 << 4,
        HOLD = 1 << 5,   /* consume nothing */
        SILENT = 1 << 6, /* the peer does not read */
};

typedef struct Side {
        H2Session *session;
        H2Stream *streams[STREAMS]; /* announced and not closed */
        uint8_t flags;
        uint64_t n_announced, n_closed;
} Side;

static void announce(Side *side, H2Stream *st) {
        side->n_announced++;
        for (size_t i = 0; i < STREAMS; i++)
                if (!side->streams[i]) {
                        side->streams[i] = st;
                        return;
                }
}

static void on_headers(H2Stream *st, bool end, void *userdata) {
        Side *side = userdata;
        const H2Header *headers;
        size_t n = h2_stream_headers(st, &headers), n_bytes = 0;

        for (size_t i = 0; i < n; i++)
                n_bytes += strlen(headers[i].name) + strlen(headers[i].value);
        assert(n_bytes <= H2_HEADER_BYTES_MAX);

        if (side->flags & SERVER)
                announce(side, st);
        if (side->flags & RESET)
                assert(h2_stream_reset(st, H2_CANCEL) >= 0);
        if ((side->flags & ANSWER) && (side->flags & SERVER))
                (void) h2_stream_respond(st, 200, NULL, 0, end);
}

static void on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Side *side = userdata;

        if (side->flags & ANSWER)
                (void) h2_stream_write(st, data, n);
        if (!(side->flags & HOLD))
                h2_stream_consume(st, n);
}

static void on_end(H2Stream *st, void *userdata) {
        if (((Side *) userdata)->flags & ANSWER)
                (void) h2_stream_end(st);
}

static void on_writable(H2Stream *st, void *userdata) {
        static const char zeros[65536];

        (void) h2_stream_write(st, zeros, sizeof(zeros));
}

static void on_close(H2Stream *st, uint32_t error, void *userdata) {
        Side *side = userdata;

        side->n_closed++;
        for (size_t i = 0; i < STREAMS; i++)
                if (side->streams[i] == st)
                        side->streams[i] = NULL;
}

static const H2Handlers handlers = { on_headers, on_data, on_end, on_writable, on_close };

static void side_new(Side *side, uint8_t flags) {
        *side = (Side) { .flags = flags };
        assert(h2_session_new(flags & SERVER, &handlers, side, NULL, &side->session) >= 0);
}

static void side_done(Side *side) {
        side->session = h2_session_free(side->session);
        assert(side->n_announced == side->n_closed);
}

static void drain(Side *side) {
        const void *p;
        size_t n = 1;

        for (unsigned i = 0; i < 64 && n > 0; i++)
                if (h2_session_output(side->session, &p, &n) < 0)
                        return;
}

static void fuzz_bytes_of_peer(FuzzInput *in, uint8_t flags) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
        Side side;
        int r = 0;

        side_new(&side, flags);
        if (!(flags & SERVER)) {
                H2Stream *st;

                for (unsigned i = 0; i < 2; i++) {
                        assert(h2_session_request(side.session, "POST", "/", NULL, 0, i, NULL, &st) >= 0);
                        announce(&side, st);
                }
                drain(&side);
        } else if (flags & PREFACE)
                r = h2_session_receive(side.session, preface, sizeof(preface));

        while (in->n > 0 && r >= 0) {
                size_t k = (size_t) fuzz_byte(in) * 4;
                const uint8_t *p = fuzz_bytes(in, k, &k);

                r = h2_session_receive(side.session, p, k);
                if (!(flags & SILENT))
                        drain(&side);
        }

        assert(r == 0 || r == -EPROTO);
        side_done(&side);
}

static void carry(Side *from, Side *to) {
        const void *p;
        size_t n;

        assert(h2_session_output(from->session, &p, &n) >= 0);
        if (n > 0)
                assert(h2_session_receive(to->session, p, n) >= 0);
}

/* One step: the low bits say what, the high ones to which stream of which side. */
static void step(Side sides[static 2], uint8_t what, uint8_t argument) {
        static const char zeros[65536];
        Side *side = &sides[what >> 7];
        H2Stream *st = side->streams[(what >> 3) % 16];

        switch (what % 8) {
        case 0:
                if (!(side->flags & SERVER) &&
                    h2_session_request(side->session, "POST", "/", NULL, 0, argument & 1, NULL, &st) >= 0)
                        announce(side, st);
                return;

        case 1:
                carry(side, &sides[!(what >> 7)]);
                return;

        case 2:
                if (argument == 0)
                        (void) h2_session_ping(side->session);
                else if (argument == 255)
                        (void) h2_session_goaway(side->session);
                return;
        }

        if (!st)
                return;

        switch (what % 8) {
        case 3:
                if (side->flags & SERVER)
                        (void) h2_stream_respond(st, 200, NULL, 0, argument & 1);
                return;

        case 4:
                (void) h2_stream_write(st, zeros, (size_t) argument * 257);
                return;

        case 5:
                (void) h2_stream_end(st);
                return;

        case 6:
                (void) h2_stream_reset(st, argument);
                return;

        case 7:
                h2_stream_consume(st, (size_t) argument * 1024);
                return;
        }
}

static void fuzz_program(FuzzInput *in, uint8_t flags) {
        Side sides[2];

        side_new(&sides[0], flags & (uint8_t) ~SERVER);
        side_new(&sides[1], flags | SERVER);
        while (in->n > 0) {
                uint8_t what = fuzz_byte(in);

                step(sides, what, fuzz_byte(in));
        }

        side_done(&sides[0]);
        side_done(&sides[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        FuzzInput in = { data, n };
        uint8_t flags = fuzz_byte(&in);

        if (flags & PROGRAM)
                fuzz_program(&in, flags);
        else
                fuzz_bytes_of_peer(&in, flags);
        return 0;
}
