/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See h2-ring.h. */

#include <string.h>

#include "shared/h2-ring.h"

#define RING_BYTES_MIN  4096U
#define RING_BYTES_KEEP 16384U /* an empty ring keeps so much */

void h2_ring_done(H2Ring *q) {
        free(q->data);
        *q = (H2Ring) {};
}

/* Copies the oldest n bytes without removing them. */
static void ring_peek(const H2Ring *q, void *ret, size_t n) {
        size_t first = MIN(n, q->size - q->start);

        if (n == 0)
                return;

        memcpy(ret, q->data + q->start, first);
        memcpy((uint8_t *) ret + first, q->data, n - first);
}

static int ring_grow(H2Ring *q, size_t room) {
        size_t size = q->size > 0 ? q->size : RING_BYTES_MIN;
        uint8_t *data;

        while (size < room)
                size *= 2;
        if (size == q->size)
                return 0;

        data = malloc(size);
        if (!data)
                return -ENOMEM;

        ring_peek(q, data, q->n);
        free(q->data);
        *q = (H2Ring) { .data = data, .size = size, .n = q->n };
        return 0;
}

int h2_ring_put(H2Ring *q, const void *data, size_t n) {
        size_t end, first;
        int r;

        r = ring_grow(q, q->n + n);
        if (r < 0)
                return r;
        if (n == 0)
                return 0;

        end = (q->start + q->n) & (q->size - 1);
        first = MIN(n, q->size - end);
        memcpy(q->data + end, data, first);
        memcpy(q->data, (const uint8_t *) data + first, n - first);
        q->n += n;
        return 0;
}

void h2_ring_get(H2Ring *q, void *ret, size_t n) {
        assert(n <= q->n);

        ring_peek(q, ret, n);
        q->n -= n;
        q->start = q->n == 0 ? 0 : (q->start + n) & (q->size - 1);
        if (q->n == 0 && q->size > RING_BYTES_KEEP)
                h2_ring_done(q);
}
