/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/random.h>

#include "basic/hashmap.h"

#define BUCKETS_MIN 16U

typedef struct Bucket {
        const char *key; /* NULL: free; &tombstone: was used, go on searching */
        void *value;
        uint64_t hash;
} Bucket;

struct Hashmap {
        Bucket *buckets;
        size_t n_buckets; /* power of two */
        size_t n_entries;
        size_t n_used; /* entries and tombstones */
        uint64_t seed;
};

static const char tombstone[] = "";

static bool bucket_is_live(const Bucket *b) {
        return b->key && b->key != tombstone;
}

/* FNV-1a over a random start, mixed at the end (murmur3's finalizer constants). */
static uint64_t hash_string(uint64_t seed, const char *s) {
        uint64_t h = UINT64_C(0xcbf29ce484222325) ^ seed;

        for (; *s; s++)
                h = (h ^ (uint8_t) *s) * UINT64_C(0x100000001b3);

        h ^= h >> 33;
        h *= UINT64_C(0xff51afd7ed558ccd);
        return h ^ (h >> 33);
}

Hashmap* hashmap_new(void) {
        Hashmap *h = malloc(sizeof(Hashmap));

        if (!h)
                return NULL;

        *h = (Hashmap) {};
        if (getrandom(&h->seed, sizeof(h->seed), GRND_NONBLOCK) < 0)
                h->seed = (uintptr_t) h;
        return h;
}

Hashmap* hashmap_free(Hashmap *h) {
        if (!h)
                return NULL;

        free(h->buckets);
        free(h);
        return NULL;
}

static Bucket* find(const Hashmap *h, const char *key, uint64_t hash) {
        if (h->n_buckets == 0)
                return NULL;

        for (size_t i = hash & (h->n_buckets - 1);; i = (i + 1) & (h->n_buckets - 1)) {
                Bucket *b = h->buckets + i;

                if (!b->key)
                        return NULL;
                if (b->key != tombstone && b->hash == hash && strcmp(b->key, key) == 0)
                        return b;
        }
}

static void place(Hashmap *h, const char *key, void *value, uint64_t hash) {
        size_t i = hash & (h->n_buckets - 1);

        while (h->buckets[i].key)
                i = (i + 1) & (h->n_buckets - 1);

        h->buckets[i] = (Bucket) { .key = key, .value = value, .hash = hash };
        h->n_entries++;
        h->n_used++;
}

/* Keeps at least a quarter of the buckets free, so that every search ends. */
static int make_room(Hashmap *h) {
        size_t n_old = h->n_buckets, n = BUCKETS_MIN;
        Bucket *old = h->buckets;

        if ((h->n_used + 1) * 4 <= h->n_buckets * 3)
                return 0;

        while (n < (h->n_entries + 1) * 2)
                n *= 2;

        h->buckets = calloc(n, sizeof(Bucket));
        if (!h->buckets) {
                h->buckets = old;
                return -ENOMEM;
        }

        h->n_buckets = n;
        h->n_entries = h->n_used = 0;
        for (size_t i = 0; i < n_old; i++)
                if (bucket_is_live(old + i))
                        place(h, old[i].key, old[i].value, old[i].hash);
        free(old);
        return 0;
}

int hashmap_put(Hashmap *h, const char *key, void *value) {
        uint64_t hash = hash_string(h->seed, key);
        int r;

        assert(value);

        if (find(h, key, hash))
                return -EEXIST;

        r = make_room(h);
        if (r < 0)
                return r;

        place(h, key, value, hash);
        return 0;
}

void* hashmap_get(const Hashmap *h, const char *key) {
        Bucket *b;

        if (!h || !key)
                return NULL;

        b = find(h, key, hash_string(h->seed, key));
        return b ? b->value : NULL;
}

void* hashmap_remove(Hashmap *h, const char *key) {
        Bucket *b;

        if (!h || !key)
                return NULL;

        b = find(h, key, hash_string(h->seed, key));
        if (!b)
                return NULL;

        b->key = tombstone;
        h->n_entries--;
        return TAKE_PTR(b->value);
}

size_t hashmap_size(const Hashmap *h) {
        return h ? h->n_entries : 0;
}

void* hashmap_first(const Hashmap *h) {
        size_t cursor = 0;

        return hashmap_next(h, &cursor);
}

void* hashmap_next(const Hashmap *h, size_t *cursor) {
        while (h && *cursor < h->n_buckets) {
                const Bucket *b = h->buckets + (*cursor)++;

                if (bucket_is_live(b))
                        return b->value;
        }

        return NULL;
}
