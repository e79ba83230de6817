/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>

#include "basic/files.h"
#include "basic/limits.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "daemon/core/key.h"
#include "daemon/core/template.h"
#include "tests/unit/test.h"

typedef struct World {
        char path[64];
        Template template; /* the one there is, of team red */
        Manager m;
        char revoked[128];
} World;

static void on_revoked(const char *key_id, void *userdata) {
        World *w = userdata;

        (void) snprintf(w->revoked, sizeof(w->revoked), "%s", key_id);
}

static const ManagerEvents events = { .key_revoked = on_revoked };

static void world_open(World *w) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *path = NULL;

        path = strjoin(w->path, "/db");
        w->m = (Manager) {
                .keys = hashmap_new(),
                .keys_by_hash = hashmap_new(),
                .templates = hashmap_new(),
                .events = &events,
                .events_userdata = w,
        };
        assert(w->m.keys && w->m.keys_by_hash && w->m.templates);
        w->template = (Template) { .name = (char *) "minimal", .team = (char *) "red" };
        ASSERT_EQ(hashmap_put(w->m.templates, w->template.name, &w->template), 0);
        ASSERT_EQ(store_open(path, &w->m.store, &fault), 0);
        ASSERT_EQ(manager_load_keys(&w->m, &fault), 0);
}

static void world_close(World *w) {
        manager_free_keys(&w->m);
        hashmap_free(w->m.keys);
        hashmap_free(w->m.keys_by_hash);
        hashmap_free(w->m.templates);
        store_close(w->m.store);
}

static void world_make(World *w) {
        *w = (World) { .path = "/tmp/templates-key-XXXXXX" };
        assert(mkdtemp(w->path));
        world_open(w);
}

static void world_done(World *w) {
        world_close(w);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, w->path), 0);
}

static int authenticate(World *w, const char *secret, Key **ret, Fault *fault) {
        uint8_t digest[SHA256_LEN];

        ASSERT_EQ(sha256_data(secret, strlen(secret), digest), 0);
        return key_authenticate(&w->m, digest, sizeof(digest), ret, fault);
}

TEST(life) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, wrong = FAULT_NULL, gone = FAULT_NULL,
                                    twice = FAULT_NULL;
        char secret[KEY_SECRET_LEN + 1], other[KEY_SECRET_LEN + 1], id[128];
        static const char *const scopes[] = { "create", "exec", NULL };
        Key *k, *found;
        World w;

        world_make(&w);
        ASSERT_EQ(key_create(&w.m, "", "red", "minimal", (char *const *) scopes, &k, secret, &fault), 0);
        ASSERT_EQ(strlen(secret), KEY_SECRET_LEN);
        ASSERT_TRUE(startswith(secret, "wrn_"));
        ASSERT_EQ(strspn(secret + 4, "0123456789abcdef"), 32);
        ASSERT_EQ(strncmp(secret, k->prefix, KEY_PREFIX_LEN), 0);
        ASSERT_EQ(strlen(k->prefix), KEY_PREFIX_LEN);
        ASSERT_STREQ(k->name, "Unnamed API Key");
        ASSERT_TRUE(id_is_valid("key", k->id));
        (void) snprintf(id, sizeof(id), "%s", k->id);

        ASSERT_EQ(key_create(&w.m, "second", NULL, NULL, NULL, &found, other, &fault), 0);
        ASSERT_STREQ(found->team, "default");
        ASSERT_TRUE(!streq(secret, other));

        /* another life of the daemon */
        world_close(&w);
        world_open(&w);
        ASSERT_EQ(authenticate(&w, secret, &found, &fault), 0);
        ASSERT_STREQ(found->id, id);
        ASSERT_STREQ(found->team, "red");
        ASSERT_STREQ(found->default_template, "minimal");
        ASSERT_STREQ(found->scopes, "create exec");
        ASSERT_TRUE(found->last_used_usec > 0);

        secret[35] = secret[35] == '0' ? '1' : '0';
        ASSERT_EQ(authenticate(&w, secret, &found, &wrong), -EPERM);
        ASSERT_EQ(key_authenticate(&w.m, "short", 5, &found, NULL), -EPERM);

        ASSERT_EQ(key_revoke(&w.m, "key-none", &gone), -ENOENT);
        ASSERT_EQ(key_revoke(&w.m, id, &fault), 0);
        ASSERT_STREQ(w.revoked, id);
        ASSERT_EQ(key_revoke(&w.m, id, &twice), -ENOENT);
        ASSERT_EQ(hashmap_size(w.m.keys), 1);
        ASSERT_EQ(hashmap_size(w.m.keys_by_hash), 1);
        world_close(&w);
        world_open(&w);
        ASSERT_EQ(hashmap_size(w.m.keys), 1);
        ASSERT_EQ(authenticate(&w, other, &found, &fault), 0);
        world_done(&w);
}

