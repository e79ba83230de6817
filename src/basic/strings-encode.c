/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* UTF-8 (RFC 3629), hex, base64 (RFC 4648), percent-encoding, capsule ids (api.md §1.5) and text made safe
 * to show. */

#include <stdio.h>
#include <sys/random.h>

#include "basic/strings.h"

/* Bytes of the character at s; 0 when it is cut off by the end, -EINVAL when it can never become one. */
static int utf8_character(const unsigned char *s, size_t n) {
        unsigned char low = 0x80, high = 0xbf;
        int length;

        if (s[0] < 0x80)
                return 1;
        if (s[0] >= 0xc2 && s[0] <= 0xdf)
                length = 2;
        else if (s[0] >= 0xe0 && s[0] <= 0xef)
                length = 3;
        else if (s[0] >= 0xf0 && s[0] <= 0xf4)
                length = 4;
        else
                return -EINVAL;

        /* overlong forms, surrogates, beyond U+10FFFF: all of them show in the second byte */
        if (s[0] == 0xe0)
                low = 0xa0;
        else if (s[0] == 0xed)
                high = 0x9f;
        else if (s[0] == 0xf0)
                low = 0x90;
        else if (s[0] == 0xf4)
                high = 0x8f;

        for (int i = 1; i < length; i++) {
                if ((size_t) i >= n)
                        return 0;
                if (s[i] < low || s[i] > high)
                        return -EINVAL;
                low = 0x80;
                high = 0xbf;
        }

        return length;
}

bool utf8_is_valid(const char *s, size_t n) {
        for (size_t i = 0; i < n;) {
                int k;

                k = utf8_character((const unsigned char *) s + i, n - i);
                if (k <= 0)
                        return false;
                i += (size_t) k;
        }

        return true;
}

size_t utf8_complete_prefix(const char *s, size_t n) {
        for (size_t back = 1; back <= 3 && back <= n; back++) {
                unsigned char c = (unsigned char) s[n - back];

                if ((c & 0xc0) == 0x80)
                        continue;

                return utf8_character((const unsigned char *) s + n - back, back) == 0 ? n - back : n;
        }

        return n;
}

char* utf8_replace(const char *s, size_t n) {
        static const char replacement[3] = { '\xef', '\xbf', '\xbd' };
        char *text = malloc(n * sizeof(replacement) + 1), *p = text;

        if (!text)
                return NULL;

        for (size_t i = 0; i < n;) {
                int k = utf8_character((const unsigned char *) s + i, n - i);
                bool bad = k <= 0;
                size_t length = bad ? sizeof(replacement) : (size_t) k;

                memcpy(p, bad ? replacement : s + i, length);
                p += length;
                i += bad ? 1 : length;
        }

        *p = 0;
        return text;
}

static const char hex_digits[] = "0123456789abcdef";

void hex_encode(const uint8_t *data, size_t n, char *ret) {
        for (size_t i = 0; i < n; i++) {
                ret[2 * i] = hex_digits[data[i] >> 4];
                ret[2 * i + 1] = hex_digits[data[i] & 15];
        }

        ret[2 * n] = 0;
}

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -EINVAL;
}

int hex_decode(const char *s, uint8_t *ret, size_t n) {
        for (size_t i = 0; i < n; i++) {
                int high, low;

                high = hex_digit(s[2 * i]);
                if (high < 0)
                        return high;
                low = hex_digit(s[2 * i + 1]);
                if (low < 0)
                        return low;
                ret[i] = (uint8_t) (high << 4 | low);
        }

        return s[2 * n] ? -EINVAL : 0;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char* base64_encode(const void *data, size_t n) {
        const uint8_t *d = data;
        char *text, *p;

        if (n > (SIZE_MAX - 1) / 4)
                return NULL;

        p = text = malloc((n + 2) / 3 * 4 + 1);
        if (!text)
                return NULL;

        for (; n >= 3; n -= 3, d += 3) {
                *p++ = base64_digits[d[0] >> 2];
                *p++ = base64_digits[(d[0] & 3) << 4 | d[1] >> 4];
                *p++ = base64_digits[(d[1] & 15) << 2 | d[2] >> 6];
                *p++ = base64_digits[d[2] & 63];
        }

        if (n > 0) {
                uint8_t second = n > 1 ? d[1] : 0;

                *p++ = base64_digits[d[0] >> 2];
                *p++ = base64_digits[(d[0] & 3) << 4 | second >> 4];
                *p++ = n > 1 ? base64_digits[(second & 15) << 2] : '=';
                *p++ = '=';
        }

        *p = 0;
        return text;
}

static int base64_digit(char c) {
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        if (c == '+')
                return 62;
        if (c == '/')
                return 63;
        return -EINVAL;
}

int base64_decode(const char *s, size_t n, void **ret, size_t *ret_n) {
        _cleanup_free_ uint8_t *data = NULL;
        size_t n_data = 0, n_digits = n;
        uint32_t bits = 0;

        if (n % 4 != 0)
                return -EINVAL;

        while (n_digits > 0 && n - n_digits < 2 && s[n_digits - 1] == '=')
                n_digits--;

        data = malloc(n / 4 * 3 + 1);
        if (!data)
                return -ENOMEM;

        for (size_t i = 0; i < n_digits; i++) {
                int digit;

                digit = base64_digit(s[i]);
                if (digit < 0)
                        return digit;

                bits = bits << 6 | (uint32_t) digit;
                if (i % 4 != 0)
                        data[n_data++] = (uint8_t) (bits >> (6 - i % 4 * 2));
        }

        /* the bits behind the last byte must be zero: one text for one value */
        if ((n_digits % 4 == 2 && (bits & 15)) || (n_digits % 4 == 3 && (bits & 3)))
                return -EINVAL;

        data[n_data] = 0;
        *ret = TAKE_PTR(data);
        *ret_n = n_data;
        return 0;
}

/* U+061C, 200E, 200F, 202A-202E, 2066-2069 change the order of what is shown; C1 controls are controls. */
static bool utf8_is_deceptive(const unsigned char *s, int length) {
        if (length == 2)
                return (s[0] == 0xd8 && s[1] == 0x9c) || (s[0] == 0xc2 && s[1] < 0xa0);

        return length == 3 && s[0] == 0xe2 &&
               ((s[1] == 0x80 && (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xaa && s[2] <= 0xae))) ||
                (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9));
}

