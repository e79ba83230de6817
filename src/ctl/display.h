/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Text of a guest on our terminal: what would move the cursor or more is shown, not done. */

#include "basic/macro.h"

typedef struct Display {
        char tail[4]; /* the begin of a character whose rest is still to come */
        size_t n_tail;
} Display;

/* A FlowTransform; userdata: a Display. Line breaks and tabs stay, a carriage return is dropped. */
int display_transform(void *userdata, char *data, size_t n, size_t *ret_n);
