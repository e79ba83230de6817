/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The pool knows each index of its address range as free, in use (a ready slot or one that is out) or in
 * quarantine. Indices are handed out round robin from a random start, so that an address comes back as late
 * as possible, also over a restart. All slow work is done one piece per idle turn of the loop: removing
 * links nobody owns, making slots.
 *
 * Where time goes (measured): making a slot 2-4 ms; closing the last fd of a namespace some microseconds,
 * the kernel takes it down on a thread of its own; closing the last fd of a tap 15-70 ms, for RCU. Hence a
 * tap is never closed here on a request: it goes to the VMM, whose end closes it, or the slot is as new and
 * becomes ready again.
 */

#include <arpa/inet.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/random.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/flow.h"
#include "daemon/host/link.h"
#include "daemon/host/netns.h"
#include "daemon/host/nft.h"
#include "daemon/host/slot.h"
#include "shared/event.h"
#include "shared/protocol.h"

/* In a new namespace the numbers of links are ours to choose; "lo" is always the first. */
enum {
        IFINDEX_LO = 1,
        IFINDEX_UPLINK,
        IFINDEX_TAP,
};

#define UPLINK_IFNAME      "up0"              /* a slot's end of its veth */
#define ADDRESSES_PER_SLOT 2U                 /* a /31: the host's end, the slot's */
#define RETRY_USEC         (5 * USEC_PER_SEC) /* after a slot could not be made */
#define NAME_TRIES         64U /* indices tried when links of the dead still hold their names */

struct Slot {
        SlotPool *pool; /* weak: the pool outlives its slots (header) */
        Slot *next;     /* in pool->ready or pool->quarantine */
        unsigned index;
        int netns_fd;
        int tap_fd;
        uint64_t free_usec; /* in quarantine until then, CLOCK_BOOTTIME */
        bool has_flows;     /* in quarantine: the host may still track connections of its address */
        bool tap_taken;     /* or adopted: a guest has been in there */
        char address[INET_ADDRSTRLEN];
};

struct SlotPool {
        sd_event *event;
        sd_event_source *idle_source;
        sd_event_source *retry_source;
        LinkSocket *host_links;
        FlowSocket *host_flows; /* NULL: the kernel cannot */
        int host_netns_fd;
        uint32_t base; /* first address of the pool, host byte order */
        char pool_text[INET_ADDRSTRLEN + 4];
        char dns_text[INET_ADDRSTRLEN];
        unsigned n_wanted;
        unsigned n_max;
        unsigned cursor; /* last index given out */
        uint8_t *taken;  /* by index, 0 … n_max */
        Slot *ready;
        Slot *quarantine; /* oldest first */
        Slot **quarantine_tail;
        unsigned n_ready;
        unsigned n_used;
        unsigned *stale; /* links to remove: ifindex */
        size_t n_stale;
};

static struct in_addr pool_address(const SlotPool *p, unsigned offset) {
        return (struct in_addr) { .s_addr = htonl(p->base + offset) };
}

static struct in_addr slot_host_end(const Slot *s) {
        return pool_address(s->pool, ADDRESSES_PER_SLOT * s->index);
}

static struct in_addr slot_own_end(const Slot *s) {
        return pool_address(s->pool, ADDRESSES_PER_SLOT * s->index + 1);
}

static void slot_close(Slot *s) {
        s->netns_fd = close_fd(s->netns_fd);
        s->tap_fd = close_fd(s->tap_fd);
}

static Slot* slot_free(Slot *s) {
        if (!s)
                return NULL;

        slot_close(s);
        free(s);
        return NULL;
}

/* The index stays taken until SLOT_QUARANTINE_USEC have passed. */
static void slot_quarantine_consume(Slot *s) {
        SlotPool *p = s->pool;

        slot_close(s);
        s->free_usec = now_usec(CLOCK_BOOTTIME) + SLOT_QUARANTINE_USEC;
        s->next = NULL;
        *p->quarantine_tail = s;
        p->quarantine_tail = &s->next;
}

