/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One table of columns per kind of row makes the schema, the statements, the binding and the reading, so
 * that a column is added in one place. Statements are prepared once and kept.
 */

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/store.h"

#define SQL_MAX         2048U
#define COLUMNS_MAX     32U
#define BUSY_TIMEOUT_MS 2000

typedef struct Column {
        const char *name; /* NULL ends the table; the first is the primary key */
        size_t offset;
        bool number;
        int since; /* version of the schema that brought it; 0: the first */
} Column;

typedef enum StoreTable {
        STORE_CAPSULES,
        STORE_TEMPLATES,
        STORE_KEYS,
        _STORE_TABLE_MAX,
} StoreTable;

#define TEXT(type, member) \
        { #member, offsetof(type, member), false }
#define NUMBER(type, member) \
        { #member, offsetof(type, member), true }
/* Later columns stand last in their table, as they do in a file that was brought up to date. */
#define TEXT_SINCE(version, type, member) \
        { #member, offsetof(type, member), false, version }

static const Column capsule_columns[] = {
        TEXT(CapsuleRow, id),
        TEXT(CapsuleRow, name),
        TEXT(CapsuleRow, template),
        TEXT(CapsuleRow, template_id),
        TEXT(CapsuleRow, team),
        TEXT(CapsuleRow, key_id),
        TEXT(CapsuleRow, labels),
        TEXT(CapsuleRow, state),
        TEXT(CapsuleRow, reason),
        TEXT(CapsuleRow, message),
        TEXT(CapsuleRow, boot_id),
        TEXT(CapsuleRow, accelerator),
        NUMBER(CapsuleRow, owner_uid),
        NUMBER(CapsuleRow, uid),
        NUMBER(CapsuleRow, slot_index),
        NUMBER(CapsuleRow, vcpus),
        NUMBER(CapsuleRow, memory_bytes),
        NUMBER(CapsuleRow, disk_bytes),
        NUMBER(CapsuleRow, timeout_usec),
        NUMBER(CapsuleRow, created_usec),
        NUMBER(CapsuleRow, started_usec),
        NUMBER(CapsuleRow, active_usec),
        NUMBER(CapsuleRow, updated_usec),
        {},
};

static const Column template_columns[] = {
        TEXT(TemplateRow, id),
        TEXT(TemplateRow, name),
        TEXT(TemplateRow, type),
        TEXT(TemplateRow, team),
        TEXT(TemplateRow, digest),
        TEXT(TemplateRow, default_user),
        TEXT(TemplateRow, env),
        NUMBER(TemplateRow, platform),
        NUMBER(TemplateRow, hidden),
        NUMBER(TemplateRow, size_bytes),
        NUMBER(TemplateRow, created_usec),
        NUMBER(TemplateRow, default_vcpus),
        NUMBER(TemplateRow, default_memory_bytes),
        TEXT_SINCE(2, TemplateRow, aliases),
        {},
};

static const Column key_columns[] = {
        TEXT(KeyRow, id),
        TEXT(KeyRow, name),
        TEXT(KeyRow, team),
        TEXT(KeyRow, prefix),
        TEXT(KeyRow, sha256),
        TEXT(KeyRow, default_template),
        TEXT(KeyRow, scopes),
        NUMBER(KeyRow, created_usec),
        NUMBER(KeyRow, last_used_usec),
        TEXT_SINCE(2, KeyRow, pty_framing),
        {},
};

static const struct {
        const char *name;
        const Column *columns;
} tables[_STORE_TABLE_MAX] = {
        [STORE_CAPSULES] = { "capsules", capsule_columns },
        [STORE_TEMPLATES] = { "templates", template_columns },
        [STORE_KEYS] = { "keys", key_columns },
};

struct Store {
        sqlite3 *db;
        sqlite3_stmt *put[_STORE_TABLE_MAX];
        sqlite3_stmt *erase[_STORE_TABLE_MAX];
        int durable; /* what PRAGMA synchronous is now; -1: unknown */
        bool in_transaction;
};

static int store_fault(Store *s, int rc, const char *what, Fault *reterr) {
        int error = (rc & 0xff) == SQLITE_FULL ? ENOSPC : (rc & 0xff) == SQLITE_NOMEM ? ENOMEM : EIO;

        (void) fault_set(reterr,
                         error == ENOSPC   ? FAULT_NO_SPACE
                         : error == ENOMEM ? FAULT_NO_MEMORY
                                           : FAULT_INTERNAL,
                         "Failed to %s in the database: %s.", what,
                         s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
        return -error;
}

static int run(Store *s, const char *sql, Fault *reterr) {
        int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

        return rc == SQLITE_OK ? 0 : store_fault(s, rc, "change", reterr);
}

static int user_version(Store *s, int *ret, Fault *reterr) {
        sqlite3_stmt *st = NULL;
        int rc;

        rc = sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &st, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
                *ret = sqlite3_column_int(st, 0);
        (void) sqlite3_finalize(st);
        return rc == SQLITE_ROW ? 0 : store_fault(s, rc, "read the version", reterr);
}

/* A line of SQL put together from the columns; the tables are ours, so that it always fits. */
typedef struct Sql {
        char text[SQL_MAX];
        size_t n;
} Sql;

_printf_(2, 3) static void sql_add(Sql *q, const char *format, ...) {
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(q->text + q->n, sizeof(q->text) - q->n, format, ap);
        va_end(ap);
        assert(n >= 0 && (size_t) n < sizeof(q->text) - q->n);
        q->n += (size_t) n;
}

static int create_table(Store *s, StoreTable t, Fault *reterr) {
        Sql q = {};

        sql_add(&q, "CREATE TABLE %s (", tables[t].name);
        for (const Column *c = tables[t].columns; c->name; c++)
                sql_add(&q, "%s%s %s NOT NULL%s", c == tables[t].columns ? "" : ", ", c->name,
                        c->number ? "INTEGER" : "TEXT", c == tables[t].columns ? " PRIMARY KEY" : "");
        sql_add(&q, ")");
        return run(s, q.text, reterr);
}

/* The columns that a file of that version lacks. */
static int add_columns(Store *s, StoreTable t, int version, Fault *reterr) {
        int r = 0;

        for (const Column *c = tables[t].columns; c->name && r >= 0; c++)
                if (c->since > version) {
                        Sql q = {};

                        sql_add(&q, "ALTER TABLE %s ADD COLUMN %s %s NOT NULL DEFAULT %s", tables[t].name,
                                c->name, c->number ? "INTEGER" : "TEXT", c->number ? "0" : "''");
                        r = run(s, q.text, reterr);
                }
        return r;
}

/* From that version, 0 being an empty file, to ours: wholly or not at all. */
static int update_schema(Store *s, int version, Fault *reterr) {
        int r = run(s, "BEGIN IMMEDIATE", reterr);

        for (StoreTable t = 0; t < _STORE_TABLE_MAX && r >= 0; t++)
                r = version == 0 ? create_table(s, t, reterr) : add_columns(s, t, version, reterr);
        if (r >= 0)
                r = run(s, "PRAGMA user_version=" STRINGIFY(STORE_VERSION), reterr);
        if (r >= 0)
                r = run(s, "COMMIT", reterr);
        if (r < 0)
                (void) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        return r;
}

static int prepare(Store *s, StoreTable t, Fault *reterr) {
        Sql put = {}, del = {};
        int rc;

        sql_add(&put, "INSERT OR REPLACE INTO %s VALUES (", tables[t].name);
        for (const Column *c = tables[t].columns; c->name; c++)
                sql_add(&put, c == tables[t].columns ? "?" : ",?");
        sql_add(&put, ")");
        sql_add(&del, "DELETE FROM %s WHERE id=?", tables[t].name);

        rc = sqlite3_prepare_v3(s->db, put.text, -1, SQLITE_PREPARE_PERSISTENT, s->put + t, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_prepare_v3(s->db, del.text, -1, SQLITE_PREPARE_PERSISTENT, s->erase + t, NULL);
        return rc == SQLITE_OK ? 0 : store_fault(s, rc, "prepare a statement", reterr);
}

static int set_up(Store *s, const char *path, Fault *reterr) {
        int version = 0, r;

        (void) sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
        r = user_version(s, &version, reterr);
        if (r < 0)
                return r;
        if (version > STORE_VERSION || version < 0) {
                (void) fault_set(
                                reterr, FAULT_INTERNAL,
                                "'%s' was written by a newer wrennd (schema %d, this one knows %d); install that version "
                                "again. Nothing was changed.",
                                path, version, STORE_VERSION);
                return -EPROTONOSUPPORT;
        }

        r = run(s,
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-512; PRAGMA temp_store=MEMORY;",
                reterr);
        s->durable = 1;
        if (r >= 0 && version < STORE_VERSION)
                r = update_schema(s, version, reterr);
        for (size_t t = 0; t < _STORE_TABLE_MAX && r >= 0; t++)
                r = prepare(s, t, reterr);
        return r;
}

int store_open(const char *path, Store **ret, Fault *reterr) {
        _cleanup_(store_closep) Store *s = NULL;
        int rc, r;

        s = calloc(1, sizeof(Store));
        if (!s)
                return fault_set_errno(reterr, ENOMEM, "Failed to open '%s'", path);

        rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                             NULL);
        if (rc != SQLITE_OK)
                return store_fault(s, rc, "open", reterr);

        r = set_up(s, path, reterr);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(s);
        return 0;
}

Store* store_close(Store *s) {
        if (!s)
                return NULL;

        for (size_t t = 0; t < _STORE_TABLE_MAX; t++) {
                (void) sqlite3_finalize(s->put[t]);
                (void) sqlite3_finalize(s->erase[t]);
        }
        (void) sqlite3_close_v2(s->db);
        free(s);
        return NULL;
}

static int set_durable(Store *s, bool durable, Fault *reterr) {
        int r;

        if (s->durable == durable)
                return 0;
        s->durable = -1;
        r = run(s, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", reterr);
        if (r >= 0)
                s->durable = durable;
        return r;
}

static int execute(Store *s, sqlite3_stmt *st, const char *what, Fault *reterr) {
        int rc = sqlite3_step(st), r = 0;

        if (rc != SQLITE_DONE)
                r = store_fault(s, rc, what, reterr);
        (void) sqlite3_reset(st);
        (void) sqlite3_clear_bindings(st);
        return r;
}

static int put(Store *s, StoreTable t, const void *row, bool durable, Fault *reterr) {
        int r, i = 1;

        r = s->in_transaction ? 0 : set_durable(s, durable, reterr);
        if (r < 0)
                return r;

        for (const Column *c = tables[t].columns; c->name; c++, i++) {
                const char *field = (const char *) row + c->offset;
                int rc = c->number ? sqlite3_bind_int64(s->put[t], i,
                                                        (sqlite3_int64) * (const uint64_t *) field)
                                   : sqlite3_bind_text(s->put[t], i, strempty(*(char *const *) field), -1,
                                                       SQLITE_STATIC);

                if (rc != SQLITE_OK)
                        return store_fault(s, rc, "bind", reterr);
        }
        return execute(s, s->put[t], "write", reterr);
}

static int erase(Store *s, StoreTable t, const char *id, bool durable, Fault *reterr) {
        int r;

        r = s->in_transaction ? 0 : set_durable(s, durable, reterr);
        if (r < 0)
                return r;
        if (sqlite3_bind_text(s->erase[t], 1, id, -1, SQLITE_STATIC) != SQLITE_OK)
                return store_fault(s, SQLITE_NOMEM, "bind", reterr);
        return execute(s, s->erase[t], "delete", reterr);
}

/* Fills row from the current line of st. */
static void read_row(sqlite3_stmt *st, const Column *columns, void *row) {
        int i = 0;

        for (const Column *c = columns; c->name; c++, i++) {
                char *field = (char *) row + c->offset;

                if (c->number)
                        *(uint64_t *) field = (uint64_t) sqlite3_column_int64(st, i);
                else
                        *(const char **) field = strempty((const char *) sqlite3_column_text(st, i));
        }
}

typedef int (*RowHandler)(const void *row, void *handler, void *userdata);

static int load(Store *s, StoreTable t, void *row, RowHandler on_row, void *handler, void *userdata,
                Fault *reterr) {
        sqlite3_stmt *st = NULL;
        Sql q = {};
        int rc, r = 0;

        sql_add(&q, "SELECT ");
        for (const Column *c = tables[t].columns; c->name; c++)
                sql_add(&q, "%s%s", c == tables[t].columns ? "" : ",", c->name);
        sql_add(&q, " FROM %s ORDER BY created_usec, rowid", tables[t].name);

        rc = sqlite3_prepare_v2(s->db, q.text, -1, &st, NULL);
        if (rc != SQLITE_OK)
                return store_fault(s, rc, "read", reterr);

        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                read_row(st, tables[t].columns, row);
                r = on_row(row, handler, userdata);
        }
        if (r >= 0 && rc != SQLITE_DONE)
                r = store_fault(s, rc, "read", reterr);
        (void) sqlite3_finalize(st);
        return r < 0 ? r : 0;
}

int store_put_capsule(Store *s, const CapsuleRow *row, bool durable, Fault *reterr) {
        return put(s, STORE_CAPSULES, row, durable, reterr);
}

int store_put_template(Store *s, const TemplateRow *row, bool durable, Fault *reterr) {
        return put(s, STORE_TEMPLATES, row, durable, reterr);
}

int store_put_key(Store *s, const KeyRow *row, bool durable, Fault *reterr) {
        return put(s, STORE_KEYS, row, durable, reterr);
}

int store_delete_capsule(Store *s, const char *id, bool durable, Fault *reterr) {
        return erase(s, STORE_CAPSULES, id, durable, reterr);
}

int store_delete_template(Store *s, const char *id, bool durable, Fault *reterr) {
        return erase(s, STORE_TEMPLATES, id, durable, reterr);
}

int store_delete_key(Store *s, const char *id, bool durable, Fault *reterr) {
        return erase(s, STORE_KEYS, id, durable, reterr);
}

/* The handler travels by the address of the caller's variable: a function pointer is no void pointer. */
static int on_capsule_row(const void *row, void *handler, void *userdata) {
        return (*(StoreCapsuleHandler *) handler)(row, userdata);
}

static int on_template_row(const void *row, void *handler, void *userdata) {
        return (*(StoreTemplateHandler *) handler)(row, userdata);
}

static int on_key_row(const void *row, void *handler, void *userdata) {
        return (*(StoreKeyHandler *) handler)(row, userdata);
}

int store_load_capsules(Store *s, StoreCapsuleHandler handler, void *userdata, Fault *reterr) {
        CapsuleRow row = {};

        return load(s, STORE_CAPSULES, &row, on_capsule_row, &handler, userdata, reterr);
}

int store_load_templates(Store *s, StoreTemplateHandler handler, void *userdata, Fault *reterr) {
        TemplateRow row = {};

        return load(s, STORE_TEMPLATES, &row, on_template_row, &handler, userdata, reterr);
}

int store_load_keys(Store *s, StoreKeyHandler handler, void *userdata, Fault *reterr) {
        KeyRow row = {};

        return load(s, STORE_KEYS, &row, on_key_row, &handler, userdata, reterr);
}

int store_begin(Store *s, bool durable, Fault *reterr) {
        int r;

        assert(!s->in_transaction);
        r = set_durable(s, durable, reterr);
        if (r >= 0)
                r = run(s, "BEGIN IMMEDIATE", reterr);
        if (r >= 0)
                s->in_transaction = true;
        return r;
}

int store_commit(Store *s, Fault *reterr) {
        int r = run(s, "COMMIT", reterr);

        if (r >= 0)
                s->in_transaction = false;
        else
                store_rollback(s);
        return r;
}

void store_rollback(Store *s) {
        if (!s->in_transaction)
                return;
        (void) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        s->in_transaction = false;
}
