/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * WebSockets of capsules between the gate and the routes. The request and the gate's connection live as long
 * as the WebSocket; the key's and the peer's quotas count it with their connections, the capsule's is
 * counted here. What is wrong with the capsule or its quota is told in-band: an SDK takes a refused upgrade
 * for something else than an error of the service.
 */

#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/rest.h"

static void on_freed(void *userdata) {
        RestRequest *q = userdata;
        GateConn *c = q->conn;

        if (q->previous_websocket)
                q->previous_websocket->next_websocket = q->next_websocket;
        else
                q->server->websockets = q->next_websocket;
        if (q->next_websocket)
                q->next_websocket->previous_websocket = q->previous_websocket;
        rest_request_free(q);
        gate_conn_release(c);
}

static unsigned count_websockets(const RestServer *s, const char *capsule) {
        unsigned n = 0;

        for (const RestRequest *q = s->websockets; q; q = q->next_websocket)
                n += streq(q->args[0], capsule);
        return n;
}

static void websocket_run(RestRequest *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        unsigned max = q->server->config.websockets_per_capsule_max;

        if (count_websockets(q->server, q->args[0]) <= max) {
                q->route->websocket(q, q->websocket);
                return;
        }
        (void) fault_set(&fault, FAULT_QUOTA_EXCEEDED, "This capsule has %u WebSockets already; close one.",
                         max);
        rest_websocket_fail(q->websocket, &fault, WS_CODE_TRY_LATER);
}

void rest_websocket_begin(RestRequest *q, int fd, const void *input, size_t n_input) {
        RestServer *s = q->server;
        WsConfig config = { .write_stall_usec = s->config.gate.write_stall_usec,
                            .buffered = &s->websocket_bytes };
        char answer[sizeof(WS_UPGRADE_ANSWER) + WS_ACCEPT_LEN];
        GateConn *c = q->conn;

        (void) snprintf(answer, sizeof(answer), WS_UPGRADE_ANSWER, q->upgrade_answer);
        if (ws_new(s->event, fd, &config, answer, input, n_input, on_freed, q, &q->websocket) < 0) {
                rest_request_free(q);
                gate_conn_release(c);
                return;
        }

        q->next_websocket = s->websockets;
        if (s->websockets)
                s->websockets->previous_websocket = q;
        s->websockets = q;
        websocket_run(q);
}

void rest_websocket_fail(WsConn *w, const Fault *fault, unsigned code) {
        _cleanup_free_ char *text = NULL;
        json_t *o;

        o = json_pack("{s:s,s:s,s:b}", "type", "error", "data",
                      fault->message ?: "An internal error occurred.", "fatal", true);
        text = o ? json_dumps(o, JSON_COMPACT) : NULL;
        json_decref(o);
        if (text)
                (void) ws_send(w, /* text= */ true, text, strlen(text));
        ws_close(w, code, NULL);
}

void rest_websockets_close(RestServer *s, const char *key_id, const char *capsule, unsigned code,
                           const char *reason) {
        for (RestRequest *q = s->websockets; q; q = q->next_websocket)
                if ((!key_id || streq(q->key->id, key_id)) && (!capsule || streq(q->args[0], capsule)))
                        ws_close(q->websocket, code, reason);
}
