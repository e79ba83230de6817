/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/http-policy.h"

#define HOST_LEN_MAX 255U

static const char *const own_names[] = { "localhost", "127.0.0.1", "[::1]" };

static bool equal_nocase(const char *s, size_t n, const char *name) {
        return strlen(name) == n && strncasecmp(s, name, n) == 0;
}

/* 1..65535, no leading zero, all of it. */
static bool port_is_valid(const char *s, size_t n) {
        unsigned port = 0;

        if (n == 0 || n > 5 || s[0] == '0')
                return false;
        for (size_t i = 0; i < n; i++) {
                if (s[i] < '0' || s[i] > '9')
                        return false;
                port = port * 10 + (unsigned) (s[i] - '0');
        }
        return port <= UINT16_MAX;
}

/* Splits "name[:port]"; false when the port is malformed. */
static bool split_port(const char *host, size_t n, size_t *ret_n_name) {
        const char *from = host, *colon;

        if (n > 0 && host[0] == '[') {
                from = memchr(host, ']', n);
                if (!from)
                        return false;
                from++;
        }

        colon = memchr(from, ':', n - (size_t) (from - host));
        if (!colon) {
                *ret_n_name = n;
                return true;
        }

        *ret_n_name = (size_t) (colon - host);
        return port_is_valid(colon + 1, n - (size_t) (colon + 1 - host));
}

static bool is_domain(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
                    !(s[i] >= '0' && s[i] <= '9') && s[i] != '-' && s[i] != '.' && s[i] != '_')
                        return false;
        return n > 0 && s[0] != '.';
}

/* <port>-<id>.<domain> */
static bool is_proxy_name(const char *s, size_t n) {
        const char *dash = memchr(s, '-', n), *id, *dot;
        char buffer[CAPSULE_ID_LEN + 1];

        if (!dash || !port_is_valid(s, (size_t) (dash - s)))
                return false;

        id = dash + 1;
        dot = memchr(id, '.', n - (size_t) (id - s));
        if (!dot || (size_t) (dot - id) != CAPSULE_ID_LEN)
                return false;

        for (size_t i = 0; i < CAPSULE_ID_LEN; i++)
                buffer[i] = id[i] >= 'A' && id[i] <= 'Z' ? (char) (id[i] - 'A' + 'a') : id[i];
        buffer[CAPSULE_ID_LEN] = '\0';
        return id_is_valid("cl", buffer) && is_domain(dot + 1, n - (size_t) (dot + 1 - s));
}

HttpHostClass http_host_classify(const char *host, size_t n, char *const *names) {
        size_t n_name;

        if (n == 0 || n > HOST_LEN_MAX || !split_port(host, n, &n_name))
                return HTTP_HOST_FOREIGN;

        for (size_t i = 0; i < ELEMENTSOF(own_names); i++)
                if (equal_nocase(host, n_name, own_names[i]))
                        return HTTP_HOST_API;
        STRV_FOREACH(name, names)
                if (equal_nocase(host, n_name, *name))
                        return HTTP_HOST_API;

        return is_proxy_name(host, n_name) ? HTTP_HOST_PROXY : HTTP_HOST_FOREIGN;
}

bool http_origin_is_good(const char *origin, size_t n, const char *host, size_t n_host) {
        static const char *const schemes[] = { "http://", "https://" };

        if (n == 0)
                return true;

        for (size_t i = 0; i < ELEMENTSOF(schemes); i++) {
                size_t k = strlen(schemes[i]);

                if (n == k + n_host && memcmp(origin, schemes[i], k) == 0 &&
                    strncasecmp(origin + k, host, n_host) == 0)
                        return true;
        }
        return false;
}

bool http_fetch_site_is_good(const char *site, size_t n) {
        return !equal_nocase(site, n, "cross-site") && !equal_nocase(site, n, "same-site");
}
