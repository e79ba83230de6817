/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Links, addresses and routes over rtnetlink (libnl), and taps. A LinkSocket belongs to the network
 * namespace it was made in, whatever namespace the process enters later. Calls are synchronous: the kernel
 * answers a change inside sendmsg(2).
 */

#include <netinet/in.h>

#include "basic/macro.h"

typedef struct LinkSocket LinkSocket;

/* Opens a socket in the current namespace. 0 or -errno. */
int link_socket_new(LinkSocket **ret);
LinkSocket* link_socket_free(LinkSocket *s);
DEFINE_CLEANUP(LinkSocket, link_socket_free)

/* What link_set() sets; all else stays. A request the kernel refuses may have changed a part. */
typedef struct LinkSettings {
        const char *mac; /* "06:00:…", NULL: stays */
        bool up;
        bool forward; /* IPv4 packets that come in here are forwarded (net.ipv4.conf.<link>.forwarding) */
        bool strict;  /* rp_filter=1, arp_ignore=1, no redirects in or out, no source routes */
        bool no_ipv6; /* no link-local address of IPv6, so that the link never speaks it */
} LinkSettings;

/* Index of the link called name: 0, -ENODEV or another errno. */
int link_find(LinkSocket *s, const char *name, unsigned *ret_ifindex);

/* Makes a dummy link, or where the kernel has no such driver a bridge without ports. 0, -EEXIST, … */
int link_add_dummy(LinkSocket *s, const char *name);

/*
 * Makes a veth pair: name here, with this ifindex (0: the next free one), and peer in the namespace of
 * peer_netns_fd. 0, -EEXIST when one of the names is taken, …
 */
int link_add_veth(LinkSocket *s, const char *name, unsigned ifindex, const char *peer, int peer_netns_fd);

int link_set(LinkSocket *s, unsigned ifindex, const LinkSettings *settings);

/* Adds an address; one that is there already is fine. address in network byte order. */
int link_add_address(LinkSocket *s, unsigned ifindex, struct in_addr address, unsigned prefixlen);

/* Removes all IPv4 addresses of the link but this one. */
int link_remove_other_addresses(LinkSocket *s, unsigned ifindex, struct in_addr keep);

/* Default route by way of gateway. */
int link_add_default_route(LinkSocket *s, unsigned ifindex, struct in_addr gateway);

/* Removes a link; -ENODEV when it is gone. Waits for RCU in the kernel: 20 … 40 ms. */
int link_remove(LinkSocket *s, unsigned ifindex);

/*
 * Calls on_link for each veth link whose name is prefix and a decimal number, with that number. < 0 from it
 * stops and is returned. A snapshot is taken first: on_link may remove links.
 */
typedef int (*LinkNumbered)(unsigned number, unsigned ifindex, void *userdata);
int link_foreach_numbered(LinkSocket *s, const char *prefix, LinkNumbered on_link, void *userdata);

/*
 * Makes a tap (IFF_TAP|IFF_NO_PI|IFF_VNET_HDR, one queue) in the current namespace, with this ifindex (0:
 * the next free one): fd or -errno. It goes with its fd.
 */
int tap_open(const char *name, unsigned ifindex);
