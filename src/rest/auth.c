/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <time.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "rest/auth.h"

#define MISS_USEC    (5 * USEC_PER_SEC)  /* an unknown key may exist by then */
#define RECHECK_USEC (60 * USEC_PER_SEC) /* so that wrennd sees that a key is in use */

typedef struct KeyMiss {
        uint8_t hash[AUTH_HASH_LEN];
        uint64_t until_usec;
} KeyMiss;

struct Auth {
        BusClient *bus; /* weak: the server's */
        AuthKey **keys; /* KEY_CACHE_MAX slots, n_keys used, sorted by hash */
        size_t n_keys;
        KeyMiss misses[KEY_MISSES_MAX];
        size_t next_miss;
        struct Lookup *lookups;
};

/* One question to wrennd, whoever waits for it. */
typedef struct Lookup {
        Auth *auth;
        struct Lookup *next;
        uint8_t hash[AUTH_HASH_LEN];
        BusCall *call;
        AuthCall *calls;
} Lookup;

struct AuthCall {
        AuthCall *next, **link;
        Peer *peer; /* weak: its connection waits with us */
        AuthDone done;
        void *userdata;
};

AuthKey* auth_key_ref(AuthKey *k) {
        k->n_ref++;
        return k;
}

AuthKey* auth_key_unref(AuthKey *k) {
        if (k && --k->n_ref == 0) {
                free(k->id);
                free(k->team);
                free(k->default_template);
                free(k);
        }
        return NULL;
}
DEFINE_CLEANUP(AuthKey, auth_key_unref)

int auth_new(BusClient *bus, Auth **ret) {
        _cleanup_(auth_freep) Auth *a = NULL;

        a = calloc(1, sizeof(Auth));
        if (!a)
                return -ENOMEM;
        a->bus = bus;
        a->keys = calloc(KEY_CACHE_MAX, sizeof(AuthKey *));
        if (!a->keys)
                return -ENOMEM;

        *ret = TAKE_PTR(a);
        return 0;
}

AuthCall* auth_call_free(AuthCall *c) {
        if (!c)
                return NULL;
        *c->link = c->next;
        if (c->next)
                c->next->link = c->link;
        free(c);
        return NULL;
}

static void lookup_free(Lookup *l) {
        Lookup **at = &l->auth->lookups;

        while (*at != l)
                at = &(*at)->next;
        *at = l->next;
        bus_call_free(l->call);
        while (l->calls)
                auth_call_free(l->calls);
        free(l);
}

Auth* auth_free(Auth *a) {
        if (!a)
                return NULL;

        while (a->lookups)
                lookup_free(a->lookups);
        for (size_t i = 0; i < a->n_keys; i++)
                auth_key_unref(a->keys[i]);
        free(a->keys);
        free(a);
        return NULL;
}

int auth_hash(const char *key, size_t n, uint8_t ret[static AUTH_HASH_LEN]) {
        if (n == 0 || n > KEY_LEN_MAX)
                return -EINVAL;
        return sha256_data(key, n, ret);
}

/* Where the hash is or belongs. The order of digests says nothing of keys: no constant time is needed here.
 */
