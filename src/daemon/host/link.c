/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libnl does the encoding. Sockets have acknowledgements on and no cache: each function is one request and
 * its answer, save for the two that list. Names are resolved by the kernel, never by if_nametoindex(3),
 * which would need an AF_INET socket.
 */

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>
#include <sys/ioctl.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "daemon/host/link.h"

#define MESSAGE_BYTES_MAX (32 * KIB) /* the kernel sends no larger part of a list */

struct LinkSocket {
        struct nl_sock *sock;
};

DEFINE_CLEANUP_VOID(struct nl_addr, nl_addr_put)
DEFINE_CLEANUP_VOID(struct nl_cache, nl_cache_free)
DEFINE_CLEANUP_VOID(struct rtnl_addr, rtnl_addr_put)
DEFINE_CLEANUP_VOID(struct rtnl_link, rtnl_link_put)
DEFINE_CLEANUP_VOID(struct rtnl_nexthop, rtnl_route_nh_free)
DEFINE_CLEANUP_VOID(struct rtnl_route, rtnl_route_put)

static int nl_to_errno(int r) {
        static const int table[] = {
                [NLE_INTR] = EINTR,           [NLE_BAD_SOCK] = EBADF,
                [NLE_AGAIN] = EAGAIN,         [NLE_NOMEM] = ENOMEM,
                [NLE_EXIST] = EEXIST,         [NLE_INVAL] = EINVAL,
                [NLE_RANGE] = ERANGE,         [NLE_MSGSIZE] = EMSGSIZE,
                [NLE_OPNOTSUPP] = EOPNOTSUPP, [NLE_BUSY] = EBUSY,
                [NLE_NOADDR] = EADDRNOTAVAIL, [NLE_OBJ_NOTFOUND] = ENODEV,
                [NLE_PERM] = EPERM,           [NLE_AF_NOSUPPORT] = EAFNOSUPPORT,
                [NLE_NOACCESS] = EACCES,      [NLE_NODEV] = ENODEV,
                [NLE_SEQ_MISMATCH] = EPROTO,  [NLE_MSG_TRUNC] = EMSGSIZE,
        };

        if (r >= 0)
                return 0;
        if ((size_t) -r < ELEMENTSOF(table) && table[-r] > 0)
                return -table[-r];
        return -EIO;
}

int link_socket_new(LinkSocket **ret) {
        _cleanup_(link_socket_freep) LinkSocket *s = NULL;
        int r;

        s = malloc(sizeof(LinkSocket));
        if (!s)
                return -ENOMEM;

        *s = (LinkSocket) { .sock = nl_socket_alloc() };
        if (!s->sock)
                return -ENOMEM;

        r = nl_connect(s->sock, NETLINK_ROUTE);
        if (r < 0)
                return nl_to_errno(r);

        /* Without this libnl receives each answer twice, first to see its length. */
        r = nl_socket_set_msg_buf_size(s->sock, MESSAGE_BYTES_MAX);
        if (r < 0)
                return nl_to_errno(r);
        nl_socket_disable_msg_peek(s->sock);

        *ret = TAKE_PTR(s);
        return 0;
}

LinkSocket* link_socket_free(LinkSocket *s) {
        if (!s)
                return NULL;

        if (s->sock)
                nl_socket_free(s->sock);
        free(s);
        return NULL;
}

int link_find(LinkSocket *s, const char *name, unsigned *ret_ifindex) {
        _cleanup_(rtnl_link_putp) struct rtnl_link *link = NULL;
        int r;

        r = rtnl_link_get_kernel(s->sock, 0, name, &link);
        if (r < 0)
                return nl_to_errno(r);

        *ret_ifindex = (unsigned) rtnl_link_get_ifindex(link);
        return 0;
}

static int link_add_type(LinkSocket *s, const char *name, const char *type) {
        _cleanup_(rtnl_link_putp) struct rtnl_link *link = NULL;
        int r;

        link = rtnl_link_alloc();
        if (!link)
                return -ENOMEM;

        rtnl_link_set_name(link, name);
        r = rtnl_link_set_type(link, type);
        if (r < 0)
                return nl_to_errno(r);

        return nl_to_errno(rtnl_link_add(s->sock, link, NLM_F_CREATE | NLM_F_EXCL));
}

int link_add_dummy(LinkSocket *s, const char *name) {
        int r;

        r = link_add_type(s, name, "dummy");
        if (r == -EOPNOTSUPP)
                r = link_add_type(s, name, "bridge");
        return r;
}

