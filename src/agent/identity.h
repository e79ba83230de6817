/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who this guest is. It boots as nobody; the host tells it with PUT /identity, after each restore again: id,
 * template, host name, clock, entropy, resolver, and what every process finds in its environment.
 */

#include <jansson.h>

#include "basic/fault.h"
#include "basic/macro.h"

#define HOSTNAME_DEFAULT     "capsule"
#define IDENTITY_ENTROPY_MAX 512U /* bytes after base64 */
#define IDENTITY_DNS_MAX     3U   /* MAXNS of resolv.conf(5) */

typedef struct Identity {
        char *id, *template, *hostname, *default_user;
        char **env;         /* of the template, "NAME=value" */
        char **process_env; /* defaults of every process: WRENN_…, then env */
        /* not in a guest of its own (tests): clock, names and files are left alone */
        bool detached;
} Identity;

void identity_done(Identity *i);

/* Host name, /etc/hosts and /etc/resolv.conf of a guest that nobody has named yet. */
int identity_init(Identity *i, bool detached);
/* Body of PUT /identity. What it does not name stays. Nothing is changed on FAULT_INVALID_ARGS. */
int identity_apply(Identity *i, const char *text, size_t n, Fault *reterr);
/* Answer of GET /identity; NULL on out of memory. */
json_t* identity_to_json(const Identity *i);
