/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Network slots and what they are made of. Each test has a network namespace of its own as "the host". */

#include <arpa/inet.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "daemon/host/flow.h"
#include "daemon/host/link.h"
#include "daemon/host/netns.h"
#include "daemon/host/nft.h"
#include "daemon/host/slot.h"
#include "tests/unit/test.h"

typedef struct Place {
        int home_fd;
        int netns_fd;
        sd_event *event;
        LinkSocket *links;
} Place;

static void place_done(Place *p) {
        link_socket_free(p->links);
        sd_event_unref(p->event);
        if (p->netns_fd >= 0)
                netns_return(p->home_fd);
        close_fd(p->netns_fd);
        close_fd(p->home_fd);
}

static Place place_new(void) {
        Place p = { .home_fd = netns_open_own() };

        if (geteuid() != 0)
                skip();
        p.netns_fd = netns_enter_new();
        ASSERT_TRUE(p.netns_fd >= 0);
        ASSERT_OK(sd_event_new(&p.event));
        ASSERT_OK(link_socket_new(&p.links));
        return p;
}

static ino_t netns_inode(void) {
        _cleanup_close_ int fd = netns_open_own();
        struct stat st;

        ASSERT_OK(fstat(fd, &st));
        return st.st_ino;
}

static struct in_addr address(const char *text) {
        struct in_addr a;

        ASSERT_EQ(inet_pton(AF_INET, text, &a), 1);
        return a;
}

static SlotPool* pool_new(Place *place, const SlotPoolConfig *c) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        SlotPool *p = NULL;

        if (slot_pool_new(place->event, c, &p, &fault) < 0)
                fail_msg("%s", fault.message);
        return p;
}

static void run_until_idle(Place *place) {
        int r;

        while ((r = sd_event_run(place->event, 0)) > 0)
                ;
        ASSERT_OK(r);
}

static int count_links(unsigned number, unsigned ifindex, void *userdata) {
        unsigned *n = userdata;

        (*n)++;
        return 0;
}

static unsigned n_links(Place *place) {
        unsigned n = 0;

        ASSERT_OK(link_foreach_numbered(place->links, SLOT_HOST_LINK_PREFIX, count_links, &n));
        return n;
}

TEST(netns_returns) {
        ino_t before = netns_inode();
        Place place = place_new();

        ASSERT_TRUE(netns_inode() != before);
        place_done(&place);
        ASSERT_EQ(netns_inode(), before);
        ASSERT_EQ(netns_enter(-EBADF), -EBADF);
        ASSERT_EQ(netns_inode(), before);
}

TEST(links) {
        _cleanup_(place_done) Place place = place_new();
        static const LinkSettings up = {
                .mac = "06:00:00:00:00:05", .up = true, .forward = true, .strict = true, .no_ipv6 = true
        };
        unsigned ifindex, again;

        ASSERT_EQ(link_find(place.links, "d0", &ifindex), -ENODEV);
        ASSERT_OK(link_add_dummy(place.links, "d0"));
        ASSERT_EQ(link_add_dummy(place.links, "d0"), -EEXIST);
        ASSERT_OK(link_find(place.links, "d0", &ifindex));
        ASSERT_OK(link_add_address(place.links, ifindex, address("192.0.2.1"), 24));
        ASSERT_OK(link_add_address(place.links, ifindex, address("192.0.2.1"), 24));
        ASSERT_OK(link_add_address(place.links, ifindex, address("192.0.2.2"), 24));
        ASSERT_OK(link_remove_other_addresses(place.links, ifindex, address("192.0.2.2")));
        ASSERT_EQ(link_add_default_route(place.links, ifindex, address("198.51.100.1")), -EIO);
        ASSERT_OK(link_set(place.links, ifindex, &up));
        ASSERT_OK(link_add_veth(place.links, "wv-7", 77, "peer", place.netns_fd));
        ASSERT_EQ(link_add_veth(place.links, "other", 0, "wv-7", place.netns_fd), -EEXIST);
        ASSERT_EQ(link_find(place.links, "other", &again), -ENODEV);
        ASSERT_OK(link_add_veth(place.links, "wv-x", 0, "peer2", place.netns_fd));
        ASSERT_OK(link_add_dummy(place.links, "wv-9")); /* no veth: not ours */
        ASSERT_EQ(n_links(&place), 1);
        ASSERT_OK(link_find(place.links, "wv-7", &ifindex));
        ASSERT_EQ(ifindex, 77);
        ASSERT_OK(link_remove(place.links, ifindex));
        ASSERT_EQ(link_remove(place.links, ifindex), -ENODEV);
        ASSERT_EQ(n_links(&place), 0);
}

