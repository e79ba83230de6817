/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The agent's event loop: epoll, timers on CLOCK_MONOTONIC in steps of the kernel's tick, and one function
 * that runs before every wait. The agent is static and links no libsystemd. Sources may be freed from within
 * any handler; no handler of a freed source runs.
 */

#include <sys/epoll.h>

#include "basic/macro.h"

typedef struct Loop Loop;
typedef struct LoopSource LoopSource;
typedef void (*LoopIoHandler)(uint32_t events, void *userdata);
typedef void (*LoopHandler)(void *userdata);

/* A timer lives in its owner's struct; LOOP_TIMER_NULL at birth, loop_timer_stop() before the owner goes
 * away. */
typedef struct LoopTimer {
        Loop *loop; /* NULL: not armed */
        uint64_t deadline_usec;
        LoopHandler handler;
        void *userdata;
        struct LoopTimer *previous, *next;
} LoopTimer;

#define LOOP_TIMER_NULL ((LoopTimer) {})

int loop_new(Loop **ret);
Loop* loop_free(Loop *l);
DEFINE_CLEANUP(Loop, loop_free)

/* Calls handler when fd has events (EPOLLET is allowed). fd: borrowed, closed by the owner after the source
 * is freed. -ENOMEM, -errno. */
int loop_add(Loop *l, int fd, uint32_t events, LoopIoHandler handler, void *userdata, LoopSource **ret);
LoopSource* loop_source_free(LoopSource *s);
/* The same, and closes the fd, of which there must be no copy, in no process: saves a system call. */
LoopSource* loop_source_close(LoopSource *s);
/* Changes the events; 0: the fd is taken out of the set until the next call, so that a hang-up does not wake
 * us. */
int loop_source_set_events(LoopSource *s, uint32_t events);
/* Runs the handler once more in the next turn with EPOLLIN, for edge-triggered readers that stopped early.
 */
void loop_source_again(LoopSource *s);

/* Arms or re-arms: handler runs once, delay_usec from now. */
void loop_timer_start(Loop *l, LoopTimer *t, uint64_t delay_usec, LoopHandler handler, void *userdata);
void loop_timer_stop(LoopTimer *t);

/* Runs handler before each wait: where output of the turn is sent in one piece. */
void loop_set_prepare(Loop *l, LoopHandler handler, void *userdata);

/* Until loop_stop() in a handler. -errno of epoll_wait(2). */
int loop_run(Loop *l);
void loop_stop(Loop *l);
