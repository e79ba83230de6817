/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Clients of data.sock: each speaks HTTP/2 to us, and each of its streams becomes one stream to the agent,
 * head, body both ways, end and reset. Nothing is held back and nothing is gathered: a byte counts against
 * the sender's window until the receiver's queue took it, so a slow client stops the process in the guest
 * and a slow guest stops the client.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "monitor/agent-link.h"

typedef struct Passthrough Passthrough;

/* listen_fd: a listening socket or -EBADF; taken on success. on_activity: a stream began, moved bytes or
 * ended. */
int passthrough_new(sd_event *e, int listen_fd, void (*on_activity)(void *userdata), void *userdata,
                    Passthrough **ret);
/* Every client's connection ends. */
Passthrough* passthrough_free(Passthrough *p);
DEFINE_CLEANUP(Passthrough, passthrough_free)

/* A connected client; takes fd on success. -EMFILE at DATA_CLIENTS_MAX. */
int passthrough_add_client(Passthrough *p, int fd);

/* Where streams go from now on; NULL: nowhere, they are answered with 503. Borrowed: must be reset before
 * the link is freed. */
void passthrough_set_agent(Passthrough *p, AgentLink *agent);

unsigned passthrough_n_clients(const Passthrough *p);
unsigned passthrough_n_streams(const Passthrough *p);
