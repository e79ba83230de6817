/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The resources of the agent (docs/PROTOCOLS.md §3): one Request for each stream, a table of routes. */

#include "shared/h2.h"

/* Of a server session whose userdata is the Agent. */
extern const H2Handlers request_handlers;

/*
 * Splits "/processes/<selector>/<verb>?<query>" after the prefix; the selector is percent-decoded. ret_verb:
 * "" when there is none. -EINVAL for an empty selector or bad escapes.
 */
int request_parse_selector(const char *path, char **ret_selector, const char **ret_verb);
/* The percent-decoded value of the first "name=" in path's query: 1; 0: it is not there, *ret is untouched.
 * -EINVAL for bad escapes and NUL, -ENOMEM. */
int request_parse_query(const char *path, const char *name, char **ret);
/* The number of "signal=" in path's query, by number or name (TERM, SIGTERM); def when it is not there.
 * -EINVAL, -ENOMEM. */
int request_parse_signal(const char *path, int def);
/* A decimal number of the query; def when it is not there. -EINVAL, -ERANGE, -ENOMEM. */
int request_parse_number(const char *path, const char *name, uint32_t def, uint32_t *ret);
int request_parse_u64(const char *path, const char *name, uint64_t def, uint64_t *ret);
/* Octal permissions, at most 07777. */
int request_parse_mode(const char *path, const char *name, mode_t def, mode_t *ret);
