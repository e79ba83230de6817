/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sd-event conveniences and the priorities of all programs (sd_event_source_set_priority(3): lower runs
 * first). */

#include <systemd/sd-event.h>

#include "basic/macro.h"

enum {
        PRIORITY_EXIT = -10, /* pidfds, signals */
        PRIORITY_VMM = -5,   /* control.sock, QMP, agent stream */
        PRIORITY_CLIENT = 0, /* D-Bus, REST */
        PRIORITY_STATS = 5,
        PRIORITY_GC = SD_EVENT_PRIORITY_IDLE,
};

static inline void event_source_freep(sd_event_source **s) {
        *s = sd_event_source_disable_unref(*s);
}
static inline sd_event_source* event_source_free(sd_event_source *s) {
        return sd_event_source_disable_unref(s);
}

/* One-shot timer on CLOCK_BOOTTIME, relative, 1 ms accuracy. *source is made when NULL, else re-armed.
 * USEC_INFINITY switches it off. */
int event_timer(sd_event *e, sd_event_source **source, uint64_t usec, int64_t priority,
                sd_event_time_handler_t handler, void *userdata, const char *description);
int event_io(sd_event *e, sd_event_source **ret, int fd, uint32_t events, int64_t priority,
             sd_event_io_handler_t handler, void *userdata, const char *description);
int event_defer(sd_event *e, sd_event_source **source, int64_t priority, sd_event_handler_t handler,
                void *userdata);

/* Loop with SIGTERM/SIGINT blocked and ending it (exit code 0), and the watchdog on when $WATCHDOG_USEC asks
 * (sd_watchdog_enabled(3)). */
int event_new_main(sd_event **ret);
