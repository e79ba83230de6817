/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/hashmap.h"
#include "basic/strings.h"
#include "test.h"

TEST(put_get_remove) {
        _cleanup_(hashmap_freep) Hashmap *h = hashmap_new();
        int a, b;

        ASSERT_NOT_NULL(h);
        ASSERT_EQ(hashmap_size(h), 0);
        ASSERT_NULL(hashmap_get(h, "a"));
        ASSERT_NULL(hashmap_first(h));

        ASSERT_EQ(hashmap_put(h, "a", &a), 0);
        ASSERT_EQ(hashmap_put(h, "a", &b), -EEXIST);
        ASSERT_EQ(hashmap_put(h, "", &b), 0);
        ASSERT_PTR(hashmap_get(h, "a"), &a);
        ASSERT_PTR(hashmap_get(h, ""), &b);
        ASSERT_EQ(hashmap_size(h), 2);

        ASSERT_PTR(hashmap_remove(h, "a"), &a);
        ASSERT_NULL(hashmap_remove(h, "a"));
        ASSERT_NULL(hashmap_get(h, "a"));
        ASSERT_EQ(hashmap_put(h, "a", &b), 0);
        ASSERT_PTR(hashmap_get(h, "a"), &b);
}

TEST(null_is_empty) {
        ASSERT_EQ(hashmap_size(NULL), 0);
        ASSERT_NULL(hashmap_get(NULL, "a"));
        ASSERT_NULL(hashmap_remove(NULL, "a"));
        ASSERT_NULL(hashmap_first(NULL));
        ASSERT_NULL(hashmap_free(NULL));
}

TEST(grows_and_forgets_tombstones) {
        _cleanup_(hashmap_freep) Hashmap *h = hashmap_new();
        static char keys[5000][16];

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                (void) snprintf(keys[i], sizeof(keys[i]), "key-%zu", i);

        for (unsigned round = 0; round < 3; round++) {
                for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                        ASSERT_EQ(hashmap_put(h, keys[i], keys[i]), 0);
                ASSERT_EQ(hashmap_size(h), ELEMENTSOF(keys));
                for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                        ASSERT_PTR(hashmap_get(h, keys[i]), keys[i]);
                for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                        ASSERT_PTR(hashmap_remove(h, keys[i]), keys[i]);
                ASSERT_EQ(hashmap_size(h), 0);
        }
}

TEST(walk_may_remove) {
        _cleanup_(hashmap_freep) Hashmap *h = hashmap_new();
        static char keys[100][8];
        char *v;
        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                (void) snprintf(keys[i], sizeof(keys[i]), "%zu", i);
                ASSERT_EQ(hashmap_put(h, keys[i], keys[i]), 0);
        }

        HASHMAP_FOREACH(v, h) {
                n++;
                ASSERT_PTR(hashmap_remove(h, v), v);
        }
        ASSERT_EQ(n, ELEMENTSOF(keys));
        ASSERT_EQ(hashmap_size(h), 0);
}
