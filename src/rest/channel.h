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
#include "shared/protocol.h"

typedef struct ChannelTable ChannelTable;
typedef struct ProcessCall ProcessCall;

/* A callback may free the call; nothing else comes after on_failed. */
typedef struct ProcessHandlers {
        /* FRAME_STARTED first, output piecewise, FRAME_EXIT last. */
        void (*on_frame)(ProcessCall *p, FrameType type, const void *payload, size_t n, void *userdata);
        void (*on_failed)(ProcessCall *p, const Fault *fault, void *userdata);
} ProcessHandlers;

int channel_table_new(sd_event *e, BusClient *bus, ChannelTable **ret);
ChannelTable* channel_table_free(ChannelTable *t);
DEFINE_CLEANUP(ChannelTable, channel_table_free)

/*
 * POST /processes with this specification (docs/PROTOCOLS.md §3). The start contract; every call ends with
 * FRAME_EXIT or on_failed. -ENOBUFS at EXEC_PENDING_MAX.
 */
int channel_start_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *spec,
                          const ProcessHandlers *handlers, void *userdata, ProcessCall **ret);
/* Before FRAME_EXIT: resets the stream, and a process with on_disconnect=kill dies. */
ProcessCall* process_call_free(ProcessCall *p);
DEFINE_CLEANUP(ProcessCall, process_call_free)

/* The capsule does not run any more: its connection is closed, its calls fail. */
void channel_drop(ChannelTable *t, const char *id);
size_t channel_table_size(const ChannelTable *t);
