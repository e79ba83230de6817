/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which key is which team. wrennd knows (AuthenticateKey); good answers are kept until KeyRevoked or until
 * wrennd goes away, unknown keys for some seconds. Only digests are kept. A peer's unknown keys are
 * rate-limited; known ones never are.
 */

#include "basic/fault.h"
#include "basic/sha256.h"
#include "rest/bus-client.h"
#include "rest/peer.h"
#include "rest/pty-dialect.h"

#define AUTH_HASH_LEN  SHA256_LEN
#define AUTH_NOTE_USEC (5 * USEC_PER_SEC)

typedef struct Auth Auth;
typedef struct AuthCall AuthCall;

/* What a key is. Reference-counted: connections and requests hold it. */
typedef struct AuthKey {
        unsigned n_ref;
        uint8_t hash[AUTH_HASH_LEN];
        char *id, *team, *default_template;
        unsigned n_connections; /* whose last request had this key */
        uint64_t checked_usec;  /* CLOCK_BOOTTIME, when wrennd last said yes */
        uint64_t used_usec;
        bool revoked;
        PtyFraming pty_framing, pty_framing_default; /* last shown by an input; PtyFraming= */
        PtyFraming pty_framing_noted;                /* what wrennd knows */
        uint64_t noted_usec;                         /* CLOCK_BOOTTIME */
} AuthKey;

AuthKey* auth_key_ref(AuthKey *k);
AuthKey* auth_key_unref(AuthKey *k);

/* key is NULL and fault set unless r == 0. Frees the call or leaves that to auth_call_free(). */
typedef void (*AuthDone)(AuthCall *call, int r, AuthKey *key, const Fault *fault, void *userdata);

int auth_new(BusClient *bus, Auth **ret);
Auth* auth_free(Auth *a);
DEFINE_CLEANUP(Auth, auth_free)

/* Digest of a key as sent. -EINVAL when it cannot be one (empty, longer than KEY_LEN_MAX). */
int auth_hash(const char *key, size_t n, uint8_t ret[static AUTH_HASH_LEN]);

/*
 * 1: *ret_key is a new reference. 0: *ret_call is pending, done comes (start contract, style.md §7). < 0:
 * the errno of the fault: FAULT_UNAUTHORIZED (unknown), FAULT_QUOTA_EXCEEDED (this peer failed too often),
 * or no memory. A question to wrennd costs the peer one failure of its bucket until the answer is yes. usec:
 * now, CLOCK_BOOTTIME.
 */
int auth_lookup(Auth *a, const uint8_t hash[static AUTH_HASH_LEN], Peer *peer, uint64_t usec, AuthDone done,
                void *userdata, AuthKey **ret_key, AuthCall **ret_call, Fault *reterr);
AuthCall* auth_call_free(AuthCall *c);
DEFINE_CLEANUP(AuthCall, auth_call_free)

/* A client with this key showed its dialect. wrennd is told, at most once in AUTH_NOTE_USEC. */
void auth_note_framing(Auth *a, AuthKey *k, PtyFraming framing);

/* KeyRevoked came; NULL: forget all (wrennd went away and may have revoked some meanwhile). */
void auth_forget(Auth *a, const char *key_id);
size_t auth_n_keys(const Auth *a);
