/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What clients of the WebSockets say in JSON, as structs (api.md §2.14, §2.16). */

#include "rest/capsule-spec.h"

/* The first message of exec/stream: FAULT_INVALID_ARGS unless it is a good "start". ret must be empty;
 * exec_spec_done() also after a failure. */
int exec_start_from_json(const char *text, size_t n, ExecSpec *ret, Fault *reterr);
/* Is it {"type":"stop"}? */
bool exec_message_is_stop(const char *text, size_t n);

typedef enum PtyMessageType {
        PTY_MESSAGE_START,
        PTY_MESSAGE_CONNECT,
        PTY_MESSAGE_INPUT,
        PTY_MESSAGE_RESIZE,
        PTY_MESSAGE_KILL,
        _PTY_MESSAGE_TYPE_MAX,
        _PTY_MESSAGE_TYPE_INVALID = -EINVAL, /* "pong" and whatever else: ignored */
} PtyMessageType;

typedef struct PtyMessage {
        PtyMessageType type;
        ExecSpec spec; /* start: all but tag, timeout and background */
        uint32_t cols, rows;
        char *tag;  /* connect */
        void *data; /* input, decoded */
        size_t n_data;
} PtyMessage;

void pty_message_done(PtyMessage *m);
/* ret must be empty; pty_message_done() also after a failure. FAULT_INVALID_ARGS: it is no good message. */
int pty_message_from_json(const char *text, size_t n, PtyMessage *ret, Fault *reterr);
