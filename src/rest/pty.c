/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* WS …/pty: a terminal (api.md §2.16). */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/stream-message.h"
#include "rest/stream.h"
#include "shared/event.h"

#define EXPECTED      "first message must be type 'start' or 'connect'"
#define RECEIVED_USEC USEC_PER_MSEC /* after which what the client sent before is read */

typedef struct PtyStream {
        Stream stream;
        PtyDialect dialect;
        bool connects; /* to a terminal that exists */
        bool started, kill;
        uint32_t pid;
        char *tag;
        sd_event_source *hold, *ping;
        uint8_t *input; /* typed, not taken yet; later messages are held */
        size_t n_input, n_taken;
        uint32_t cols, rows; /* the same for a resize; 0: none */
} PtyStream;

/* Dialects. */

/* The tag's and the key's are what this client showed last. */
static void pty_remember(PtyStream *p) {
        RestRequest *q = p->stream.request;

        if (p->dialect.shown == PTY_FRAMING_NONE)
                return;
        if (p->tag)
                pty_tags_put(q->server->pty_tags, q->args[0], p->tag, p->dialect.shown);
        auth_note_framing(q->server->auth, q->key, p->dialect.shown);
}

static void pty_decide(PtyStream *p, PtyFraming framing) {
        if (!pty_dialect_input(&p->dialect, framing))
                return;
        p->hold = event_source_free(p->hold);
        pty_remember(p);
        stream_pump(&p->stream);
}

static int on_hold_over(sd_event_source *source, uint64_t usec, void *userdata) {
        PtyStream *p = userdata;

        pty_dialect_settle(&p->dialect);
        stream_pump(&p->stream);
        return 0;
}

static void pty_hold(PtyStream *p, uint64_t usec) {
        if (p->dialect.framing != PTY_FRAMING_NONE)
                return;
        if (event_timer(p->stream.request->server->event, &p->hold, usec, PRIORITY_CLIENT, on_hold_over, p,
                        "pty-dialect") < 0)
                pty_dialect_settle(&p->dialect);
}

static bool is_ready(Stream *s) {
        return container_of(s, PtyStream, stream)->dialect.framing != PTY_FRAMING_NONE;
}

/* What the client sent before it could know of the end still counts. */
static void on_ended(Stream *s) {
        PtyStream *p = container_of(s, PtyStream, stream);

        free(TAKE_PTR(p->input));
        p->n_input = p->n_taken = 0;
        p->cols = 0;
        ws_hold(s->ws, false);
        if (p->started && !fault_is_set(&s->fault))
                pty_hold(p, RECEIVED_USEC);
        else
                pty_dialect_settle(&p->dialect);
}

/* To the process. */

/* Passes on what waits; false: some is left, and the client has to wait. */
static bool pty_flush(PtyStream *p) {
        ProcessCall *process = p->stream.process;
        ssize_t k = 1;

        while (process && p->n_taken < p->n_input && k > 0) {
                k = process_call_input(process, p->input + p->n_taken, p->n_input - p->n_taken);
                p->n_taken += (size_t) MAX(k, (ssize_t) 0);
        }
        if (process && p->n_taken < p->n_input && k >= 0)
                return false;
        free(TAKE_PTR(p->input));
        p->n_input = p->n_taken = 0;

        if (process && p->cols > 0 && process_call_resize(process, p->cols, p->rows) == -EAGAIN)
                return false;
        p->cols = 0;
        return true;
}

static void on_writable(Stream *s) {
        if (pty_flush(container_of(s, PtyStream, stream)))
                ws_hold(s->ws, false);
}

/* Nothing waits when a message comes: it would have been held. */
static void pty_type(PtyStream *p, const void *data, size_t n) {
        ssize_t k = 0;

        if (!p->stream.process)
                return;
        for (size_t i = 0; i < n; i += (size_t) k) {
                k = process_call_input(p->stream.process, (const uint8_t *) data + i, n - i);
                if (k < 0)
                        return;
                if (k > 0)
                        continue;
                p->input = malloc(n - i);
                if (!p->input) {
                        stream_fail(&p->stream, FAULT_NO_MEMORY, "Out of memory.");
                        return;
                }
                memcpy(p->input, (const uint8_t *) data + i, n - i);
                p->n_input = n - i;
                ws_hold(p->stream.ws, true);
                return;
        }
}

static void pty_resize(PtyStream *p, uint32_t cols, uint32_t rows) {
        p->cols = cols;
        p->rows = rows;
        if (!pty_flush(p))
                ws_hold(p->stream.ws, true);
}

static void on_kill_data(AgentCall *c, const void *data, size_t n, void *userdata) {
        agent_call_consume(c, n);
}

static void on_kill_end(AgentCall *c, void *userdata) {
        agent_call_free(c);
}

/* The process has ended already, or its own call fails, too. */
static void on_kill_failed(AgentCall *c, const Fault *fault, void *userdata) {
        agent_call_free(c);
}

/* A call without an owner: clients leave right behind their kill. */
static const AgentCallHandlers kill_handlers = {
        .on_data = on_kill_data,
        .on_end = on_kill_end,
        .on_failed = on_kill_failed,
};

static void pty_kill(PtyStream *p) {
        RestRequest *q = p->stream.request;
        char path[sizeof("/processes/4294967295/signal?signal=64")];
        AgentCall *call;
        CapsuleView *v;

        p->kill = !p->started;
        if (p->kill || !p->stream.process)
                return;
        (void) snprintf(path, sizeof(path), "/processes/%u/signal?signal=%i", p->pid, SIGKILL);
        if (rest_request_running_capsule(q, &v, NULL) >= 0)
                (void) channel_call(q->server->channels, v, q->key, "POST", path, /* with_body= */ false,
                                    &kill_handlers, NULL, &call);
}

