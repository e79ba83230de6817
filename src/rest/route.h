/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The static table of routes. Matching is exact: no trailing slash, no case folding; "{}" stands for one
 * segment. Every route exists at the root and below /api (api.md §0.3). HEAD is GET without a body.
 */

#include "basic/fault.h"
#include "rest/http-scan.h"

typedef struct RestRequest RestRequest;
typedef struct WsConn WsConn;

/* < 0: the server answers the fault. Else the handler has answered or will answer later (rest.h). */
typedef int (*RestHandler)(RestRequest *q, Fault *reterr);

typedef struct RestRoute {
        HttpMethod method;
        const char *pattern;
        RestHandler handler;
        uint64_t body_max; /* bytes; more is 413 before the body is read */
        bool open;         /* no key needed */
        bool capsule;      /* the first argument is a capsule's id */
        /* Instead of handler: a WebSocket, whose upgrade is answered already. q lives as long as w. What
         * goes wrong is told in-band. */
        void (*websocket)(RestRequest *q, WsConn *w);
        bool direct; /* served without libmicrohttpd: its answer may be streamed (direct.c) */
        bool upload; /* direct, and the handler runs at the head: it takes the body itself */
} RestRoute;

#define ROUTE_ARGS_MAX 2U

/*
 * table ends with a NULL pattern. path: without the query. ret_args: one string for each "{}",
 * percent-decoded, to be freed. 0; -ENOENT: no such path; -EOPNOTSUPP: it exists, but not with this method:
 * *ret_allowed has a bit for each that would; -EINVAL: an argument that is no UTF-8; -ENOMEM.
 */
int route_find(const RestRoute *table, HttpMethod method, const char *path, size_t n_path,
               const RestRoute **ret, char *ret_args[static ROUTE_ARGS_MAX], unsigned *ret_allowed);

/*
 * The value of the one parameter a route knows. query: without the '?', as the scanner let it pass, or NULL.
 * 1: *ret is the decoded value, to be freed; 0: the parameter is not there; -EINVAL: it comes twice, or
 * another one does, or its value is no UTF-8; -ENOMEM.
 */
int route_query(const char *query, const char *name, char **ret);

/* "Allow: GET, HEAD\r\n" of ret_allowed. */
void route_format_allow(unsigned allowed, char *buffer, size_t n);
