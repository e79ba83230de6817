/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Three lines of defence, each complete for what it can see. At the tap: who the guest says it is, and no
 * address that is not public. In the slot: only tap ⇄ uplink, only answers inwards, connections counted. On
 * the host, which alone knows its own addresses: nothing for the host itself but DNS, nothing for other
 * slots, nothing private, nothing that the slot's address did not send. Rules look at every packet and not
 * only at the first of a flow, so that a change cuts open flows as well.
 *
 * libnftables keeps a netlink socket of the namespace it was opened in: a context lives for one call.
 */

#include <nftables/libnftables.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/host/nft.h"
#include "shared/protocol.h"

/* What is no public address (RFC 6890 and successors), less what has a counter of its own. */
static const char address_sets[] =
                "  set private4 {\n"
                "    type ipv4_addr\n"
                "    flags interval\n"
                "    elements = { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16,\n"
                "      172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0-255.255.255.255 }\n"
                "  }\n"
                "  set metadata4 {\n" /* the second one is Azure's, in a public range */
                "    type ipv4_addr\n"
                "    elements = { 169.254.169.254, 168.63.129.16 }\n"
                "  }\n";

/* The host's side, for all slots. */
static char* host_chains(const NftAddresses *a) {
        return asprintf_null(
                        "  chain prerouting {\n"
                        "    type filter hook prerouting priority raw; policy accept;\n"
                        "    iifname \"wv-*\" jump from_capsule\n"
                        "  }\n"
                        "  chain from_capsule {\n"
                        "    meta protocol != ip counter name ipv6 drop\n"
                        "    fib saddr . iif oif missing counter name source drop\n"
                        "  }\n"
                        "  chain input {\n"
                        "    type filter hook input priority filter - 10; policy accept;\n"
                        "    iifname \"wv-*\" jump to_host\n"
                        "  }\n"
                        "  chain to_host {\n"
                        "    ip daddr %1$s meta l4proto { tcp, udp } th dport 53 counter name dns accept\n"
                        "    counter name host drop\n"
                        "  }\n"
                        "  chain forward {\n"
                        "    type filter hook forward priority filter - 10; policy accept;\n"
                        "    iifname \"wv-*\" jump to_world\n"
                        "    oifname \"wv-*\" jump to_capsule\n"
                        "  }\n"
                        "  chain to_world {\n"
                        "    ip daddr @metadata4 counter name metadata drop\n"
                        "    oifname \"wv-*\" counter name capsules drop\n"
                        "    ip daddr %2$s counter name capsules drop\n"
                        "    ip daddr @private4 counter name private drop\n"
                        "    fib daddr type != unicast counter name private drop\n"
                        "    ip saddr != %2$s counter name source drop\n"
                        "    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
                        "    counter name world accept\n"
                        "  }\n"
                        "  chain to_capsule {\n"
                        "    ct state established,related accept\n"
                        "    counter name inbound drop\n"
                        "  }\n"
                        "  chain postrouting {\n"
                        "    type nat hook postrouting priority srcnat; policy accept;\n"
                        "    ip saddr %2$s oifname != \"wv-*\" masquerade\n"
                        "  }\n",
                        a->dns, a->pool);
}

/* What the guest sends, before anything else in the kernel sees it. */
static char* slot_ingress(const NftAddresses *a) {
        return asprintf_null(
                        "  chain resolver {\n"
                        "    limit rate 100/second burst 300 packets counter name dns accept\n"
                        "    counter name dns_rate drop\n"
                        "  }\n"
                        "  chain ingress {\n"
                        "    type filter hook ingress device \"%5$s\" priority -500; policy drop;\n"
                        "    ether saddr != %1$s counter name mac drop\n"
                        "    ether type { 8021q, 8021ad } counter name tagged drop\n"
                        "    ether type arp arp htype 1 arp ptype ip arp operation { request, reply }"
                        " arp saddr ether %1$s arp saddr ip %2$s"
                        " limit rate 50/second burst 50 packets counter name arp_good accept\n"
                        "    ether type arp counter name arp_bad drop\n"
                        "    ether type ip6 counter name ipv6 drop\n"
                        "    ether type != ip counter name other drop\n"
                        "    ip saddr != %2$s counter name source drop\n"
                        "    ip daddr %3$s meta l4proto { tcp, udp } th dport 53 jump resolver\n"
                        "    ip daddr %3$s counter name gateway drop\n"
                        "    ip daddr @metadata4 counter name metadata drop\n"
                        "    ip daddr %4$s counter name capsules drop\n"
                        "    ip daddr 127.0.0.0/8 counter name loopback drop\n"
                        "    ip daddr 224.0.0.0-255.255.255.255 counter name multicast drop\n"
                        "    ip daddr @private4 counter name private drop\n"
                        "    ip saddr %2$s ip daddr != @private4 counter name world accept\n"
                        "    counter name other drop\n" /* too short to hold an address: no rule matched */
                        "  }\n",
                        GUEST_MAC, GUEST_ADDRESS4, GUEST_GATEWAY4, a->pool, GUEST_TAP_IFNAME);
}

