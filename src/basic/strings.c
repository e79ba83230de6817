/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Strings, string vectors and names; numbers are in strings-parse.c, encodings in strings-encode.c. */

#include <stdio.h>

#include "basic/limits.h"
#include "basic/strings.h"

const char* endswith(const char *s, const char *suffix) {
        size_t n = strlen(s), k = strlen(suffix);

        if (k > n)
                return NULL;

        return streq(s + n - k, suffix) ? s + n - k : NULL;
}

char* strjoin_full(const char *first, ...) {
        size_t n = strlen(first);
        va_list ap;
        char *joined, *p;

        va_start(ap, first);
        for (const char *s; (s = va_arg(ap, const char *));)
                n += strlen(s);
        va_end(ap);

        joined = malloc(n + 1);
        if (!joined)
                return NULL;

        p = stpcpy(joined, first);
        va_start(ap, first);
        for (const char *s; (s = va_arg(ap, const char *));)
                p = stpcpy(p, s);
        va_end(ap);
        return joined;
}

char* asprintf_null(const char *format, ...) {
        va_list ap;
        char *s;
        int r;

        va_start(ap, format);
        r = vasprintf(&s, format, ap);
        va_end(ap);
        return r < 0 ? NULL : s;
}

int free_and_strdup(char **p, const char *s) {
        char *copy = NULL;

        if (s) {
                copy = strdup(s);
                if (!copy)
                        return -ENOMEM;
        }

        free(*p);
        *p = copy;
        return 0;
}

char** strv_free(char **v) {
        STRV_FOREACH(i, v)
                free(*i);

        free(v);
        return NULL;
}

size_t strv_length(char *const *v) {
        size_t n = 0;

        while (v && v[n])
                n++;

        return n;
}

int strv_consume(char ***v, char *s) {
        size_t n;
        char **p;

        if (!s)
                return -ENOMEM;

        n = strv_length(*v);
        p = reallocarray(*v, n + 2, sizeof(char *));
        if (!p) {
                free(s);
                return -ENOMEM;
        }

        *v = p;
        (*v)[n] = s;
        (*v)[n + 1] = NULL;
        return 0;
}

int strv_extend(char ***v, const char *s) {
        return strv_consume(v, strdup(s));
}

int strv_extendf(char ***v, const char *format, ...) {
        va_list ap;
        char *s;
        int r;

        va_start(ap, format);
        r = vasprintf(&s, format, ap);
        va_end(ap);
        return r < 0 ? -ENOMEM : strv_consume(v, s);
}

char** strv_copy(char *const *v) {
        _cleanup_strv_ char **copy = NULL;

        STRV_FOREACH(i, v)
                if (strv_extend(&copy, *i) < 0)
                        return NULL;

        return TAKE_PTR(copy);
}

char** strv_split(const char *s, const char *separators) {
        _cleanup_strv_ char **v = NULL;

        for (;;) {
                size_t n;

                s += strspn(s, separators);
                n = strcspn(s, separators);
                if (n == 0)
                        return TAKE_PTR(v);
                if (strv_consume(&v, strndup(s, n)) < 0)
                        return NULL;
                s += n;
        }
}

char* strv_join(char *const *v, const char *separator) {
        char *joined = strdup("");

        STRV_FOREACH(s, v) {
                char *longer = joined ? strjoin(joined, *joined ? separator : "", *s) : NULL;

                free(joined);
                joined = longer;
        }
        return joined;
}

bool strv_contains(char *const *v, const char *s) {
        STRV_FOREACH(i, v)
                if (streq(*i, s))
                        return true;

        return false;
}

static bool is_alphanumeric(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool name_is_valid(const char *s) {
        size_t n;

        if (!s || !is_alphanumeric(s[0]))
                return false;

        for (n = 1; s[n]; n++)
                if (n >= NAME_MAX_LEN || (!is_alphanumeric(s[n]) && !strchr("._-", s[n])))
                        return false;

        return true;
}

bool team_is_valid(const char *s) {
        size_t n;

        if (isempty(s))
                return false;

        for (n = 0; s[n]; n++)
                if (n >= TEAM_MAX_LEN || (!is_alphanumeric(s[n]) && s[n] != '_') ||
                    (s[n] >= 'A' && s[n] <= 'Z'))
                        return false;

        return true;
}

bool tag_is_valid(const char *s) {
        size_t n;

        if (isempty(s))
                return false;

        n = strnlen(s, TAG_MAX_LEN + 1);
        if (n > TAG_MAX_LEN || !utf8_is_valid(s, n))
                return false;

        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char) s[i];

                /* C0, DEL, and C1 as UTF-8 writes it */
                if (c < 0x20 || c == 0x7f || c == '/' || (c == 0xc2 && (unsigned char) s[i + 1] < 0xa0))
                        return false;
        }

        return true;
}

bool file_name_is_valid(const char *s) {
        return streq(s, "/") || (!isempty(s) && !strchr(s, '/'));
}

bool env_name_is_valid(const char *s) {
        return !isempty(s) && !strchr(s, '=');
}

bool memory_equal_constant_time(const void *a, const void *b, size_t n) {
        const volatile unsigned char *x = a, *y = b;
        unsigned char difference = 0;

        for (size_t i = 0; i < n; i++)
                difference |= x[i] ^ y[i];

        return difference == 0;
}
