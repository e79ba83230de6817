/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One process of a capsule, from our side: its output to ours until it ends, its exit code as ours, signals
 * that end us. What goes in, and what the end of us means to the process, is the verb's. */

#include "ctl/ctl.h"
#include "ctl/flow.h"

typedef struct Session {
        Ctl *ctl;
        const char *id;   /* of the capsule; weak */
        const char *path; /* of its object; weak */
        sd_event *event;
        sd_bus_slot *exited_slot, *removed_slot;
        Flow input, output, error;
        uint32_t pid; /* 0: any of that tag */
        char *tag;    /* NULL: any of that pid */
        bool exited, interrupted, ended;
        int code;
        char reason[16];
} Session;

/* From here on Ctrl-C is an event: a capsule that was asked for is also destroyed. */
void session_block_signals(void);
/* Watches for the end of the capsule and of processes, before one is started. Strings are borrowed. 0 or
 * -errno. */
int session_open(Session *x, Ctl *ctl, const char *id, const char *path);
/* A descriptor of the answer m as one of our own that does not block; -errno. */
int session_take_fd(int fd);
/* Sends what comes from fd (taken in every case) to one of our streams. 0 or -errno. */
int session_show(Session *x, Flow *f, int fd, int our_fd);
/* Nothing more is waited for; code: the exit status unless the process has told its own. */
void session_interrupt(Session *x, int code);
/* The exit status of a verb that passes on a command's: what it keeps of a failure of ours, else
 * EXIT_DAEMON. */
int command_failed(int r);
/* Until the process ended and all was shown, or an interrupt. Its exit status. */
int session_run(Session *x);
void session_done(Session *x);
