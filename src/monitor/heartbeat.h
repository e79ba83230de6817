/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Is there still somebody at the other end, and does it understand us? Looks every HEARTBEAT_TICK_USEC while
 * streams are open: one PING at a time, and a peer that leaves it unanswered for HEARTBEAT_TICKS_MAX looks
 * is dead, whatever else it sends. Counted in looks and not in time, so that a monitor that was frozen with
 * its guest does not take its own absence for the guest's.
 */

#include <systemd/sd-event.h>

#include "shared/h2-conn.h"

#define HEARTBEAT_TICK_USEC (5 * USEC_PER_SEC)
#define HEARTBEAT_TICKS_MAX 8U

typedef struct Heartbeat {
        H2Conn *conn; /* weak */
        sd_event_source *timer;
        uint64_t tick_usec, n_pings;
        unsigned n_silent;
        void (*on_dead)(void *userdata);
        void *userdata;
} Heartbeat;

/* on_dead: once, from the loop; it may free the connection. tick_usec: HEARTBEAT_TICK_USEC, but for tests.
 */
void heartbeat_start(Heartbeat *h, H2Conn *conn, uint64_t tick_usec, void (*on_dead)(void *userdata),
                     void *userdata);
/* A stream was opened. */
void heartbeat_watch(Heartbeat *h, sd_event *e);
void heartbeat_stop(Heartbeat *h);