/* From the process. */

static int on_ping(sd_event_source *source, uint64_t usec, void *userdata) {
        PtyStream *p = userdata;

        (void) event_timer(p->stream.request->server->event, &p->ping, PTY_PING_USEC, PRIORITY_CLIENT,
                           on_ping, p, "pty-ping");
        if (ws_room(p->stream.ws) > 0)
                stream_send(&p->stream, /* text= */ true, "{\"type\":\"ping\"}",
                            strlen("{\"type\":\"ping\"}"));
        return 0;
}

static void on_started(Stream *s, const ProcessStarted *started) {
        PtyStream *p = container_of(s, PtyStream, stream);
        RestRequest *q = s->request;

        if (!started->pty) {
                stream_fail(s, FAULT_INVALID_ARGS, "The process has no terminal.");
                return;
        }
        p->started = true;
        p->pid = started->pid;
        (void) free_and_strdup(&p->tag, started->tag);
        stream_send_json(s, json_pack("{s:s,s:s,s:I}", "type", "started", "tag", started->tag, "pid",
                                      (json_int_t) started->pid));

        pty_dialect_start(&p->dialect,
                          p->connects ? pty_tags_get(q->server->pty_tags, q->args[0], started->tag)
                                      : PTY_FRAMING_NONE,
                          q->key->pty_framing, q->key->pty_framing_default);
        pty_remember(p);
        pty_hold(p, pty_dialect_hold_usec(&p->dialect));
        (void) event_timer(q->server->event, &p->ping, PTY_PING_USEC, PRIORITY_CLIENT, on_ping, p,
                           "pty-ping");
        if (p->kill)
                pty_kill(p);
}

static void on_output(Stream *s, FrameType type, const void *data, size_t n) {
        PtyStream *p = container_of(s, PtyStream, stream);
        _cleanup_free_ char *text = NULL;

        if (p->dialect.framing == PTY_FRAMING_BINARY) {
                stream_send(s, /* text= */ false, data, n);
                return;
        }
        text = base64_encode(data, n);
        stream_send_json(s, text ? json_pack("{s:s,s:s}", "type", "output", "data", text) : NULL);
}

static void on_exit_code(Stream *s, int exit_code) {
        stream_send_json(s, json_pack("{s:s,s:i}", "type", "exit", "exit_code", exit_code));
}

/* From the client. */

static void pty_begin(PtyStream *p, PtyMessage *m) {
        switch (m->type) {
        case PTY_MESSAGE_START:
                m->spec.background = true; /* it goes on when the client leaves */
                m->spec.timeout_usec = 0;
                free(TAKE_PTR(m->spec.tag));
                m->spec.terminal = true;
                m->spec.cols = m->cols;
                m->spec.rows = m->rows;
                stream_start(&p->stream, &m->spec);
                break;
        case PTY_MESSAGE_CONNECT:
                p->connects = true;
                stream_attach(&p->stream, m->tag, /* with_input= */ true);
                break;
        default:
                stream_fail(&p->stream, FAULT_INVALID_ARGS, EXPECTED);
        }
}

static void pty_take(PtyStream *p, const PtyMessage *m) {
        switch (m->type) {
        case PTY_MESSAGE_INPUT:
                pty_decide(p, PTY_FRAMING_JSON);
                pty_type(p, m->data, m->n_data);
                break;
        case PTY_MESSAGE_RESIZE:
                pty_resize(p, m->cols, m->rows);
                break;
        case PTY_MESSAGE_KILL:
                pty_kill(p);
                break;
        default:
                break;
        }
}

static void on_message(Stream *s, bool text, const void *data, size_t n) {
        _cleanup_(pty_message_done) PtyMessage m = { .type = _PTY_MESSAGE_TYPE_INVALID };
        PtyStream *p = container_of(s, PtyStream, stream);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r = 0;

        if (!text && s->has_process) {
                pty_decide(p, PTY_FRAMING_BINARY);
                pty_type(p, data, n);
                return;
        }
        if (text)
                r = pty_message_from_json(data, n, &m, &fault);
        if (s->has_process) {
                if (r >= 0)
                        pty_take(p, &m);
                return;
        }
        if (r < 0 && m.type == PTY_MESSAGE_CONNECT)
                stream_fail(s, FAULT_INVALID_ARGS, "connect requires a 'tag' field");
        else if (r < 0 && m.type == PTY_MESSAGE_START)
                stream_fail(s, fault.code, fault.message);
        else
                pty_begin(p, &m);
}

static void pty_stream_free(Stream *s) {
        PtyStream *p = container_of(s, PtyStream, stream);

        event_source_free(p->hold);
        event_source_free(p->ping);
        free(p->tag);
        free(p->input);
        free(p);
}

static const StreamOps ops = {
        .on_message = on_message,
        .on_started = on_started,
        .is_ready = is_ready,
        .on_output = on_output,
        .on_exit = on_exit_code,
        .on_writable = on_writable,
        .on_ended = on_ended,
        .free = pty_stream_free,
};

void rest_pty(RestRequest *q, WsConn *w) {
        PtyStream *p = malloc(sizeof(PtyStream));

        if (!p) {
                ws_close(w, WS_CODE_INTERNAL, NULL);
                return;
        }
        *p = (PtyStream) {};
        stream_begin(&p->stream, q, w, &ops);
        stream_expect(&p->stream, EXPECTED);
}
