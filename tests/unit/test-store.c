/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sqlite3.h>

#include "basic/files.h"
#include "basic/strings.h"
#include "daemon/host/store.h"
#include "test.h"

typedef struct Seen {
        unsigned n;
        char last_id[32];
        char text[64];
        uint64_t number;
} Seen;

static int on_capsule(const CapsuleRow *row, void *userdata) {
        Seen *s = userdata;

        s->n++;
        (void) snprintf(s->last_id, sizeof(s->last_id), "%s", row->id);
        (void) snprintf(s->text, sizeof(s->text), "%s", row->labels);
        s->number = row->memory_bytes;
        return 0;
}

static char* make_dir(void) {
        char *dir = strdup("/tmp/test-store-XXXXXX");

        ASSERT_NOT_NULL(mkdtemp(dir));
        return dir;
}

TEST(rows_survive) {
        _cleanup_free_ char *dir = make_dir(), *path = strjoin(dir, "/db");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Store *s = NULL;
        Seen seen = {};

        ASSERT_EQ(store_open(path, &s, &fault), 0);
        ASSERT_EQ(store_put_capsule(s, &(CapsuleRow) { .id = "b", .created_usec = 2, .labels = "x" }, true,
                                    &fault),
                  0);
        ASSERT_EQ(store_put_capsule(s, &(CapsuleRow) { .id = "a", .created_usec = 1 }, false, &fault), 0);
        ASSERT_EQ(store_put_capsule(s,
                                    &(CapsuleRow) { .id = "b",
                                                    .created_usec = 2,
                                                    .labels = "{}",
                                                    .memory_bytes = 1 << 30 },
                                    true, &fault),
                  0);
        s = store_close(s);

        ASSERT_EQ(store_open(path, &s, &fault), 0);
        ASSERT_EQ(store_load_capsules(s, on_capsule, &seen, &fault), 0);
        ASSERT_EQ(seen.n, 2);
        ASSERT_TRUE(streq(seen.last_id, "b")); /* oldest first */
        ASSERT_TRUE(streq(seen.text, "{}"));
        ASSERT_EQ(seen.number, 1 << 30);

        ASSERT_EQ(store_delete_capsule(s, "b", true, &fault), 0);
        ASSERT_EQ(store_delete_capsule(s, "never", false, &fault), 0);
        seen = (Seen) {};
        ASSERT_EQ(store_load_capsules(s, on_capsule, &seen, &fault), 0);
        ASSERT_EQ(seen.n, 1);
        s = store_close(s);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, dir), 0);
}

TEST(transactions) {
        _cleanup_free_ char *dir = make_dir(), *path = strjoin(dir, "/db");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(store_closep) Store *s = NULL;
        Seen seen = {};

        ASSERT_EQ(store_open(path, &s, &fault), 0);
        ASSERT_EQ(store_begin(s, true, &fault), 0);
        ASSERT_EQ(store_put_capsule(s, &(CapsuleRow) { .id = "a" }, true, &fault), 0);
        store_rollback(s);
        ASSERT_EQ(store_begin(s, false, &fault), 0);
        ASSERT_EQ(store_put_capsule(s, &(CapsuleRow) { .id = "b" }, true, &fault), 0);
        ASSERT_EQ(store_commit(s, &fault), 0);
        ASSERT_EQ(store_load_capsules(s, on_capsule, &seen, &fault), 0);
        ASSERT_EQ(seen.n, 1);
        ASSERT_TRUE(streq(seen.last_id, "b"));
        ASSERT_EQ(remove_tree_at(AT_FDCWD, dir), 0);
}

static int refuse(const KeyRow *row, void *userdata) {
        return -EUCLEAN;
}

TEST(keys_and_templates) {
        _cleanup_free_ char *dir = make_dir(), *path = strjoin(dir, "/db");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(store_closep) Store *s = NULL;

        ASSERT_EQ(store_open(path, &s, &fault), 0);
        ASSERT_EQ(store_put_key(s, &(KeyRow) { .id = "k", .sha256 = "00" }, true, &fault), 0);
        ASSERT_EQ(store_put_template(s, &(TemplateRow) { .id = "t", .name = "minimal" }, true, &fault), 0);
        ASSERT_EQ(store_load_keys(s, refuse, NULL, &fault), -EUCLEAN);
        ASSERT_EQ(store_delete_key(s, "k", true, &fault), 0);
        ASSERT_EQ(store_load_keys(s, refuse, NULL, &fault), 0);
        ASSERT_EQ(store_delete_template(s, "t", true, &fault), 0);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, dir), 0);
}