static void pool_expire_quarantine(SlotPool *p) {
        uint64_t now = now_usec(CLOCK_BOOTTIME);

        while (p->quarantine && p->quarantine->free_usec <= now) {
                Slot *s = p->quarantine;

                p->quarantine = s->next;
                if (!p->quarantine)
                        p->quarantine_tail = &p->quarantine;
                p->taken[s->index] = false;
                slot_free(s);
        }
}

static int slot_new(SlotPool *p, unsigned index, Slot **ret) {
        Slot *s;

        s = malloc(sizeof(Slot));
        if (!s)
                return -ENOMEM;

        *s = (Slot) { .pool = p, .index = index, .netns_fd = -EBADF, .tap_fd = -EBADF };
        (void) inet_ntop(AF_INET, &(struct in_addr) { slot_own_end(s).s_addr }, s->address,
                         sizeof(s->address));
        p->taken[index] = true;
        *ret = s;
        return 0;
}

/* -EAGAIN when none is free. */
static int pool_next_index(SlotPool *p, unsigned *ret) {
        pool_expire_quarantine(p);

        for (unsigned i = 0; i < p->n_max; i++) {
                p->cursor = p->cursor % p->n_max + 1;
                if (!p->taken[p->cursor]) {
                        *ret = p->cursor;
                        return 0;
                }
        }

        return -EAGAIN;
}

/* With the process in the slot's namespace. Rules stand before the first link is up. */
static int slot_build_inside(Slot *s, Fault *reterr) {
        static const LinkSettings loopback = { .up = true };
        static const LinkSettings router = { .up = true, .forward = true, .strict = true, .no_ipv6 = true };
        static const LinkSettings gateway_end = {
                .mac = GUEST_GATEWAY_MAC, .up = true, .forward = true, .strict = true, .no_ipv6 = true
        };
        const SlotPool *p = s->pool;
        _cleanup_(link_socket_freep) LinkSocket *links = NULL;
        char host_name[32];
        struct in_addr gateway;
        int r;

        (void) snprintf(host_name, sizeof(host_name), SLOT_HOST_LINK_PREFIX "%u", s->index);
        (void) inet_pton(AF_INET, GUEST_GATEWAY4, &gateway);

        r = link_socket_new(&links);
        if (r < 0)
                return r;

        r = link_add_veth(links, UPLINK_IFNAME, IFINDEX_UPLINK, host_name, p->host_netns_fd);
        if (r < 0)
                return r;

        s->tap_fd = tap_open(GUEST_TAP_IFNAME, IFINDEX_TAP);
        if (s->tap_fd < 0)
                return s->tap_fd;

        r = nft_apply_slot(&(NftAddresses) { p->pool_text, p->dns_text }, s->address, UPLINK_IFNAME, reterr);
        if (r < 0)
                return r;

        if ((r = link_add_address(links, IFINDEX_TAP, gateway, GUEST_PREFIXLEN4)) < 0 ||
            (r = link_add_address(links, IFINDEX_UPLINK, slot_own_end(s), 31)) < 0 ||
            (r = link_set(links, IFINDEX_LO, &loopback)) < 0 ||
            (r = link_set(links, IFINDEX_TAP, &gateway_end)) < 0 ||
            (r = link_set(links, IFINDEX_UPLINK, &router)) < 0)
                return r;

        return link_add_default_route(links, IFINDEX_UPLINK, slot_host_end(s));
}

static int slot_build_host_end(Slot *s) {
        static const LinkSettings settings = {
                .up = true, .forward = true, .strict = true, .no_ipv6 = true
        };
        LinkSocket *links = s->pool->host_links;
        char name[32];
        unsigned ifindex;
        int r;

        (void) snprintf(name, sizeof(name), SLOT_HOST_LINK_PREFIX "%u", s->index);
        r = link_find(links, name, &ifindex);
        if (r < 0)
                return r;

        r = link_add_address(links, ifindex, slot_host_end(s), 31);
        if (r < 0)
                return r;

        return link_set(links, ifindex, &settings);
}

