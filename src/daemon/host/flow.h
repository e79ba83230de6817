/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Connections that the host tracks (ctnetlink). What a dead capsule had open would otherwise stay in the
 * host's table, in the case of TCP for days: room that others need, and answers that go to whoever gets the
 * address next.
 */

#include <netinet/in.h>

#include "basic/macro.h"

typedef struct FlowSocket FlowSocket;

/* Opens a socket in the current namespace. 0 or -errno. */
int flow_socket_new(FlowSocket **ret);
FlowSocket* flow_socket_free(FlowSocket *s);
DEFINE_CLEANUP(FlowSocket, flow_socket_free)

/*
 * Forgets connections that source began, at most FLOWS_PER_TURN of them. 0: there are no more; 1: there may
 * be, call again; -errno, e.g. -EPERM. Some milliseconds.
 */
int flow_forget(FlowSocket *s, struct in_addr source);
