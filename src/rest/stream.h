/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A WebSocket with a process behind it: what exec/stream, attach and terminals share. Output that the client
 * does not take yet stays here, uncredited: the process stops once H2_WINDOW_BYTES of it wait. A client that
 * leaves detaches, the process goes on.
 */

#include "rest/capsule-spec.h"
#include "rest/process-call.h"
#include "rest/rest.h"
#include "shared/h2-ring.h"

#define STREAM_PIECE_MAX (16 * KIB) /* of output in one message */

typedef struct Stream Stream;

typedef struct StreamOps {
        void (*on_message)(Stream *s, bool text, const void *data, size_t n);
        void (*on_started)(Stream *s, const ProcessStarted *started);
        /* May output be sent now? NULL: always. */
        bool (*is_ready)(Stream *s);
        /* At most STREAM_PIECE_MAX bytes, to be sent with stream_send(). */
        void (*on_output)(Stream *s, FrameType type, const void *data, size_t n);
        /* All output is out: only the exit message is left. */
        void (*on_exit)(Stream *s, int exit_code);
        void (*on_writable)(Stream *s); /* optional; process_call_input() takes more */
        void (*on_ended)(Stream *s);    /* optional; no process any more, but maybe output */
        void (*free)(Stream *s);        /* what the kind has; frees s */
} StreamOps;

struct Stream {
        const StreamOps *ops;
        RestRequest *request; /* weak: it and the WebSocket outlive us */
        WsConn *ws;
        ProcessCall *process;
        sd_event_source *deadline; /* for the first message */
        const char *expected;      /* a literal: what that should have been */
        H2Ring output[2];          /* not passed on yet: stdout or terminal, stderr */
        ProcessExit exit;
        Fault fault;
        bool has_process; /* was asked for */
        bool ended;       /* exit or fault is what follows the output */
        bool over;        /* all is said */
};

/* s is freed by its ops when the WebSocket is closed. */
void stream_begin(Stream *s, RestRequest *q, WsConn *w, const StreamOps *ops);
/* Ends it after WS_FIRST_MESSAGE_USEC without a process, with this literal. */
void stream_expect(Stream *s, const char *text);
/* What goes wrong becomes an error in-band. */
void stream_start(Stream *s, const ExecSpec *spec);
void stream_attach(Stream *s, const char *selector, bool with_input);
/* Ends it: output that waits, then the error, then Close. */
void stream_fail(Stream *s, FaultCode code, const char *message);
/* Sends what can be sent. */
void stream_pump(Stream *s);
/* One message; NULL json: out of memory. */
void stream_send_json(Stream *s, json_t *json_consume);
void stream_send(Stream *s, bool text, const void *data, size_t n);
/* The client wants no more: Close. */
void stream_close(Stream *s);
