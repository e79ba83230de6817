/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One HTTP/2 connection to the agent of each capsule that is in use (OpenChannel), kept for all requests and
 * opened again after a loss. What cannot be sent at once - no connection yet, no free stream - waits in a
 * bounded queue.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "rest/auth.h"
#include "rest/bus-client.h"

typedef struct ChannelTable ChannelTable;
/* One request to the agent (docs/PROTOCOLS.md §3). */
typedef struct AgentCall AgentCall;

/* A callback may free the call; on_end and on_failed are the last ones. */
typedef struct AgentCallHandlers {
        /* optional. The head of the answer, 2xx only: any other answer is on_failed with the agent's fault.
         */
        void (*on_response)(AgentCall *c, unsigned status, void *userdata);
        /* Bytes of the answer. Give the credit back with agent_call_consume() when they are passed on: until
         * then they count, and the agent stops at H2_WINDOW_BYTES. */
        void (*on_data)(AgentCall *c, const void *data, size_t n, void *userdata);
        void (*on_end)(AgentCall *c, void *userdata); /* the answer is whole */
        /* optional. agent_call_room() grew, or the stream is open now. */
        void (*on_writable)(AgentCall *c, void *userdata);
        /* optional. The stream was refused unseen, but something of the body had been written. true: the
         * call is tried again and the body written anew, from its beginning, at on_writable. */
        bool (*on_refused)(AgentCall *c, void *userdata);
        void (*on_failed)(AgentCall *c, const Fault *fault, void *userdata);
} AgentCallHandlers;

int channel_table_new(sd_event *e, BusClient *bus, ChannelTable **ret);
ChannelTable* channel_table_free(ChannelTable *t);
DEFINE_CLEANUP(ChannelTable, channel_table_free)

/*
 * method: a literal. path: as sent, with its query, percent-encoded. with_body: agent_call_write() and
 * agent_call_end() follow; there may be room at once, then no on_writable comes before it was used. handlers
 * are borrowed. The start contract; -ENOBUFS at EXEC_PENDING_MAX.
 */
int channel_call(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *method,
                 const char *path, bool with_body, const AgentCallHandlers *handlers, void *userdata,
                 AgentCall **ret);
/* Bytes agent_call_write() takes now; 0 before the stream is open. */
size_t agent_call_room(const AgentCall *c);
/* The number of bytes taken (0..n), or -EPIPE after agent_call_end(), -ENOMEM. */
ssize_t agent_call_write(AgentCall *c, const void *data, size_t n);
int agent_call_end(AgentCall *c); /* no more bytes; -errno of h2_stream_end() */
void agent_call_consume(AgentCall *c, size_t n);
/* Resets the stream unless the answer has ended. */
AgentCall* agent_call_free(AgentCall *c);
DEFINE_CLEANUP(AgentCall, agent_call_free)
/* Frees a call of which all that matters has come: ends the request and lets the agent end the answer. */
AgentCall* agent_call_leave(AgentCall *c);

/* The capsule does not run any more: its connection is closed, its calls fail. */
void channel_drop(ChannelTable *t, const char *id);
size_t channel_table_size(const ChannelTable *t);