int link_add_veth(LinkSocket *s, const char *name, unsigned ifindex, const char *peer_name,
                  int peer_netns_fd) {
        struct rtnl_link *link, *peer;
        int r;

        link = rtnl_link_veth_alloc();
        if (!link)
                return -ENOMEM;

        rtnl_link_set_name(link, name);
        if (ifindex > 0)
                rtnl_link_set_ifindex(link, (int) ifindex);
        peer = rtnl_link_veth_get_peer(link);
        rtnl_link_set_name(peer, peer_name);
        rtnl_link_set_ns_fd(peer, peer_netns_fd);
        r = rtnl_link_add(s->sock, link, NLM_F_CREATE | NLM_F_EXCL);
        rtnl_link_put(peer);
        rtnl_link_veth_release(link);
        return nl_to_errno(r);
}

static int settings_apply(struct rtnl_link *change, const LinkSettings *settings) {
        static const struct {
                unsigned conf;
                uint32_t value;
        } strict[] = {
                { IPV4_DEVCONF_RP_FILTER, 1 },        { IPV4_DEVCONF_ARP_IGNORE, 1 },
                { IPV4_DEVCONF_ACCEPT_REDIRECTS, 0 }, { IPV4_DEVCONF_SECURE_REDIRECTS, 0 },
                { IPV4_DEVCONF_SEND_REDIRECTS, 0 },   { IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE, 0 },
        };
        int r = 0;

        if (settings->mac) {
                _cleanup_(nl_addr_putp) struct nl_addr *mac = NULL;

                r = nl_addr_parse(settings->mac, AF_LLC, &mac);
                if (r < 0)
                        return nl_to_errno(r);
                rtnl_link_set_addr(change, mac);
        }
        if (settings->up)
                rtnl_link_set_flags(change, IFF_UP);
        if (settings->forward && r >= 0)
                r = rtnl_link_inet_set_conf(change, IPV4_DEVCONF_FORWARDING, 1);
        for (size_t i = 0; settings->strict && i < ELEMENTSOF(strict) && r >= 0; i++)
                r = rtnl_link_inet_set_conf(change, strict[i].conf, strict[i].value);
        if (settings->no_ipv6 && r >= 0)
                r = rtnl_link_inet6_set_addr_gen_mode(change, IN6_ADDR_GEN_MODE_NONE);
        return nl_to_errno(r);
}

static int link_change(LinkSocket *s, unsigned ifindex, const LinkSettings *settings) {
        _cleanup_(rtnl_link_putp) struct rtnl_link *link = NULL, *change = NULL;
        int r;

        link = rtnl_link_alloc();
        change = rtnl_link_alloc();
        if (!link || !change)
                return -ENOMEM;

        rtnl_link_set_ifindex(link, (int) ifindex);
        r = settings_apply(change, settings);
        if (r < 0)
                return r;

        return nl_to_errno(rtnl_link_change(s->sock, link, change, /* flags= */ 0));
}

int link_set(LinkSocket *s, unsigned ifindex, const LinkSettings *settings) {
        LinkSettings first = *settings;
        int r;

        /*
         * In one request the kernel would bring the link up first, and give it an address of IPv6 with
         * that.
         */
        first.up = settings->up && !settings->no_ipv6;
        r = link_change(s, ifindex, &first);
        if (r == -EAFNOSUPPORT && settings->no_ipv6) {
                first.no_ipv6 = false; /* ipv6.disable=1 on the kernel line: nothing to switch off */
                r = link_change(s, ifindex, &first);
        }
        if (r < 0 || first.up == settings->up)
                return r;

        return link_change(s, ifindex, &(LinkSettings) { .up = true });
}

static struct nl_addr* address_new(struct in_addr address, unsigned prefixlen) {
        struct nl_addr *a;

        a = nl_addr_build(AF_INET, &address, sizeof(address));
        if (a)
                nl_addr_set_prefixlen(a, (int) prefixlen);
        return a;
}

int link_add_address(LinkSocket *s, unsigned ifindex, struct in_addr address, unsigned prefixlen) {
        _cleanup_(rtnl_addr_putp) struct rtnl_addr *a = NULL;
        _cleanup_(nl_addr_putp) struct nl_addr *local = NULL;
        int r;

        a = rtnl_addr_alloc();
        local = address_new(address, prefixlen);
        if (!a || !local)
                return -ENOMEM;

        rtnl_addr_set_ifindex(a, (int) ifindex);
        r = rtnl_addr_set_local(a, local);
        if (r < 0)
                return nl_to_errno(r);

        return nl_to_errno(rtnl_addr_add(s->sock, a, NLM_F_CREATE | NLM_F_REPLACE));
}