static int slot_build(Slot *s, Fault *reterr) {
        int r;

        s->netns_fd = netns_enter_new();
        if (s->netns_fd < 0)
                return s->netns_fd;

        r = slot_build_inside(s, reterr);
        netns_return(s->pool->host_netns_fd);
        if (r < 0)
                return r;

        /* the uplink has no carrier before the host's end is up; its route is there already */
        return slot_build_host_end(s);
}

/* A new slot, in nobody's list. */
static int pool_make(SlotPool *p, Slot **ret, Fault *reterr) {
        int r;

        for (unsigned i = 0; i < NAME_TRIES; i++) {
                Slot *s;
                unsigned index;

                r = pool_next_index(p, &index);
                if (r < 0)
                        return fault_set(reterr, FAULT_NO_CAPACITY, "All %u network slots are in use.",
                                         p->n_max);

                r = slot_new(p, index, &s);
                if (r < 0)
                        return fault_set_errno(reterr, r, "Failed to make a network slot");

                r = slot_build(s, reterr);
                if (r >= 0) {
                        *ret = s;
                        return 0;
                }

                slot_quarantine_consume(s);
                if (r != -EEXIST)
                        return fault_set_errno(reterr, r, "Failed to make a network slot");
        }

        return fault_set(reterr, FAULT_NO_CAPACITY, "Links of former network slots have not gone yet.");
}

static void pool_push_ready(SlotPool *p, Slot *s) {
        s->next = p->ready;
        p->ready = s;
        p->n_ready++;
}

static Slot* pool_pop_ready(SlotPool *p) {
        Slot *s = p->ready;

        if (s) {
                p->ready = s->next;
                s->next = NULL;
                p->n_ready--;
        }
        return s;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata);

static Slot* pool_find_flows(SlotPool *p) {
        for (Slot *s = p->quarantine; s; s = s->next)
                if (s->has_flows)
                        return s;
        return NULL;
}

static void slot_forget_flows(Slot *s) {
        int r;

        r = s->pool->host_flows ? flow_forget(s->pool->host_flows, slot_own_end(s)) : 0;
        if (r < 0)
                (void) log_warning_errno(r, "Failed to forget the connections of %s, ignoring: %m",
                                         s->address);
        s->has_flows = r > 0;
}

