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

TEST(no_database_is_a_fault) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Store *s = NULL;

        ASSERT_TRUE(store_open("/nonexistent/db", &s, &fault) < 0);
        ASSERT_NOT_NULL(fault.message);
}
