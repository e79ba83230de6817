/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/loop.h"
#include "basic/fd.h"
#include "tests/unit/test.h"

typedef struct Probe {
        Loop *loop;
        LoopSource *own, *other;
        LoopTimer timer;
        unsigned n_io, n_timer, n_prepare;
        int fds[2];
} Probe;

static void on_io_free_other(uint32_t events, void *userdata) {
        Probe *p = userdata;

        p->n_io++;
        p->other = loop_source_free(p->other);
        p->own = loop_source_free(p->own);
}

static void on_stop(void *userdata) {
        Probe *p = userdata;

        p->n_timer++;
        loop_stop(p->loop);
}

static void on_prepare(void *userdata) {
        Probe *p = userdata;

        p->n_prepare++;
}

static void on_io_count(uint32_t events, void *userdata) {
        Probe *p = userdata;

        p->n_io++;
        if (p->n_io < 3)
                loop_source_again(p->own);
        else
                loop_stop(p->loop);
}

TEST(freed_sources_are_not_called) {
        Probe a = {}, b = {};
        _cleanup_(loop_freep) Loop *l = NULL;

        ASSERT_OK(loop_new(&l));
        a.loop = b.loop = l;
        ASSERT_EQ(pipe(a.fds), 0);
        ASSERT_EQ(write(a.fds[1], "x", 1), 1);

        /* Two sources of the same readable pipe (by a copy): the first to run frees both. */
        b.fds[0] = dup(a.fds[0]);
        ASSERT_OK(loop_add(l, a.fds[0], EPOLLIN, on_io_free_other, &a, &a.own));
        ASSERT_OK(loop_add(l, b.fds[0], EPOLLIN, on_io_free_other, &a, &a.other));
        loop_timer_start(l, &a.timer, 20000, on_stop, &a);
        loop_set_prepare(l, on_prepare, &a);
        ASSERT_OK(loop_run(l));
        ASSERT_EQ(a.n_io, 1);
        ASSERT_EQ(a.n_timer, 1);
        ASSERT_TRUE(a.n_prepare >= 2);

        (void) close_fd(b.fds[0]);
        close_many(a.fds, 2);
}

TEST(again_runs_without_an_event) {
        Probe p = {};
        _cleanup_(loop_freep) Loop *l = NULL;

        ASSERT_OK(loop_new(&l));
        p.loop = l;
        ASSERT_EQ(pipe(p.fds), 0);
        ASSERT_EQ(write(p.fds[1], "x", 1), 1);
        ASSERT_OK(loop_add(l, p.fds[0], EPOLLIN | EPOLLET, on_io_count, &p, &p.own));
        ASSERT_OK(loop_run(l));
        ASSERT_EQ(p.n_io, 3);
        p.own = loop_source_close(p.own);
        (void) close_fd(p.fds[1]);
}

TEST(timers_in_order_and_stopped) {
        LoopTimer never = LOOP_TIMER_NULL;
        Probe p = {};
        _cleanup_(loop_freep) Loop *l = NULL;
        uint64_t began = now_usec(CLOCK_MONOTONIC);

        ASSERT_OK(loop_new(&l));
        p.loop = l;
        loop_timer_start(l, &never, 1000, on_stop, &p);
        loop_timer_start(l, &p.timer, USEC_INFINITY, on_stop, &p);
        loop_timer_start(l, &p.timer, 30000, on_stop, &p); /* armed anew */
        loop_timer_stop(&never);
        loop_timer_stop(&never);
        ASSERT_OK(loop_run(l));
        ASSERT_EQ(p.n_timer, 1);
        ASSERT_TRUE(now_usec(CLOCK_MONOTONIC) - began >= 30000);
}