/* Of a key, and of a key alone: it stays over a restart, also when the daemon did not end in order. */
TEST(pty_framing) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, none = FAULT_NULL;
        char secret[KEY_SECRET_LEN + 1], other[KEY_SECRET_LEN + 1];
        Key *k, *found;
        World w;

        world_make(&w);
        ASSERT_EQ(key_create(&w.m, "x", NULL, NULL, NULL, &k, secret, &fault), 0);
        ASSERT_EQ(k->pty_framing, _PTY_FRAMING_INVALID);
        ASSERT_EQ(key_create(&w.m, "y", NULL, NULL, NULL, &found, other, &fault), 0);
        ASSERT_EQ(key_note_pty_framing(&w.m, k->id, PTY_FRAMING_BINARY, &fault), 0);
        ASSERT_EQ(key_note_pty_framing(&w.m, k->id, PTY_FRAMING_JSON, &fault), 0);
        ASSERT_EQ(key_note_pty_framing(&w.m, k->id, PTY_FRAMING_JSON, &fault), 0);
        ASSERT_EQ(key_note_pty_framing(&w.m, "key-none", PTY_FRAMING_JSON, &none), -ENOENT);

        world_close(&w);
        world_open(&w);
        ASSERT_EQ(authenticate(&w, secret, &found, &fault), 0);
        ASSERT_EQ(found->pty_framing, PTY_FRAMING_JSON);
        ASSERT_EQ(authenticate(&w, other, &found, &fault), 0);
        ASSERT_EQ(found->pty_framing, _PTY_FRAMING_INVALID);
        world_done(&w);
}

/* A default template must be there, and be one that the team may use. */
TEST(default_template) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, missing = FAULT_NULL, foreign = FAULT_NULL;
        char secret[KEY_SECRET_LEN + 1];
        World w;
        Key *k;

        world_make(&w);
        ASSERT_EQ(key_create(&w.m, "x", "red", "minimal", NULL, &k, secret, &fault), 0);
        ASSERT_STREQ(k->default_template, "minimal");
        ASSERT_EQ(key_create(&w.m, "x", "red", "", NULL, &k, secret, &fault), 0);
        ASSERT_EQ(key_create(&w.m, "x", "red", "nonesuch", NULL, &k, secret, &missing), -ENOENT);
        ASSERT_NOT_NULL(strstr(missing.message, "'nonesuch'"));
        ASSERT_NOT_NULL(strstr(missing.message, "wrennctl build-template"));
        ASSERT_EQ(key_create(&w.m, "x", "blue", "minimal", NULL, &k, secret, &foreign), -ENOENT);
        ASSERT_EQ(hashmap_size(w.m.keys), 2);
        world_done(&w);
}

/* Nothing of the secret reaches the disk but its prefix and hash. */
TEST(secret_is_not_stored) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char secret[KEY_SECRET_LEN + 1], command[256];
        World w;
        Key *k;

        world_make(&w);
        ASSERT_EQ(key_create(&w.m, "x", NULL, NULL, NULL, &k, secret, &fault), 0);
        (void) snprintf(command, sizeof(command), "grep -rqaF %s %s", secret + 12, w.path);
        ASSERT_TRUE(system(command) != 0);
        (void) snprintf(command, sizeof(command), "grep -rqaF %s %s", k->hash, w.path);
        ASSERT_EQ(system(command), 0);
        world_done(&w);
}

TEST(arguments) {
        static const char *const bad_scopes[] = { "a b", NULL };
        static const struct {
                const char *name, *team, *template;
                char *const *scopes;
                const char *message;
        } cases[] = {
                { "a\nb", NULL, NULL, NULL,
                  "name: expected at most 64 bytes of text without control characters." },
                { "\xff", NULL, NULL, NULL,
                  "name: expected at most 64 bytes of text without control characters." },
                { "x", "with-dash", NULL, NULL, "Team: expected 1 to 32 of a-z 0-9 _." },
                { "x", "Red", NULL, NULL, "Team: expected 1 to 32 of a-z 0-9 _." },
                { "x", NULL, "../x", NULL, "DefaultTemplate: expected the name of a template." },
                { "x", NULL, NULL, (char *const *) bad_scopes, "Scopes: 'a b' is no scope." },
        };
        World w;

        world_make(&w);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                char secret[KEY_SECRET_LEN + 1];
                Key *k;

                ASSERT_EQ(key_create(&w.m, cases[i].name, cases[i].team, cases[i].template, cases[i].scopes,
                                     &k, secret, &fault),
                          -EINVAL);
                ASSERT_STREQ(fault.message, cases[i].message);
        }
        ASSERT_EQ(hashmap_size(w.m.keys), 0);
        world_done(&w);
}
