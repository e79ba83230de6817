/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/peer.h"
#include "tests/unit/test.h"

TEST(one_peer_for_one_uid) {
        _cleanup_(peer_table_freep) PeerTable *t = NULL;
        char name[PEER_NAME_LEN], expected[PEER_NAME_LEN];
        int pair[2];
        Peer *a, *b;

        ASSERT_OK(peer_table_new(&t));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        ASSERT_OK(peer_acquire(t, pair[0], 1, &a));
        ASSERT_OK(peer_acquire(t, pair[1], 2, &b));
        ASSERT_PTR(a, b);
        ASSERT_EQ(a->n_connections, 2);
        ASSERT_TRUE(a->local);
        ASSERT_EQ(a->root, getuid() == 0);
        (void) snprintf(expected, sizeof(expected), "uid %u", (unsigned) getuid());
        ASSERT_STREQ(peer_format(a, name), expected);
        peer_release(a);
        peer_release(b);
        ASSERT_EQ(b->n_connections, 0);
        close_many(pair, 2);
}

TEST(failures_are_rationed) {
        _cleanup_(peer_table_freep) PeerTable *t = NULL;
        uint64_t now = 1000 * USEC_PER_SEC;
        int pair[2];
        Peer *p;

        ASSERT_OK(peer_table_new(&t));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        ASSERT_OK(peer_acquire(t, pair[0], now, &p));
        for (unsigned i = 0; i < HTTP_AUTH_FAILURES_BURST; i++)
                ASSERT_TRUE(peer_take_failure(p, now));
        ASSERT_FALSE(peer_take_failure(p, now));
        peer_give_back(p);
        ASSERT_TRUE(peer_take_failure(p, now));
        ASSERT_FALSE(peer_take_failure(p, now));

        now += USEC_PER_SEC;
        for (unsigned i = 0; i < HTTP_AUTH_FAILURES_PER_SEC; i++)
                ASSERT_TRUE(peer_take_failure(p, now));
        ASSERT_FALSE(peer_take_failure(p, now));

        now += 3600 * USEC_PER_SEC;
        for (unsigned i = 0; i < HTTP_AUTH_FAILURES_BURST; i++)
                ASSERT_TRUE(peer_take_failure(p, now));
        ASSERT_FALSE(peer_take_failure(p, now));
        peer_release(p);
        close_many(pair, 2);
}
