/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * String-keyed hash table with open addressing. Keys are borrowed: they live in the values, which outlive
 * their entry. The hash is seeded per process, so that names chosen by clients cannot pile up in one place.
 */

#include "basic/macro.h"

typedef struct Hashmap Hashmap;

/* An empty table, or NULL on out of memory. */
Hashmap* hashmap_new(void);
/* Frees the table, not the values. Returns NULL. */
Hashmap* hashmap_free(Hashmap *h);
DEFINE_CLEANUP(Hashmap, hashmap_free)

/* 0; -EEXIST when the key is there already; -ENOMEM. */
int hashmap_put(Hashmap *h, const char *key, void *value);
/* The value or NULL. h and key may be NULL. */
void* hashmap_get(const Hashmap *h, const char *key);
/* Takes the entry out; its value or NULL. */
void* hashmap_remove(Hashmap *h, const char *key);
/* Number of entries; 0 for NULL. */
size_t hashmap_size(const Hashmap *h);
/* Some value, or NULL when empty: for tearing down with hashmap_remove(). */
void* hashmap_first(const Hashmap *h);

/*
 * Walks in no particular order. *cursor begins at 0. The current entry may be removed while walking, nothing
 * may be added. The next value, or NULL at the end.
 */
void* hashmap_next(const Hashmap *h, size_t *cursor);

#define HASHMAP_FOREACH(v, h) for (size_t cursor_##v = 0; ((v) = hashmap_next((h), &cursor_##v));)
