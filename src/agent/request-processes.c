/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The requests of /processes. */

#include <signal.h>
#include <string.h>

#include "agent/request-internal.h"
#include "basic/strings.h"

/* The head of a stream of frames, before the first of them. */
static int answer_frames(Request *q) {
        static const H2Header headers[] = { { "content-type", "application/octet-stream" } };

        q->answered = true;
        return h2_stream_respond(q->stream, 200, headers, ELEMENTSOF(headers), /* end= */ false);
}

void processes_get(Request *q) {
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

int processes_post_frame(FrameType type, const void *payload, size_t n, void *userdata) {
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

void processes_post_end(Request *q) {
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

void process_get(Request *q) {
        Process *p = find_process(q, /* ended= */ true);

        if (!p)
                return;
        if (answer_frames(q) < 0)
                (void) h2_stream_reset(q->stream, H2_INTERNAL_ERROR);
        process_attach(p, &q->reader);
}

void process_signal(Request *q) {
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
