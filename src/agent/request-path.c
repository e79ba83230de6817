/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a request's path says: selector, verb, query. */

#include <string.h>

#include "agent/request.h"
#include "basic/strings.h"

/* The n bytes with their %xx decoded, a copy. -EINVAL for bad escapes and NUL. */
static int percent_decode(const char *text, size_t n, char **ret) {
        _cleanup_free_ char *out = NULL;
        size_t n_out = 0;

        out = malloc(n + 1);
        if (!out)
                return -ENOMEM;

        for (size_t i = 0; i < n; i++) {
                char hex[3] = {};
                uint8_t byte;

                if (text[i] != '%') {
                        out[n_out++] = text[i];
                        continue;
                }
                if (i + 2 >= n)
                        return -EINVAL;
                hex[0] = text[i + 1];
                hex[1] = text[i + 2];
                if (hex_decode(hex, &byte, 1) < 0 || byte == 0)
                        return -EINVAL;
                out[n_out++] = (char) byte;
                i += 2;
        }

        out[n_out] = '\0';
        *ret = TAKE_PTR(out);
        return 0;
}

int request_parse_selector(const char *path, char **ret_selector, const char **ret_verb) {
        static const char *const verbs[] = { "signal", "attach", "resize" };
        const char *p = startswith(path, "/processes/"), *verb = "";
        size_t n;
        int r;

        if (!p)
                return -EINVAL;

        n = strcspn(p, "/?");
        if (n == 0)
                return -EINVAL;

        if (p[n] == '/') {
                size_t n_verb = strcspn(p + n + 1, "?");

                verb = NULL;
                for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                        if (strlen(verbs[i]) == n_verb && strncmp(verbs[i], p + n + 1, n_verb) == 0)
                                verb = verbs[i];
                if (!verb)
                        return -EINVAL;
        }

        r = percent_decode(p, n, ret_selector);
        if (r < 0)
                return r;

        *ret_verb = verb;
        return 0;
}

int request_parse_query(const char *path, const char *name, char **ret) {
        size_t n_name = strlen(name);

        for (const char *p = strchr(path, '?'); p; p = strchr(p, '&')) {
                p++;
                if (strncmp(p, name, n_name) != 0 || p[n_name] != '=')
                        continue;
                p += n_name + 1;
                return percent_decode(p, strcspn(p, "&"), ret) ?: 1;
        }

        return 0;
}

int request_parse_signal(const char *path, int def) {
        _cleanup_free_ char *value = NULL;
        int r;

        r = request_parse_query(path, "signal", &value);
        return r > 0 ? parse_signal(value) : r < 0 ? r : def;
}

int request_parse_number(const char *path, const char *name, uint32_t def, uint32_t *ret) {
        _cleanup_free_ char *value = NULL;
        int r;

        r = request_parse_query(path, name, &value);
        if (r == 0)
                *ret = def;
        return r > 0 ? parse_u32(value, ret) : r;
}

int request_parse_u64(const char *path, const char *name, uint64_t def, uint64_t *ret) {
        _cleanup_free_ char *value = NULL;
        int r;

        r = request_parse_query(path, name, &value);
        if (r == 0)
                *ret = def;
        return r > 0 ? parse_u64(value, ret) : r;
}

int request_parse_mode(const char *path, const char *name, mode_t def, mode_t *ret) {
        _cleanup_free_ char *value = NULL;
        mode_t mode = 0;
        int r;

        r = request_parse_query(path, name, &value);
        if (r <= 0) {
                if (r == 0)
                        *ret = def;
                return r;
        }

        if (isempty(value))
                return -EINVAL;
        for (const char *p = value; *p; p++) {
                if (*p < '0' || *p > '7' || mode > 07777)
                        return -EINVAL;
                mode = mode * 8 + (mode_t) (*p - '0');
        }
        if (mode > 07777)
                return -EINVAL;

        *ret = mode;
        return 0;
}
