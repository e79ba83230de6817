/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the Capsule interface and the capsule methods of the Manager share: a verb is one function, whichever
 * way it is called. */

#include "daemon/bus/bus-server.h"
#include "daemon/core/capsule.h"

/* A find function gets the server; its vtable gets what it returns, here the capsule, whose Manager's events
 * know the server. */
BusServer* bus_capsule_server(const Capsule *c);

/* polkit for a verb on a capsule, with its details; a caller that is confined to another team gets NotFound.
 * As bus_authorize(). */
int bus_capsule_authorize(BusServer *s, sd_bus_message *m, const Capsule *c, const char *verb,
                          BusCaller *caller, sd_bus_error *error);
/* Handlers, once id is known; they read the options. */
int bus_capsule_destroy(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error);
int bus_capsule_ping(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error);

/* bus_capsule_authorize() for a handler that was given its arguments and the capsule alone. */
int bus_capsule_allow(sd_bus_message *m, Capsule *c, const char *verb, sd_bus_error *error);
/* Ends a handler whose answer comes later: r of the core's function, which got m as userdata. */
int bus_capsule_wait(sd_bus_message *m, int r, const Fault *fault, sd_bus_error *error);
/* CapsuleDone: an empty answer, or the error. userdata: the message. */
void bus_capsule_done(Capsule *c, int r, const Fault *fault, void *userdata);

/* An answer that grows an element at a time. */
typedef struct BusList {
        sd_bus_message *call, *reply; /* owned; elements are appended to reply */
} BusList;
/* An open array of elements of that type. */
int bus_list_new(sd_bus_message *call, const char *element, BusList **ret);
BusList* bus_list_free(BusList *l);
DEFINE_CLEANUP(BusList, bus_list_free)
/* CapsuleDone: the list, or the error. userdata: the BusList, which is freed. */
void bus_list_done(Capsule *c, int r, const Fault *fault, void *userdata);

/* More of the Capsule interface. */
extern const sd_bus_vtable bus_capsule_process_vtable[]; /* bus-capsule-process.c */
extern const sd_bus_vtable bus_capsule_file_vtable[];    /* bus-capsule-files.c */
