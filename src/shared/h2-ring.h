/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ring of unsent bytes of one HTTP/2 stream. Grows by powers of two, is given back to the heap when it runs
 * empty. */

#include "basic/macro.h"

typedef struct H2Ring {
        uint8_t *data; /* owned */
        size_t size;   /* power of two, or 0 */
        size_t start, n;
} H2Ring;

/* Frees the memory; the ring is empty and usable afterwards. */
void h2_ring_done(H2Ring *q);

/* Appends all n bytes, whatever the size: bounding it is the caller's part. 0 or -ENOMEM (then nothing is
 * added). */
int h2_ring_put(H2Ring *q, const void *data, size_t n);

/* Moves the oldest n ≤ q->n bytes to ret. */
void h2_ring_get(H2Ring *q, void *ret, size_t n);