static char* escape_byte(char *p, unsigned char c) {
        static const char letters[] = "abtnvfr"; /* from 0x07 on */

        *p++ = '\\';
        if (c >= 7 && c <= 13)
                *p++ = letters[c - 7];
        else if (c == '\\')
                *p++ = '\\';
        else {
                *p++ = 'x';
                *p++ = hex_digits[c >> 4];
                *p++ = hex_digits[c & 15];
        }

        return p;
}

static char* escape(const char *s, size_t n, const char *kept) {
        const unsigned char *u = (const unsigned char *) s;
        char *text, *p;

        if (n > (SIZE_MAX - 1) / 4)
                return NULL;

        p = text = malloc(n * 4 + 1);
        if (!text)
                return NULL;

        for (size_t i = 0; i < n;) {
                int k = utf8_character(u + i, n - i);
                bool plain = k > 0 && u[i] >= ' ' && u[i] != 0x7f && u[i] != '\\' &&
                             !utf8_is_deceptive(u + i, k);

                plain = plain || (u[i] != 0 && strchr(kept, u[i]));

                for (k = MAX(k, 1); k > 0; k--, i++)
                        if (plain)
                                *p++ = s[i];
                        else
                                p = escape_byte(p, u[i]);
        }

        *p = 0;
        return text;
}

char* escape_for_display(const char *s, size_t n) {
        return escape(s, n, "");
}

char* escape_text_for_display(const char *s, size_t n) {
        return escape(s, n, "\n\t\\");
}

void id_format(const char *prefix, const uint8_t bytes[static 16], char ret[static 64]) {
        static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
        unsigned __int128 value = 0;
        size_t n;

        n = strlen(prefix);
        assert(n + 1 + ID_BODY_LEN < 64);

        for (size_t i = 0; i < 16; i++)
                value = value << 8 | bytes[i];

        memcpy(ret, prefix, n);
        ret[n] = '-';
        for (size_t i = ID_BODY_LEN; i > 0; i--, value /= 36)
                ret[n + i] = digits[(unsigned) (value % 36)];
        ret[n + 1 + ID_BODY_LEN] = 0;
}

int id_random(const char *prefix, char ret[static 64]) {
        uint8_t bytes[16];
        ssize_t n;

        n = getrandom(bytes, sizeof(bytes), 0);
        if (n < 0)
                return -errno;
        if ((size_t) n < sizeof(bytes))
                return -EIO;

        bytes[6] = (bytes[6] & 0x0f) | 0x40; /* version 4 */
        bytes[8] = (bytes[8] & 0x3f) | 0x80; /* RFC 9562 variant */
        id_format(prefix, bytes, ret);
        return 0;
}

bool id_is_valid(const char *prefix, const char *s) {
        unsigned __int128 value = 0;
        const char *body;

        body = s ? startswith(s, prefix) : NULL;
        if (!body || *body != '-' || strnlen(++body, ID_BODY_LEN + 1) != ID_BODY_LEN)
                return false;

        for (; *body; body++) {
                unsigned digit;

                if (*body >= '0' && *body <= '9')
                        digit = (unsigned) (*body - '0');
                else if (*body >= 'a' && *body <= 'z')
                        digit = (unsigned) (*body - 'a') + 10;
                else
                        return false;

                if (__builtin_mul_overflow(value, (unsigned __int128) 36, &value) ||
                    __builtin_add_overflow(value, (unsigned __int128) digit, &value))
                        return false;
        }

        return true;
}

char* percent_encode(const void *data, size_t n) {
        static const char digits[] = "0123456789ABCDEF";
        const uint8_t *p = data;
        char *text = malloc(3 * n + 1), *to = text;

        if (!text)
                return NULL;
        for (size_t i = 0; i < n; i++)
                if ((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'A' && p[i] <= 'Z') ||
                    (p[i] >= 'a' && p[i] <= 'z') || (p[i] != 0 && strchr("-._~", p[i])))
                        *to++ = (char) p[i];
                else {
                        *to++ = '%';
                        *to++ = digits[p[i] >> 4];
                        *to++ = digits[p[i] & 15];
                }
        *to = 0;
        return text;
}
