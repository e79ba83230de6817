/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/request.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "shared/protocol.h"

typedef struct Route Route;

typedef struct Request {
        Agent *agent;
        H2Stream *stream;
        const Route *route;
        bool answered; /* with a head; what the peer still sends is dropped */
        char *body;    /* of JSON requests; owned */
        size_t n_body;
        FrameDecoder decoder; /* of POST /processes */
        size_t n_kept;        /* bytes of the current on_data that stdin did not take */
        ProcessReader reader;
} Request;

struct Route {
        const char *method, *path;    /* path ending in '/': prefix of a selector */
        const char *verb;             /* behind the selector */
        void (*on_begin)(Request *q); /* the head has come */
        void (*on_body)(Request *q);  /* the whole body has come */
        int (*on_frame)(FrameType type, const void *payload, size_t n, void *userdata);
};

/* answers */

/* Takes object in every case. */
static void answer_json_consume(Request *q, unsigned status, json_t *object) {
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

static void answer_fault(Request *q, const Fault *fault) {
        answer_json_consume(q, fault_http_status(fault->code),
                            json_pack("{s:{s:s, s:s}}", "error", "code", fault_wire_name(fault->code),
                                      "message", fault->message));
}

static void answer_error(Request *q, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        (void) fault_set(&fault, code, "%s", message);
        answer_fault(q, &fault);
}

static void answer_empty(Request *q) {
        q->answered = true;
        if (h2_stream_respond(q->stream, 204, NULL, 0, /* end= */ true) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
}

/* The head of a stream of frames, before the first of them. */
static int answer_frames(Request *q) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };

        q->answered = true;
        return h2_stream_respond(q->stream, 200, headers, ELEMENTSOF(headers), /* end= */ false);
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

/* /processes */

static void processes_get(Request *q) {
        answer_json_consume(q, 200, process_table_to_json(q->agent->processes));
}

static int processes_post_spec(Request *q, const void *payload, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(spec_done) Spec spec = {};
        int r;

        if (q->answered)
                return -EPROTO;

        r = spec_parse(payload, n, &spec, &fault);
        if (r >= 0)
                r = process_prepare(q->agent->processes, &spec, q->agent->identity.process_env,
                                    q->agent->identity.default_user, &q->reader, &fault);
        if (r < 0) {
                answer_fault(q, &fault);
                return 0;
        }

        if (answer_frames(q) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        process_begin(&q->reader);
        return 0;
}

static int processes_post_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        Request *q = userdata;

        switch (type) {
        case FRAME_SPEC:
                return processes_post_spec(q, payload, n);
        case FRAME_STDIN:
                if (!q->answered)
                        return -EPROTO;
                if (q->reader.process)
                        q->n_kept += n - process_stdin(q->reader.process, payload, n);
                return 0;
        case FRAME_STDIN_EOF:
                if (q->reader.process)
                        process_stdin_eof(q->reader.process);
                return 0;
        default:
                return -EPROTO;
        }
}

static void processes_post_end(Request *q) {
        if (!q->answered)
                answer_error(q, FAULT_INVALID_ARGS, "Expected a process.");
        else if (q->reader.process)
                process_stdin_eof(q->reader.process);
}

static Process* find_process(Request *q, bool ended) {
        _cleanup_free_ char *selector = NULL;
        const char *verb;
        Process *p;

        if (request_parse_selector(h2_stream_path(q->stream), &selector, &verb) < 0) {
                answer_error(q, FAULT_INVALID_ARGS, "Expected a pid or tag.");
                return NULL;
        }

        p = process_find(q->agent->processes, selector, ended);
        if (!p) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                (void) fault_set(&fault, FAULT_NOT_FOUND, "No process '%s'.", selector);
                answer_fault(q, &fault);
        }

        return p;
}

static void process_get(Request *q) {
        Process *p = find_process(q, /* ended= */ true);

        if (!p)
                return;
        if (answer_frames(q) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        process_attach(p, &q->reader);
}

static void process_signal(Request *q) {
        int sig = request_parse_signal(h2_stream_path(q->stream), SIGKILL);
        Process *p;

        if (sig < 0) {
                answer_error(q, FAULT_INVALID_ARGS, "signal: expected a number or name.");
                return;
        }

        p = find_process(q, /* ended= */ false);
        if (!p)
                return;
        if (process_kill(p, sig) < 0)
                answer_error(q, FAULT_NOT_FOUND, "The process has ended.");
        else
                answer_empty(q);
}

static const Route routes[] = {
        { "GET", "/identity", NULL, .on_begin = identity_get },
        { "PUT", "/identity", NULL, .on_body = identity_put },
        { "POST", "/poweroff", NULL, .on_begin = poweroff_post },
        { "GET", "/processes", NULL, .on_begin = processes_get },
        { "POST", "/processes", NULL, .on_body = processes_post_end, .on_frame = processes_post_frame },
        { "GET", "/processes/", "", .on_begin = process_get },
        { "POST", "/processes/", "signal", .on_begin = process_signal },
};

int request_parse_selector(const char *path, char **ret_selector, const char **ret_verb) {
        static const char *const verbs[] = { "signal" };
        const char *p = startswith(path, "/processes/");
        _cleanup_free_ char *selector = NULL;
        size_t n, n_out = 0;

        if (!p)
                return -EINVAL;
        n = strcspn(p, "/?");
        selector = malloc(n + 1);
        if (!selector)
                return -ENOMEM;

        for (size_t i = 0; i < n; i++) {
                char hex[3] = {};
                uint8_t byte;

                if (p[i] != '%') {
                        selector[n_out++] = p[i];
                        continue;
                }
                if (i + 2 >= n)
                        return -EINVAL;
                hex[0] = p[i + 1];
                hex[1] = p[i + 2];
                if (hex_decode(hex, &byte, 1) < 0 || byte == 0)
                        return -EINVAL;
                selector[n_out++] = (char) byte;
                i += 2;
        }
        if (n_out == 0)
                return -EINVAL;
        selector[n_out] = '\0';

        *ret_verb = "";
        if (p[n] == '/') {
                size_t n_verb = strcspn(p + n + 1, "?");

                *ret_verb = NULL;
                for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                        if (strlen(verbs[i]) == n_verb && strncmp(verbs[i], p + n + 1, n_verb) == 0)
                                *ret_verb = verbs[i];
                if (!*ret_verb)
                        return -EINVAL;
        }

        *ret_selector = TAKE_PTR(selector);
        return 0;
}

static int signal_from_string(const char *s) {
        const char *name = startswith(s, "SIG") ?: s;
        uint32_t number;

        if (parse_u32(s, &number) >= 0)
                return number > 0 && number < (uint32_t) _NSIG ? (int) number : -EINVAL;

        for (int sig = 1; sig < _NSIG; sig++) {
                const char *have = sigabbrev_np(sig);

                if (have && streq(have, name))
                        return sig;
        }

        return -EINVAL;
}

int request_parse_signal(const char *path, int def) {
        const char *query = strchr(path, '?');

        for (const char *p = query; p; p = strchr(p, '&')) {
                _cleanup_free_ char *value = NULL;
                const char *text = startswith(++p, "signal=");

                if (!text)
                        continue;
                value = strndup(text, strcspn(text, "&"));
                return value ? signal_from_string(value) : -ENOMEM;
        }

        return def;
}

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
        } else if (q->route->on_body && !q->answered)
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
