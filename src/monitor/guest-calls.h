/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What callers of control.sock have going in the guest: processes (verbs 'exec', 'attach') and transfers
 * (verbs 'request', 'cancel'), up to GUEST_PROCESSES_MAX and TRANSFERS_MAX. Their fds live here and outlive
 * the connection they were asked for on, but for bound transfers.
 */

#include <systemd/sd-event.h>

#include "monitor/agent-link.h"
#include "monitor/control.h"

typedef struct GuestCalls GuestCalls;

typedef struct GuestCallsHandlers {
        void (*on_activity)(void *userdata);
        /* An event for all clients of control.sock; body is borrowed. */
        void (*on_event)(const char *name, json_t *body, void *userdata);
} GuestCallsHandlers;

/* handlers are borrowed. */
int guest_calls_new(sd_event *e, const GuestCallsHandlers *handlers, void *userdata, GuestCalls **ret);
/* All ends silently; fds are closed. */
GuestCalls* guest_calls_free(GuestCalls *g);
DEFINE_CLEANUP(GuestCalls, guest_calls_free)

/* agent: NULL until there is one, and before it goes. */
void guest_calls_set_agent(GuestCalls *g, AgentLink *agent);
/* Processes and transfers that are not over. */
unsigned guest_calls_n_open(const GuestCalls *g);

/* The verbs, as in monitor.h. */
void guest_calls_exec(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void guest_calls_attach(GuestCalls *g, json_t *message, ControlReply *reply);
void guest_calls_request(GuestCalls *g, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
void guest_calls_cancel(GuestCalls *g, json_t *message, ControlReply *reply);

/* Who asked has gone: transfers bound to it end. */
void guest_calls_peer_gone(GuestCalls *g, const void *peer);