/* One piece of work per turn; the source is off when nothing is left to do. */
static int on_idle(sd_event_source *source, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        SlotPool *p = userdata;
        Slot *s;
        int r;

        if (p->n_stale > 0) {
                r = link_remove(p->host_links, p->stale[--p->n_stale]);
                if (r < 0 && r != -ENODEV)
                        log_warning_errno(r,
                                          "Failed to remove a link of a former network slot, ignoring: %m");
                return 0;
        }

        s = pool_find_flows(p);
        if (s) {
                slot_forget_flows(s);
                return 0;
        }

        if (p->n_ready > p->n_wanted) {
                slot_quarantine_consume(pool_pop_ready(p));
                return 0;
        }

        if (p->n_ready == p->n_wanted) {
                (void) malloc_trim(0); /* libnftables leaves more than 1 MiB of free heap behind */
                return sd_event_source_set_enabled(source, SD_EVENT_OFF);
        }

        r = pool_make(p, &s, &fault);
        if (r >= 0) {
                pool_push_ready(p, s);
                return 0;
        }

        log_warning("Failed to make a network slot ahead of time, trying again later: %s",
                    strempty(fault.message));
        r = event_timer(p->event, &p->retry_source, RETRY_USEC, PRIORITY_GC, on_retry, p, "slot-retry");
        if (r < 0)
                log_warning_errno(r, "Failed to arm the timer for network slots, ignoring: %m");
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static void pool_refill(SlotPool *p) {
        int r;

        if (!p->idle_source || (p->n_ready == p->n_wanted && p->n_stale == 0 && !pool_find_flows(p)))
                return;

        r = sd_event_source_set_enabled(p->idle_source, SD_EVENT_ON);
        if (r < 0 && r != -ESTALE) /* the loop has ended */
                log_warning_errno(r, "Failed to refill the network slots, ignoring: %m");
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        pool_refill(userdata);
        return 0;
}

static int pool_parse_config(SlotPool *p, const SlotPoolConfig *c, Fault *reterr) {
        const char *text = c->address_pool ?: SLOT_POOL_DEFAULT;
        const char *slash = strchr(text, '/');
        char address[INET_ADDRSTRLEN] = "";
        struct in_addr base;
        uint32_t prefixlen = 0;
        unsigned capacity;

        if (slash && (size_t) (slash - text) < sizeof(address))
                memcpy(address, text, (size_t) (slash - text));
        if (!slash || parse_u32(slash + 1, &prefixlen) < 0 || prefixlen < 8 || prefixlen > 24 ||
            inet_pton(AF_INET, address, &base) != 1 || (ntohl(base.s_addr) & (UINT32_MAX >> prefixlen)) != 0)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "'%s' is no address pool: expected a network such as " SLOT_POOL_DEFAULT
                                 " of 8 to 24 bits.",
                                 text);
        if (c->n_ready > SLOTS_READY_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "At most %u network slots can be kept ready.",
                                 SLOTS_READY_MAX);

        capacity = (UINT32_C(1) << (32 - prefixlen)) / ADDRESSES_PER_SLOT - 1;
        p->base = ntohl(base.s_addr);
        p->n_wanted = c->n_ready;
        p->n_max = c->n_max > 0 ? MIN(c->n_max, capacity) : capacity;
        (void) snprintf(p->pool_text, sizeof(p->pool_text), "%s/%u", address, prefixlen);
        (void) inet_ntop(AF_INET, &(struct in_addr) { pool_address(p, 1).s_addr }, p->dns_text,
                         sizeof(p->dns_text));
        return 0;
}

/* The link that holds the resolver's address. It stays when wrennd ends, as the capsules do. */
static int pool_setup_dns_link(SlotPool *p) {
        static const LinkSettings settings = { .up = true, .no_ipv6 = true };
        unsigned ifindex;
        int r;

        r = link_add_dummy(p->host_links, SLOT_DNS_LINK);
        if (r < 0 && r != -EEXIST)
                return r;

        r = link_find(p->host_links, SLOT_DNS_LINK, &ifindex);
        if (r < 0)
                return r;

        r = link_add_address(p->host_links, ifindex, pool_address(p, 1), 32);
        if (r < 0)
                return r;

        r = link_remove_other_addresses(p->host_links, ifindex, pool_address(p, 1));
        if (r < 0)
                return r;

        return link_set(p->host_links, ifindex, &settings);
}

static int pool_setup_host(SlotPool *p, Fault *reterr) {
        int r;

        p->host_netns_fd = netns_open_own();
        if (p->host_netns_fd < 0)
                return fault_set_errno(reterr, p->host_netns_fd,
                                       "Failed to open the host's network namespace");

        r = link_socket_new(&p->host_links);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to open a netlink socket");

        r = flow_socket_new(&p->host_flows);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to open the table of connections, ignoring: %m");

        r = nft_apply_host(&(NftAddresses) { p->pool_text, p->dns_text }, reterr);
        if (r < 0)
                return r;

        r = pool_setup_dns_link(p);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to set up link '%s'", SLOT_DNS_LINK);

        return 0;
}

int slot_pool_new(sd_event *e, const SlotPoolConfig *c, SlotPool **ret, Fault *reterr) {
        _cleanup_(slot_pool_freep) SlotPool *p = NULL;
        int r;

        p = malloc(sizeof(SlotPool));
        if (!p)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make the pool of network slots");

        *p = (SlotPool) { .event = sd_event_ref(e), .host_netns_fd = -EBADF };
        p->quarantine_tail = &p->quarantine;

        r = pool_parse_config(p, c, reterr);
        if (r < 0)
                return r;

        p->taken = calloc(p->n_max + 1, sizeof(uint8_t));
        if (!p->taken)
                return fault_set_errno(reterr, -ENOMEM, "Failed to make the pool of network slots");

        if (getrandom(&p->cursor, sizeof(p->cursor), GRND_NONBLOCK) != sizeof(p->cursor))
                p->cursor = (unsigned) now_usec(CLOCK_REALTIME);
        p->cursor = p->cursor % p->n_max + 1;

        r = pool_setup_host(p, reterr);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(p);
        return 0;
}

