/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/random.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "daemon/core/key.h"
#include "daemon/core/template.h"

#define SECRET_BYTES 16U
#define UNNAMED      "Unnamed API Key"
/* A use is written when the stored time is older than that: a figure for people, not worth a disk write
 * each. */
#define LAST_USED_STORE_USEC (3600 * USEC_PER_SEC)

static Key* key_free(Key *k) {
        if (!k)
                return NULL;

        free(k->id);
        free(k->name);
        free(k->team);
        free(k->prefix);
        free(k->hash);
        free(k->default_template);
        free(k->scopes);
        free(k);
        return NULL;
}
DEFINE_CLEANUP(Key, key_free)

static int key_from_row(Manager *m, const KeyRow *row, Key **ret) {
        _cleanup_(key_freep) Key *k = calloc(1, sizeof(Key));

        if (!k)
                return -ENOMEM;
        *k = (Key) {
                .manager = m,
                .id = strdup(row->id),
                .name = strdup(row->name),
                .team = strdup(row->team),
                .prefix = strdup(row->prefix),
                .hash = strdup(row->sha256),
                .default_template = strdup(strempty(row->default_template)),
                .scopes = strdup(strempty(row->scopes)),
                .created_usec = row->created_usec,
                .last_used_usec = row->last_used_usec,
                .stored_used_usec = row->last_used_usec,
                .pty_framing = pty_framing_from_string(strempty(row->pty_framing)),
        };
        if (!k->id || !k->name || !k->team || !k->prefix || !k->hash || !k->default_template || !k->scopes)
                return -ENOMEM;

        *ret = TAKE_PTR(k);
        return 0;
}

static int key_store(Key *k, bool durable, Fault *reterr) {
        int r;

        r = store_put_key(k->manager->store,
                          &(KeyRow) {
                                          .id = k->id,
                                          .name = k->name,
                                          .team = k->team,
                                          .prefix = k->prefix,
                                          .sha256 = k->hash,
                                          .default_template = k->default_template,
                                          .scopes = k->scopes,
                                          .created_usec = k->created_usec,
                                          .last_used_usec = k->last_used_usec,
                                          .pty_framing = pty_framing_to_string(k->pty_framing),
                          },
                          durable, reterr);
        if (r >= 0)
                k->stored_used_usec = k->last_used_usec;
        return r;
}

static int key_link(Key *k) {
        int r;

        r = hashmap_put(k->manager->keys, k->id, k);
        if (r < 0)
                return r;
        r = hashmap_put(k->manager->keys_by_hash, k->hash, k);
        if (r < 0)
                (void) hashmap_remove(k->manager->keys, k->id);
        return r;
}

static void key_unlink(Key *k) {
        (void) hashmap_remove(k->manager->keys, k->id);
        (void) hashmap_remove(k->manager->keys_by_hash, k->hash);
}

static int on_row(const KeyRow *row, void *userdata) {
        _cleanup_(key_freep) Key *k = NULL;
        int r;

        if (strlen(row->sha256) != SHA256_HEX_LEN || !team_is_valid(row->team)) {
                log_warning("Key record '%s' is damaged, ignoring.", row->id);
                return 0;
        }
        r = key_from_row(userdata, row, &k);
        if (r >= 0)
                r = key_link(k);
        if (r == -EEXIST) {
                log_warning("Key record '%s' is there twice, ignoring one.", row->id);
                return 0;
        }
        if (r >= 0)
                (void) TAKE_PTR(k);
        return r;
}

int manager_load_keys(Manager *m, Fault *reterr) {
        return store_load_keys(m->store, on_row, m, reterr);
}

/* "wrn_" + 32 hex of 128 random bits, and the hash of that text. */
static int make_secret(char secret[static KEY_SECRET_LEN + 1], char hash[static SHA256_HEX_LEN + 1]) {
        uint8_t random[SECRET_BYTES], digest[SHA256_LEN];
        int r;

        if (getrandom(random, sizeof(random), 0) != sizeof(random))
                return errno != 0 ? -errno : -EIO;
        memcpy(secret, "wrn_", 4);
        hex_encode(random, sizeof(random), secret + 4);
        explicit_bzero(random, sizeof(random));

        r = sha256_data(secret, KEY_SECRET_LEN, digest);
        if (r >= 0)
                hex_encode(digest, sizeof(digest), hash);
        return r;
}

static bool label_is_valid(const char *s) {
        if (strlen(s) > NAME_MAX_LEN || !utf8_is_valid(s, strlen(s)))
                return false;
        for (const char *p = s; *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7f)
                        return false;
        return true;
}

/* Told now, and not by the first create. */
static int check_default_template(Manager *m, const char *template, const char *team, Fault *reterr) {
        if (!*template)
                return 0;
        if (!name_is_valid(template))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "DefaultTemplate: expected the name of a template.");
        if (!manager_find_template(m, template, team))
                return template_missing(template, reterr);
        return 0;
}

