/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrennd, seen from here: asynchronous calls, and a copy of its capsules that ObjectManager and
 * PropertiesChanged keep up to date, so that a GET costs no round trip. When wrennd goes away the copy is
 * stale until it was read again; who needs it waits with bus_client_wait(), and the first one who waits
 * starts wrennd by D-Bus activation.
 */

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/hashmap.h"
#include "rest/capsule-view.h"

typedef struct BusClient BusClient;
typedef struct BusCall BusCall;
typedef struct BusWait BusWait;

typedef struct BusClientHandlers {
        /* A capsule came, changed, or went (view NULL). */
        void (*on_capsule)(const char *id, CapsuleView *view, void *userdata);
        void (*on_key_revoked)(const char *key_id, void *userdata);
        /* wrennd left the bus or was replaced. */
        void (*on_lost)(void *userdata);
} BusClientHandlers;

/* r: 0 and reply, or a negative errno and the fault. Frees the call itself or leaves that to
 * bus_call_free(). */
typedef void (*BusDone)(BusCall *call, int r, sd_bus_message *reply, const Fault *fault, void *userdata);
/* r: 0: the copy is good; -ETIMEDOUT: wrennd did not come in time. */
typedef void (*BusWaitDone)(BusWait *wait, int r, void *userdata);

/* bus: a reference is taken and attached to the loop. */
int bus_client_new(sd_event *e, sd_bus *bus, BusClient **ret);
void bus_client_set_handlers(BusClient *b, const BusClientHandlers *handlers, void *userdata);
BusClient* bus_client_free(BusClient *b);
DEFINE_CLEANUP(BusClient, bus_client_free)

/* Is the copy good now? */
bool bus_client_is_synced(const BusClient *b);
/* Waits until it is, at most BUS_WAIT_USEC. The start contract of style.md §7. */
int bus_client_wait(BusClient *b, BusWaitDone done, void *userdata, BusWait **ret);
BusWait* bus_wait_free(BusWait *w);
DEFINE_CLEANUP(BusWait, bus_wait_free)

CapsuleView* bus_client_capsule(BusClient *b, const char *id);
/* MaxExecSec= of wrennd's configuration (Limits of the Manager). */
uint64_t bus_client_max_exec_usec(const BusClient *b);
/* All views, by id. */
const Hashmap* bus_client_capsules(const BusClient *b);

/*
 * A message for the Manager (path NULL) or for a Capsule object, to be filled and sent with
 * bus_client_send(). -errno of sd-bus.
 */
int bus_client_message(BusClient *b, const char *path, const char *member, sd_bus_message **ret);
/* Appends a{sv} with Team and KeyId, left open: bus_message_close_options() must follow. */
int bus_message_open_options(sd_bus_message *m, const char *team, const char *key_id);
int bus_message_close_options(sd_bus_message *m);
/* Sends; the start contract. done NULL: fire and forget, ret must be NULL then. timeout_usec 0:
 * BUS_CALL_USEC. */
int bus_client_send(BusClient *b, sd_bus_message *m, uint64_t timeout_usec, BusDone done, void *userdata,
                    BusCall **ret);
BusCall* bus_call_free(BusCall *c);
DEFINE_CLEANUP(BusCall, bus_call_free)

/* Reads the properties of a capsule into the copy, also of an ended one, which wrennd does not list; done as
 * of bus_client_send(). */
int bus_client_fetch(BusClient *b, const char *id, BusDone done, void *userdata, BusCall **ret);
