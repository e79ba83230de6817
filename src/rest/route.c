/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <string.h>

#include "basic/strings.h"
#include "rest/route.h"

#define API_PREFIX "/api"

static int hex_value(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        return (c | 0x20) - 'a' + 10;
}

/* The scanner has checked the digits and that nothing dangerous is encoded. */
static int decode_segment(const char *s, size_t n, char **ret) {
        _cleanup_free_ char *t = malloc(n + 1);
        size_t k = 0;

        if (!t)
                return -ENOMEM;

        for (size_t i = 0; i < n; i++)
                if (s[i] == '%' && n - i > 2) {
                        t[k++] = (char) (hex_value(s[i + 1]) * 16 + hex_value(s[i + 2]));
                        i += 2;
                } else {
                        t[k++] = s[i];
                }
        t[k] = '\0';
        if (!utf8_is_valid(t, k))
                return -EINVAL;

        *ret = TAKE_PTR(t);
        return 0;
}

/* Does path fit the pattern? The segments that stand for "{}" are noted. */
static bool pattern_matches(const char *pattern, const char *path, size_t n,
                            HttpSlice args[static ROUTE_ARGS_MAX]) {
        const char *p = path, *end = path + n;
        size_t n_args = 0;

        while (*pattern) {
                if (strncmp(pattern, "{}", 2) == 0) {
                        const char *slash = memchr(p, '/', (size_t) (end - p)) ?: end;

                        if (slash == p || n_args >= ROUTE_ARGS_MAX)
                                return false;
                        args[n_args++] = (HttpSlice) { (uint32_t) (p - path), (uint32_t) (slash - p) };
                        p = slash;
                        pattern += 2;
                        continue;
                }
                if (p == end || *p != *pattern)
                        return false;
                p++;
                pattern++;
        }

        for (; n_args < ROUTE_ARGS_MAX; n_args++)
                args[n_args] = (HttpSlice) {};
        return p == end;
}

static bool method_fits(const RestRoute *route, HttpMethod method) {
        return route->method == method ||
               (route->method == HTTP_METHOD_GET && !route->websocket && method == HTTP_METHOD_HEAD);
}

static unsigned methods_of(const RestRoute *route) {
        unsigned bits = 1U << route->method;

        return method_fits(route, HTTP_METHOD_HEAD) ? bits | 1U << HTTP_METHOD_HEAD : bits;
}

int route_find(const RestRoute *table, HttpMethod method, const char *path, size_t n_path,
               const RestRoute **ret, char *ret_args[static ROUTE_ARGS_MAX], unsigned *ret_allowed) {
        size_t n_prefix = strlen(API_PREFIX);
        HttpSlice args[ROUTE_ARGS_MAX];
        unsigned allowed = 0;

        if (n_path > n_prefix && memcmp(path, API_PREFIX "/", n_prefix + 1) == 0) {
                path += n_prefix;
                n_path -= n_prefix;
        }

        for (const RestRoute *route = table; route->pattern; route++) {
                if (!pattern_matches(route->pattern, path, n_path, args))
                        continue;
                if (!method_fits(route, method)) {
                        allowed |= methods_of(route);
                        continue;
                }

                for (size_t i = 0; i < ROUTE_ARGS_MAX; i++)
                        ret_args[i] = NULL;
                for (size_t i = 0; i < ROUTE_ARGS_MAX && args[i].n > 0; i++) {
                        int r = decode_segment(path + args[i].offset, args[i].n, &ret_args[i]);

                        if (r < 0) {
                                for (size_t k = 0; k < i; k++)
                                        free(ret_args[k]);
                                return r;
                        }
                }
                *ret = route;
                return 0;
        }

        if (allowed == 0)
                return -ENOENT;
        *ret_allowed = allowed;
        return -EOPNOTSUPP;
}

int route_query(const char *query, const char *name, char **ret) {
        _cleanup_free_ char *value = NULL;
        size_t n_name = strlen(name), n;
        int r;

        for (const char *p = strempty(query); *p; p += n + (p[n] == '&')) {
                n = strcspn(p, "&");
                if (n == 0)
                        continue;
                if (value || n <= n_name || strncmp(p, name, n_name) != 0 || p[n_name] != '=')
                        return -EINVAL;
                r = decode_segment(p + n_name + 1, n - n_name - 1, &value);
                if (r < 0)
                        return r;
        }
        if (!value)
                return 0;

        *ret = TAKE_PTR(value);
        return 1;
}

void route_format_allow(unsigned allowed, char *buffer, size_t n) {
        size_t k = 0;

        for (HttpMethod m = 0; m < _HTTP_METHOD_MAX; m++)
                if (allowed & (1U << m)) {
                        int w = snprintf(buffer + k, n - k, "%s%s", k == 0 ? "Allow: " : ", ",
                                         http_method_to_string(m));

                        if (w < 0 || (size_t) w >= n - k - 2)
                                break;
                        k += (size_t) w;
                }
        (void) snprintf(buffer + k, n - k, k == 0 ? "%.0s" : "%s", "\r\n");
}
