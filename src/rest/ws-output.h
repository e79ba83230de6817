/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Frames that wait for a socket, and queues of frames or messages. Pings and pongs overtake messages, but
 * never break into a frame. */

#include "rest/ws-codec.h"

typedef struct WsFrame {
        struct WsFrame *next;
        size_t n, at; /* of the data; done with */
        bool text;    /* of a message */
        uint8_t data[];
} WsFrame;

typedef struct WsQueue {
        WsFrame *first, *last;
        size_t n_frames, n_bytes; /* with what keeps them */
} WsQueue;

void ws_queue_push(WsQueue *q, WsFrame *f);
WsFrame* ws_queue_pop(WsQueue *q); /* NULL: it is empty */
void ws_queue_clear(WsQueue *q);

typedef struct WsOutput {
        WsQueue control, messages; /* the Close is the last of the messages */
        WsFrame *current;          /* partly sent */
} WsOutput;

void ws_output_done(WsOutput *o);
/* Bytes that go out as they are, before all others. -ENOMEM. */
int ws_output_begin(WsOutput *o, const char *text);
/* One frame. -ENOMEM. A pong beyond WS_PONGS_MAX takes the place of the last one (RFC 6455 §5.5.3). */
int ws_output_add(WsOutput *o, WsCodec *c, WsOpcode opcode, const void *data, size_t n);
/* Sends what fd (non-blocking) takes now: the count, or -errno. */
ssize_t ws_output_flush(WsOutput *o, int fd);

bool ws_output_is_empty(const WsOutput *o);
size_t ws_output_unsent(const WsOutput *o); /* bytes of messages, what keeps them included */
size_t ws_output_held(const WsOutput *o);   /* bytes of memory */