static int check_arguments(Manager *m, const char *name, const char *team, char *const *scopes,
                           Fault *reterr) {
        if (!label_is_valid(name))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "name: expected at most %u bytes of text without control characters.",
                                 NAME_MAX_LEN);
        if (!team_is_valid(team))
                return fault_set(reterr, FAULT_INVALID_ARGS, "Team: expected 1 to %u of a-z 0-9 _.",
                                 TEAM_MAX_LEN);
        if (strv_length(scopes) > KEY_SCOPES_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "Scopes: at most %u.", KEY_SCOPES_MAX);
        STRV_FOREACH(s, scopes)
                if (!name_is_valid(*s))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "Scopes: '%.64s' is no scope.", *s);
        if (m->stopping)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "The service is shutting down.");
        if (hashmap_size(m->keys) >= KEYS_MAX)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED, "There are %u keys already; revoke some.",
                                 KEYS_MAX);
        return 0;
}

int key_create(Manager *m, const char *name, const char *team, const char *default_template,
               char *const *scopes, Key **ret, char ret_secret[static KEY_SECRET_LEN + 1], Fault *reterr) {
        char secret[KEY_SECRET_LEN + 1], hash[SHA256_HEX_LEN + 1], prefix[KEY_PREFIX_LEN + 1], id[64];
        _cleanup_free_ char *words = strv_join(scopes, " ");
        _cleanup_(key_freep) Key *k = NULL;
        int r;

        name = isempty(name) ? UNNAMED : name;
        team = isempty(team) ? "default" : team;
        r = check_arguments(m, name, team, scopes, reterr);
        if (r >= 0)
                r = check_default_template(m, strempty(default_template), team, reterr);
        if (r < 0)
                return r;

        r = words ? make_secret(secret, hash) : -ENOMEM;
        if (r >= 0)
                r = id_random("key", id);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make a key");
        memcpy(prefix, secret, KEY_PREFIX_LEN);
        prefix[KEY_PREFIX_LEN] = '\0';

        r = key_from_row(m,
                         &(KeyRow) {
                                         .id = id,
                                         .name = name,
                                         .team = team,
                                         .prefix = prefix,
                                         .sha256 = hash,
                                         .default_template = default_template,
                                         .scopes = words,
                                         .created_usec = now_usec(CLOCK_REALTIME),
                         },
                         &k);
        if (r >= 0)
                r = key_store(k, /* durable= */ true, reterr);
        if (r >= 0)
                r = key_link(k);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make a key");

        log_info("Key '%s' (%s) of team '%s' was made.", k->id, k->prefix, k->team);
        memcpy(ret_secret, secret, sizeof(secret));
        explicit_bzero(secret, sizeof(secret));
        *ret = TAKE_PTR(k);
        return 0;
}

int key_revoke(Manager *m, const char *id, Fault *reterr) {
        _cleanup_(key_freep) Key *k = NULL;
        int r;

        k = hashmap_get(m->keys, id);
        if (!k)
                return fault_set(reterr, FAULT_NOT_FOUND, "No key '%.64s'.", id);

        r = store_delete_key(m->store, k->id, /* durable= */ true, reterr);
        if (r < 0) {
                (void) TAKE_PTR(k); /* still the table's */
                return r;
        }

        key_unlink(k);
        log_info("Key '%s' (%s) of team '%s' was revoked.", k->id, k->prefix, k->team);
        manager_event(m, key_revoked, k->id);
        return 0;
}

int key_authenticate(Manager *m, const void *sha256, size_t n, Key **ret, Fault *reterr) {
        char hash[SHA256_HEX_LEN + 1];
        uint64_t now;
        Key *k = NULL;

        if (n == SHA256_LEN) {
                hex_encode(sha256, SHA256_LEN, hash);
                k = hashmap_get(m->keys_by_hash, hash);
        }
        /* The table finds by a seeded hash of a digest nobody can steer; what it found is compared without a
         * hint by time. */
        if (!k || !memory_equal_constant_time(k->hash, hash, SHA256_HEX_LEN))
                return fault_set(reterr, FAULT_ACCESS_DENIED, "No such key.");

        now = now_usec(CLOCK_REALTIME);
        k->last_used_usec = now;
        if (now > k->stored_used_usec + LAST_USED_STORE_USEC)
                (void) key_store(k, /* durable= */ false, /* reterr= */ NULL);
        *ret = k;
        return 0;
}

int key_note_pty_framing(Manager *m, const char *id, PtyFraming framing, Fault *reterr) {
        Key *k = hashmap_get(m->keys, id);

        if (!k)
                return fault_set(reterr, FAULT_NOT_FOUND, "No key '%.64s'.", id);
        if (k->pty_framing == framing)
                return 0;

        k->pty_framing = framing;
        return key_store(k, /* durable= */ false, reterr);
}

void manager_flush_keys(Manager *m) {
        Key *k;

        HASHMAP_FOREACH(k, m->keys)
                if (k->last_used_usec > k->stored_used_usec)
                        (void) key_store(k, /* durable= */ false, /* reterr= */ NULL);
}

void manager_free_keys(Manager *m) {
        Key *k;

        if (m->store)
                manager_flush_keys(m);
        while ((k = hashmap_first(m->keys))) {
                key_unlink(k);
                (void) key_free(k);
        }
}