/* NAT, and what is forwarded. Nothing in the namespace itself speaks or is spoken to. */
static char* slot_chains(const NftAddresses *a, const char *address, const char *uplink) {
        return asprintf_null(
                        "  chain nat_in {\n"
                        "    type nat hook prerouting priority dstnat; policy accept;\n"
                        "    iifname \"%1$s\" ip daddr %3$s udp dport 53 dnat ip to %4$s\n"
                        "    iifname \"%1$s\" ip daddr %3$s tcp dport 53 dnat ip to %4$s\n"
                        "  }\n"
                        "  chain nat_out {\n"
                        "    type nat hook postrouting priority srcnat; policy accept;\n"
                        "    oifname \"%2$s\" snat ip to %5$s\n"
                        "  }\n"
                        "  chain input {\n"
                        "    type filter hook input priority filter; policy drop;\n"
                        "    counter name local drop\n"
                        "  }\n"
                        "  chain output {\n" /* the kernel's own errors to the guest */
                        "    type filter hook output priority filter; policy drop;\n"
                        "    oifname \"%1$s\" icmp type { destination-unreachable, time-exceeded } accept\n"
                        "    counter name local drop\n"
                        "  }\n"
                        "  chain forward {\n"
                        "    type filter hook forward priority filter; policy drop;\n"
                        "    iifname \"%1$s\" oifname \"%2$s\" jump outwards\n"
                        "    iifname \"%2$s\" oifname \"%1$s\" ct state established,related accept\n"
                        "    counter name inbound drop\n"
                        "  }\n"
                        "  chain outwards {\n"
                        "    meta protocol != ip counter name ipv6 drop\n"
                        "    ct state invalid counter name invalid drop\n"
                        "    ip daddr %4$s tcp dport 53 ct state new ct count over %7$u"
                        " counter name connections drop\n"
                        "    ip daddr %4$s meta l4proto { tcp, udp } th dport 53 accept\n"
                        "    ct state new ct count over %6$u counter name connections drop\n"
                        "    accept\n"
                        "  }\n",
                        GUEST_TAP_IFNAME, uplink, GUEST_GATEWAY4, a->dns, address, SLOT_CONNECTIONS_MAX,
                        SLOT_DNS_CONNECTIONS_MAX);
}

static const char *const host_counters[] = { "ipv6",     "source",  "host",    "dns",   "metadata",
                                             "capsules", "private", "inbound", "world", NULL };
static const char *const ingress_counters[] = { "mac",      "tagged",   "arp_good", "arp_bad",   "ipv6",
                                                "other",    "source",   "dns",      "dns_rate",  "gateway",
                                                "metadata", "capsules", "loopback", "multicast", "private",
                                                "world",    NULL };
static const char *const slot_counters[] = { "ipv6",    "invalid", "connections", "private",
                                             "inbound", "local",   NULL };

/* "table FAMILY NAME {" with sets and counters; the chains and "}" are the caller's. */
static char* table_head(const char *family, const char *name, const char *sets,
                        const char *const *counters) {
        char *text;

        text = asprintf_null("table %s %s {\n%s", family, name, sets);
        for (; text && *counters; counters++) {
                char *longer = strjoin(text, "  counter ", *counters, " {\n  }\n");

                free(text);
                text = longer;
        }

        return text;
}

static int nft_run(const char *script, Fault *reterr) {
        struct nft_ctx *ctx;
        int r = 0;

        ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        if (!ctx)
                return fault_set_errno(reterr, -ENOMEM, "Failed to prepare nftables");

        if (nft_ctx_buffer_error(ctx) != 0 || nft_ctx_buffer_output(ctx) != 0)
                r = fault_set_errno(reterr, -ENOMEM, "Failed to prepare nftables");
        else if (nft_run_cmd_from_buffer(ctx, script) != 0) {
                const char *text = strempty(nft_ctx_get_error_buffer(ctx));

                r = fault_set(reterr, FAULT_INTERNAL, "The kernel refuses the packet rules: %.*s",
                              (int) strcspn(text, "\n"), text);
        }

        nft_ctx_free(ctx);
        return r;
}

int nft_apply_host(const NftAddresses *a, Fault *reterr) {
        _cleanup_free_ char *head = NULL, *chains = NULL, *script = NULL;

        head = table_head("inet", "wrenn", address_sets, host_counters);
        chains = host_chains(a);
        if (head && chains)
                script = strjoin("table inet wrenn\ndelete table inet wrenn\n", head, chains, "}\n");
        if (!script)
                return fault_set_errno(reterr, -ENOMEM, "Failed to write the packet rules");

        return nft_run(script, reterr);
}

int nft_apply_slot(const NftAddresses *a, const char *address, const char *uplink, Fault *reterr) {
        _cleanup_free_ char *ingress_head = NULL, *ingress = NULL, *head = NULL, *chains = NULL,
                            *script = NULL;

        ingress_head = table_head("netdev", "slot", address_sets, ingress_counters);
        ingress = slot_ingress(a);
        head = table_head("inet", "slot", "", slot_counters);
        chains = slot_chains(a, address, uplink);
        if (ingress_head && ingress && head && chains)
                script = strjoin(ingress_head, ingress, "}\n", head, chains, "}\n");
        if (!script)
                return fault_set_errno(reterr, -ENOMEM, "Failed to write the packet rules");

        return nft_run(script, reterr);
}
