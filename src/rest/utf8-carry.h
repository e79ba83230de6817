/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Text out of bytes that come in pieces: a character cut by the end of a piece is carried over to the next
 * one, and only what can never become a character is replaced by U+FFFD, once for each maximal part (Unicode
 * 15 §3.9, as Python and browsers do).
 */

#include "basic/macro.h"

typedef struct Utf8Carry {
        char tail[3];
        unsigned n;
} Utf8Carry;

/* Bytes that out must have room for. */
#define UTF8_CARRY_MAX(n) (3 * ((n) + 3))

/* Writes valid UTF-8 to out; returns its length, 0 when the piece only made the tail longer. */
size_t utf8_carry_feed(Utf8Carry *c, const char *data, size_t n, char *out);
/* The stream has ended: a tail is replaced. out has room for UTF8_CARRY_MAX(0). */
size_t utf8_carry_end(Utf8Carry *c, char *out);
