/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrennd's end of a capsule's control.sock (docs/PROTOCOLS.md §2). The peer has the capsule's uid and may be
 * taken over by its guest: whatever it says is bounded, checked, and counts for its own capsule only.
 */

#include "daemon/core/capsule.h"
#include "shared/json-stream.h"

#define MONITOR_CALL_TIMEOUT_USEC (10 * USEC_PER_SEC)

/* Takes fd on success; c outlives the link, which it owns. Events go to the functions of capsule.h. */
int monitor_link_new(Capsule *c, int fd, MonitorLink **ret);
/* No callback runs afterwards. */
MonitorLink* monitor_link_free(MonitorLink *l);
/* json_stream_call() on it; verb and done as there. -ENOTCONN when the connection is closed. */
int monitor_link_call(MonitorLink *l, const char *verb, json_t *body, const int *fds, size_t n_fds,
                      uint64_t timeout_usec, JsonCallDone done, void *userdata, JsonCall **ret);
/* Whether the connection has ended. */
bool monitor_link_closed(const MonitorLink *l);
