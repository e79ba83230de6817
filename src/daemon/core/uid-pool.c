/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <time.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "daemon/core/uid-pool.h"

/* A uid that cannot be given out now. Few enough for a plain array: the living ones and those of the last
 * minute. */
typedef struct Lease {
        uid_t uid;
        uint64_t free_usec; /* CLOCK_BOOTTIME; USEC_INFINITY while in use */
} Lease;

struct UidPool {
        uid_t first, last, next;
        Lease *leases;
        size_t n, n_allocated;
};

int uid_pool_new(uid_t first, uid_t last, UidPool **ret) {
        UidPool *p = malloc(sizeof(UidPool));

        assert(first <= last);
        if (!p)
                return -ENOMEM;

        *p = (UidPool) { .first = first, .last = last, .next = first };
        *ret = p;
        return 0;
}

UidPool* uid_pool_free(UidPool *p) {
        if (!p)
                return NULL;

        free(p->leases);
        free(p);
        return NULL;
}

static Lease* find(UidPool *p, uid_t uid) {
        for (size_t i = 0; i < p->n; i++)
                if (p->leases[i].uid == uid)
                        return p->leases + i;
        return NULL;
}

static void expire(UidPool *p) {
        uint64_t now = now_usec(CLOCK_BOOTTIME);
        size_t kept = 0;

        for (size_t i = 0; i < p->n; i++)
                if (p->leases[i].free_usec > now)
                        p->leases[kept++] = p->leases[i];
        p->n = kept;
}

static int add(UidPool *p, uid_t uid) {
        if (p->n == p->n_allocated) {
                size_t n = p->n_allocated * 2 + 16;
                Lease *leases = reallocarray(p->leases, n, sizeof(Lease));

                if (!leases)
                        return -ENOMEM;
                p->leases = leases;
                p->n_allocated = n;
        }

        p->leases[p->n++] = (Lease) { uid, USEC_INFINITY };
        return 0;
}

int uid_pool_claim(UidPool *p, uid_t *ret, Fault *reterr) {
        uint64_t n_range = (uint64_t) p->last - p->first + 1;
        uid_t uid = p->next;
        int r;

        expire(p);

        /* more leases than n_range are impossible within the range, so that this ends */
        for (uint64_t tried = 0; find(p, uid); tried++) {
                if (tried == n_range)
                        return fault_set(reterr, FAULT_NO_CAPACITY, "All user ids of UIDRange= are in use.");
                uid = uid == p->last ? p->first : uid + 1;
        }

        r = add(p, uid);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to reserve a user id");

        p->next = uid == p->last ? p->first : uid + 1;
        *ret = uid;
        return 0;
}

int uid_pool_adopt(UidPool *p, uid_t uid) {
        if (find(p, uid))
                return -EEXIST;
        return add(p, uid);
}

void uid_pool_release(UidPool *p, uid_t uid) {
        Lease *l = uid == 0 ? NULL : find(p, uid);

        if (l)
                l->free_usec = now_usec(CLOCK_BOOTTIME) + UID_QUARANTINE_USEC;
}

size_t uid_pool_n_used(const UidPool *p) {
        size_t n = 0;

        for (size_t i = 0; i < p->n; i++)
                n += p->leases[i].free_usec == USEC_INFINITY;
        return n;
}
