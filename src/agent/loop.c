/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <time.h>

#include "agent/loop.h"
#include "basic/fd.h"

#define LOOP_EVENTS_MAX 64

struct LoopSource {
        Loop *loop;
        int fd;
        uint32_t events; /* 0: not in the epoll set */
        bool again;
        bool dead; /* freed by its owner; the memory goes at the end of the turn */
        LoopIoHandler handler;
        void *userdata;
        LoopSource *next_dead;
        LoopSource *next_again;
};

struct Loop {
        int epoll_fd;
        bool stopped;
        LoopTimer *timers;
        LoopSource *dead;
        LoopSource *again;
        LoopHandler prepare;
        void *prepare_userdata;
        uint64_t tick_usec; /* of the clock */
};

/* Coarse: read without a system call whatever the clock source is. */
static uint64_t loop_now(void) {
        return now_usec(CLOCK_MONOTONIC_COARSE);
}

int loop_new(Loop **ret) {
        _cleanup_(loop_freep) Loop *l = NULL;
        struct timespec tick = {};

        l = malloc(sizeof(Loop));
        if (!l)
                return -ENOMEM;

        *l = (Loop) { .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
        if (l->epoll_fd < 0)
                return -errno;

        (void) clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
        l->tick_usec = (uint64_t) tick.tv_nsec / 1000 + 1;

        *ret = TAKE_PTR(l);
        return 0;
}

static void loop_bury(Loop *l) {
        while (l->dead) {
                LoopSource *s = l->dead;

                l->dead = s->next_dead;
                free(s);
        }
}

Loop* loop_free(Loop *l) {
        if (!l)
                return NULL;

        loop_bury(l);
        (void) close_fd(l->epoll_fd);
        free(l);
        return NULL;
}

int loop_add(Loop *l, int fd, uint32_t events, LoopIoHandler handler, void *userdata, LoopSource **ret) {
        _cleanup_free_ LoopSource *s = NULL;
        int r;

        s = malloc(sizeof(LoopSource));
        if (!s)
                return -ENOMEM;

        *s = (LoopSource) { .loop = l, .fd = fd, .handler = handler, .userdata = userdata };
        r = loop_source_set_events(s, events);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(s);
        return 0;
}

static void loop_source_kill(LoopSource *s) {
        s->dead = true;
        s->next_dead = s->loop->dead;
        s->loop->dead = s;
}

LoopSource* loop_source_free(LoopSource *s) {
        if (!s)
                return NULL;

        (void) loop_source_set_events(s, 0);
        loop_source_kill(s);
        return NULL;
}

LoopSource* loop_source_close(LoopSource *s) {
        if (!s)
                return NULL;

        (void) close_fd(s->fd); /* epoll forgets an fd with its last copy */
        loop_source_kill(s);
        return NULL;
}

int loop_source_set_events(LoopSource *s, uint32_t events) {
        struct epoll_event event = { .events = events, .data.ptr = s };
        int operation;

        if (events == s->events)
                return 0;

        operation = events == 0 ? EPOLL_CTL_DEL : s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        if (epoll_ctl(s->loop->epoll_fd, operation, s->fd, &event) < 0)
                return -errno;

        s->events = events;
        return 0;
}

void loop_source_again(LoopSource *s) {
        if (s->again)
                return;

        s->again = true;
        s->next_again = s->loop->again;
        s->loop->again = s;
}

void loop_timer_start(Loop *l, LoopTimer *t, uint64_t delay_usec, LoopHandler handler, void *userdata) {
        uint64_t now = loop_now() + l->tick_usec; /* never early */

        loop_timer_stop(t);
        *t = (LoopTimer) {
                .loop = l,
                .deadline_usec = delay_usec > USEC_INFINITY - now ? USEC_INFINITY : now + delay_usec,
                .handler = handler,
                .userdata = userdata,
                .next = l->timers,
        };
        if (l->timers)
                l->timers->previous = t;
        l->timers = t;
}

void loop_timer_stop(LoopTimer *t) {
        if (!t->loop)
                return;

        if (t->previous)
                t->previous->next = t->next;
        else
                t->loop->timers = t->next;
        if (t->next)
                t->next->previous = t->previous;
        *t = LOOP_TIMER_NULL;
}

void loop_set_prepare(Loop *l, LoopHandler handler, void *userdata) {
        l->prepare = handler;
        l->prepare_userdata = userdata;
}

static LoopTimer* loop_first_timer(Loop *l) {
        LoopTimer *first = NULL;

        for (LoopTimer *t = l->timers; t; t = t->next)
                if (!first || t->deadline_usec < first->deadline_usec)
                        first = t;

        return first;
}

/* Milliseconds for epoll_wait(2), rounded up so that a timer is never early. */
static int loop_timeout(Loop *l) {
        LoopTimer *t;
        uint64_t now, left_msec;

        if (l->again)
                return 0;

        t = loop_first_timer(l);
        if (!t)
                return -1;

        now = loop_now();
        if (t->deadline_usec <= now)
                return 0;

        left_msec = (t->deadline_usec - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC;
        return left_msec > 60000 ? 60000 : (int) left_msec;
}

static void loop_run_timers(Loop *l) {
        uint64_t now;

        if (!l->timers)
                return;

        now = loop_now();
        for (;;) {
                LoopTimer *t = loop_first_timer(l);
                LoopHandler handler;
                void *userdata;

                if (!t || t->deadline_usec > now)
                        return;

                handler = t->handler;
                userdata = t->userdata;
                loop_timer_stop(t);
                handler(userdata);
        }
}

static void loop_run_again(Loop *l) {
        LoopSource *list = TAKE_PTR(l->again);

        while (list) {
                LoopSource *s = list;

                list = s->next_again;
                s->again = false;
                if (!s->dead)
                        s->handler(EPOLLIN, s->userdata);
        }
}

int loop_run(Loop *l) {
        struct epoll_event events[LOOP_EVENTS_MAX];

        l->stopped = false;
        while (!l->stopped) {
                int n;

                if (l->prepare)
                        l->prepare(l->prepare_userdata);
                if (l->stopped)
                        break;

                n = epoll_wait(l->epoll_fd, events, LOOP_EVENTS_MAX, loop_timeout(l));
                if (n < 0 && errno != EINTR)
                        return -errno;

                loop_run_again(l);
                for (int i = 0; i < n; i++) {
                        LoopSource *s = events[i].data.ptr;

                        if (!s->dead)
                                s->handler(events[i].events, s->userdata);
                }
                loop_run_timers(l);
                loop_bury(l);
        }

        return 0;
}

void loop_stop(Loop *l) {
        l->stopped = true;
}
