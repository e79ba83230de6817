/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* control.sock: who asks and how answers go back. What the verbs do stands in monitor.c. Peers other than
 * uid 0 are turned away. */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "shared/json-field.h"

typedef struct Control Control;
typedef struct ControlReply ControlReply;
typedef struct Monitor Monitor;

/* listen_fd: a listening socket; taken on success. */
int control_new(sd_event *e, int listen_fd, Monitor *m, Control **ret);
Control* control_free(Control *c);
DEFINE_CLEANUP(Control, control_free)

/* A connected peer whose right is known; takes fd on success. -EMFILE at CONTROL_CLIENTS_MAX. */
int control_add_client(Control *c, int fd);

/* Whether anybody hears what control_broadcast() says. */
bool control_has_clients(const Control *c);
/* To every client; body: object or NULL, borrowed. */
void control_broadcast(Control *c, const char *event, json_t *body);

/* The answer to one request, given now or later; both calls free it. The asker may have gone: then nothing
 * is sent. */
void control_reply_ok(ControlReply *r, json_t *ok, const int *fds, size_t n_fds);
void control_reply_fault(ControlReply *r, const Fault *fault);
/* Who asked, for monitor_peer_gone(); unique among the connected. */
const void* control_reply_peer(const ControlReply *r);
