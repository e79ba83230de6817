/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Network slots. A slot is what one capsule needs to reach the world: a network namespace with the tap of
 * its VMM, a veth pair out of it, an address of its own and the rules that hold the guest to it. Slots are
 * made ahead of time, at idle, so that a claim costs microseconds.
 *
 * Slot n (1 … n_max) of the pool 10.11.0.0/16 has the addresses 10.11.0.0 + 2n (host's end of the veth,
 * link "wv-<n>") and 10.11.0.0 + 2n + 1 (its own, what the guest's traffic carries outside the namespace).
 * 10.11.0.1, on the dummy link "wrenn0", is where wrenn-dns.service listens. Every guest sees the same
 * addresses (GUEST_ADDRESS4 … in shared/protocol.h).
 *
 * Nothing is pinned: a namespace lives by the fd held here and by the monitor inside it, the tap by the fd
 * of its VMM; the kernel removes links and rules with them. After a restart of wrennd slots of running
 * capsules are adopted by index.
 *
 * Order of use: slot_pool_new(); slot_pool_adopt() for each running capsule; slot_pool_start(); then
 * slot_pool_claim().
 */

#include <netinet/in.h>
#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct Slot Slot;
typedef struct SlotPool SlotPool;

#define SLOT_POOL_DEFAULT     "10.11.0.0/16"
#define SLOT_READY_DEFAULT    4U
#define SLOT_HOST_LINK_PREFIX "wv-"    /* host's end of a slot's veth: "wv-<index>" */
#define SLOT_DNS_LINK         "wrenn0" /* dummy link that holds the address of wrenn-dns.service */

typedef struct SlotPoolConfig {
        const char *address_pool; /* "A.B.C.D/N", N 8…24, no bits set behind N; NULL: SLOT_POOL_DEFAULT */
        unsigned n_ready; /* slots kept ready; 0: each is made when claimed. At most SLOTS_READY_MAX */
        unsigned n_max;   /* slots alive or quarantined at once; 0: as many as the pool has addresses for */
} SlotPoolConfig;

/**
 * Makes the pool and the host's side of it: dummy link and address for DNS, nftables table "inet wrenn"
 * (replaced as one transaction). Makes no slot and removes nothing yet: see slot_pool_start().
 * e: a reference is taken. c: copied.
 * Returns 0, -EINVAL on a bad address pool, or another negative errno; *reterr then says what.
 */
int slot_pool_new(sd_event *e, const SlotPoolConfig *c, SlotPool **ret, Fault *reterr);

/**
 * Frees the pool and closes the slots that nobody claimed. Slots that are still out must have been released
 * before. Capsules that run are not disturbed; links and rules of the host stay for the next start. Returns
 * NULL.
 */
SlotPool* slot_pool_free(SlotPool *p);
DEFINE_CLEANUP(SlotPool, slot_pool_free)

/**
 * Ends the time of adoption: removes links "wv-*" that belong to no adopted slot and begins to fill the
 * pool, one slot per idle turn of the loop. Returns 0 or a negative errno.
 */
int slot_pool_start(SlotPool *p, Fault *reterr);

/**
 * Takes a slot: a ready one, or one made at once (some milliseconds). The pool refills itself at idle.
 * ret: owned; give it back with slot_release().
 * Returns 0, -EAGAIN (FAULT_NO_CAPACITY) when n_max are out or quarantined, or another negative errno with
 * *reterr set.
 */
int slot_pool_claim(SlotPool *p, Slot **ret, Fault *reterr);

/**
 * After a restart of wrennd: says that this index belongs to a running capsule. The namespace lives by its
 * monitor, the tap by its VMM; the slot has neither fd.
 * Returns 0, -EINVAL (index out of range), -EEXIST (adopted or out already), -ENODEV (its host link is
 * gone: the capsule has no network any more; *ret is NULL).
 */
int slot_pool_adopt(SlotPool *p, unsigned index, Slot **ret);

/**
 * Gives a slot back, once no process of the capsule is alive. One whose tap was never taken had no guest
 * and becomes ready again; of any other the kernel removes what is left (the tap ends with its VMM) and its
 * index stays in quarantine for SLOT_QUARANTINE_USEC. Costs microseconds. NULL is fine. Returns NULL.
 */
Slot* slot_release(Slot *s);
DEFINE_CLEANUP(Slot, slot_release)

/*
 * The namespace for wrenn-launch --netns-fd=; borrowed, valid as long as the slot. -EBADF for an adopted
 * slot.
 */
int slot_netns_fd(Slot *s);

/*
 * The tap (IFF_TAP|IFF_NO_PI|IFF_VNET_HDR, one queue) for the VMM; the caller owns it from now on: send it
 * to the monitor, then close it. The second call and an adopted slot give -EBADF. The tap lives as long as
 * somebody has this fd; who closes it last waits 15 … 70 ms for RCU, so let that be the VMM.
 */
int slot_take_tap_fd(Slot *s);

/* 1 … n_max; what to store in the capsule's record for slot_pool_adopt(). */
unsigned slot_index(const Slot *s);

/* The capsule's own address outside its namespace, "10.11.0.3"; lives as long as the slot. */
const char* slot_address(const Slot *s);

/* Where wrenn-dns.service listens, "10.11.0.1"; lives as long as the pool. */
const char* slot_pool_dns_address(const SlotPool *p);

/* Slots ready to be claimed, and slots that are out (claimed or adopted). */
unsigned slot_pool_n_ready(const SlotPool *p);
unsigned slot_pool_n_used(const SlotPool *p);
