/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What must be known after a restart: capsule records, templates, keys. SQLite in WAL mode; its version is
 * in user_version; an older file is brought up to date, a newer one is refused and left alone. A write with
 * durable=true has been fsynced when it returns, others reach the disk with the next one (architecture
 * decision 13). Synchronous; sqlite3.h is included by store*.c only.
 */

#include "basic/fault.h"
#include "basic/macro.h"

#define STORE_VERSION 2

typedef struct Store Store;

/* Opens or makes the database. -EPROTONOSUPPORT with a fault for a newer or foreign file; -EIO, -ENOSPC. */
int store_open(const char *path, Store **ret, Fault *reterr);
Store* store_close(Store *s);
DEFINE_CLEANUP(Store, store_close)

/* One row each. Strings are borrowed: by the store while it writes, by the callback while it reads. NULL is
 * "". */
typedef struct CapsuleRow {
        const char *id;
        const char *name;
        const char *template;    /* name given at create */
        const char *template_id; /* directory below templates/ */
        const char *team;
        const char *key_id;
        const char *labels; /* JSON object */
        const char *state;  /* name of a CapsuleState */
        const char *reason; /* name of an EndReason */
        const char *message;
        const char *boot_id; /* of the host when it was started */
        const char *accelerator;
        uint64_t owner_uid;
        uint64_t uid;        /* of the jail, 0: none */
        uint64_t slot_index; /* 0: none */
        uint64_t vcpus;
        uint64_t memory_bytes;
        uint64_t disk_bytes;
        uint64_t timeout_usec;
        uint64_t created_usec; /* CLOCK_REALTIME, as all below */
        uint64_t started_usec;
        uint64_t active_usec;
        uint64_t updated_usec;
} CapsuleRow;

typedef struct TemplateRow {
        const char *id; /* random, names the directory */
        const char *name;
        const char *type;   /* "base" or "snapshot" */
        const char *team;   /* "": everybody's */
        const char *digest; /* sha256 of rootfs.erofs, hex */
        const char *default_user;
        const char *env;   /* JSON object */
        uint64_t platform; /* 1: from templates.d */
        uint64_t hidden;   /* 1: removed or replaced, kept for its users */
        uint64_t size_bytes;
        uint64_t created_usec;
        uint64_t default_vcpus; /* 0: the configuration's, as the next */
        uint64_t default_memory_bytes;
        const char *aliases; /* separated by blanks */
} TemplateRow;

typedef struct KeyRow {
        const char *id;
        const char *name;
        const char *team;
        const char *prefix; /* first characters of the secret, for display */
        const char *sha256; /* hex of the hash of the whole secret */
        const char *default_template;
        const char *scopes; /* separated by blanks */
        uint64_t created_usec;
        uint64_t last_used_usec;
        const char *pty_framing; /* name of a PtyFraming, "": none seen */
} KeyRow;

/* Called for each row; < 0 stops and is returned. */
typedef int (*StoreCapsuleHandler)(const CapsuleRow *row, void *userdata);
typedef int (*StoreTemplateHandler)(const TemplateRow *row, void *userdata);
typedef int (*StoreKeyHandler)(const KeyRow *row, void *userdata);

/* Insert or replace by id. 0, -ENOSPC, -EIO. */
int store_put_capsule(Store *s, const CapsuleRow *row, bool durable, Fault *reterr);
int store_put_template(Store *s, const TemplateRow *row, bool durable, Fault *reterr);
int store_put_key(Store *s, const KeyRow *row, bool durable, Fault *reterr);

/* An absent row is fine. 0, -ENOSPC, -EIO. */
int store_delete_capsule(Store *s, const char *id, bool durable, Fault *reterr);
int store_delete_template(Store *s, const char *id, bool durable, Fault *reterr);
int store_delete_key(Store *s, const char *id, bool durable, Fault *reterr);

/* Every row, oldest first. */
int store_load_capsules(Store *s, StoreCapsuleHandler handler, void *userdata, Fault *reterr);
int store_load_templates(Store *s, StoreTemplateHandler handler, void *userdata, Fault *reterr);
int store_load_keys(Store *s, StoreKeyHandler handler, void *userdata, Fault *reterr);

/* Several writes as one: all or nothing. begin and commit must be paired; rollback is for the error path. */
int store_begin(Store *s, bool durable, Fault *reterr);
int store_commit(Store *s, Fault *reterr);
void store_rollback(Store *s);