TEST(newer_schema_is_refused) {
        _cleanup_free_ char *dir = make_dir(), *path = strjoin(dir, "/db");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Store *s = NULL;
        sqlite3 *db;

        ASSERT_EQ(store_open(path, &s, &fault), 0);
        s = store_close(s);
        ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
        ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
        (void) sqlite3_close(db);

        ASSERT_EQ(store_open(path, &s, &fault), -EPROTONOSUPPORT);
        ASSERT_NULL(s);
        ASSERT_NOT_NULL(strstr(fault.message, "newer wrennd"));
        ASSERT_EQ(remove_tree_at(AT_FDCWD, dir), 0);
}

typedef struct SeenKey {
        char framing[16];
        uint64_t used;
} SeenKey;

static int on_key(const KeyRow *row, void *userdata) {
        SeenKey *s = userdata;

        (void) snprintf(s->framing, sizeof(s->framing), "%s", row->pty_framing);
        s->used = row->last_used_usec;
        return 0;
}

/* A file of the first version, as it was made then, gets the columns that came later and keeps its rows. */
TEST(older_schema_is_brought_up_to_date) {
        static const char first[] =
                        "CREATE TABLE capsules (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, template TEXT NOT NULL,"
                        " template_id TEXT NOT NULL, team TEXT NOT NULL, key_id TEXT NOT NULL, labels TEXT NOT NULL,"
                        " state TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, boot_id TEXT NOT NULL,"
                        " accelerator TEXT NOT NULL, owner_uid INTEGER NOT NULL, uid INTEGER NOT NULL,"
                        " slot_index INTEGER NOT NULL, vcpus INTEGER NOT NULL, memory_bytes INTEGER NOT NULL,"
                        " disk_bytes INTEGER NOT NULL, timeout_usec INTEGER NOT NULL, created_usec INTEGER NOT NULL,"
                        " started_usec INTEGER NOT NULL, active_usec INTEGER NOT NULL, updated_usec INTEGER NOT NULL);"
                        "CREATE TABLE templates (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
                        " team TEXT NOT NULL, digest TEXT NOT NULL, default_user TEXT NOT NULL, env TEXT NOT NULL,"
                        " platform INTEGER NOT NULL, hidden INTEGER NOT NULL, size_bytes INTEGER NOT NULL,"
                        " created_usec INTEGER NOT NULL, default_vcpus INTEGER NOT NULL,"
                        " default_memory_bytes INTEGER NOT NULL);"
                        "CREATE TABLE keys (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, team TEXT NOT NULL,"
                        " prefix TEXT NOT NULL, sha256 TEXT NOT NULL, default_template TEXT NOT NULL, scopes TEXT NOT NULL,"
                        " created_usec INTEGER NOT NULL, last_used_usec INTEGER NOT NULL);"
                        "INSERT INTO keys VALUES ('k','n','t','p','00','','',5,7);"
                        "PRAGMA user_version=1";
        _cleanup_free_ char *dir = make_dir(), *path = strjoin(dir, "/db");
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        SeenKey seen = {};
        Store *s = NULL;
        sqlite3 *db;

        ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
        ASSERT_EQ(sqlite3_exec(db, first, NULL, NULL, NULL), SQLITE_OK);
        (void) sqlite3_close(db);

        for (unsigned i = 0; i < 2; i++) { /* once only */
                ASSERT_EQ(store_open(path, &s, &fault), 0);
                ASSERT_EQ(store_load_keys(s, on_key, &seen, &fault), 0);
                ASSERT_STREQ(seen.framing, i == 0 ? "" : "json");
                ASSERT_EQ(seen.used, 7);
                ASSERT_EQ(store_put_key(s,
                                        &(KeyRow) { .id = "k",
                                                    .created_usec = 5,
                                                    .last_used_usec = 7,
                                                    .pty_framing = "json" },
                                        true, &fault),
                          0);
                s = store_close(s);
        }
        ASSERT_EQ(remove_tree_at(AT_FDCWD, dir), 0);
}

TEST(no_database_is_a_fault) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Store *s = NULL;

        ASSERT_TRUE(store_open("/nonexistent/db", &s, &fault) < 0);
        ASSERT_NOT_NULL(fault.message);
}
