/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Typed frames, fed in pieces: [length of a piece] bytes…, and once more as a whole with the same result. */

#include "shared/protocol.h"
#include "tests/fuzz/fuzz.h"

typedef struct Seen {
        size_t n_bytes;
        uint32_t sum;
} Seen;

static int on_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        const uint8_t *p = payload;
        Seen *s = userdata;

        assert(n <= AGENT_JSON_MAX);
        for (size_t i = 0; i < n; i++)
                s->sum = s->sum * 31 + p[i] + (uint32_t) type;
        s->n_bytes += n;
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_(frame_decoder_done) FrameDecoder pieces = {}, whole = {};
        FuzzInput in = { data, n };
        Seen a = {}, b = {};
        size_t step;
        int r = 0;

        step = (size_t) fuzz_byte(&in) + 1;
        data = in.data;
        n = in.n;

        while (in.n > 0 && r >= 0) {
                size_t k;
                const uint8_t *p = fuzz_bytes(&in, step, &k);

                r = frame_decoder_feed(&pieces, p, k, on_frame, &a);
        }

        assert(r == 0 || r == -EPROTO);
        assert(frame_decoder_feed(&whole, data, n, on_frame, &b) == r);
        assert(a.n_bytes == b.n_bytes && a.sum == b.sum);
        assert(a.n_bytes <= n);
        return 0;
}
