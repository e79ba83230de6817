/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Newline-delimited JSON over a Unix stream socket on sd-event, with fds by SCM_RIGHTS, and the table of
 * calls that wait for an answer. One codec for control.sock (both sides) and QMP; see docs/PROTOCOLS.md for
 * the dialects. A peer that breaks a limit (message size, depth, fds, unsent bytes) or sends no JSON ends
 * the stream.
 */

#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "shared/json-field.h"

typedef struct JsonStream JsonStream;
typedef struct JsonCall JsonCall;

typedef enum JsonDialect {
        /* {"id":1,"verb":"…",…} · {"id":1,"ok":{…}} · {"id":1,"error":{"code","message"}} · {"event":"…",…}
         */
        JSON_DIALECT_CONTROL,
        /* {"execute":"…","arguments":{…},"id":1} · {"return":…,"id":1} · {"error":{"desc"},"id":1} ·
           {"event":"…"} */
        JSON_DIALECT_QMP,
} JsonDialect;

typedef struct JsonStreamHandlers {
        /* A request of the peer (control only). fds: n_fds received fds, the handler takes those it wants by
         * setting the entry to -EBADF, the rest are closed. Answer with json_stream_reply() or
         * json_stream_reply_fault(), now or later. */
        void (*on_request)(JsonStream *s, uint64_t id, const char *verb, json_t *message, int *fds,
                           size_t n_fds, void *userdata);
        /* An event of the peer, or a QMP greeting (name "greeting"). message: the whole line. */
        void (*on_event)(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                         void *userdata);
        /* The stream ended (error: 0 for EOF, else negative errno). All open calls have failed with
         * -ECONNRESET before. Once. */
        void (*on_closed)(JsonStream *s, int error, void *userdata);
} JsonStreamHandlers;

/* r: 0 with result (borrowed, ends with the callback) and fds as above; else -EREMOTEIO (peer's error in
 * fault), -ETIMEDOUT, -ECONNRESET. */
typedef void (*JsonCallDone)(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds,
                             const Fault *fault, void *userdata);

/* Takes fd on success (non-blocking made here). handlers borrowed, must outlive the stream. */
int json_stream_new(sd_event *e, int fd, JsonDialect dialect, size_t message_max,
                    const JsonStreamHandlers *handlers, void *userdata, JsonStream **ret);
/* No callback runs afterwards, may be called in any. Calls that somebody holds end silently and are still to
 * be freed by their holder. */
JsonStream* json_stream_free(JsonStream *s);
DEFINE_CLEANUP(JsonStream, json_stream_free)
int json_stream_fd(const JsonStream *s);

/*
 * Sends a request. body: object or NULL; borrowed. fds are duplicated. done: the start contract of style.md
 * §7. control: the members of body stand beside id and verb; QMP: body is "arguments". timeout_usec:
 * USEC_INFINITY for none. ret: the caller's, freed by json_call_free() in done, or before to cancel (a late
 * answer is dropped); NULL: "let it run", done does not free. fault in done: set whenever r < 0. -ENOBUFS at
 * CALLS_MAX or when the peer does not read, -ENOTCONN after the end, -EMSGSIZE, -E2BIG (fds).
 */
int json_stream_call(JsonStream *s, const char *verb, json_t *body, const int *fds, size_t n_fds,
                     uint64_t timeout_usec, JsonCallDone done, void *userdata, JsonCall **ret);
JsonCall* json_call_free(JsonCall *c);
DEFINE_CLEANUP(JsonCall, json_call_free)

int json_stream_reply(JsonStream *s, uint64_t id, json_t *ok, const int *fds, size_t n_fds);
int json_stream_reply_fault(JsonStream *s, uint64_t id, const Fault *fault);
int json_stream_event(JsonStream *s, const char *name, json_t *body);
