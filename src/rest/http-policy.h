/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which names this service answers to, and which web pages may talk to it (threats.md N6, N7): against DNS
 * rebinding the Host must be one of a closed list, against cross-site requests an Origin must be this very
 * host.
 */

#include "basic/macro.h"

typedef enum HttpHostClass {
        HTTP_HOST_FOREIGN, /* 421 */
        HTTP_HOST_API,     /* localhost, 127.0.0.1, [::1] or a configured name, with or without port */
        HTTP_HOST_PROXY,   /* <port>-<capsule id>.<anything> (api.md §4.1) */
} HttpHostClass;

/* names: configured names in lower case, without port; NULL allowed. Neither text is NUL-terminated. */
HttpHostClass http_host_classify(const char *host, size_t n, char *const *names);

/* May a request with this Origin (n 0: none came) go to this Host? Only http:// or https:// and exactly the
 * Host. */
bool http_origin_is_good(const char *origin, size_t n, const char *host, size_t n_host);

/* Sec-Fetch-Site (n 0: none came): everything but cross-site and same-site. */
bool http_fetch_site_is_good(const char *site, size_t n);
