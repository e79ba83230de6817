/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A form read whole and in pieces must say the same, and its contents must be found in it. First byte: the
 * size of pieces; second: the room; up to the first newline: the Content-Type behind the usual beginning.
 */

#include <string.h>

#include "rest/multipart.h"
#include "tests/fuzz/fuzz.h"

#define PREFIX "multipart/form-data; boundary="

typedef struct Sum {
        uint64_t contents, events;
        size_t n;
        bool failed;
} Sum;

static void sum_byte(uint64_t *sum, uint8_t c) {
        *sum = (*sum ^ c) * 1099511628211U;
}

static void sum_event(Sum *s, const Multipart *m, MultipartEvent event, const char *data, size_t n) {
        if (event == MULTIPART_DATA) {
                for (size_t i = 0; i < n; i++)
                        sum_byte(&s->contents, (uint8_t) data[i]);
                s->n += n;
                return;
        }
        if (event == MULTIPART_MORE)
                return;
        sum_byte(&s->events, (uint8_t) event);
        sum_byte(&s->events, (uint8_t) s->n);
        if (event == MULTIPART_PART) {
                assert(strlen(m->name) <= MULTIPART_NAME_MAX && m->n_parts <= MULTIPART_PARTS_MAX);
                for (const char *p = m->name; *p; p++)
                        sum_byte(&s->events, (uint8_t) *p);
        }
}

static Sum read_form(const char *type, const char *text, size_t n, size_t piece, size_t max) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(multipart_done) Multipart m = {};
        Sum s = {};

        if (multipart_init(&m, type, &fault) < 0)
                return (Sum) { .failed = true };

        for (size_t i = 0; i < n && !s.failed; i += piece) {
                size_t at = i, end = i + MIN(piece, n - i);
                MultipartEvent event = MULTIPART_DATA;

                while (event != MULTIPART_MORE) {
                        const char *data;
                        size_t n_data;
                        ssize_t k = multipart_next(&m, text + at, end - at, max, &event, &data, &n_data,
                                                   &fault);

                        if (k < 0) {
                                s.failed = true;
                                break;
                        }
                        assert((size_t) k <= end - at && n_data <= max);
                        assert(event != MULTIPART_MORE || (size_t) k == end - at);
                        at += (size_t) k;
                        sum_event(&s, &m, event, data, n_data);
                }
        }
        if (!s.failed)
                s.failed = multipart_finish(&m, &fault) < 0;
        assert(s.failed == fault_is_set(&fault));
        assert(s.n <= n);
        return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        char type[sizeof(PREFIX) + 256] = PREFIX;
        FuzzInput in = { data, n };
        size_t piece = 1U + fuzz_byte(&in), max = 1U + fuzz_byte(&in), n_type;
        const uint8_t *end = memchr(in.data, '\n', MIN(in.n, 200U));
        Sum a, b;

        if (!end)
                return 0;
        n_type = (size_t) (end - in.data);
        memcpy(type + strlen(PREFIX), in.data, n_type);
        in.data += n_type + 1;
        in.n -= n_type + 1;

        a = read_form(type, (const char *) in.data, in.n, MAX(in.n, 1U), SIZE_MAX);
        b = read_form(type, (const char *) in.data, in.n, piece, max);
        assert(a.failed == b.failed && a.events == b.events);
        assert(a.failed || (a.contents == b.contents && a.n == b.n));
        return 0;
}
