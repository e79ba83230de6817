/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests of direct routes (route.h): between the gate, which serves them, and their handlers. Unless it is
 * an upload the body is collected first; an upload's handler says what becomes of the body once it has run.
 */

#include "rest/rest.h"

static void on_begin(GateConn *c, void *userdata) {
        RestRequest *q = userdata;

        if (!q->route->upload)
                return;
        rest_request_start(q);
}

static size_t on_body(GateConn *c, const void *data, size_t n, void *userdata) {
        RestRequest *q = userdata;

        if (q->route->upload)
                return q->stream ? q->stream->on_body(q, data, n) : 0;

        if (rest_request_add_body(q, data, n) < 0) {
                q->answered = true;
                gate_answer_abort(c);
        }
        return n;
}

static void on_body_end(GateConn *c, void *userdata) {
        RestRequest *q = userdata;

        q->body_whole = true;
        if (q->answered)
                return;
        if (!q->route->upload)
                rest_request_start(q);
        else if (q->stream)
                q->stream->on_body_end(q);
}

static void on_drained(GateConn *c, void *userdata) {
        RestRequest *q = userdata;

        if (q->stream && q->stream->on_drained)
                q->stream->on_drained(q);
}

static void on_end(GateConn *c, void *userdata) {
        (void) rest_request_free(userdata);
}

const GateService rest_service = {
        .on_begin = on_begin,
        .on_body = on_body,
        .on_body_end = on_body_end,
        .on_drained = on_drained,
        .on_end = on_end,
};

void rest_request_set_stream(RestRequest *q, const RestStream *stream) {
        q->stream = stream;
        if (q->body_whole && stream->on_body_end)
                stream->on_body_end(q);
        else
                gate_conn_continue(q->conn);
}
