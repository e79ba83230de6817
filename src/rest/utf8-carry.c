/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "rest/utf8-carry.h"

static char* put(char *out, const char *s, size_t n) {
        memcpy(out, s, n);
        return out + n;
}

static char* put_replacement(char *out) {
        return put(out, "\xef\xbf\xbd", 3);
}

/* How many bytes follow this first one of a character; 0 when it is none. */
static unsigned n_following(uint8_t c) {
        if (c >= 0xc2 && c <= 0xdf)
                return 1;
        if (c >= 0xe0 && c <= 0xef)
                return 2;
        return c >= 0xf0 && c <= 0xf4 ? 3 : 0;
}

/* Overlong forms, surrogates and what lies beyond U+10FFFF show in the second byte. */
static bool may_follow(const Utf8Carry *c, uint8_t b) {
        uint8_t first = (uint8_t) c->tail[0];
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

        return c->n > 1 ? b >= 0x80 && b <= 0xbf : b >= low && b <= high;
}

size_t utf8_carry_feed(Utf8Carry *c, const char *data, size_t n, char *out) {
        char *p = out;

        for (size_t i = 0; i < n; i++) {
                uint8_t b = (uint8_t) data[i];

                if (c->n > 0 && may_follow(c, b)) {
                        if (c->n < n_following((uint8_t) c->tail[0])) {
                                c->tail[c->n++] = data[i];
                                continue;
                        }
                        p = put(p, c->tail, c->n);
                        *p++ = data[i];
                        c->n = 0;
                        continue;
                }

                p += utf8_carry_end(c, p);
                if (b < 0x80)
                        *p++ = data[i];
                else if (n_following(b) == 0)
                        p = put_replacement(p);
                else
                        c->tail[c->n++] = data[i];
        }
        return (size_t) (p - out);
}

size_t utf8_carry_end(Utf8Carry *c, char *out) {
        if (c->n == 0)
                return 0;
        c->n = 0;
        return (size_t) (put_replacement(out) - out);
}
