/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "monitor/heartbeat.h"
#include "shared/event.h"

static int on_tick(sd_event_source *s, uint64_t usec, void *userdata) {
        Heartbeat *h = userdata;
        H2Session *session = h2_conn_session(h->conn);

        if (!session || h2_session_n_streams(session) == 0)
                return 0;

        if (h2_session_n_pongs(session) < h->n_pings)
                h->n_silent++;
        else if (h2_session_ping(session) >= 0) {
                h->n_pings = h2_session_n_pongs(session) + 1;
                h->n_silent = 0;
        }
        if (h->n_silent >= HEARTBEAT_TICKS_MAX) {
                heartbeat_stop(h);
                h->on_dead(h->userdata);
                return 0;
        }

        return event_timer(sd_event_source_get_event(s), &h->timer, h->tick_usec, PRIORITY_VMM, on_tick, h,
                           "heartbeat");
}

void heartbeat_start(Heartbeat *h, H2Conn *conn, uint64_t tick_usec, void (*on_dead)(void *userdata),
                     void *userdata) {
        heartbeat_stop(h);
        *h = (Heartbeat) { .conn = conn, .tick_usec = tick_usec, .on_dead = on_dead, .userdata = userdata };
}

void heartbeat_watch(Heartbeat *h, sd_event *e) {
        int enabled = SD_EVENT_OFF;

        if (h->timer)
                (void) sd_event_source_get_enabled(h->timer, &enabled);
        if (!h->conn || enabled != SD_EVENT_OFF)
                return;

        h->n_silent = 0;
        (void) event_timer(e, &h->timer, h->tick_usec, PRIORITY_VMM, on_tick, h, "heartbeat");
}

void heartbeat_stop(Heartbeat *h) {
        h->timer = event_source_free(h->timer);
        h->conn = NULL;
}
