/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* WS …/exec/stream and WS …/processes/{}/stream: output as text (api.md §2.14, §2.15). */

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/stream-message.h"
#include "rest/stream.h"
#include "rest/utf8-carry.h"

typedef struct ExecStream {
        Stream stream;
        Utf8Carry carry[2]; /* stdout, stderr */
} ExecStream;

static void send_text(ExecStream *e, unsigned i, const char *text, size_t n) {
        if (n > 0)
                stream_send_json(&e->stream, json_pack("{s:s,s:s%}", "type", i == 0 ? "stdout" : "stderr",
                                                       "data", text, n));
}

static void on_output(Stream *s, FrameType type, const void *data, size_t n) {
        ExecStream *e = container_of(s, ExecStream, stream);
        char text[UTF8_CARRY_MAX(STREAM_PIECE_MAX)];
        unsigned i = type == FRAME_STDERR;

        send_text(e, i, text, utf8_carry_feed(&e->carry[i], data, n, text));
}

static void on_exit_code(Stream *s, int exit_code) {
        ExecStream *e = container_of(s, ExecStream, stream);
        char text[UTF8_CARRY_MAX(0)];

        for (unsigned i = 0; i < ELEMENTSOF(e->carry); i++)
                send_text(e, i, text, utf8_carry_end(&e->carry[i], text));
        stream_send_json(s, json_pack("{s:s,s:i}", "type", "exit", "exit_code", exit_code));
}

static void on_started(Stream *s, const ProcessStarted *started) {
        stream_send_json(s, json_pack("{s:s,s:I}", "type", "start", "pid", (json_int_t) started->pid));
}

static void on_message(Stream *s, bool text, const void *data, size_t n) {
        _cleanup_(exec_spec_done) ExecSpec spec = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (s->has_process) {
                if (text && exec_message_is_stop(data, n))
                        stream_close(s);
                return;
        }
        if (exec_start_from_json(data, text ? n : 0, &spec, &fault) < 0) {
                stream_fail(s, fault.code, fault.message);
                return;
        }
        spec.background = true; /* it goes on when the client leaves */
        spec.timeout_usec = MIN(spec.timeout_usec, bus_client_max_exec_usec(s->request->server->bus));
        stream_start(s, &spec);
}

static void on_attached_message(Stream *s, bool text, const void *data, size_t n) {
}

static void exec_stream_free(Stream *s) {
        free(container_of(s, ExecStream, stream));
}

static const StreamOps exec_ops = {
        .on_message = on_message,
        .on_started = on_started,
        .on_output = on_output,
        .on_exit = on_exit_code,
        .free = exec_stream_free,
};
static const StreamOps attach_ops = {
        .on_message = on_attached_message,
        .on_started = on_started,
        .on_output = on_output,
        .on_exit = on_exit_code,
        .free = exec_stream_free,
};

static ExecStream* exec_stream_begin(RestRequest *q, WsConn *w, const StreamOps *ops) {
        ExecStream *e = malloc(sizeof(ExecStream));

        if (!e) {
                ws_close(w, WS_CODE_INTERNAL, NULL);
                return NULL;
        }
        *e = (ExecStream) {};
        stream_begin(&e->stream, q, w, ops);
        return e;
}

void rest_exec_stream(RestRequest *q, WsConn *w) {
        ExecStream *e = exec_stream_begin(q, w, &exec_ops);

        if (e)
                stream_expect(&e->stream, "first message must be type 'start' with a 'cmd' field");
}

void rest_process_stream(RestRequest *q, WsConn *w) {
        ExecStream *e = exec_stream_begin(q, w, &attach_ops);

        if (e)
                stream_attach(&e->stream, q->args[1], /* with_input= */ false);
}
