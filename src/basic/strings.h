/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Strings, string vectors, numbers with units, names, hex, base36, base64, UTF-8. Nothing here knows a
 * capsule. */

#include <stdarg.h>
#include <string.h>

#include "basic/macro.h"

static inline bool streq(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}
static inline bool streq_ptr(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}
static inline bool isempty(const char *s) {
        return !s || !*s;
}
static inline const char* strempty(const char *s) {
        return s ?: "";
}
/* The text behind prefix, or NULL. */
static inline const char* startswith(const char *s, const char *prefix) {
        size_t n = strlen(prefix);
        return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}
const char* endswith(const char *s, const char *suffix); /* where the suffix begins, or NULL */

/* NULL on out of memory. */
char* strjoin_full(const char *first, ...) __attribute__((sentinel));
#define strjoin(...) strjoin_full(__VA_ARGS__, NULL)
char* asprintf_null(const char *format, ...) _printf_(1, 2);
/* Frees *p and replaces it by a copy of s (NULL allowed). 0 or -ENOMEM (then *p is untouched). */
int free_and_strdup(char **p, const char *s);

/* String vectors: NULL-terminated arrays; NULL is the empty one. */
char** strv_free(char **v);
DEFINE_CLEANUP(char *, strv_free)
#define _cleanup_strv_ _cleanup_(strv_freep)
size_t strv_length(char *const *v);
int strv_extend(char ***v, const char *s); /* copies s; 0 or -ENOMEM */
int strv_extendf(char ***v, const char *format, ...) _printf_(2, 3);
int strv_consume(char ***v, char *s); /* takes s in every case */
char** strv_copy(char *const *v);     /* NULL on out of memory or for the empty one */
char** strv_split(const char *s, const char *separators);
char* strv_join(char *const *v, const char *separator); /* NULL on out of memory */
bool strv_contains(char *const *v, const char *s);
#define STRV_FOREACH(i, v) for (typeof(*(v)) *i = (typeof(*(v)) *) (v); i && *i; i++)

/* Decimal numbers, the whole string, no sign, no blanks: 0, -EINVAL or -ERANGE. */
int parse_u64(const char *s, uint64_t *ret);
int parse_u32(const char *s, uint32_t *ret);
int parse_int(const char *s, int *ret);             /* a leading '-' is allowed */
int parse_boolean(const char *s);                   /* 1, 0 or -EINVAL: yes/no true/false on/off 1/0 */
int parse_size(const char *s, uint64_t *ret_bytes); /* K M G T (1024), "infinity" = UINT64_MAX, "512M" */
/* "5min 20s", plain number = seconds, "infinity"; systemd.time(7) */
int parse_usec(const char *s, uint64_t *ret_usec);
int parse_signal(const char *s);                 /* number or name (TERM, SIGTERM): 1…64, -EINVAL */
int parse_percent(const char *s, unsigned *ret); /* "80%" -> 80; 0..1000 */

/* 1.5G, 512M, 3K; buffer of the caller's, FORMAT_SIZE_LEN bytes */
#define FORMAT_SIZE_LEN 32U
char* format_size(char buffer[static FORMAT_SIZE_LEN], uint64_t bytes);
#define FORMAT_TIME_LEN 32U
/* 2026-05-02T10:00:00Z */
char* format_rfc3339(char buffer[static FORMAT_TIME_LEN], uint64_t realtime_usec);
/* "2d 3h", "5min 20s", "12ms" */
char* format_timespan(char buffer[static FORMAT_TIME_LEN], uint64_t usec);

/* Names. */
bool name_is_valid(const char *s); /* [a-zA-Z0-9][a-zA-Z0-9._-]{0,63} */
bool team_is_valid(const char *s); /* [a-z0-9_]{1,32} */
/* 1..64 bytes of UTF-8, no control characters, no '/' */
bool tag_is_valid(const char *s);
bool file_name_is_valid(const char *s);      /* one component of a path, or "/", the name of the root */
bool env_name_is_valid(const char *s);       /* non-empty, no '=' */
bool utf8_is_valid(const char *s, size_t n); /* RFC 3629: no surrogates, no overlong forms */
/* Length of the longest prefix that does not end within a character (RFC 3629); for carrying tails over. */
size_t utf8_complete_prefix(const char *s, size_t n);
/* A copy in which every byte that is no UTF-8 is U+FFFD; NULL on out of memory. */
char* utf8_replace(const char *s, size_t n);

/* 2n+1 bytes into ret. */
void hex_encode(const uint8_t *data, size_t n, char *ret);
int hex_decode(const char *s, uint8_t *ret, size_t n); /* exactly 2n digits; -EINVAL */
char* base64_encode(const void *data, size_t n);       /* padded, RFC 4648 §4; NULL on out of memory */
int base64_decode(const char *s, size_t n, void **ret, size_t *ret_n);
/* RFC 3986: all but letters, digits, '-', '.', '_' and '~' as %XX; fits into a path segment and a query.
 * NULL on out of memory. */
char* percent_encode(const void *data, size_t n);
/* C-escapes control characters, invalid UTF-8 and bidi overrides for display; NULL on out of memory. */
char* escape_for_display(const char *s, size_t n);
/* The same for text of many lines: line breaks, tabs and backslashes stay. */
char* escape_text_for_display(const char *s, size_t n);

/* "cl-" + 25 base-36 digits of a big-endian 128-bit number (api.md §1.5); prefix without the dash, e.g.
 * "cl". */
#define ID_BODY_LEN 25U
void id_format(const char *prefix, const uint8_t bytes[static 16], char ret[static 64]);
int id_random(const char *prefix, char ret[static 64]); /* UUIDv4 bits; -errno of getrandom(2) */
bool id_is_valid(const char *prefix, const char *s);    /* also < 2^128 */

/* Constant time in n. */
bool memory_equal_constant_time(const void *a, const void *b, size_t n);
