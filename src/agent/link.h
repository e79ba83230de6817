/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The control stream: a virtio-serial port with one HTTP/2 session at a time. While no session is open the
 * link has written AGENT_READY_BYTE once and looks for a client preface, dropping everything before it; a
 * session that ends or breaks is forgotten and the link waits again. So the peer may go away, come back, or
 * send rubbish.
 */

#include "agent/agent.h"

typedef struct Link Link;

/* Finds the port AGENT_PORT_NAME and opens it, waiting for the device up to LINK_PORT_WAIT_USEC. -ENODEV,
 * -errno. */
#define LINK_PORT_WAIT_USEC (2 * USEC_PER_SEC)
int link_open_port(void);

/* Takes fd on success, non-blocking, of which epoll must know (port, socket). */
int link_new(Agent *agent, int fd, Link **ret);
Link* link_free(Link *l);
DEFINE_CLEANUP(Link, link_free)

/* Sends what the turn has produced, as far as the port takes it. Before each wait. */
void link_flush(Link *l);
/* Nothing is left to send. */
bool link_is_flushed(const Link *l);
