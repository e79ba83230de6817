/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <string.h>

#include "agent/request-internal.h"
#include "basic/limits.h"
#include "basic/strings.h"

/* answers */

void answer_json_consume(Request *q, unsigned status, json_t *object) {
        static const H2Header headers[] = { { "content-type", "application/json" } };
        _cleanup_free_ char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        size_t n = text ? strlen(text) : 0;

        json_decref(object);
        if (q->answered)
                return;

        q->answered = true;
        if (!text || h2_stream_room(q->stream) < n ||
            h2_stream_respond(q->stream, status, headers, 1, false) < 0 ||
            h2_stream_write(q->stream, text, n) != (ssize_t) n || h2_stream_end(q->stream) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
}

void answer_fault(Request *q, const Fault *fault) {
        answer_json_consume(q, fault_http_status(fault->code), json_from_fault(fault));
}

void answer_error(Request *q, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        (void) fault_set(&fault, code, "%s", message);
        answer_fault(q, &fault);
}

void answer_empty(Request *q) {
        q->answered = true;
        if (h2_stream_respond(q->stream, 204, NULL, 0, /* end= */ true) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
}

/* /identity, /poweroff */

static void identity_get(Request *q) {
        answer_json_consume(q, 200, identity_to_json(&q->agent->identity));
}

static void identity_put(Request *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (identity_apply(&q->agent->identity, strempty(q->body), q->n_body, &fault) < 0)
                answer_fault(q, &fault);
        else
                identity_get(q);
}

static void poweroff_post(Request *q) {
        answer_empty(q);
        q->agent->poweroff = true;
}

static const Route routes[] = {
        { "GET", "/identity", NULL, .on_begin = identity_get },
        { "PUT", "/identity", NULL, .on_body = identity_put },
        { "POST", "/poweroff", NULL, .on_begin = poweroff_post },
        { "GET", "/processes", NULL, .on_begin = processes_get },
        { "POST", "/processes", NULL, .on_body = processes_post_end, .on_frame = processes_post_frame },
        { "GET", "/processes/", "", .on_begin = process_get },
        { "POST", "/processes/", "attach", .on_begin = process_attach_post,
          .on_frame = process_attach_frame },
        { "POST", "/processes/", "resize", .on_begin = process_resize_post },
        { "POST", "/processes/", "signal", .on_begin = process_signal },
        { "GET", "/files", NULL, .on_begin = files_get, .on_gone = files_get_gone },
        { "PUT", "/files", NULL, .on_begin = files_put, .on_bytes = files_put_bytes,
          .on_body = files_put_end, .on_gone = files_put_gone },
        { "GET", "/files/stat", NULL, .on_begin = files_stat },
        { "GET", "/files/list", NULL, .on_begin = files_list, .on_gone = files_job_gone },
        { "POST", "/files/mkdir", NULL, .on_begin = files_mkdir },
        { "POST", "/files/remove", NULL, .on_begin = files_remove, .on_gone = files_job_gone },
        { "POST", "/files/rename", NULL, .on_begin = files_rename },
        { "GET", "/files/tar", NULL, .on_begin = files_tar_get, .on_gone = files_job_gone },
        { "PUT", "/files/tar", NULL, .on_begin = files_tar_put, .on_bytes = files_tar_bytes,
          .on_body = files_tar_end, .on_gone = files_job_gone },
};

static bool route_matches_path(const Route *route, const char *path) {
        _cleanup_free_ char *selector = NULL;
        const char *verb;

        if (!route->verb) {
                size_t n = strcspn(path, "?");

                return strlen(route->path) == n && strncmp(route->path, path, n) == 0;
        }

        return request_parse_selector(path, &selector, &verb) >= 0 && streq(verb, route->verb);
}

static void request_route(Request *q) {
        const char *method = h2_stream_method(q->stream), *path = h2_stream_path(q->stream);
        bool found = false;

        for (size_t i = 0; i < ELEMENTSOF(routes); i++) {
                if (!route_matches_path(&routes[i], path))
                        continue;
                found = true;
                if (streq(routes[i].method, method)) {
                        q->route = &routes[i];
                        return;
                }
        }

        if (found)
                answer_error(q, FAULT_METHOD_NOT_ALLOWED, "Not allowed here.");
        else
                answer_error(q, FAULT_NOT_FOUND, "No such resource.");
}

/* the session's callbacks */

static void on_end(H2Stream *st, void *userdata) {
        Request *q = h2_stream_userdata(st);

        if (q && q->route && q->route->on_body && (!q->answered || q->route->on_frame))
                q->route->on_body(q);
}

static void on_headers(H2Stream *st, bool end, void *userdata) {
        Request *q;

        if (h2_stream_userdata(st)) /* trailers */
                return;

        q = malloc(sizeof(Request));
        if (!q) {
                (void) h2_stream_reset(st, H2_REFUSED_STREAM);
                return;
        }

        *q = (Request) { .agent = userdata, .stream = st, .reader = { .stream = st } };
        h2_stream_set_userdata(st, q);
        request_route(q);
        if (q->route && q->route->on_begin)
                q->route->on_begin(q);
        if (end)
                on_end(st, userdata);
}

static void collect_body(Request *q, const void *data, size_t n) {
        char *longer;

        if (n > AGENT_JSON_MAX - q->n_body) {
                answer_error(q, FAULT_TOO_LARGE, "The body is too large.");
                return;
        }

        longer = realloc(q->body, q->n_body + n + 1);
        if (!longer) {
                answer_error(q, FAULT_NO_MEMORY, "Out of memory.");
                return;
        }

        memcpy(longer + q->n_body, data, n);
        q->body = longer;
        q->n_body += n;
        q->body[q->n_body] = '\0';
}

static void on_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        Request *q = h2_stream_userdata(st);

        if (!q || !q->route) {
                h2_stream_consume(st, n);
                return;
        }

        q->n_kept = 0;
        if (q->route->on_frame) {
                if (frame_decoder_feed(&q->decoder, data, n, q->route->on_frame, q) < 0) {
                        if (q->answered)
                                (void) h2_stream_reset(st, H2_CANCEL);
                        else
                                answer_error(q, FAULT_INVALID_ARGS, "Bad frame.");
                        q->route = NULL;
                }
        } else if (q->route->on_bytes)
                q->n_kept = n - q->route->on_bytes(q, data, n);
        else if (q->route->on_body && !q->answered)
                collect_body(q, data, n);

        h2_stream_consume(st, n - q->n_kept);
}

static void on_writable(H2Stream *st, void *userdata) {
        Request *q = h2_stream_userdata(st);

        if (q)
                process_reader_writable(&q->reader);
}

static void on_close(H2Stream *st, uint32_t error, void *userdata) {
        Request *q = h2_stream_userdata(st);

        if (!q)
                return;

        if (q->route && q->route->on_gone)
                q->route->on_gone(q);
        process_detach(&q->reader);
        frame_decoder_done(&q->decoder);
        free(q->body);
        free(q);
}

const H2Handlers request_handlers = {
        .on_headers = on_headers,
        .on_data = on_data,
        .on_end = on_end,
        .on_writable = on_writable,
        .on_close = on_close,
};