TEST(tap) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_close_ int fd = tap_open("tap0", 0), second = tap_open("tap0", 0),
                            long_name = tap_open("a-name-too-long-", 0);
        unsigned ifindex;

        ASSERT_TRUE(fd >= 0);
        ASSERT_EQ(second, -EBUSY);
        ASSERT_EQ(long_name, -EINVAL);
        ASSERT_OK(link_find(place.links, "tap0", &ifindex));
        fd = close_fd(fd);
        ASSERT_EQ(link_find(place.links, "tap0", &ifindex), -ENODEV);
}

TEST(rules) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(fault_done) Fault fault = FAULT_NULL, second = FAULT_NULL;
        static const NftAddresses good = { "10.11.0.0/16", "10.11.0.1" },
                                  bad = { "10.11.0.0/16", "nonsense address" };
        _cleanup_close_ int tap = -EBADF;

        ASSERT_OK(nft_apply_host(&good, &fault));
        ASSERT_OK(nft_apply_host(&good, &fault));
        ASSERT_EQ(nft_apply_host(&bad, &fault), -EIO);
        ASSERT_EQ(fault.code, FAULT_INTERNAL);
        tap = tap_open("tap0", 0);
        ASSERT_EQ(nft_apply_slot(&good, "no address", "up0", &second), -EIO);
        ASSERT_OK(nft_apply_slot(&good, "10.11.0.3", "up0", NULL));
}

TEST(flows) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(flow_socket_freep) FlowSocket *s = NULL;

        ASSERT_OK(flow_socket_new(&s));
        ASSERT_EQ(flow_forget(s, address("192.0.2.1")), 0); /* the table is empty */
        ASSERT_EQ(flow_forget(s, address("192.0.2.1")), 0);
        ASSERT_NULL(flow_socket_free(NULL));
}

TEST(config) {
        static const struct {
                SlotPoolConfig config;
                int r;
        } cases[] = {
                { { .address_pool = "10.11.0.0/16" }, 0 },
                { { .address_pool = "10.11.1.0/24" }, 0 },
                { { .address_pool = "10.0.0.0/8", .n_max = 5 }, 0 },
                { {}, 0 },
                { { .address_pool = "" }, -EINVAL },
                { { .address_pool = "10.11.0.0" }, -EINVAL },
                { { .address_pool = "10.11.0.1/16" }, -EINVAL },
                { { .address_pool = "10.11.0.0/25" }, -EINVAL },
                { { .address_pool = "10.0.0.0/7" }, -EINVAL },
                { { .address_pool = "10.11.0.0/16/16" }, -EINVAL },
                { { .address_pool = "10.11.0.0; flush ruleset/16" }, -EINVAL },
                { { .address_pool = "fd00::/8" }, -EINVAL },
                { { .n_ready = SLOTS_READY_MAX }, 0 },
                { { .n_ready = SLOTS_READY_MAX + 1 }, -EINVAL },
        };
        _cleanup_(place_done) Place place = place_new();

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(slot_pool_freep) SlotPool *p = NULL;
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                ASSERT_EQ(slot_pool_new(place.event, &cases[i].config, &p, &fault), cases[i].r);
                ASSERT_EQ(fault.code, cases[i].r < 0 ? FAULT_INVALID_ARGS : FAULT_NONE);
        }
}

TEST(claim_and_release) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(slot_pool_freep)
                        SlotPool *p = pool_new(&place, &(SlotPoolConfig) { .n_ready = 2, .n_max = 6 });
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Slot *slots[6] = {}, *none = NULL;
        unsigned index, dns;
        ino_t before = netns_inode();
        int tap;

        ASSERT_STREQ(slot_pool_dns_address(p), "10.11.0.1");
        ASSERT_OK(link_find(place.links, SLOT_DNS_LINK, &dns));
        ASSERT_OK(slot_pool_start(p, &fault));
        run_until_idle(&place);
        ASSERT_EQ(slot_pool_n_ready(p), 2);
        ASSERT_EQ(n_links(&place), 2);

        /* all that there are: two ready, four made at once */
        for (size_t i = 0; i < ELEMENTSOF(slots); i++) {
                struct in_addr a;

                ASSERT_OK(slot_pool_claim(p, &slots[i], &fault));
                ASSERT_TRUE(slot_index(slots[i]) >= 1 && slot_index(slots[i]) <= 6);
                ASSERT_EQ(inet_pton(AF_INET, slot_address(slots[i]), &a), 1);
                ASSERT_EQ(ntohl(a.s_addr), 0x0a0b0000 + 2 * slot_index(slots[i]) + 1);
                ASSERT_TRUE(slot_netns_fd(slots[i]) >= 0);
        }
        ASSERT_EQ(netns_inode(), before);
        ASSERT_EQ(slot_pool_n_used(p), 6);
        ASSERT_EQ(slot_pool_claim(p, &none, &fault), -EAGAIN);
        ASSERT_EQ(fault.code, FAULT_NO_CAPACITY);
        ASSERT_NULL(none);

        /* nobody took the tap: as new */
        index = slot_index(slots[5]);
        slots[5] = slot_release(slots[5]);
        ASSERT_EQ(slot_pool_n_ready(p), 1);
        ASSERT_OK(slot_pool_claim(p, &slots[5], NULL));
        ASSERT_EQ(slot_index(slots[5]), index);

        /* somebody took it: quarantine, and nothing else is free */
        tap = slot_take_tap_fd(slots[5]);
        ASSERT_TRUE(tap >= 0);
        ASSERT_EQ(slot_take_tap_fd(slots[5]), -EBADF);
        close_fd(tap);
        slots[5] = slot_release(slots[5]);
        ASSERT_EQ(slot_pool_n_ready(p), 0);
        ASSERT_EQ(slot_pool_n_used(p), 5);
        ASSERT_EQ(slot_pool_claim(p, &none, NULL), -EAGAIN);

        for (size_t i = 0; i < 5; i++)
                slots[i] = slot_release(slots[i]);
        ASSERT_NULL(slot_release(NULL));
        ASSERT_NULL(slot_pool_free(NULL));
}

