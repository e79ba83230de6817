/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the Capsule interface and the capsule methods of the Manager share: a verb is one function, whichever
 * way it is called. */

#include "daemon/bus/bus-server.h"
#include "daemon/core/capsule.h"

/* polkit for a verb on a capsule, with its details; a caller that is confined to another team gets NotFound.
 * As bus_authorize(). */
int bus_capsule_authorize(BusServer *s, sd_bus_message *m, const Capsule *c, const char *verb,
                          BusCaller *caller, sd_bus_error *error);
/* Handlers, once id is known; they read the options. */
int bus_capsule_destroy(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error);
int bus_capsule_ping(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error);
