/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "basic/fd.h"
#include "shared/event.h"
#include "tests/unit/test.h"

static int on_time(sd_event_source *source, uint64_t usec, void *userdata) {
        (*(unsigned *) userdata)++;
        return 0;
}

static int on_defer(sd_event_source *source, void *userdata) {
        (*(unsigned *) userdata)++;
        return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        char byte;

        (*(unsigned *) userdata)++;
        return read(fd, &byte, 1) == 1 ? 0 : -EIO;
}

static void settle(sd_event *e) {
        while (sd_event_run(e, 0) > 0)
                ;
}

TEST(timer) {
        _cleanup_(event_source_freep) sd_event_source *source = NULL, *never = NULL;
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        unsigned n = 0;

        ASSERT_OK(sd_event_new(&e));
        ASSERT_OK(event_timer(e, &never, USEC_INFINITY, 0, on_time, &n, "never"));
        ASSERT_NULL(never);

        ASSERT_OK(event_timer(e, &source, USEC_PER_MSEC, PRIORITY_STATS, on_time, &n, "test"));
        ASSERT_TRUE(sd_event_run(e, USEC_PER_SEC) > 0);
        ASSERT_EQ(n, 1);
        ASSERT_EQ(sd_event_run(e, 5 * USEC_PER_MSEC), 0); /* once */

        ASSERT_OK(event_timer(e, &source, USEC_PER_MSEC, 0, on_time, &n, "test"));
        ASSERT_TRUE(sd_event_run(e, USEC_PER_SEC) > 0);
        ASSERT_EQ(n, 2);

        ASSERT_OK(event_timer(e, &source, USEC_PER_MSEC, 0, on_time, &n, "test"));
        ASSERT_OK(event_timer(e, &source, USEC_INFINITY, 0, on_time, &n, "test"));
        ASSERT_EQ(sd_event_run(e, 5 * USEC_PER_MSEC), 0);
        ASSERT_EQ(n, 2);
}

TEST(defer) {
        _cleanup_(event_source_freep) sd_event_source *source = NULL;
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        unsigned n = 0;

        ASSERT_OK(sd_event_new(&e));
        for (unsigned i = 1; i <= 2; i++) {
                ASSERT_OK(event_defer(e, &source, 0, on_defer, &n));
                ASSERT_OK(event_defer(e, &source, 0, on_defer, &n));
                settle(e);
                ASSERT_EQ(n, i);
        }
}

TEST(io) {
        _cleanup_(event_source_freep) sd_event_source *source = NULL;
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;
        int64_t priority;
        unsigned n = 0;
        int fds[2];

        ASSERT_EQ(pipe(fds), 0);
        ASSERT_OK(sd_event_new(&e));
        ASSERT_OK(event_io(e, &source, fds[0], EPOLLIN, PRIORITY_VMM, on_io, &n, "test"));
        ASSERT_OK(sd_event_source_get_priority(source, &priority));
        ASSERT_EQ(priority, PRIORITY_VMM);
        ASSERT_OK(write_all(fds[1], "ab", 2));
        settle(e);
        ASSERT_EQ(n, 2);
        source = event_source_free(source);
        ASSERT_EQ(event_io(e, &source, -EBADF, EPOLLIN, 0, on_io, &n, "test"), -EBADF);
        close_many(fds, 2);
}

TEST(main_loop_ends_on_signals) {
        static const int signals[] = { SIGTERM, SIGINT };

        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                _cleanup_(sd_event_unrefp) sd_event *e = NULL;

                ASSERT_OK(event_new_main(&e));
                ASSERT_EQ(kill(getpid(), signals[i]), 0);
                ASSERT_EQ(sd_event_loop(e), 0);
        }
}

TEST(main_loop_watchdog) {
        _cleanup_(sd_event_unrefp) sd_event *e = NULL;

        ASSERT_EQ(setenv("WATCHDOG_USEC", "5000000", 1), 0);
        ASSERT_OK(event_new_main(&e));
        ASSERT_EQ(sd_event_get_watchdog(e), 1);
        ASSERT_EQ(unsetenv("WATCHDOG_USEC"), 0);
}
