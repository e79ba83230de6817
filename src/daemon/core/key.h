/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An API key: 128 random bits, told once, stored as SHA-256 of the whole text. It stands for a team;
 * wrenn-restd asks by hash and is told of every revocation.
 */

#include "daemon/core/manager.h"

#define KEY_SECRET_LEN 36U /* "wrn_" + 32 hex */
#define KEY_PREFIX_LEN 10U /* of it, shown in lists */

struct Key {
        Manager *manager; /* weak: outlives us */
        char *id;         /* "key-…" */
        char *name;
        char *team;
        char *prefix;
        char *hash;             /* hex of the SHA-256 */
        char *default_template; /* "": the configuration's */
        char *scopes;           /* separated by blanks; "": all */
        uint64_t created_usec;
        uint64_t last_used_usec;
        uint64_t stored_used_usec; /* what the store knows of it */
        PtyFraming pty_framing;    /* of its client's last terminal input; _PTY_FRAMING_INVALID: none yet */
};

/*
 * Makes a key and stores it durably. name: "" or NULL becomes "Unnamed API Key"; team: NULL or "" is
 * "default"; default_template: NULL, "" or the name of a template that this team may use. ret_secret:
 * KEY_SECRET_LEN characters and a NUL; wipe it. *ret is borrowed. FAULT_INVALID_ARGS, FAULT_NOT_FOUND of the
 * template, FAULT_QUOTA_EXCEEDED at KEYS_MAX, the store's.
 */
int key_create(Manager *m, const char *name, const char *team, const char *default_template,
               char *const *scopes, Key **ret, char ret_secret[static KEY_SECRET_LEN + 1], Fault *reterr);

/* Forgets the key durably, then tells the front end. FAULT_NOT_FOUND. */
int key_revoke(Manager *m, const char *id, Fault *reterr);

/* sha256: 32 bytes of the whole key. Counts as a use. FAULT_ACCESS_DENIED when no key has it. *ret is
 * borrowed. */
int key_authenticate(Manager *m, const void *sha256, size_t n, Key **ret, Fault *reterr);

/* Remembers what a client of the key speaks. FAULT_NOT_FOUND, the store's. */
int key_note_pty_framing(Manager *m, const char *id, PtyFraming framing, Fault *reterr);

/* Writes last uses that are not stored yet; not durable. */
void manager_flush_keys(Manager *m);
/* Flushes and frees all. */
void manager_free_keys(Manager *m);
