/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One capsule as its monitor sees it: idle → starting → ready ⇄ agent-lost → exited. Owns the VMM, the link
 * to the agent, the console, both sockets' clients; ends the event loop with 0 once the VMM has ended and
 * everybody was told.
 */

#include <systemd/sd-event.h>

#include "monitor/control.h"

#define MONITOR_SIGTERM_USEC  (10 * USEC_PER_SEC) /* for the guest to power off after SIGTERM */
#define MONITOR_ACTIVITY_USEC (1 * USEC_PER_SEC)  /* least time between two activity events */
#define MONITOR_FAREWELL_USEC (2 * USEC_PER_SEC)  /* for the last messages to leave */

/* Descriptors of the command line; -EBADF when absent. Taken by monitor_new() on success. */
typedef struct MonitorFds {
        int control;
        int data;
        int console;
        int exit;
} MonitorFds;

/* id: borrowed, for the log. */
int monitor_new(sd_event *e, const char *id, const MonitorFds *fds, Monitor **ret);
Monitor* monitor_free(Monitor *m);
DEFINE_CLEANUP(Monitor, monitor_free)

/* As the verb 'poweroff' with MONITOR_SIGTERM_USEC. */
void monitor_terminate(Monitor *m);

Control* monitor_control(Monitor *m);

/* Verbs of control.sock; each answers reply exactly once. fds: entries taken are set to -EBADF. */
void monitor_verb_describe(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_start(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_poweroff(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_kill(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_exec(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_attach(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_request(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_cancel(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void monitor_verb_console(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);

/* A client of control.sock has gone: what was bound to it ends. */
void monitor_peer_gone(Monitor *m, const void *peer);
