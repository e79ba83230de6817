/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A fuzz target defines LLVMFuzzerTestOneInput(). What must hold whatever comes in is an assert(): builds of
 * the fuzzers and of the replays keep them. FuzzInput hands an input out piece by piece.
 */

#include "basic/macro.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct FuzzInput {
        const uint8_t *data;
        size_t n;
} FuzzInput;

/* The next byte, 0 at the end. */
static inline uint8_t fuzz_byte(FuzzInput *in) {
        if (in->n == 0)
                return 0;

        in->n--;
        return *in->data++;
}

/* The next at most n bytes; *ret_n says how many there are. */
static inline const uint8_t* fuzz_bytes(FuzzInput *in, size_t n, size_t *ret_n) {
        const uint8_t *p = in->data;

        *ret_n = MIN(n, in->n);
        in->data += *ret_n;
        in->n -= *ret_n;
        return p;
}
