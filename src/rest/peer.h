/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is at the other end of a connection: an IPv4 address, an IPv6 /64, or a uid on the Unix socket. Counts
 * its connections and holds a bucket of failed authentications. The table is bounded; peers without
 * connections are forgotten, oldest first.
 */

#include <sys/socket.h>

#include "basic/macro.h"

typedef enum PeerKind {
        PEER_UNIX,
        PEER_IPV4,
        PEER_IPV6,
} PeerKind;

typedef struct Peer Peer;
typedef struct PeerTable PeerTable;

struct Peer {
        Peer *next;       /* in its hash bucket */
        PeerTable *table; /* weak */
        PeerKind kind;
        uint8_t address[16]; /* network order; of a uid: the uid */
        bool local; /* loopback or Unix socket: many people behind one address, counted per key instead */
        bool root;  /* uid 0 on the Unix socket */
        unsigned n_connections;
        uint64_t tokens;      /* failures left, in thousandths */
        uint64_t tokens_usec; /* when they were counted */
        uint64_t used_usec;
};

int peer_table_new(PeerTable **ret);
PeerTable* peer_table_free(PeerTable *t);
DEFINE_CLEANUP(PeerTable, peer_table_free)

/* The peer of an accepted socket, with n_connections counted up. 0, -errno of getpeername(2) or SO_PEERCRED,
 * -ENOMEM. */
int peer_acquire(PeerTable *t, int fd, uint64_t usec, Peer **ret);
Peer* peer_release(Peer *p);

/* Takes one failed authentication from the bucket; false when it is empty. usec: now, CLOCK_BOOTTIME. */
bool peer_take_failure(Peer *p, uint64_t usec);
/* It was none. */
void peer_give_back(Peer *p);

/* "127.0.0.1", "fe80::/64", "uid 1000" */
#define PEER_NAME_LEN 64U
char* peer_format(const Peer *p, char buffer[static PEER_NAME_LEN]);
