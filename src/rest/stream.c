/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/stream.h"
#include "shared/event.h"

void stream_close(Stream *s) {
        s->over = true;
        s->deadline = event_source_free(s->deadline);
        s->process = process_call_free(s->process);
        ws_close(s->ws, WS_CODE_NORMAL, NULL);
}

static void stream_close_broken(Stream *s) {
        s->over = true;
        s->process = process_call_free(s->process);
        ws_close(s->ws, WS_CODE_INTERNAL, NULL);
}

void stream_send(Stream *s, bool text, const void *data, size_t n) {
        int r;

        if (s->over)
                return;
        r = ws_send(s->ws, text, data, n);
        if (r < 0 && r != -ESHUTDOWN)
                stream_close_broken(s);
}

void stream_send_json(Stream *s, json_t *json_consume) {
        _cleanup_free_ char *text = json_consume ? json_dumps(json_consume, JSON_COMPACT) : NULL;

        json_decref(json_consume);
        if (text)
                stream_send(s, /* text= */ true, text, strlen(text));
        else
                stream_close_broken(s);
}

/* Output. */

static void stream_finish(Stream *s) {
        if (fault_is_set(&s->fault)) {
                s->over = true;
                rest_websocket_fail(s->ws, &s->fault, WS_CODE_NORMAL);
                return;
        }
        s->ops->on_exit(s, s->exit.exit_code);
        if (!s->over)
                stream_close(s);
}

static bool stream_is_ready(Stream *s) {
        return !s->over && (!s->ops->is_ready || s->ops->is_ready(s));
}

void stream_pump(Stream *s) {
        char piece[STREAM_PIECE_MAX];

        while (stream_is_ready(s) && ws_room(s->ws) > 0) {
                unsigned i = s->output[0].n > 0 ? 0 : 1;
                size_t n = MIN(s->output[i].n, sizeof(piece));

                if (n == 0) {
                        if (s->ended)
                                stream_finish(s);
                        return;
                }
                h2_ring_get(&s->output[i], piece, n);
                s->ops->on_output(s, i == 0 ? FRAME_STDOUT : FRAME_STDERR, piece, n);
                if (s->process)
                        process_call_consume(s->process, n);
        }
}

static void stream_end(Stream *s) {
        s->ended = true;
        if (s->ops->on_ended)
                s->ops->on_ended(s);
        stream_pump(s);
}

void stream_fail(Stream *s, FaultCode code, const char *message) {
        s->process = process_call_free(s->process);
        s->deadline = event_source_free(s->deadline);
        (void) fault_set(&s->fault, code, "%s", message);
        stream_end(s);
}

/* The process. */

static void on_process_started(ProcessCall *p, const ProcessStarted *started, void *userdata) {
        Stream *s = userdata;

        s->ops->on_started(s, started);
}

static bool on_process_output(ProcessCall *p, FrameType type, const void *data, size_t n, void *userdata) {
        Stream *s = userdata;
        unsigned i = type == FRAME_STDERR;

        if (s->output[0].n + s->output[1].n == 0 && n <= STREAM_PIECE_MAX && stream_is_ready(s) &&
            ws_room(s->ws) > 0) {
                s->ops->on_output(s, type, data, n);
                return true;
        }
        if (h2_ring_put(&s->output[i], data, n) < 0)
                stream_fail(s, FAULT_NO_MEMORY, "Out of memory.");
        return false;
}

static void on_process_exit(ProcessCall *p, const ProcessExit *e, void *userdata) {
        Stream *s = userdata;

        s->exit = *e;
        s->process = process_call_free(s->process);
        if (s->exit.timed_out)
                (void) fault_set(&s->fault, FAULT_TIMEOUT, "The command timed out and was killed.");
        stream_end(s);
}

static void on_process_writable(ProcessCall *p, void *userdata) {
        Stream *s = userdata;

        if (s->ops->on_writable)
                s->ops->on_writable(s);
}

static void on_process_failed(ProcessCall *p, const Fault *fault, void *userdata) {
        stream_fail(userdata, fault->code, fault->message);
}

static const ProcessHandlers process_handlers = {
        .on_started = on_process_started,
        .on_output = on_process_output,
        .on_exit = on_process_exit,
        .on_writable = on_process_writable,
        .on_failed = on_process_failed,
};

/* spec or selector */
static int stream_ask(Stream *s, const char *spec, const char *selector, bool with_input, Fault *reterr) {
        ChannelTable *channels = s->request->server->channels;
        AuthKey *key = s->request->key;
        CapsuleView *v;
        int r;

        r = rest_request_running_capsule(s->request, &v, reterr);
        if (r < 0)
                return r;
        r = spec ? channel_start_process(channels, v, key, spec, with_input, &process_handlers, s,
                                         &s->process)
                 : channel_attach_process(channels, v, key, selector, with_input, &process_handlers, s,
                                          &s->process);
        if (r == -ENOBUFS)
                return fault_set(reterr, FAULT_NO_CAPACITY, "Too many requests wait for this capsule.");
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to ask the capsule");
        return 0;
}

static void stream_open(Stream *s, const char *spec, const char *selector, bool with_input) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        s->has_process = true;
        s->deadline = event_source_free(s->deadline);
        if (stream_ask(s, spec, selector, with_input, &fault) < 0)
                stream_fail(s, fault.code, fault.message);
}

void stream_start(Stream *s, const ExecSpec *spec) {
        _cleanup_free_ char *text = exec_spec_to_agent(spec);

        if (text)
                stream_open(s, text, NULL, spec->terminal);
        else
                stream_fail(s, FAULT_NO_MEMORY, "Out of memory.");
}

void stream_attach(Stream *s, const char *selector, bool with_input) {
        stream_open(s, NULL, selector, with_input);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        Stream *s = userdata;

        stream_fail(s, FAULT_INVALID_ARGS, s->expected);
        return 0;
}

void stream_expect(Stream *s, const char *text) {
        s->expected = text;
        if (event_timer(s->request->server->event, &s->deadline, WS_FIRST_MESSAGE_USEC, PRIORITY_CLIENT,
                        on_deadline, s, "first-message") < 0)
                stream_close_broken(s);
}

/* The client. */

static void on_message(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        Stream *s = userdata;

        if (!s->over && !fault_is_set(&s->fault))
                s->ops->on_message(s, text, data, n);
}

static void on_writable(WsConn *w, void *userdata) {
        stream_pump(userdata);
}

static void on_closed(WsConn *w, unsigned code, void *userdata) {
        Stream *s = userdata;

        process_call_linger(s->process, s->request->server->event);
        event_source_free(s->deadline);
        h2_ring_done(&s->output[0]);
        h2_ring_done(&s->output[1]);
        fault_done(&s->fault);
        s->ops->free(s);
}

static const WsHandlers ws_handlers = {
        .on_message = on_message,
        .on_writable = on_writable,
        .on_closed = on_closed,
};

void stream_begin(Stream *s, RestRequest *q, WsConn *w, const StreamOps *ops) {
        s->ops = ops;
        s->request = q;
        s->ws = w;
        ws_set_handlers(w, &ws_handlers, s);
}
