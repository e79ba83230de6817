/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Names and numbers both ends of control.sock and of the agent's stream must agree on; docs/PROTOCOLS.md
 * tells what they mean. */

#include "basic/limits.h"
#include "basic/macro.h"

#define AGENT_PROTOCOL_VERSION 1U
/* name of the virtio-serial port, /sys/class/virtio-ports/<port>/name */
#define AGENT_PORT_NAME "dev.wrenn.agent"
/* written once by the agent whenever it waits for a new HTTP/2 session */
#define AGENT_READY_BYTE '\x16'

/* what every guest sees (api.md §6.4) */
#define GUEST_ADDRESS4   "169.254.0.21"
#define GUEST_GATEWAY4   "169.254.0.22"
#define GUEST_PREFIXLEN4 30U
#define GUEST_MAC        "06:00:00:00:00:02"
/* in every slot, so that a restored guest's neighbour cache holds */
#define GUEST_GATEWAY_MAC "06:00:00:00:00:01"
#define GUEST_IFNAME      "eth0"
#define GUEST_TAP_IFNAME  "tap0" /* in the slot's netns */

/* Typed frames in the DATA of /processes: type (1 byte), length (4 bytes, big-endian), payload. */
#define FRAME_HEADER_LEN  5U
#define FRAME_PAYLOAD_MAX (64 * KIB)
typedef enum FrameType {
        /* to the agent, first: JSON of the process to start (≤ AGENT_JSON_MAX, the one frame that may be
           longer) */
        FRAME_SPEC = 'j',
        FRAME_STDIN = 'i', /* to the agent */
        FRAME_STDIN_EOF = 'I',
        FRAME_RESIZE = 'w',  /* to the agent: 2 × 16 bit big-endian, columns, rows */
        FRAME_STARTED = 's', /* from the agent, first: JSON {"pid","tag","pty"} */
        FRAME_STDOUT = 'o',
        FRAME_STDERR = 'e',
        FRAME_PTY = 'p',
        /* from the agent, last: JSON {"exit_code","signal","reason","duration_usec"} */
        FRAME_EXIT = 'x',
} FrameType;

/* Writes the 5 bytes. */
void frame_header(uint8_t ret[static FRAME_HEADER_LEN], FrameType type, uint32_t length);

/*
 * Incremental decoder. Payload of the data types (stdin, stdout, stderr, pty) is given piecewise as it
 * comes; all others once, whole, also when empty. A longer payload than the type allows or an unknown type
 * is -EPROTO. on_frame < 0 stops and is returned; feed nothing more after an error, only
 * frame_decoder_done().
 */
typedef struct FrameDecoder {
        uint8_t header[FRAME_HEADER_LEN];
        size_t n_header;
        uint32_t left;   /* of the current payload */
        uint8_t *buffer; /* whole frames; owned */
        size_t n_buffer;
} FrameDecoder;
typedef int (*FrameHandler)(FrameType type, const void *payload, size_t n, void *userdata);
void frame_decoder_done(FrameDecoder *d);
/* -EPROTO, -ENOMEM */
int frame_decoder_feed(FrameDecoder *d, const void *data, size_t n, FrameHandler on_frame, void *userdata);

/* control.sock */
#define CONTROL_VERB_DESCRIBE        "describe"
#define CONTROL_VERB_START           "start"
#define CONTROL_VERB_POWEROFF        "poweroff"
#define CONTROL_VERB_KILL            "kill"
#define CONTROL_VERB_EXEC            "exec"
#define CONTROL_VERB_ATTACH          "attach"
#define CONTROL_VERB_REQUEST         "request"
#define CONTROL_VERB_CANCEL          "cancel"
#define CONTROL_VERB_CONSOLE         "console"
#define CONTROL_EVENT_READY          "ready"
#define CONTROL_EVENT_ACTIVITY       "activity"
#define CONTROL_EVENT_PROCESS_EXITED "process-exited"
#define CONTROL_EVENT_TRANSFER       "transfer"
#define CONTROL_EVENT_TRANSFER_ENDED "transfer-ended"
#define CONTROL_EVENT_AGENT_LOST     "agent-lost"
#define CONTROL_EVENT_EXITED         "exited"

/* Why a capsule ended (architecture §5): one table, names for JSON, D-Bus and the journal. */
typedef enum EndReason {
        END_NONE,
        END_USER, /* destroyed on request */
        END_TIMEOUT,
        END_GUEST_EXIT, /* the guest powered off or rebooted */
        END_VMM_CRASH,  /* VMM ended by itself or by a signal not ours; start failed */
        END_OOM,
        END_HOST_SHUTDOWN,
        END_HOST_REBOOT,
        END_DISK_FULL,
        END_AGENT_LOST, /* the guest's agent was given up */
        END_LOST,       /* found gone, nobody knows why */
        _END_REASON_MAX,
        _END_REASON_INVALID = -EINVAL,
} EndReason;
const char* end_reason_to_string(EndReason r);
EndReason end_reason_from_string(const char *s);
