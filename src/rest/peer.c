/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "basic/limits.h"
#include "rest/peer.h"

#define PEER_BUCKETS 256U

struct PeerTable {
        Peer *buckets[PEER_BUCKETS];
        unsigned n_peers;
};

int peer_table_new(PeerTable **ret) {
        PeerTable *t = calloc(1, sizeof(PeerTable));

        if (!t)
                return -ENOMEM;
        *ret = t;
        return 0;
}

PeerTable* peer_table_free(PeerTable *t) {
        if (!t)
                return NULL;

        for (size_t i = 0; i < PEER_BUCKETS; i++)
                while (t->buckets[i]) {
                        Peer *p = t->buckets[i];

                        t->buckets[i] = p->next;
                        free(p);
                }
        free(t);
        return NULL;
}

static void identify_ipv4(const struct in_addr *a, Peer *ret) {
        ret->kind = PEER_IPV4;
        memcpy(ret->address, a, sizeof(*a));
        ret->local = ret->address[0] == 127;
}

static int peer_identify(int fd, Peer *ret) {
        struct sockaddr_storage address = {};
        socklen_t n = sizeof(address);

        if (getpeername(fd, (struct sockaddr *) &address, &n) < 0)
                return -errno;

        if (address.ss_family == AF_INET) {
                identify_ipv4(&((struct sockaddr_in *) &address)->sin_addr, ret);
        } else if (address.ss_family == AF_INET6) {
                const struct in6_addr *a = &((struct sockaddr_in6 *) &address)->sin6_addr;

                if (IN6_IS_ADDR_V4MAPPED(a)) {
                        identify_ipv4((const struct in_addr *) (a->s6_addr + 12), ret);
                        return 0;
                }
                ret->kind = PEER_IPV6;
                ret->local = IN6_IS_ADDR_LOOPBACK(a);
                memcpy(ret->address, a, ret->local ? 16 : 8);
        } else {
                struct ucred cred;

                n = sizeof(cred);
                if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
                        return -errno;
                ret->kind = PEER_UNIX;
                ret->local = true;
                ret->root = cred.uid == 0;
                memcpy(ret->address, &cred.uid, sizeof(cred.uid));
        }
        return 0;
}

static Peer** bucket_of(PeerTable *t, const Peer *id) {
        unsigned h = id->kind;

        for (size_t i = 0; i < sizeof(id->address); i++)
                h = h * 31 + id->address[i];
        return &t->buckets[h % PEER_BUCKETS];
}

/* Forgets the peer that has been without connections for longest. */
static void table_make_room(PeerTable *t) {
        Peer **oldest = NULL, *p;

        for (size_t i = 0; i < PEER_BUCKETS; i++)
                for (Peer **q = &t->buckets[i]; *q; q = &(*q)->next)
                        if ((*q)->n_connections == 0 && (!oldest || (*q)->used_usec < (*oldest)->used_usec))
                                oldest = q;
        if (!oldest)
                return;

        p = *oldest;
        *oldest = p->next;
        free(p);
        t->n_peers--;
}

int peer_acquire(PeerTable *t, int fd, uint64_t usec, Peer **ret) {
        Peer id = {}, **bucket, *p;
        int r;

        r = peer_identify(fd, &id);
        if (r < 0)
                return r;

        bucket = bucket_of(t, &id);
        for (p = *bucket; p; p = p->next)
                if (p->kind == id.kind && memcmp(p->address, id.address, sizeof(id.address)) == 0)
                        break;
        if (!p) {
                if (t->n_peers >= HTTP_PEERS_MAX)
                        table_make_room(t);
                p = malloc(sizeof(Peer));
                if (!p)
                        return -ENOMEM;
                *p = id;
                p->table = t;
                p->tokens = HTTP_AUTH_FAILURES_BURST * 1000;
                p->tokens_usec = usec;
                p->next = *bucket_of(t, &id);
                *bucket_of(t, &id) = p;
                t->n_peers++;
        }

        p->n_connections++;
        p->used_usec = usec;
        *ret = p;
        return 0;
}

Peer* peer_release(Peer *p) {
        if (p) {
                assert(p->n_connections > 0);
                p->n_connections--;
        }
        return NULL;
}

static void peer_refill(Peer *p, uint64_t usec) {
        uint64_t passed = usec > p->tokens_usec ? MIN(usec - p->tokens_usec, 3600 * USEC_PER_SEC) : 0;

        p->tokens = MIN(p->tokens + passed * HTTP_AUTH_FAILURES_PER_SEC / 1000,
                        (uint64_t) HTTP_AUTH_FAILURES_BURST * 1000);
        p->tokens_usec = usec;
}

bool peer_take_failure(Peer *p, uint64_t usec) {
        peer_refill(p, usec);
        if (p->tokens < 1000)
                return false;
        p->tokens -= 1000;
        return true;
}

void peer_give_back(Peer *p) {
        p->tokens = MIN(p->tokens + 1000, (uint64_t) HTTP_AUTH_FAILURES_BURST * 1000);
}

char* peer_format(const Peer *p, char buffer[static PEER_NAME_LEN]) {
        char text[INET6_ADDRSTRLEN] = "?";
        uid_t uid;

        switch (p->kind) {
        case PEER_UNIX:
                memcpy(&uid, p->address, sizeof(uid));
                (void) snprintf(buffer, PEER_NAME_LEN, "uid %u", (unsigned) uid);
                break;
        case PEER_IPV4:
                (void) inet_ntop(AF_INET, p->address, text, sizeof(text));
                (void) snprintf(buffer, PEER_NAME_LEN, "%s", text);
                break;
        case PEER_IPV6:
                (void) inet_ntop(AF_INET6, p->address, text, sizeof(text));
                (void) snprintf(buffer, PEER_NAME_LEN, "%s%s", text, p->local ? "" : "/64");
                break;
        }
        return buffer;
}