static size_t auth_position(const Auth *a, const uint8_t hash[static AUTH_HASH_LEN], bool *ret_found) {
        size_t low = 0, high = a->n_keys;

        while (low < high) {
                size_t middle = (low + high) / 2;
                int c = memcmp(a->keys[middle]->hash, hash, AUTH_HASH_LEN);

                if (c == 0) {
                        *ret_found = true;
                        return middle;
                }
                if (c < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        *ret_found = false;
        return low;
}

static void auth_drop(Auth *a, size_t i) {
        a->keys[i]->revoked = true;
        auth_key_unref(a->keys[i]);
        memmove(a->keys + i, a->keys + i + 1, (a->n_keys - i - 1) * sizeof(AuthKey *));
        a->n_keys--;
}

/* Room for one more: the key that was not used for longest goes. */
static void auth_make_room(Auth *a) {
        size_t oldest = 0;

        if (a->n_keys < KEY_CACHE_MAX)
                return;
        for (size_t i = 1; i < a->n_keys; i++)
                if (a->keys[i]->used_usec < a->keys[oldest]->used_usec)
                        oldest = i;
        auth_drop(a, oldest);
}

static int key_read_option(sd_bus_message *m, AuthKey *k) {
        const char *name, *value;
        PtyFraming *framing;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r < 0)
                return r;
        framing = streq(name, "PtyFraming")          ? &k->pty_framing
                  : streq(name, "DefaultPtyFraming") ? &k->pty_framing_default
                                                     : NULL;
        if (!framing && !streq(name, "DefaultTemplate"))
                return sd_bus_message_skip(m, "v");

        r = sd_bus_message_read(m, "v", "s", &value);
        if (r < 0)
                return r;
        if (!framing)
                return free_and_strdup(&k->default_template, value);
        *framing = MAX(pty_framing_from_string(value), PTY_FRAMING_NONE);
        return 0;
}

static int key_read(sd_bus_message *m, AuthKey *k) {
        const char *id, *team;
        int r;

        r = sd_bus_message_read(m, "ss", &id, &team);
        if (r < 0)
                return r;
        r = free_and_strdup(&k->id, id);
        if (r >= 0)
                r = free_and_strdup(&k->team, team);
        if (r < 0)
                return r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = key_read_option(m, k);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        k->pty_framing_noted = k->pty_framing;
        return r;
}

void auth_note_framing(Auth *a, AuthKey *k, PtyFraming framing) {
        uint64_t now = now_usec(CLOCK_BOOTTIME);
        sd_bus_message *m = NULL;
        int r;

        k->pty_framing = framing;
        if (k->pty_framing_noted == framing || (k->noted_usec > 0 && now < k->noted_usec + AUTH_NOTE_USEC))
                return;

        r = bus_client_message(a->bus, NULL, "NoteKey", &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "sa{sv}", k->id, 1, "PtyFraming", "s",
                                          pty_framing_to_string(framing));
        if (r >= 0)
                r = bus_client_send(a->bus, m, 0, NULL, NULL, NULL);
        sd_bus_message_unref(m);
        if (r < 0) {
                log_debug_errno(r, "Failed to note the dialect of key '%s', ignoring: %m", k->id);
                return;
        }
        k->pty_framing_noted = framing;
        k->noted_usec = now;
}

/* A yes of wrennd: the key is new, or is known to be good once more. */
static int auth_learn(Auth *a, const uint8_t hash[static AUTH_HASH_LEN], sd_bus_message *m, AuthKey **ret) {
        _cleanup_(auth_key_unrefp) AuthKey *k = NULL;
        uint64_t now = now_usec(CLOCK_BOOTTIME);
        bool found;
        size_t i;
        int r;

        k = calloc(1, sizeof(AuthKey));
        if (!k)
                return -ENOMEM;
        k->n_ref = 1;
        memcpy(k->hash, hash, AUTH_HASH_LEN);
        k->checked_usec = k->used_usec = now;
        r = key_read(m, k);
        if (r < 0)
                return r;

        i = auth_position(a, hash, &found);
        if (found) {
                a->keys[i]->checked_usec = now;
                a->keys[i]->pty_framing_default = k->pty_framing_default;
                *ret = a->keys[i];
                return 0;
        }

        auth_make_room(a);
        i = auth_position(a, hash, &found);
        memmove(a->keys + i + 1, a->keys + i, (a->n_keys - i) * sizeof(AuthKey *));
        a->keys[i] = *ret = TAKE_PTR(k);
        a->n_keys++;
        return 0;
}

static void auth_learn_miss(Auth *a, const uint8_t hash[static AUTH_HASH_LEN]) {
        KeyMiss *miss = &a->misses[a->next_miss++ % KEY_MISSES_MAX];

        memcpy(miss->hash, hash, AUTH_HASH_LEN);
        miss->until_usec = now_usec(CLOCK_BOOTTIME) + MISS_USEC;
}

static bool auth_is_miss(const Auth *a, const uint8_t hash[static AUTH_HASH_LEN], uint64_t usec) {
        for (size_t i = 0; i < KEY_MISSES_MAX; i++)
                if (a->misses[i].until_usec > usec && memcmp(a->misses[i].hash, hash, AUTH_HASH_LEN) == 0)
                        return true;
        return false;
}

/* What wrennd said, in the words of a caller without a key. */
static int unknown_key(const Peer *peer, Fault *reterr) {
        char name[PEER_NAME_LEN];

        log_info("Refused an unknown API key from %s.", peer_format(peer, name));
        (void) fault_set(reterr, FAULT_UNAUTHORIZED, "invalid API key");
        return -EACCES;
}

static void on_authenticated(BusCall *call, int r, sd_bus_message *reply, const Fault *fault,
                             void *userdata) {
        Lookup *l = userdata;
        Auth *a = l->auth;
        AuthKey *k = NULL;
        _cleanup_(fault_done) Fault malformed = FAULT_NULL;
        bool found, unknown = r < 0 && (fault->code == FAULT_ACCESS_DENIED ||
                                        fault->code == FAULT_UNAUTHORIZED || fault->code == FAULT_NOT_FOUND);

        if (r >= 0) {
                r = auth_learn(a, l->hash, reply, &k);
                if (r < 0) {
                        r = fault_set_errno(&malformed, r, "Failed to read the answer about a key");
                        fault = &malformed;
                }
        } else if (unknown) {
                size_t i = auth_position(a, l->hash, &found);

                if (found)
                        auth_drop(a, i);
                auth_learn_miss(a, l->hash);
        }

        while (l->calls) {
                _cleanup_(fault_done) Fault f = FAULT_NULL;
                AuthCall *c = l->calls;

                /* out of the list, but alive until its owner frees it */
                l->calls = c->next;
                if (c->next)
                        c->next->link = &l->calls;
                c->next = NULL;
                c->link = &c->next;
                if (r >= 0)
                        peer_give_back(c->peer);
                if (unknown)
                        c->done(c, unknown_key(c->peer, &f), NULL, &f, c->userdata);
                else
                        c->done(c, r, k, fault, c->userdata);
        }
        lookup_free(l);
}

static Lookup* auth_find_lookup(Auth *a, const uint8_t hash[static AUTH_HASH_LEN]) {
        for (Lookup *l = a->lookups; l; l = l->next)
                if (memcmp(l->hash, hash, AUTH_HASH_LEN) == 0)
                        return l;
        return NULL;
}

/* Asks wrennd. */
static int auth_ask(Auth *a, const uint8_t hash[static AUTH_HASH_LEN], Lookup **ret) {
        sd_bus_message *m = NULL;
        Lookup *l;
        int r;

        l = malloc(sizeof(Lookup));
        if (!l)
                return -ENOMEM;
        *l = (Lookup) { .auth = a, .next = a->lookups };
        memcpy(l->hash, hash, AUTH_HASH_LEN);
        a->lookups = l;

        r = bus_client_message(a->bus, NULL, "AuthenticateKey", &m);
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', hash, AUTH_HASH_LEN);
        if (r >= 0)
                r = sd_bus_message_sensitive(m);
        if (r >= 0)
                r = bus_client_send(a->bus, m, 0, on_authenticated, l, &l->call);
        sd_bus_message_unref(m);
        if (r < 0) {
                lookup_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

int auth_lookup(Auth *a, const uint8_t hash[static AUTH_HASH_LEN], Peer *peer, uint64_t usec, AuthDone done,
                void *userdata, AuthKey **ret_key, AuthCall **ret_call, Fault *reterr) {
        Lookup *l;
        AuthCall *c;
        bool found;
        size_t i;
        int r;

        i = auth_position(a, hash, &found);
        if (found) {
                AuthKey *k = a->keys[i];

                k->used_usec = usec;
                if (usec > k->checked_usec + RECHECK_USEC) {
                        k->checked_usec = usec;
                        if (!auth_find_lookup(a, hash))
                                (void) auth_ask(a, hash, &l);
                }
                *ret_key = auth_key_ref(k);
                return 1;
        }

        if (auth_is_miss(a, hash, usec))
                return unknown_key(peer, reterr);

        l = auth_find_lookup(a, hash);
        if (!l && !peer_take_failure(peer, usec))
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED, "too many failed authentications");
        r = l ? 0 : auth_ask(a, hash, &l);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to ask about a key");

        c = malloc(sizeof(AuthCall));
        if (!c)
                return fault_set_errno(reterr, -ENOMEM, "Failed to wait for a key");
        *c = (AuthCall) {
                .next = l->calls, .link = &l->calls, .peer = peer, .done = done, .userdata = userdata
        };
        if (c->next)
                c->next->link = &c->next;
        l->calls = c;
        *ret_call = c;
        return 0;
}

void auth_forget(Auth *a, const char *key_id) {
        for (size_t i = a->n_keys; i > 0; i--)
                if (!key_id || streq(a->keys[i - 1]->id, key_id))
                        auth_drop(a, i - 1);
        if (!key_id)
                memset(a->misses, 0, sizeof(a->misses));
}

size_t auth_n_keys(const Auth *a) {
        return a->n_keys;
}
