/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The packet rules, by libnftables: one table on the host that serves all slots, and one set of tables in
 * each slot's namespace. Both act on the network namespace the process is in. Each call is one transaction;
 * on failure nothing has changed. Every drop has its named counter.
 */

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct NftAddresses {
        const char *pool; /* "10.11.0.0/16": every slot's addresses */
        const char *dns;  /* "10.11.0.1": the host's resolver for guests */
} NftAddresses;

/*
 * Table "inet wrenn" of the host: made, or replaced at once. Its size does not depend on the number of
 * slots.
 */
int nft_apply_host(const NftAddresses *a, Fault *reterr);

/*
 * Tables "netdev slot" (frames of the guest, at the tap's ingress) and "inet slot" (NAT, what is forwarded)
 * of a slot's namespace. Needs the link GUEST_TAP_IFNAME. address: the slot's own; uplink: name of the
 * veth's end inside.
 */
int nft_apply_slot(const NftAddresses *a, const char *address, const char *uplink, Fault *reterr);