TEST(one_too_many) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(slot_pool_freep) SlotPool *p = pool_new(&place, &(SlotPoolConfig) { .n_ready = 1 });
        Slot *s = NULL;

        ASSERT_OK(slot_pool_start(p, NULL));
        run_until_idle(&place);
        ASSERT_OK(slot_pool_claim(p, &s, NULL));
        run_until_idle(&place);
        ASSERT_EQ(slot_pool_n_ready(p), 1);
        s = slot_release(s);
        ASSERT_EQ(slot_pool_n_ready(p), 2);
        run_until_idle(&place);
        ASSERT_EQ(slot_pool_n_ready(p), 1);
}

TEST(adoption) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(slot_pool_freep) SlotPool *p = NULL;
        _cleanup_close_ int living = -EBADF, orphan = -EBADF;
        Slot *a = NULL, *b = NULL;
        unsigned index;

        /* two slots whose namespaces outlive their pool, as monitors make them do */
        p = pool_new(&place, &(SlotPoolConfig) { .n_max = 100 });
        ASSERT_OK(slot_pool_claim(p, &a, NULL));
        ASSERT_OK(slot_pool_claim(p, &b, NULL));
        living = dup(slot_netns_fd(a));
        orphan = dup(slot_netns_fd(b));
        index = slot_index(a);
        close_fd(slot_take_tap_fd(a));
        close_fd(slot_take_tap_fd(b));
        a = slot_release(a);
        b = slot_release(b);
        p = slot_pool_free(p);
        ASSERT_EQ(n_links(&place), 2);

        p = pool_new(&place, &(SlotPoolConfig) { .n_max = 100 });
        ASSERT_EQ(slot_pool_adopt(p, 0, &a), -EINVAL);
        ASSERT_EQ(slot_pool_adopt(p, 101, &a), -EINVAL);
        ASSERT_EQ(slot_pool_adopt(p, index > 50 ? index - 10 : index + 10, &a), -ENODEV);
        ASSERT_OK(slot_pool_adopt(p, index, &a));
        ASSERT_EQ(slot_pool_adopt(p, index, &b), -EEXIST);
        ASSERT_EQ(slot_netns_fd(a), -EBADF);
        ASSERT_EQ(slot_take_tap_fd(a), -EBADF);
        ASSERT_EQ(slot_pool_n_used(p), 1);

        ASSERT_OK(slot_pool_start(p, NULL));
        run_until_idle(&place);
        ASSERT_EQ(n_links(&place), 1);
        a = slot_release(a);
        ASSERT_EQ(slot_pool_n_ready(p), 0);
}

TEST(names_of_the_dead) {
        _cleanup_(place_done) Place place = place_new();
        _cleanup_(slot_pool_freep) SlotPool *p = pool_new(&place, &(SlotPoolConfig) { .n_max = 3 });
        Slot *s = NULL;

        /* links that a dying namespace has not given up yet: their indices are passed over */
        ASSERT_OK(link_add_veth(place.links, "wv-1", 0, "x1", place.netns_fd));
        ASSERT_OK(link_add_veth(place.links, "wv-3", 0, "x3", place.netns_fd));
        ASSERT_OK(slot_pool_claim(p, &s, NULL));
        ASSERT_EQ(slot_index(s), 2);
        s = slot_release(s);
}
