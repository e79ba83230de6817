/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See event.h. */

#include <signal.h>
#include <sys/epoll.h>

#include "shared/event.h"

#define TIMER_ACCURACY_USEC USEC_PER_MSEC

int event_timer(sd_event *e, sd_event_source **source, uint64_t usec, int64_t priority,
                sd_event_time_handler_t handler, void *userdata, const char *description) {
        _cleanup_(event_source_freep) sd_event_source *s = NULL;
        int r;

        if (usec == USEC_INFINITY)
                return *source ? sd_event_source_set_enabled(*source, SD_EVENT_OFF) : 0;

        if (*source) {
                r = sd_event_source_set_time_relative(*source, usec);
                if (r < 0)
                        return r;

                return sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
        }

        r = sd_event_add_time_relative(e, &s, CLOCK_BOOTTIME, usec, TIMER_ACCURACY_USEC, handler, userdata);
        if (r < 0)
                return r;

        r = sd_event_source_set_priority(s, priority);
        if (r < 0)
                return r;

        (void) sd_event_source_set_description(s, description);
        *source = TAKE_PTR(s);
        return 0;
}

int event_io(sd_event *e, sd_event_source **ret, int fd, uint32_t events, int64_t priority,
             sd_event_io_handler_t handler, void *userdata, const char *description) {
        _cleanup_(event_source_freep) sd_event_source *s = NULL;
        int r;

        r = sd_event_add_io(e, &s, fd, events, handler, userdata);
        if (r < 0)
                return r;

        r = sd_event_source_set_priority(s, priority);
        if (r < 0)
                return r;

        (void) sd_event_source_set_description(s, description);
        *ret = TAKE_PTR(s);
        return 0;
}

int event_defer(sd_event *e, sd_event_source **source, int64_t priority, sd_event_handler_t handler,
                void *userdata) {
        _cleanup_(event_source_freep) sd_event_source *s = NULL;
        int r;

        if (*source)
                return sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);

        r = sd_event_add_defer(e, &s, handler, userdata);
        if (r < 0)
                return r;

        r = sd_event_source_set_priority(s, priority);
        if (r < 0)
                return r;

        *source = TAKE_PTR(s);
        return 0;
}

int event_new_main(sd_event **ret) {
        static const int signals[] = { SIGTERM, SIGINT };
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        sigset_t mask;
        int r;

        r = sd_event_new(&e);
        if (r < 0)
                return r;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&mask, signals[i]);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                return -errno;

        /* no handler: sd-event ends the loop with the userdata as exit code */
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = sd_event_add_signal(e, NULL, signals[i], NULL, NULL);
                if (r < 0)
                        return r;
        }

        r = sd_event_set_watchdog(e, true);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(e);
        return 0;
}