int link_remove_other_addresses(LinkSocket *s, unsigned ifindex, struct in_addr keep) {
        _cleanup_(nl_cache_freep) struct nl_cache *cache = NULL;
        _cleanup_(nl_addr_putp) struct nl_addr *wanted = NULL;
        int r;

        wanted = address_new(keep, 32);
        if (!wanted)
                return -ENOMEM;

        r = rtnl_addr_alloc_cache(s->sock, &cache);
        if (r < 0)
                return nl_to_errno(r);

        for (struct nl_object *o = nl_cache_get_first(cache); o; o = nl_cache_get_next(o)) {
                struct rtnl_addr *a = (struct rtnl_addr *) o;
                struct nl_addr *local = rtnl_addr_get_local(a);

                if (rtnl_addr_get_ifindex(a) != (int) ifindex || rtnl_addr_get_family(a) != AF_INET ||
                    (local && nl_addr_cmp(local, wanted) == 0))
                        continue;

                r = rtnl_addr_delete(s->sock, a, 0);
                if (r < 0 && r != -NLE_NOADDR)
                        return nl_to_errno(r);
        }

        return 0;
}

int link_add_default_route(LinkSocket *s, unsigned ifindex, struct in_addr gateway) {
        _cleanup_(rtnl_route_putp) struct rtnl_route *route = NULL;
        _cleanup_(rtnl_route_nh_freep) struct rtnl_nexthop *hop = NULL;
        _cleanup_(nl_addr_putp) struct nl_addr *any = NULL, *via = NULL;
        int r;

        route = rtnl_route_alloc();
        hop = rtnl_route_nh_alloc();
        any = address_new((struct in_addr) {}, 0);
        via = address_new(gateway, 32);
        if (!route || !hop || !any || !via)
                return -ENOMEM;

        (void) rtnl_route_set_family(route, AF_INET);
        rtnl_route_set_table(route, RT_TABLE_MAIN);
        rtnl_route_set_scope(route, RT_SCOPE_UNIVERSE);
        rtnl_route_set_protocol(route, RTPROT_STATIC);
        r = rtnl_route_set_dst(route, any);
        if (r < 0)
                return nl_to_errno(r);

        rtnl_route_nh_set_ifindex(hop, (int) ifindex);
        rtnl_route_nh_set_gateway(hop, via);
        rtnl_route_add_nexthop(route, TAKE_PTR(hop));
        return nl_to_errno(rtnl_route_add(s->sock, route, NLM_F_CREATE | NLM_F_REPLACE));
}

int link_remove(LinkSocket *s, unsigned ifindex) {
        _cleanup_(rtnl_link_putp) struct rtnl_link *link = NULL;

        link = rtnl_link_alloc();
        if (!link)
                return -ENOMEM;

        rtnl_link_set_ifindex(link, (int) ifindex);
        return nl_to_errno(rtnl_link_delete(s->sock, link));
}

int link_foreach_numbered(LinkSocket *s, const char *prefix, LinkNumbered on_link, void *userdata) {
        _cleanup_(nl_cache_freep) struct nl_cache *cache = NULL;
        int r;

        r = rtnl_link_alloc_cache(s->sock, AF_UNSPEC, &cache);
        if (r < 0)
                return nl_to_errno(r);

        for (struct nl_object *o = nl_cache_get_first(cache); o; o = nl_cache_get_next(o)) {
                struct rtnl_link *link = (struct rtnl_link *) o;
                const char *number = startswith(strempty(rtnl_link_get_name(link)), prefix);
                uint32_t n;

                if (!number || parse_u32(number, &n) < 0 ||
                    !streq(strempty(rtnl_link_get_type(link)), "veth"))
                        continue;

                r = on_link(n, (unsigned) rtnl_link_get_ifindex(link), userdata);
                if (r < 0)
                        return r;
        }

        return 0;
}

int tap_open(const char *name, unsigned ifindex) {
        struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
        _cleanup_close_ int fd = -EBADF;

        if (strlen(name) >= sizeof(request.ifr_name))
                return -EINVAL;

        strcpy(request.ifr_name, name);
        fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        if (ifindex > 0 && ioctl(fd, TUNSETIFINDEX, &ifindex) < 0)
                return -errno;

        if (ioctl(fd, TUNSETIFF, &request) < 0)
                return -errno;

        return TAKE_FD(fd);
}
