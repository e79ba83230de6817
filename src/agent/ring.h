/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The last bytes a process wrote, as whole frames of shared/protocol.h, so that a late reader is given
 * exactly what a reader from the beginning would have seen, less the beginning. When full the oldest frames
 * go. Memory is taken with the first byte.
 */

#include "basic/macro.h"
#include "shared/protocol.h"

#define RING_FRAME_MAX 4096U /* payload of one frame kept: the grain in which old output is dropped */

typedef struct Ring {
        uint8_t *data; /* owned; size bytes */
        size_t size;
        size_t start, n; /* of the bytes kept */
        size_t last;     /* where the newest frame begins, as offset behind start */
        uint32_t n_last; /* its payload; 0: there is none */
        FrameType last_type;
} Ring;

/* size: at least RING_FRAME_MAX + FRAME_HEADER_LEN. */
void ring_init(Ring *ring, size_t size);
void ring_done(Ring *ring);
/* 0 or -ENOMEM; output is never refused for lack of room. */
int ring_append(Ring *ring, FrameType type, const void *data, size_t n);
/* The bytes kept, oldest first, in up to two pieces; borrowed until the next append. The number of pieces.
 */
size_t ring_read(const Ring *ring, const void *ret_data[static 2], size_t ret_n[static 2]);
