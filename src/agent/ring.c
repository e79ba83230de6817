/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "agent/ring.h"

void ring_init(Ring *ring, size_t size) {
        assert(size >= RING_FRAME_MAX + FRAME_HEADER_LEN);
        *ring = (Ring) { .size = size };
}

void ring_done(Ring *ring) {
        free(ring->data);
        *ring = (Ring) { .size = ring->size };
}

static void ring_write_at(Ring *ring, size_t offset, const void *data, size_t n) {
        size_t begin = (ring->start + offset) % ring->size;
        size_t first = MIN(n, ring->size - begin);

        memcpy(ring->data + begin, data, first);
        memcpy(ring->data, (const uint8_t *) data + first, n - first);
}

static void ring_read_at(const Ring *ring, size_t offset, void *data, size_t n) {
        size_t begin = (ring->start + offset) % ring->size;
        size_t first = MIN(n, ring->size - begin);

        memcpy(data, ring->data + begin, first);
        memcpy((uint8_t *) data + first, ring->data, n - first);
}

static void ring_drop_oldest(Ring *ring) {
        uint8_t header[FRAME_HEADER_LEN];
        size_t n;

        ring_read_at(ring, 0, header, sizeof(header));
        n = FRAME_HEADER_LEN +
            ((size_t) header[1] << 24 | (size_t) header[2] << 16 | (size_t) header[3] << 8 | header[4]);
        ring->start = (ring->start + n) % ring->size;
        ring->n -= n;
        if (ring->n == 0)
                ring->n_last = 0;
        else
                ring->last -= n;
}

/* Room for n more bytes; what is dropped for it may be the newest frame, too. */
static void ring_make_room(Ring *ring, size_t n) {
        while (ring->size - ring->n < n)
                ring_drop_oldest(ring);
}

static void ring_begin_frame(Ring *ring, FrameType type) {
        ring_make_room(ring, FRAME_HEADER_LEN + 1);
        ring->last = ring->n;
        ring->last_type = type;
        ring->n_last = 0;
        ring->n += FRAME_HEADER_LEN;
}

int ring_append(Ring *ring, FrameType type, const void *data, size_t n) {
        const uint8_t *p = data;

        if (n > ring->size) { /* the beginning would be dropped anyway */
                p += n - ring->size;
                n = ring->size;
        }

        if (!ring->data && n > 0) {
                ring->data = malloc(ring->size);
                if (!ring->data)
                        return -ENOMEM;
        }

        while (n > 0) {
                uint8_t header[FRAME_HEADER_LEN];
                size_t chunk;

                if (ring->n_last == 0 || ring->last_type != type || ring->n_last >= RING_FRAME_MAX)
                        ring_begin_frame(ring, type);

                /* Dropping old frames for it must not drop the one that grows. */
                chunk = MIN(n, (size_t) RING_FRAME_MAX - ring->n_last);
                while (ring->size - ring->n < chunk && ring->last > 0)
                        ring_drop_oldest(ring);
                chunk = MIN(chunk, ring->size - ring->n);

                ring_write_at(ring, ring->n, p, chunk);
                ring->n += chunk;
                ring->n_last += (uint32_t) chunk;
                frame_header(header, type, ring->n_last);
                ring_write_at(ring, ring->last, header, sizeof(header));
                p += chunk;
                n -= chunk;
        }

        return 0;
}

size_t ring_read(const Ring *ring, const void *ret_data[static 2], size_t ret_n[static 2]) {
        size_t first;

        if (ring->n == 0)
                return 0;

        first = MIN(ring->n, ring->size - ring->start);
        ret_data[0] = ring->data + ring->start;
        ret_n[0] = first;
        if (first == ring->n)
                return 1;

        ret_data[1] = ring->data;
        ret_n[1] = ring->n - first;
        return 2;
}