static void slot_list_free(Slot *s) {
        while (s) {
                Slot *next = s->next;

                slot_free(s);
                s = next;
        }
}

SlotPool* slot_pool_free(SlotPool *p) {
        if (!p)
                return NULL;

        event_source_freep(&p->idle_source);
        event_source_freep(&p->retry_source);
        slot_list_free(p->ready);
        slot_list_free(p->quarantine);
        link_socket_free(p->host_links);
        flow_socket_free(p->host_flows);
        close_fd(p->host_netns_fd);
        sd_event_unref(p->event);
        free(p->stale);
        free(p->taken);
        free(p);
        return NULL;
}

static int on_link_found(unsigned number, unsigned ifindex, void *userdata) {
        SlotPool *p = userdata;
        unsigned *longer;

        if (number <= p->n_max && p->taken[number])
                return 0;

        longer = reallocarray(p->stale, p->n_stale + 1, sizeof(unsigned));
        if (!longer)
                return -ENOMEM;

        p->stale = longer;
        p->stale[p->n_stale++] = ifindex;
        return 0;
}

int slot_pool_start(SlotPool *p, Fault *reterr) {
        int r;

        r = link_foreach_numbered(p->host_links, SLOT_HOST_LINK_PREFIX, on_link_found, p);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to list the links of network slots");

        r = event_defer(p->event, &p->idle_source, PRIORITY_GC, on_idle, p);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to make the source that fills the pool");

        pool_refill(p);
        return 0;
}

int slot_pool_claim(SlotPool *p, Slot **ret, Fault *reterr) {
        Slot *s;
        int r;

        s = pool_pop_ready(p);
        if (!s) {
                r = pool_make(p, &s, reterr);
                if (r < 0)
                        return r;
        }

        p->n_used++;
        pool_refill(p);
        *ret = s;
        return 0;
}

int slot_pool_adopt(SlotPool *p, unsigned index, Slot **ret) {
        char name[32];
        unsigned ifindex;
        Slot *s;
        int r;

        if (index == 0 || index > p->n_max)
                return -EINVAL;
        if (p->taken[index])
                return -EEXIST;

        (void) snprintf(name, sizeof(name), SLOT_HOST_LINK_PREFIX "%u", index);
        r = link_find(p->host_links, name, &ifindex);
        if (r < 0)
                return r;

        r = slot_new(p, index, &s);
        if (r < 0)
                return r;

        s->tap_taken = true;
        p->n_used++;
        *ret = s;
        return 0;
}

Slot* slot_release(Slot *s) {
        SlotPool *p;

        if (!s)
                return NULL;

        p = s->pool;
        p->n_used--;
        s->has_flows = s->tap_taken;
        if (s->tap_taken)
                slot_quarantine_consume(s);
        else
                pool_push_ready(p, s);
        pool_refill(p); /* forgets connections, and closes a slot too many */
        return NULL;
}

int slot_netns_fd(Slot *s) {
        return s->netns_fd;
}

int slot_take_tap_fd(Slot *s) {
        s->tap_taken = true;
        return TAKE_FD(s->tap_fd);
}

unsigned slot_index(const Slot *s) {
        return s->index;
}

const char* slot_address(const Slot *s) {
        return s->address;
}

const char* slot_pool_dns_address(const SlotPool *p) {
        return p->dns_text;
}

unsigned slot_pool_n_ready(const SlotPool *p) {
        return p->n_ready;
}

unsigned slot_pool_n_used(const SlotPool *p) {
        return p->n_used;
}
